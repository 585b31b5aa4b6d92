//! A disk to try things on: reads see another disk, changes stay in memory, and at the end they can be told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::{Disk, DiskFile, Entry, FileStatus, Lock, Space, read_exact_at};
use crate::record::range::RangeFile;

/// Bytes that are kept of what is written to a file. More is written only by copying, and is not read back.
const KEPT_BYTES_MAX: u64 = 64 << 20;

/// What has become of a file or folder of the disk below.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is new.
    Made {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// It has another name.
    Renamed {
        /// What it was.
        from: PathBuf,
        /// What it is.
        to: PathBuf,
    },
    /// Its end is gone.
    Cut {
        /// The file.
        path: PathBuf,
        /// Its length before.
        from: u64,
        /// Its length now.
        to: u64,
    },
    /// Its bytes are others.
    Rewritten {
        /// The file.
        path: PathBuf,
    },
    /// It is gone.
    Removed {
        /// The file.
        path: PathBuf,
    },
}

impl Change {
    /// The file or folder, by its name before.
    pub fn path(&self) -> &Path {
        match self {
            Self::Renamed { from, .. } => from,
            Self::Made { path, .. }
            | Self::Cut { path, .. }
            | Self::Rewritten { path }
            | Self::Removed { path } => path,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made { path, bytes } => write!(f, "make {} of {bytes} bytes", path.display()),
            Self::Renamed { from, to } => write!(f, "rename {} to {}", from.display(), to.display()),
            Self::Cut { path, from, to } => write!(f, "cut {} from {from} to {to} bytes", path.display()),
            Self::Rewritten { path } => write!(f, "rewrite {}", path.display()),
            Self::Removed { path } => write!(f, "remove {}", path.display()),
        }
    }
}

/// A disk over another one, which it never changes.
#[derive(Debug)]
pub struct Overlay {
    below: Arc<dyn Disk>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Files that were opened, made or removed (`None`), by their names now.
    files: BTreeMap<PathBuf, Option<Arc<OverlayFile>>>,
    folders_made: BTreeSet<PathBuf>,
    folders_gone: BTreeSet<PathBuf>,
}

impl Overlay {
    /// Nothing is changed yet.
    pub fn new(below: Arc<dyn Disk>) -> Self {
        Self { below, state: Mutex::default() }
    }

    /// What would be different below. Files that were written as they were are not.
    ///
    /// # Errors
    /// The disk's.
    pub fn changes(&self) -> io::Result<Vec<Change>> {
        let state = self.state.lock();
        let mut changes = Vec::new();
        let moved = |path: &Path| {
            state.files.iter().any(|(now, file)| {
                now != path
                    && file
                        .as_ref()
                        .is_some_and(|file| file.below.as_ref().is_some_and(|(was, _)| was == path))
            })
        };
        for (path, file) in &state.files {
            let before = match self.below.open(path) {
                Ok(before) => Some(before),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            match (before, file) {
                (None, None) => {}
                (Some(_), None) if moved(path) => {}
                (Some(_), None) => changes.push(Change::Removed { path: path.clone() }),
                (before, Some(file)) => {
                    let (was, bytes) = (file.below.as_ref().map(|(was, _)| was), file.length()?);
                    match (was, before) {
                        (Some(was), _) if was != path => {
                            changes.push(Change::Renamed { from: was.clone(), to: path.clone() });
                        }
                        (_, None) => changes.push(Change::Made { path: path.clone(), bytes }),
                        (_, Some(before)) => changes.extend(file.change(path, &*before)?),
                    }
                }
            }
        }
        Ok(changes)
    }

    fn file(&self, state: &mut State, path: &Path) -> io::Result<Arc<OverlayFile>> {
        match state.files.get(path) {
            Some(Some(file)) => return Ok(Arc::clone(file)),
            Some(None) => return Err(Errno::NOENT.into()),
            None if path.parent().is_some_and(|folder| state.folders_gone.contains(folder)) => {
                return Err(Errno::NOENT.into());
            }
            None => {}
        }
        let below = self.below.open(path)?;
        let content = Content { below_bytes: below.length()?, ..Content::default() };
        let content = Content { length: content.below_bytes, ..content };
        let file = OverlayFile { below: Some((path.to_owned(), below)), content: Mutex::new(content) };
        let file = Arc::new(file);
        state.files.insert(path.to_owned(), Some(Arc::clone(&file)));
        Ok(file)
    }

    fn entries(&self, state: &State, path: &Path) -> io::Result<Vec<Entry>> {
        let mut names: BTreeMap<String, bool> = BTreeMap::new();
        if !state.folders_gone.contains(path) {
            match self.below.list(path) {
                Ok(entries) => names.extend(entries.into_iter().map(|entry| (entry.name, entry.is_dir))),
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && state.folders_made.contains(path) => {}
                Err(error) => return Err(error),
            }
        } else if !state.folders_made.contains(path) {
            return Err(Errno::NOENT.into());
        }
        let name_in = |inner: &Path| {
            let name = inner.file_name()?.to_str()?;
            (inner.parent() == Some(path)).then(|| name.to_owned())
        };
        for folder in &state.folders_gone {
            name_in(folder).map(|name| names.remove(&name));
        }
        for folder in &state.folders_made {
            name_in(folder).map(|name| names.insert(name, true));
        }
        for (inner, file) in &state.files {
            let Some(name) = name_in(inner) else { continue };
            match file {
                Some(_) => names.insert(name, false),
                None => names.remove(&name),
            };
        }
        Ok(names.into_iter().map(|(name, is_dir)| Entry { name, is_dir }).collect())
    }

    fn rename_file(&self, state: &mut State, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.file(state, from)?;
        state.files.insert(from.to_owned(), None);
        state.files.insert(to.to_owned(), Some(file));
        Ok(())
    }
}

#[derive(Debug)]
struct NoLock;

impl Lock for NoLock {}

impl Disk for Overlay {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(&mut self.state.lock(), path)?)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = Arc::new(OverlayFile { below: None, content: Mutex::default() });
        self.state.lock().files.insert(path.to_owned(), Some(Arc::clone(&file)));
        Ok(file)
    }

    fn status(&self, path: &Path) -> io::Result<FileStatus> {
        let file = self.file(&mut self.state.lock(), path)?;
        let modified_ms = match &file.below {
            Some((was, _)) => self.below.status(was)?.modified_ms,
            None => 0,
        };
        Ok(FileStatus { length: file.length()?, modified_ms })
    }

    /// Always free: who tries something on a disk in use takes the lock of the disk below.
    fn try_lock(&self, _path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(Some(Box::new(NoLock)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if self.entries(&state, path).is_err() {
            state.folders_made.insert(path.to_owned());
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let entries = match self.entries(&state, from) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return self.rename_file(&mut state, from, to);
            }
            // A file that is only here.
            Err(_) => return self.rename_file(&mut state, from, to),
        };
        for entry in entries.into_iter().filter(|entry| !entry.is_dir) {
            self.rename_file(&mut state, &from.join(&entry.name), &to.join(&entry.name))?;
        }
        state.folders_made.remove(from);
        state.folders_gone.insert(from.to_owned());
        state.folders_made.insert(to.to_owned());
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        self.file(&mut state, path)?;
        state.files.insert(path.to_owned(), None);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        for entry in self.entries(&state, path)?.into_iter().filter(|entry| !entry.is_dir) {
            state.files.insert(path.join(entry.name), None);
        }
        state.folders_made.remove(path);
        state.folders_gone.insert(path.to_owned());
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.entries(&self.state.lock(), path)
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.below.space(path)
    }

    fn boot_id(&self) -> io::Result<String> {
        self.below.boot_id()
    }
}

