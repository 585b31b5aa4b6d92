//! The machine's own file system, only to be looked at.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::{Disk, DiskFile, Entry, FileStatus, Lock, Space, StdDisk};

/// Files are opened for reading, so that a read-only mount and the files of somebody else can be looked at; whatever would change
/// something is refused as a read-only file system does.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnlyDisk;

impl ReadOnlyDisk {
    /// Whether somebody holds a lock of the file, found without taking it: who just looks must not be in the way of a broker
    /// that starts. `false` too where the system does not tell.
    pub fn is_locked(&self, path: &Path) -> bool {
        let (Ok(file), Ok(locks)) = (fs::metadata(path), fs::read_to_string("/proc/locks")) else {
            return false;
        };
        let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
        let wanted = format!("{major:02x}:{minor:02x}:{}", file.ino());
        locks.lines().any(|line| line.split_whitespace().any(|field| field == wanted))
    }
}

fn refused<T>() -> io::Result<T> {
    Err(Errno::ROFS.into())
}

impl Disk for ReadOnlyDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        StdDisk.open_to_read(path)
    }

    fn create(&self, _path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        refused()
    }

    fn status(&self, path: &Path) -> io::Result<FileStatus> {
        StdDisk.status(path)
    }

    fn try_lock(&self, _path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        refused()
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn remove_dir_all(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        StdDisk.list(path)
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_all(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        StdDisk.space(path)
    }

    fn boot_id(&self) -> io::Result<String> {
        StdDisk.boot_id()
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::super::read_file;
    use super::*;

    #[test]
    fn files_are_read_and_nothing_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"content").unwrap();
        assert_eq!(read_file(&ReadOnlyDisk, &path, 100).unwrap(), b"content");
        let file = ReadOnlyDisk.open(&path).unwrap();
        assert!(file.write_vectored_at(&[IoSlice::new(b"x")], 0).is_err());
        assert!(file.set_len(0).is_err());
        assert!(ReadOnlyDisk.create(&path).is_err() && ReadOnlyDisk.remove(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"content");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_lock_is_seen_without_being_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        assert!(!ReadOnlyDisk.is_locked(&path));
        let held = StdDisk.try_lock(&path).unwrap();
        assert!(ReadOnlyDisk.is_locked(&path));
        drop(held);
        assert!(!ReadOnlyDisk.is_locked(&path));
    }
}
