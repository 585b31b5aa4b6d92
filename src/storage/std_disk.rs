//! The machine's own file system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, fstatfs};
use rustix::io::{Errno, ReadWriteFlags};

use super::{Disk, DiskFile, Entry, FileStatus, Lock, Space};
use crate::record::range::RangeFile;

/// Bytes for which one probe of [`RangeFile::is_cached`] speaks. The kernel reads ahead and evicts in runs of pages, so a range
/// whose probed pages are all there is almost surely there as a whole; a wrong guess costs one wait for the disk.
const PROBED_BYTES: u64 = 256 << 10;

/// What `statfs` calls an ext4 file system.
const EXT4: rustix::fs::FsWord = 0xEF53;

/// `std::fs` and the few calls it lacks.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdDisk;

impl StdDisk {
    /// Takes a lock that keeps away who would take an exclusive one, without writing anything; `None` if somebody has that.
    ///
    /// # Errors
    /// There is no such file, or the system's.
    pub fn try_lock_shared(self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let file = File::open(path)?;
        match file.try_lock_shared() {
            Ok(()) => match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => Ok(Some(Box::new(FileLock { _file: file }))),
                Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
                Err(error) => Err(error.into()),
            },
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Disk for StdDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(StdFile(file)))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(StdFile(File::open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(StdFile(file)))
    }

    fn status(&self, path: &Path) -> io::Result<FileStatus> {
        let metadata = fs::metadata(path)?;
        // A file of before 1970 is as old as any.
        let age = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(FileStatus {
            length: metadata.len(),
            modified_ms: i64::try_from(age.as_millis()).unwrap_or(i64::MAX),
        })
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            // A lock of the other kind as well: Java's are such, and Kafka knows its directories by them. They are the
            // process's, not the file's, so that they tell nothing apart within it, and come second.
            Ok(()) => match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(Some(Box::new(FileLock { _file: file }))),
                Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
                Err(error) => Err(error.into()),
            },
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, existing: &Path, name: &Path) -> io::Result<()> {
        fs::hard_link(existing, name)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(Entry { name, is_dir: entry.file_type()?.is_dir() });
            }
        }
        Ok(entries)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(path)?)?)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let found = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Space { total_bytes: bytes(found.f_blocks), usable_bytes: bytes(found.f_bavail) })
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
    }
}

#[derive(Debug)]
struct FileLock {
    /// Closing it frees the lock.
    _file: File,
}

impl Lock for FileLock {}

#[derive(Debug)]
struct StdFile(File);

impl RangeFile for StdFile {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match rustix::io::pread(&self.0, &mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(filled)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let parts = &mut [IoSliceMut::new(buffer)];
        Ok(rustix::io::preadv2(&self.0, parts, position, ReadWriteFlags::NOWAIT)?)
    }

    fn is_cached(&self, position: u64, length: usize) -> bool {
        let length = length as u64;
        let probes = length.div_ceil(PROBED_BYTES);
        (0..probes).all(|number| {
            // In the middle of its part: the headers at both ends of what is to be sent have just been read, and say nothing.
            let probe = position + (2 * number + 1) * length / (2 * probes);
            let mut byte = [0];
            let read = rustix::io::preadv2(
                &self.0,
                &mut [IoSliceMut::new(&mut byte)],
                probe,
                ReadWriteFlags::NOWAIT,
            );
            // Only "would have to wait" is a no: a file system that cannot tell is read without asking.
            !matches!(read, Err(Errno::AGAIN))
        })
    }
}