#[derive(Debug)]
struct OverlayFile {
    /// The file below and its name there; none if it is new.
    below: Option<(PathBuf, Arc<dyn DiskFile>)>,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    length: u64,
    /// Bytes that are still those of the file below, if nothing was written over them.
    below_bytes: u64,
    /// In order.
    writes: Vec<(u64, Vec<u8>)>,
    written_bytes: u64,
    /// Whether more was written than is kept.
    forgotten: bool,
}

impl OverlayFile {
    /// What is different from `before`, the file below of the same name.
    fn change(&self, path: &Path, before: &dyn DiskFile) -> io::Result<Option<Change>> {
        let (from, to) = (before.length()?, self.length()?);
        let path = path.to_owned();
        {
            let content = self.content.lock();
            if self.below.is_some() && content.writes.is_empty() && !content.forgotten {
                return Ok((from != to).then_some(Change::Cut { path, from, to }));
            }
        }
        if from != to || to > KEPT_BYTES_MAX {
            return Ok(Some(Change::Rewritten { path }));
        }
        let (mut was, mut is) = (vec![0; to as usize], vec![0; to as usize]);
        read_exact_at(before, &mut was, 0)?;
        let same = read_exact_at(self, &mut is, 0).is_ok() && was == is;
        Ok((!same).then_some(Change::Rewritten { path }))
    }
}

impl RangeFile for OverlayFile {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let content = self.content.lock();
        if content.forgotten {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let read = buffer.len().min(content.length.saturating_sub(position) as usize);
        let buffer = &mut buffer[..read];
        buffer.fill(0);
        if let Some((_, below)) = &self.below {
            let theirs = read.min(content.below_bytes.saturating_sub(position) as usize);
            read_exact_at(&**below, &mut buffer[..theirs], position)?;
        }
        for (at, bytes) in &content.writes {
            let (from, to) = (position.max(*at), (position + read as u64).min(at + bytes.len() as u64));
            if from < to {
                let source = &bytes[(from - at) as usize..(to - at) as usize];
                buffer[(from - position) as usize..(to - position) as usize].copy_from_slice(source);
            }
        }
        Ok(read)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.read_at(buffer, position)
    }

    fn is_cached(&self, _position: u64, _length: usize) -> bool {
        true
    }
}

