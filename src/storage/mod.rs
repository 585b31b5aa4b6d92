//! The door to the disk: what the log asks of a file system, and nothing more. [`StdDisk`] is the real one;
//! [`simulated::SimulatedDisk`] is memory that can lose what was not synced, so that recovery is tested without a power cut.
//!
//! A file's bytes are durable after [`DiskFile::sync_data`]; its name only after [`Disk::sync_dir`] of its folder.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

pub use self::bounded::BoundedDisk;
pub use self::overlay::{Change, Overlay};
pub use self::read_only::ReadOnlyDisk;
pub use self::std_disk::StdDisk;
use crate::record::range::RangeFile;

pub mod bounded;
mod overlay;
mod read_only;
pub mod simulated;
mod std_disk;

/// What one entry of a folder is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// File name, without the folder. Names that are not UTF-8 are left out of listings: none of ours is.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// How much a file system holds, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// In all.
    pub total_bytes: u64,
    /// That this process may still write.
    pub usable_bytes: u64,
}

/// What is known of a file without opening it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileStatus {
    /// Bytes in it.
    pub length: u64,
    /// When it was last written, ms since the epoch.
    pub modified_ms: i64,
}

/// Held for as long as nobody else may use the file it was taken on; dropping it (or the end of the process) frees it.
pub trait Lock: Send + Sync + Debug {}

/// A file system. Paths are absolute or relative to the process, as with `std::fs`.
pub trait Disk: Send + Sync + Debug {
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file that will not be written to, which may lie where nothing can be.
    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path)
    }

    /// Makes an empty file, replacing what is there, open for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Size and age of an existing file.
    fn status(&self, path: &Path) -> io::Result<FileStatus>;

    /// Takes the exclusive lock of `path`, making the file if need be; `None` if somebody else has it.
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;

    /// Makes a folder and the missing ones above it.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Moves a file or folder, replacing a file that is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives the file `existing` a second name, which nothing has yet. Not every file system can.
    fn link(&self, _existing: &Path, _name: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes a file. Who has it open goes on reading it.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with all that is in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// The entries of a folder, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;

    /// Makes the names in a folder durable: after creating, renaming and removing.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes everything durable that was written to the file system which holds `path`: one call instead of one for each
    /// of many files.
    fn sync_all(&self, path: &Path) -> io::Result<()>;

    /// How much the file system holds that has `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// Gives back what nobody has used for a while. Called now and then.
    fn close_idle(&self) {}

    /// A text that changes when the machine restarts (the page cache is lost) and stays while it runs.
    fn boot_id(&self) -> io::Result<String>;
}

/// An open file. Writers of one file take turns by themselves; readers need not.
pub trait DiskFile: RangeFile {
    /// Writes some of `parts`, one after the other, at `position` (bytes from the start); returns how many bytes were written.
    fn write_vectored_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize>;

    /// Returns once all bytes written before the call are on the disk.
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts the file to `length` bytes, or extends it with zeros.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Extends the file to `length` bytes of zeros that have their place on the disk: writing them needs no more space.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// Sets `bytes` behind `position` aside without making the file longer, where that makes later writes there cheaper; nothing is
    /// promised. [`Self::set_len`] gives back what was not used.
    fn reserve(&self, _position: u64, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    /// Bytes in the file.
    fn length(&self) -> io::Result<u64>;

    /// The file as ranges point into it: with its descriptor, where it has one, open for as long as somebody has it.
    fn pin(self: Arc<Self>) -> io::Result<Arc<dyn RangeFile>>;
}

/// Writes all of `parts` at `position`: usually one call of the file, more if it writes short.
pub fn write_all_at(file: &dyn DiskFile, parts: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
    let mut left = parts;
    let mut position = position;
    // Empty leading parts would make a complete write look like none at all.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored_at(left, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                position += written as u64;
                IoSlice::advance_slices(&mut left, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads exactly `buffer.len()` bytes at `position`; the end of the file before that is an `UnexpectedEof`.
pub fn read_exact_at(file: &dyn RangeFile, buffer: &mut [u8], position: u64) -> io::Result<()> {
    match file.read_at(buffer, position)? {
        read if read == buffer.len() => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The whole of a small file. One longer than `limit_bytes` is an `InvalidData` error: nothing that is read this way grows
/// that far unless it is damaged.
pub fn read_file(disk: &dyn Disk, path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let file = disk.open_to_read(path)?;
    let length = file.length()?;
    if length > limit_bytes {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "file is longer than it can rightly be"));
    }
    let mut bytes = vec![0; length as usize];
    read_exact_at(&*file, &mut bytes, 0)?;
    Ok(bytes)
}

/// Whether [`replace_file`] waits until the new bytes and name are on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// The caller syncs later, or does not need it.
    Later,
    /// File and folder are synced before returning.
    Now,
}

/// Gives `path` the content `bytes` so that a reader (or a crash) finds either the old content or the new: written beside
/// it as `<path>.tmp`, then renamed. Returns the open file, for syncing it later.
pub fn replace_file(
    disk: &dyn Disk,
    path: &Path,
    bytes: &[u8],
    durability: Durability,
) -> io::Result<Arc<dyn DiskFile>> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let file = disk.create(temporary)?;
    write_all_at(&*file, &mut [IoSlice::new(bytes)], 0)?;
    if durability == Durability::Now {
        file.sync_data()?;
    }
    disk.rename(temporary, path)?;
    if let (Durability::Now, Some(folder)) = (durability, path.parent()) {
        disk.sync_dir(folder)?;
    }
    Ok(file)
}