impl DiskFile for StdFile {
    fn write_vectored_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&self.0, parts, position)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        loop {
            match fallocate(&self.0, FallocateFlags::empty(), 0, length) {
                Err(Errno::INTR) => {}
                // A file system that cannot reserve space has at least the length.
                Err(Errno::OPNOTSUPP) => return self.set_len(length),
                allocated => return Ok(allocated?),
            }
        }
    }

    fn reserve(&self, position: u64, bytes: u64) -> io::Result<()> {
        // Where the space is known already, ext4 spares what it does for each page of an append, a sixth of its CPU. XFS does so by
        // itself, and a file in memory would take the memory now.
        if fstatfs(&self.0)?.f_type == EXT4 {
            fallocate(&self.0, FallocateFlags::KEEP_SIZE, position, bytes)?;
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn pin(self: Arc<Self>) -> io::Result<Arc<dyn RangeFile>> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Durability, read_file, replace_file, write_all_at};
    use super::*;

    #[test]
    fn what_is_written_in_parts_reads_back_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = StdDisk.create(&folder.path().join("file")).unwrap();
        write_all_at(&*file, &mut [IoSlice::new(b""), IoSlice::new(b"head"), IoSlice::new(b"payload")], 3)
            .unwrap();
        let mut buffer = [0; 20];
        assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 14);
        assert_eq!(&buffer[..14], b"\0\0\0headpayload");
        assert_eq!(file.read_cached_at(&mut [0; 20], 0).unwrap(), 14);
        assert!(file.is_cached(0, 14));
        assert!(file.is_cached(0, 0));
        file.set_len(4).unwrap();
        assert_eq!(file.length().unwrap(), 4);
    }

    #[test]
    fn a_range_of_which_only_the_ends_are_cached_is_not() {
        use std::os::unix::fs::FileExt;

        use rustix::fs::{Advice, fadvise};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = StdDisk.create(&path).unwrap();
        write_all_at(&*file, &mut [IoSlice::new(&[7; 1 << 20])], 0).unwrap();
        assert!(file.is_cached(0, 1 << 20));
        file.sync_data().unwrap();
        let raw = File::open(&path).unwrap();
        fadvise(&raw, 0, None, Advice::DontNeed).unwrap();
        fadvise(&raw, 0, None, Advice::Random).unwrap();
        for length in [20_u64 << 10, 128 << 10, 1 << 20] {
            for end in [0, length - 1] {
                raw.read_exact_at(&mut [0], end).unwrap();
            }
            // Not every file system keeps what it has elsewhere than in memory.
            if file.read_cached_at(&mut [0], length / 2).is_err() {
                assert!(!file.is_cached(0, length as usize), "{length}");
            }
        }
    }

    #[test]
    fn allocated_space_is_there_and_its_file_has_an_age() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = StdDisk.create(&path).unwrap();
        file.allocate(1 << 20).unwrap();
        assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 1 << 20);
        let status = StdDisk.status(&path).unwrap();
        assert_eq!(status.length, 1 << 20);
        let now = UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
        assert!((now - 60_000..=now + 60_000).contains(&status.modified_ms));
        assert!(StdDisk.status(&folder.path().join("none")).is_err());
    }

    #[test]
    fn reserved_space_is_no_part_of_the_file_and_can_be_given_back() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = StdDisk.create(&path).unwrap();
        file.write_vectored_at(&[IoSlice::new(b"some")], 0).unwrap();
        file.sync_data().unwrap();
        file.reserve(4, 1 << 20).unwrap();
        let is_ext4 = fstatfs(File::open(&path).unwrap()).unwrap().f_type == EXT4;
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.len(), found.blocks() * 512 >= 1 << 20), (4, is_ext4));
        file.set_len(4).unwrap();
        assert!(fs::metadata(&path).unwrap().blocks() * 512 <= 64 << 10);
        assert_eq!(fs::read(&path).unwrap(), b"some");
    }

    #[test]
    fn a_replaced_file_has_the_new_content_and_leaves_no_temporary() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        for content in [&b"old"[..], b"new content"] {
            replace_file(&StdDisk, &path, content, Durability::Now).unwrap();
            assert_eq!(read_file(&StdDisk, &path, 100).unwrap(), content);
        }
        assert_eq!(StdDisk.list(folder.path()).unwrap().len(), 1);
        assert_eq!(read_file(&StdDisk, &path, 5).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_lock_is_held_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let held = StdDisk.try_lock(&path).unwrap();
        assert!(held.is_some());
        assert!(StdDisk.try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(StdDisk.try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn a_file_system_has_a_size() {
        let folder = tempfile::tempdir().unwrap();
        let space = StdDisk.space(folder.path()).unwrap();
        assert!(space.total_bytes > 0 && space.usable_bytes <= space.total_bytes, "{space:?}");
        assert!(StdDisk.space(&folder.path().join("nowhere")).is_err());
    }

    #[test]
    fn a_boot_has_a_name() {
        let boot = StdDisk.boot_id().unwrap();
        assert!(!boot.is_empty());
        assert_eq!(boot, StdDisk.boot_id().unwrap());
    }
}
