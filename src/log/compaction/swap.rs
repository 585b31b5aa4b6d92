//! How a rewritten segment takes the place of those it was made from, so that whatever moment the machine dies at leaves either
//! them or it. As in Kafka: what is being written ends in `.cleaned` and means nothing; what is complete and synced is renamed to
//! `.swap`, and from then on is the truth about its range of offsets; then the old files become `.deleted`, and it loses its suffix.
//!
//! The file system may lose any change of a name that was not synced. So the log file gets its final name as a second one, and
//! loses `.swap` only when that is durable.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::LogError;
use super::super::scan::{Scanner, UNCHECKED};
use super::super::segment::{Segment, file_name};
use crate::storage::Disk;

/// The files of a segment; the log last, since it is what the others are for.
const SUFFIXES: [&str; 4] = ["index", "timeindex", "txnindex", "log"];

const CLEANED: &str = "cleaned";
const SWAP: &str = "swap";
const DELETED: &str = "deleted";

/// Bytes read at once when only headers are wanted.
const READ_BYTES: usize = 32 << 10;

/// Where a file of a segment is while it is written.
pub fn cleaned_path(folder: &Path, base_offset: i64, suffix: &str) -> PathBuf {
    path(folder, base_offset, suffix, Some(CLEANED))
}

/// The folder of a partition and the disk that it is on.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The disk.
    pub disk: &'a dyn Disk,
    /// The folder.
    pub folder: &'a Path,
}

impl Place<'_> {
    /// Declares the segment that begins at `base_offset`, whose files are synced, to be complete. Durable when it returns.
    pub fn announce(&self, base_offset: i64) -> Result<(), LogError> {
        for suffix in SUFFIXES {
            self.rename((base_offset, suffix), Some(CLEANED), Some(SWAP))?;
        }
        self.sync()
    }

    /// Takes the files of `old` away, and gives those of the announced segment their names. Where the old files are now.
    pub fn replace(&self, base_offset: i64, old: &[Arc<Segment>]) -> Result<Vec<PathBuf>, LogError> {
        let mut deleted = Vec::new();
        for segment in old {
            for suffix in SUFFIXES {
                if self.rename((segment.base_offset(), suffix), None, Some(DELETED))? {
                    deleted.push(path(self.folder, segment.base_offset(), suffix, Some(DELETED)));
                }
            }
        }
        self.name(base_offset)?;
        Ok(deleted)
    }

    /// Ends what [`Self::replace`] began. Durable when it returns.
    pub fn settle(&self, base_offset: i64) -> Result<(), LogError> {
        self.sync()?;
        self.remove(&path(self.folder, base_offset, "log", Some(SWAP)))?;
        self.sync()
    }

    /// Takes back what was written or announced and has replaced nothing.
    pub fn withdraw(&self, base_offset: i64) -> Result<(), LogError> {
        for suffix in SUFFIXES {
            for aside in [SWAP, CLEANED] {
                self.remove(&path(self.folder, base_offset, suffix, Some(aside)))?;
            }
        }
        self.sync()
    }

    /// Ends what a death has interrupted, or takes it back, in a folder with these files in it. Whether there was anything.
    pub fn recover(&self, names: &[String]) -> Result<bool, LogError> {
        let of = |aside: &'static str| {
            names.iter().filter_map(move |name| parse(name.strip_suffix(aside)?.strip_suffix('.')?))
        };
        let first_cleaned = of(CLEANED).map(|(offset, _)| offset).min();
        for (offset, suffix) in of(CLEANED) {
            self.remove(&path(self.folder, offset, suffix, Some(CLEANED)))?;
        }
        // While some are not complete, those at and above them were not meant yet.
        let is_meant = |offset: i64| first_cleaned.is_none_or(|first| offset < first);
        let mut announced: Vec<i64> = of(SWAP)
            .filter(|(offset, suffix)| *suffix == "log" && is_meant(*offset))
            .map(|(offset, _)| offset)
            .collect();
        announced.sort_unstable();
        for (offset, suffix) in of(SWAP).filter(|(offset, _)| !announced.contains(offset)) {
            self.remove(&path(self.folder, offset, suffix, Some(SWAP)))?;
        }
        for base_offset in announced {
            let end_offset = self.end_of(base_offset)?;
            let replaced = |offset: i64| offset == base_offset || (base_offset..end_offset).contains(&offset);
            for (offset, suffix) in
                names.iter().filter_map(|name| parse(name)).filter(|(offset, _)| replaced(*offset))
            {
                self.remove(&path(self.folder, offset, suffix, None))?;
            }
            tracing::info!(folder = %self.folder.display(), base_offset, end_offset, "an interrupted compaction was ended");
            self.name(base_offset)?;
            self.settle(base_offset)?;
        }
        Ok(of(CLEANED).chain(of(SWAP)).next().is_some())
    }

    /// One beyond the last offset of an announced segment.
    fn end_of(&self, base_offset: i64) -> Result<i64, LogError> {
        let path = path(self.folder, base_offset, "log", Some(SWAP));
        let failed = |source| LogError::disk(&path, source);
        let file = self.disk.open(&path).map_err(failed)?;
        let length = file.length().map_err(failed)?;
        let mut scanner = Scanner::new(&*file, base_offset, (0, base_offset), length, READ_BYTES);
        let mut end_offset = base_offset;
        // Damage behind what can be read shows when the segment is read.
        while let Ok(Some((_, header))) = scanner.next(UNCHECKED) {
            end_offset = header.last_offset() + 1;
        }
        Ok(end_offset)
    }

    /// Gives the files of an announced segment their final names; the log keeps the other one, where the file system can do that.
    fn name(&self, base_offset: i64) -> Result<(), LogError> {
        for suffix in SUFFIXES.into_iter().filter(|suffix| *suffix != "log") {
            self.rename((base_offset, suffix), Some(SWAP), None)?;
        }
        let swap = path(self.folder, base_offset, "log", Some(SWAP));
        let log = path(self.folder, base_offset, "log", None);
        let named = self.disk.link(&swap, &log).or_else(|_| self.disk.rename(&swap, &log));
        named.map_err(|source| LogError::disk(&log, source))
    }

    /// Whether the file was there; not each segment has each.
    fn rename(
        &self,
        (base_offset, suffix): (i64, &str),
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<bool, LogError> {
        let from = path(self.folder, base_offset, suffix, from);
        match self.disk.rename(&from, &path(self.folder, base_offset, suffix, to)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound && suffix != "log" => Ok(false),
            Err(source) => Err(LogError::disk(&from, source)),
        }
    }

    fn remove(&self, path: &Path) -> Result<(), LogError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::disk(path, error)),
            _ => Ok(()),
        }
    }

    fn sync(&self) -> Result<(), LogError> {
        self.disk.sync_dir(self.folder).map_err(|source| LogError::disk(self.folder, source))
    }
}

