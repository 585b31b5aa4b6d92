//! Temporary log directories: gone with the broker, or swept by the next one if it was killed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::directory::{LOCK_FILE, PROPERTIES_FILE};

/// What the names of all temporary log directories begin with.
const PREFIX: &str = "ottla-ephemeral-";

/// A directory that nothing was written to is swept only when it is older than this: its owner may just be making it.
const YOUNG: Duration = Duration::from_secs(60);

/// A temporary directory, removed when dropped.
#[derive(Debug)]
pub struct EphemeralDirectory {
    path: PathBuf,
}

impl EphemeralDirectory {
    /// Makes one under `parent`, after removing those whose owners are gone.
    ///
    /// # Errors
    /// The system's, when it cannot be made.
    pub fn create(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        loop {
            let path = parent.join(format!("{PREFIX}{}-{:08x}", std::process::id(), fastrand::u32(..)));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
                }
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for EphemeralDirectory {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.path) {
            // Another broker's sweep may come first.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "temporary directory not removed");
            }
            _ => {}
        }
    }
}

/// Removes what killed brokers have left. Nothing here is worth failing for: the next start tries again.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if ours && is_abandoned(&entry.path()) {
            let removed = fs::remove_dir_all(entry.path());
            tracing::debug!(path = %entry.path().display(), ?removed, "temporary directory of a killed broker");
        }
    }
}

/// The lock goes with the process, however it ended. Before an owner has written anything it may not have locked either, and
/// must not find its lock taken by who only looks.
fn is_abandoned(path: &Path) -> bool {
    if path.join(PROPERTIES_FILE).exists() {
        return File::open(path.join(LOCK_FILE)).is_ok_and(|lock| lock.try_lock().is_ok());
    }
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > YOUNG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_broker_left_is_swept_and_what_is_in_use_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let used = EphemeralDirectory::create(parent.path()).unwrap();
        let lock = File::create(used.path().join(LOCK_FILE)).unwrap();
        lock.lock().unwrap();
        File::create(used.path().join(PROPERTIES_FILE)).unwrap();
        let killed = parent.path().join(format!("{PREFIX}1-2"));
        fs::create_dir(&killed).unwrap();
        File::create(killed.join(LOCK_FILE)).unwrap();
        File::create(killed.join(PROPERTIES_FILE)).unwrap();
        let young = parent.path().join(format!("{PREFIX}3-4"));
        fs::create_dir(&young).unwrap();
        File::create(young.join(LOCK_FILE)).unwrap();
        let other = parent.path().join("other");
        fs::create_dir(&other).unwrap();

        let second = EphemeralDirectory::create(parent.path()).unwrap();
        assert!(used.path().exists() && young.exists() && other.exists() && !killed.exists());
        let path = second.path().to_owned();
        drop(second);
        assert!(!path.exists());
    }
}
