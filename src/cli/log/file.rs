//! A file of a log directory, opened to be read and never changed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::DumpError;
use crate::log::verify::Fault;
use crate::record::range::RangeFile;

/// What brokers append to the names of files that are about to go or to come.
const PASSING: [&str; 3] = [".deleted", ".cleaned", ".swap"];

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Batches of a segment.
    Log {
        base_offset: i64,
    },
    OffsetIndex {
        base_offset: i64,
    },
    TimeIndex {
        base_offset: i64,
    },
    /// Producers of a partition.
    Snapshot,
    LeaderEpochs,
    PartitionMetadata,
}

impl Kind {
    /// As its name says.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let name = PASSING.iter().find_map(|passing| name.strip_suffix(passing)).unwrap_or(name);
        match name {
            "leader-epoch-checkpoint" => return Some(Self::LeaderEpochs),
            "partition.metadata" => return Some(Self::PartitionMetadata),
            _ => {}
        }
        let (base_offset, kind) = name.split_once('.')?;
        let base_offset = base_offset.parse::<u64>().ok().and_then(|offset| i64::try_from(offset).ok())?;
        match kind {
            "log" => Some(Self::Log { base_offset }),
            "index" => Some(Self::OffsetIndex { base_offset }),
            "timeindex" => Some(Self::TimeIndex { base_offset }),
            "snapshot" => Some(Self::Snapshot),
            _ => None,
        }
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct ReadFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl ReadFile {
    pub(super) fn open(path: &Path) -> Result<Self, DumpError> {
        let failed = |source| DumpError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        Ok(Self { path: path.to_owned(), file, length: metadata.len() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes when it was opened.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// All of it. A file longer than `limit_bytes` is an error.
    pub(super) fn read(&self, limit_bytes: u64) -> Result<Vec<u8>, DumpError> {
        if self.length > limit_bytes {
            return Err(self.failed(io::ErrorKind::FileTooLarge.into()));
        }
        let mut bytes = vec![0; self.length as usize];
        self.file.read_exact_at(&mut bytes, 0).map_err(|error| self.failed(error))?;
        Ok(bytes)
    }

    pub(super) fn failed(&self, source: io::Error) -> DumpError {
        DumpError::Io { path: self.path.clone(), source }
    }

    pub(super) fn bad(&self, position: u64, fault: impl Into<Fault>) -> DumpError {
        DumpError::Bad { path: self.path.clone(), position, fault: fault.into() }
    }
}

impl RangeFile for ReadFile {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        // Whoever reads here waits for the disk anyway.
        RangeFile::read_at(self, buffer, position)
    }

    fn is_cached(&self, _position: u64, _length: usize) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_what_a_file_is() {
        let of = |name: &str| Kind::of(Path::new(name));
        assert_eq!(of("/d/t-0/00000000000000000170.log"), Some(Kind::Log { base_offset: 170 }));
        assert_eq!(of("00000000000000000000.index"), Some(Kind::OffsetIndex { base_offset: 0 }));
        assert_eq!(of("00000000000000000000.timeindex.deleted"), Some(Kind::TimeIndex { base_offset: 0 }));
        assert_eq!(of("00000000000000000009.snapshot"), Some(Kind::Snapshot));
        assert_eq!(of("leader-epoch-checkpoint"), Some(Kind::LeaderEpochs));
        assert_eq!(of("partition.metadata"), Some(Kind::PartitionMetadata));
        for other in ["x.log", "00000000000000000000.txnindex", "-1.log", "meta.properties", "/"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