fn path(folder: &Path, base_offset: i64, suffix: &str, aside: Option<&str>) -> PathBuf {
    match aside {
        Some(aside) => folder.join(file_name(base_offset, &format!("{suffix}.{aside}"))),
        None => folder.join(file_name(base_offset, suffix)),
    }
}

/// `00000000000000000170.log` → 170 and `log`, for the files of segments.
fn parse(name: &str) -> Option<(i64, &'static str)> {
    let (digits, rest) = name.split_once('.')?;
    let suffix = SUFFIXES.into_iter().find(|suffix| *suffix == rest)?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((digits.parse().ok().filter(|_| all_digits)?, suffix))
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::record::BatchBuilder;
    use crate::storage::simulated::SimulatedDisk;
    use crate::storage::write_all_at;

    const FOLDER: &str = "/log";

    /// A disk with these files; a log file holds one batch of so many offsets from its base on.
    fn disk(files: &[(i64, &str, usize)]) -> SimulatedDisk {
        let disk = SimulatedDisk::default();
        disk.create_dir_all(FOLDER.as_ref()).unwrap();
        for (base_offset, suffix, records) in files {
            let file = disk.create(&Path::new(FOLDER).join(file_name(*base_offset, suffix))).unwrap();
            if *records > 0 {
                let builder =
                    (0..*records).fold(BatchBuilder::new(), |builder, _| builder.record(0, None, None));
                let mut batch = builder.build_valid();
                batch.assign(*base_offset, 0);
                write_all_at(&*file, &mut [IoSlice::new(&batch.to_bytes())], 0).unwrap();
            }
        }
        disk
    }

    fn recovered(disk: &SimulatedDisk) -> Vec<String> {
        let list =
            || disk.list(FOLDER.as_ref()).unwrap().into_iter().map(|entry| entry.name).collect::<Vec<_>>();
        let place = Place { disk, folder: FOLDER.as_ref() };
        let had_any = place.recover(&list()).unwrap();
        assert!(!place.recover(&list()).unwrap(), "once is enough");
        let mut names = list();
        names.sort();
        assert!(had_any || !names.iter().any(|name| name.ends_with(SWAP)));
        names.iter().map(|name| name.trim_start_matches('0').to_owned()).collect()
    }

    #[test]
    fn what_was_not_complete_goes() {
        let disk = disk(&[(5, "log", 3), (5, "index", 0), (5, "log.cleaned", 3), (5, "index.cleaned", 0)]);
        assert_eq!(recovered(&disk), ["5.index", "5.log"]);
    }

    #[test]
    fn what_was_complete_replaces_its_range_and_nothing_else() {
        let disk = disk(&[
            (5, "log", 5),
            (5, "index", 0),
            (5, "txnindex", 0),
            (10, "log", 5),
            (10, "timeindex", 0),
            (20, "log", 1),
            (20, "index", 0),
            (5, "log.swap", 15),
            (5, "timeindex.swap", 0),
        ]);
        assert_eq!(recovered(&disk), ["5.log", "5.timeindex", "20.index", "20.log"]);
        let log = disk.content(&Path::new(FOLDER).join(file_name(5, "log"))).unwrap();
        assert_eq!(crate::record::BatchHeader::parse(&log).unwrap().last_offset(), 19);
    }

    #[test]
    fn a_swap_at_or_above_what_was_not_complete_is_taken_back() {
        let disk = disk(&[
            (5, "log", 5),
            (5, "log.swap", 5),
            (10, "log", 5),
            (10, "log.cleaned", 5),
            (10, "index.swap", 0),
            (15, "log", 5),
            (15, "log.swap", 5),
        ]);
        assert_eq!(recovered(&disk), ["5.log", "10.log", "15.log"]);
    }

    #[test]
    fn an_index_without_its_log_goes_and_an_empty_log_replaces_its_namesake() {
        let disk =
            disk(&[(5, "log", 5), (5, "index.swap", 0), (10, "log", 5), (10, "log.swap", 0), (11, "log", 1)]);
        assert_eq!(recovered(&disk), ["5.log", "10.log", "11.log"]);
        assert_eq!(disk.content(&Path::new(FOLDER).join(file_name(10, "log"))).unwrap(), b"");
    }
}