impl DiskFile for OverlayFile {
    fn write_vectored_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let written = bytes.len();
        let mut content = self.content.lock();
        content.length = content.length.max(position + written as u64);
        content.written_bytes += written as u64;
        if content.written_bytes > KEPT_BYTES_MAX {
            content.forgotten = true;
            content.writes = Vec::new();
        } else {
            content.writes.push((position, bytes));
        }
        Ok(written)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let mut content = self.content.lock();
        content.length = content.length.max(length);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut content = self.content.lock();
        content.length = length;
        content.below_bytes = content.below_bytes.min(length);
        for (at, bytes) in &mut content.writes {
            bytes.truncate(length.saturating_sub(*at) as usize);
        }
        content.writes.retain(|(_, bytes)| !bytes.is_empty());
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.content.lock().length)
    }

    fn pin(self: Arc<Self>) -> io::Result<Arc<dyn RangeFile>> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::simulated::SimulatedDisk;
    use super::super::{Durability, read_file, replace_file, write_all_at};
    use super::*;

    fn below() -> SimulatedDisk {
        let disk = SimulatedDisk::default();
        disk.create_dir_all(Path::new("/data/t-0")).unwrap();
        for (name, bytes) in [("a", &b"0123456789"[..]), ("b", b"bbbb"), ("c", b"cc")] {
            let file = disk.create(&Path::new("/data/t-0").join(name)).unwrap();
            write_all_at(&*file, &mut [IoSlice::new(bytes)], 0).unwrap();
        }
        disk
    }

    fn at(name: &str) -> PathBuf {
        Path::new("/data/t-0").join(name)
    }

    #[test]
    fn changes_are_seen_told_and_not_made() {
        let disk = below();
        let overlay = Overlay::new(Arc::new(disk.clone()));
        overlay.open(&at("a")).unwrap().set_len(4).unwrap();
        overlay.rename(&at("b"), &at("d")).unwrap();
        overlay.remove(&at("c")).unwrap();
        replace_file(&overlay, &at("new"), b"12", Durability::Now).unwrap();
        assert_eq!(read_file(&overlay, &at("a"), 100).unwrap(), b"0123");
        assert_eq!(read_file(&overlay, &at("d"), 100).unwrap(), b"bbbb");
        assert!(overlay.open(&at("b")).is_err() && overlay.open(&at("c")).is_err());
        let names: Vec<_> =
            overlay.list(Path::new("/data/t-0")).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["a", "d", "new"]);
        let told: Vec<_> = overlay.changes().unwrap().iter().map(ToString::to_string).collect();
        let expected = [
            "cut /data/t-0/a from 10 to 4 bytes",
            "remove /data/t-0/c",
            "rename /data/t-0/b to /data/t-0/d",
            "make /data/t-0/new of 2 bytes",
        ];
        assert_eq!(told, expected);
        assert_eq!(disk.list(Path::new("/data/t-0")).unwrap().len(), 3);
        assert_eq!(disk.content(&at("a")).unwrap(), b"0123456789");
    }

    #[test]
    fn a_file_written_as_it_was_and_a_folder_moved_away() {
        let overlay = Overlay::new(Arc::new(below()));
        replace_file(&overlay, &at("c"), b"cc", Durability::Now).unwrap();
        assert_eq!(overlay.changes().unwrap(), []);
        replace_file(&overlay, &at("c"), b"cx", Durability::Now).unwrap();
        assert_eq!(overlay.changes().unwrap(), [Change::Rewritten { path: at("c") }]);
        overlay.rename(Path::new("/data/t-0"), Path::new("/data/t-0.1-delete")).unwrap();
        assert!(overlay.list(Path::new("/data/t-0")).is_err() && overlay.open(&at("a")).is_err());
        assert_eq!(overlay.list(Path::new("/data/t-0.1-delete")).unwrap().len(), 3);
        overlay.remove_dir_all(Path::new("/data/t-0.1-delete")).unwrap();
        assert_eq!(overlay.list(Path::new("/data")).unwrap(), []);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        Cut(u64),
    }

    proptest! {
        #[test]
        fn a_file_reads_as_if_it_had_been_changed(
            steps in proptest::collection::vec(
                prop_oneof![
                    (0..20u64, proptest::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Step::Write(at, bytes)),
                    (0..25u64).prop_map(Step::Cut),
                ],
                0..12,
            ),
        ) {
            let overlay = Overlay::new(Arc::new(below()));
            let tried = overlay.open(&at("a")).unwrap();
            let changed = below().open(&at("a")).unwrap();
            for step in steps {
                for file in [&tried, &changed] {
                    match &step {
                        Step::Write(position, bytes) => {
                            write_all_at(&**file, &mut [IoSlice::new(bytes)], *position).unwrap();
                        }
                        Step::Cut(length) => file.set_len(*length).unwrap(),
                    }
                }
            }
            let read = |file: &Arc<dyn DiskFile>| {
                let mut bytes = vec![0; file.length().unwrap() as usize];
                read_exact_at(&**file, &mut bytes, 0).unwrap();
                bytes
            };
            prop_assert_eq!(read(&tried), read(&changed));
        }
    }
}
