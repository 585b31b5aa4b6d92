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

/// A file of which only that can be read which needs no waiting for a disk: the rest is [`io::ErrorKind::WouldBlock`].
#[derive(Debug)]
pub struct Cached<'f>(pub &'f dyn RangeFile);

impl RangeFile for Cached<'_> {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.descriptor()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_cached_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A file system that cannot tell is read without asking.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    return self.0.read_at(buffer, position);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_cached_at(buffer, position)
    }

    fn is_cached(&self, position: u64, length: usize) -> bool {
        self.0.is_cached(position, length)
    }
}

/// What a read may do for the bytes that it looks at on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reads {
    /// Take them from memory; what is not there is [`io::ErrorKind::WouldBlock`].
    Cached,
    /// Wait for a disk.
    All,
}

impl Reads {
    /// The file to read from.
    pub fn through<'f>(self, cached: &'f Cached<'f>) -> &'f dyn RangeFile {
        match self {
            Self::Cached => cached,
            Self::All => cached.0,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A file whose first bytes are in memory, or one of a file system that cannot tell.
    #[derive(Debug)]
    struct Partly {
        bytes: Vec<u8>,
        cached: Option<usize>,
    }

    impl RangeFile for Partly {
        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            None
        }

        fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            let rest = &self.bytes[self.bytes.len().min(position as usize)..];
            let read = rest.len().min(buffer.len());
            buffer[..read].copy_from_slice(&rest[..read]);
            Ok(read)
        }

        fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            let cached = self.cached.ok_or(io::ErrorKind::Unsupported)?;
            let left = cached.saturating_sub(position as usize);
            if left == 0 && (position as usize) < self.bytes.len() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            // Not all at once.
            let length = buffer.len().min(left).min(3);
            self.read_at(&mut buffer[..length], position)
        }

        fn is_cached(&self, position: u64, length: usize) -> bool {
            self.cached.is_none_or(|cached| position as usize + length <= cached)
        }
    }

    #[test]
    fn only_what_is_in_memory_is_read_without_waiting() {
        let read = |cached, length, position| {
            let file = Partly { bytes: (0..10).collect(), cached };
            let mut buffer = vec![0; length];
            let read = Cached(&file).read_at(&mut buffer, position).map_err(|error| error.kind())?;
            Ok(buffer[..read].to_vec())
        };
        assert_eq!(read(Some(10), 10, 0), Ok((0..10).collect()));
        assert_eq!(read(Some(10), 9, 5), Ok((5..10).collect()), "to the end of the file");
        assert_eq!(read(Some(7), 5, 2), Ok((2..7).collect()));
        assert_eq!(read(Some(7), 6, 2), Err(io::ErrorKind::WouldBlock));
        assert_eq!(read(Some(0), 1, 0), Err(io::ErrorKind::WouldBlock));
        assert_eq!(read(None, 6, 2), Ok((2..8).collect()), "who cannot tell is read");
    }
}
