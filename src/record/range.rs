//! Bytes that still lie in a file: how records travel from the log to the socket without being read.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// A file that ranges can point into. Implemented by the files of `storage`.
pub trait RangeFile: Send + Sync + fmt::Debug {
    /// The descriptor for `sendfile`; `None` where there is no real file (a simulated disk).
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Reads at `position` (bytes from the start of the file) until `buffer` is full or the file ends; returns how many
    /// bytes were read.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// As [`RangeFile::read_at`], but only what can be had without waiting for a disk: less than asked for, or
    /// `WouldBlock`, where that is not all.
    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Whether a read of `length` bytes at `position` can be answered from memory now, without waiting for a disk.
    fn is_cached(&self, position: u64, length: usize) -> bool;
}

/// `length` bytes of `file` from `position`. The bytes never change while the range lives: only what is below the high
/// watermark is ever handed out, and a deleted file stays open.
#[derive(Clone, Debug)]
pub struct FileRange {
    /// The open file.
    pub file: Arc<dyn RangeFile>,
    /// First byte, from the start of the file.
    pub position: u64,
    /// Bytes in the range.
    pub length: usize,
}

impl FileRange {
    /// Reads all of it into memory.
    ///
    /// # Errors
    /// The file's; that it ends before the range does.
    pub fn read(&self) -> io::Result<Bytes> {
        let mut bytes = BytesMut::zeroed(self.length);
        let mut filled = 0;
        while filled < self.length {
            match self.file.read_at(&mut bytes[filled..], self.position + filled as u64)? {
                0 => return Err(self.truncated()),
                read => filled += read,
            }
        }
        Ok(bytes.freeze())
    }

    /// Reads all of it into memory if that needs no waiting for a disk.
    pub fn read_cached(&self) -> Option<Bytes> {
        let mut bytes = BytesMut::zeroed(self.length);
        match self.file.read_cached_at(&mut bytes, self.position) {
            Ok(read) if read == self.length => Some(bytes.freeze()),
            // What is wrong with the file, a read that may wait will say.
            _ => None,
        }
    }

    /// The error for a file that ends within the range.
    pub fn truncated(&self) -> io::Error {
        let what = format!("{:?} ends before {} + {} bytes", self.file, self.position, self.length);
        io::Error::new(io::ErrorKind::UnexpectedEof, what)
    }
}
