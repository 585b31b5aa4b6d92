//! Reading Apache Kafka's metadata log: its newest snapshot, and what the log has after that. Nothing is changed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::image::Image;
use super::records::{InvalidRecord, MetadataRecord};
use crate::record::records::records;
use crate::record::{BatchHeader, HEADER_BYTES, InvalidBatch};
use crate::storage::{Disk, DiskFile, read_exact_at};

/// Largest batch that is read, and the most that one may decompress to, bytes: Kafka's controller writes 8 MiB at most.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// Type of the control record that ends a snapshot.
const SNAPSHOT_FOOTER: [u8; 2] = [0, 4];

/// Why a metadata log says nothing, or cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum MetadataFault {
    /// There is none.
    #[error("there is no metadata log")]
    Absent,
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something in it is no whole batch.
    #[error("{} at position {position}: {fault}", path.display())]
    Batch {
        /// The file.
        path: PathBuf,
        /// Where, bytes.
        position: u64,
        /// What is wrong.
        fault: BatchFault,
    },
    /// A record of it says nothing to this program.
    #[error("{} at position {position}: {fault}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Where its batch is, bytes.
        position: u64,
        /// What is wrong.
        fault: InvalidRecord,
    },
    /// A part of it is not there.
    #[error("{}: begins at offset {found}, what comes before it ends at {expected}", path.display())]
    Gap {
        /// The file that comes next.
        path: PathBuf,
        /// Where it begins.
        found: i64,
        /// Where it would have to.
        expected: i64,
    },
    /// A snapshot without its end.
    #[error("{}: ends without a snapshot's footer", path.display())]
    NoFooter {
        /// The file.
        path: PathBuf,
    },
}

/// What is wrong with a batch.
#[derive(Debug, thiserror::Error)]
pub enum BatchFault {
    /// More than a batch may have, or the file.
    #[error("a batch of {0} bytes, more than there may be")]
    Size(usize),
    /// The bytes are not what was written.
    #[error("the checksum does not match")]
    Checksum,
    /// No batch, or one whose records cannot be read.
    #[error(transparent)]
    Invalid(#[from] InvalidBatch),
    /// Another offset than that of the next record.
    #[error("offset {found} where {expected} must come")]
    Offset {
        /// The offset.
        found: i64,
        /// The one that had to come.
        expected: i64,
    },
}

/// What a metadata log tells.
#[derive(Debug)]
pub struct Told {
    /// What there is.
    pub image: Image,
    /// Where the log ends (exclusive).
    pub end_offset: i64,
    /// Bytes after that which are no whole batch: an interrupted append.
    pub torn_bytes: u64,
}

/// Reads the log in `folder`.
///
/// # Errors
/// There is none, or something but its very end is damaged or of a later version.
pub fn read(disk: &dyn Disk, folder: &Path) -> Result<Told, MetadataFault> {
    let entries = match disk.list(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(MetadataFault::Absent),
        Err(source) => return Err(MetadataFault::Disk { path: folder.to_owned(), source }),
    };
    let names = || entries.iter().map(|entry| entry.name.as_str());
    let newest = names().filter_map(|name| Some((parse_snapshot(name)?, name))).max();
    let mut bases: Vec<i64> = names().filter_map(parse_segment).collect();
    bases.sort_unstable();
    if newest.is_none() && bases.is_empty() {
        return Err(MetadataFault::Absent);
    }
    let mut reader = Reader { disk, image: Image::default() };
    let from = match newest {
        Some(((offset, _), name)) => {
            reader.take_snapshot(folder.join(name))?;
            offset
        }
        None => 0,
    };
    // Older segments stay for a while after a snapshot.
    bases.drain(..bases.partition_point(|base| *base <= from).saturating_sub(1));
    let (mut end_offset, mut torn_bytes) = (from, 0);
    for (number, base) in bases.iter().enumerate() {
        let path = folder.join(format!("{base:020}.log"));
        if *base > end_offset {
            return Err(MetadataFault::Gap { path, found: *base, expected: end_offset });
        }
        let is_last = number + 1 == bases.len();
        let (end, torn) = reader.take_segment(&path, *base, from, is_last)?;
        (end_offset, torn_bytes) = (end_offset.max(end), torn);
    }
    Ok(Told { image: reader.image.finish(), end_offset, torn_bytes })
}

/// `00000000000000000170-0000000003.checkpoint` → 170 and 3.
fn parse_snapshot(name: &str) -> Option<(i64, i32)> {
    let (offset, epoch) = name.strip_suffix(".checkpoint")?.split_once('-')?;
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(offset, 20) && digits(epoch, 10)).then_some(())?;
    Some((offset.parse().ok()?, epoch.parse().ok()?))
}

fn parse_segment(name: &str) -> Option<i64> {
    let digits = name.strip_suffix(".log")?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| all_digits)
}

struct Reader<'d> {
    disk: &'d dyn Disk,
    image: Image,
}

impl Reader<'_> {
    fn take_snapshot(&mut self, path: PathBuf) -> Result<(), MetadataFault> {
        let mut batches = Batches::open(self.disk, &path)?;
        let mut is_whole = false;
        while let Some(batch) = batches.next()? {
            is_whole = self.take_batch(&batches, &batch, 0)?;
        }
        if is_whole { Ok(()) } else { Err(MetadataFault::NoFooter { path }) }
    }

    /// Takes the records from offset `from` on. Where the segment ends, and the bytes behind that, if it may have any.
    fn take_segment(
        &mut self,
        path: &Path,
        base: i64,
        from: i64,
        may_be_torn: bool,
    ) -> Result<(i64, u64), MetadataFault> {
        let mut batches = Batches::open(self.disk, path)?;
        let mut expected = base;
        loop {
            let batch = match batches.next() {
                Ok(None) => return Ok((expected, 0)),
                Ok(Some(batch)) => batch,
                Err(MetadataFault::Batch { .. }) if may_be_torn => {
                    return Ok((expected, batches.length - batches.position));
                }
                Err(fault) => return Err(fault),
            };
            let found = batch.header.base_offset;
            if found != expected {
                return Err(batches.fault(&batch, BatchFault::Offset { found, expected }));
            }
            self.take_batch(&batches, &batch, from)?;
            expected = batch.header.last_offset() + 1;
        }
    }

    /// Takes the records of a batch from offset `from` on; whether it ends a snapshot.
    fn take_batch(&mut self, batches: &Batches<'_>, batch: &Batch, from: i64) -> Result<bool, MetadataFault> {
        let invalid = |fault: InvalidBatch| batches.fault(batch, fault.into());
        let mut ends_snapshot = false;
        for record in records(&batch.header, &batch.payload, BATCH_BYTES_MAX).map_err(invalid)? {
            let record = record.map_err(invalid)?;
            if batch.header.attributes.is_control() {
                ends_snapshot |= record.key.is_some_and(|key| key.get(2..4) == Some(&SNAPSHOT_FOOTER));
            } else if record.offset >= from {
                let value = record.value.unwrap_or_default();
                let position = batch.position;
                let failed = |fault| MetadataFault::Record { path: batches.path.to_owned(), position, fault };
                self.image.apply(MetadataRecord::decode(&value).map_err(failed)?);
            }
        }
        Ok(ends_snapshot)
    }
}

struct Batch {
    position: u64,
    header: BatchHeader,
    payload: Bytes,
}

/// The batches of a file, one after the other.
struct Batches<'p> {
    path: &'p Path,
    file: Arc<dyn DiskFile>,
    length: u64,
    /// Of the next batch.
    position: u64,
}

impl<'p> Batches<'p> {
    fn open(disk: &dyn Disk, path: &'p Path) -> Result<Self, MetadataFault> {
        let failed = |source| MetadataFault::Disk { path: path.to_owned(), source };
        let file = disk.open_to_read(path).map_err(failed)?;
        let length = file.length().map_err(failed)?;
        Ok(Self { path, file, length, position: 0 })
    }

    /// The next batch, its checksum compared; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<Batch>, MetadataFault> {
        let (position, left) = (self.position, self.length - self.position);
        if left == 0 {
            return Ok(None);
        }
        let damaged =
            |fault: BatchFault| MetadataFault::Batch { path: self.path.to_owned(), position, fault };
        let mut header = vec![0; HEADER_BYTES.min(left as usize)];
        self.read(&mut header, position)?;
        let header = BatchHeader::parse(&header).map_err(|fault| damaged(fault.into()))?;
        // The checksum does not cover it.
        if !(0..i64::MAX / 2).contains(&header.base_offset) {
            return Err(damaged(BatchFault::Offset { found: header.base_offset, expected: 0 }));
        }
        let size_bytes = header.size_bytes();
        if size_bytes > BATCH_BYTES_MAX || size_bytes as u64 > left || header.last_offset_delta < 0 {
            return Err(damaged(BatchFault::Size(size_bytes)));
        }
        let mut payload = vec![0; size_bytes - HEADER_BYTES];
        self.read(&mut payload, position + HEADER_BYTES as u64)?;
        if header.checksum(&payload) != header.crc {
            return Err(damaged(BatchFault::Checksum));
        }
        self.position += size_bytes as u64;
        Ok(Some(Batch { position, header, payload: payload.into() }))
    }

    fn read(&self, buffer: &mut [u8], position: u64) -> Result<(), MetadataFault> {
        let failed = |source| MetadataFault::Disk { path: self.path.to_owned(), source };
        read_exact_at(&*self.file, buffer, position).map_err(failed)
    }

    fn fault(&self, batch: &Batch, fault: BatchFault) -> MetadataFault {
        MetadataFault::Batch { path: self.path.to_owned(), position: batch.position, fault }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use bytes::BytesMut;

    use super::super::records::TopicRecord;
    use super::*;
    use crate::protocol::wire::{Encode, Sink, Wire};
    use crate::record::BatchBuilder;
    use crate::storage::simulated::SimulatedDisk;
    use crate::storage::write_all_at;
    use crate::uuid::Uuid;

    const FOLDER: &str = "/kafka/__cluster_metadata-0";

    fn topic(number: u8) -> BytesMut {
        let mut frame = BytesMut::new();
        frame.put(&[1, 2, 0]);
        let record = TopicRecord { name: format!("t{number}").into(), topic_id: Uuid([number; 16]) };
        record.encode(&mut frame, Encode { version: 0, flexible: true });
        frame
    }

    /// A batch of a topic each, which begins at `offset`.
    fn batch(offset: i64, topics: impl IntoIterator<Item = u8>) -> Vec<u8> {
        let builder = topics
            .into_iter()
            .fold(BatchBuilder::new(), |builder, number| builder.record(0, None, Some(&topic(number))));
        placed(offset, &builder.build())
    }

    fn footer(offset: i64) -> Vec<u8> {
        let footer = BatchBuilder::new().control().record(0, Some(&[0, 0, 0, 4]), Some(&[0, 0]));
        placed(offset, &footer.build())
    }

    fn placed(offset: i64, batch: &[u8]) -> Vec<u8> {
        [&offset.to_be_bytes(), &batch[8..]].concat()
    }

    fn disk(files: &[(&str, Vec<u8>)]) -> SimulatedDisk {
        let disk = SimulatedDisk::default();
        disk.create_dir_all(FOLDER.as_ref()).unwrap();
        for (name, content) in files {
            let file = disk.create(&Path::new(FOLDER).join(name)).unwrap();
            write_all_at(&*file, &mut [IoSlice::new(content)], 0).unwrap();
        }
        disk
    }

    fn told(files: &[(&str, Vec<u8>)]) -> Result<(Vec<String>, i64, u64), MetadataFault> {
        let told = read(&disk(files), FOLDER.as_ref())?;
        let names = told.image.topics.into_values().map(|topic| topic.name).collect();
        Ok((names, told.end_offset, told.torn_bytes))
    }

    const FIRST: &str = "00000000000000000000.log";

    #[test]
    fn a_log_that_is_cut_anywhere_tells_what_is_whole() {
        let batches = [batch(0, [1, 2]), footer(2), batch(3, [3])];
        let ends: Vec<usize> = batches
            .iter()
            .scan(0, |end, batch| {
                *end += batch.len();
                Some(*end)
            })
            .collect();
        let whole = batches.concat();
        for length in 0..=whole.len() {
            let (names, end, torn) = told(&[(FIRST, whole[..length].to_vec())]).unwrap();
            let complete = ends.iter().filter(|end| **end <= length).count();
            let expected: (&[&str], i64) =
                [(&[][..], 0), (&["t1", "t2"], 2), (&["t1", "t2"], 3), (&["t1", "t2", "t3"], 4)][complete];
            assert_eq!(
                (names.iter().map(String::as_str).collect::<Vec<_>>(), end),
                (expected.0.to_vec(), expected.1)
            );
            assert_eq!(torn as usize, length - ends[..complete].last().unwrap_or(&0));
        }
    }

    #[test]
    fn no_flipped_bit_makes_up_a_topic() {
        let whole = [batch(0, [1]), batch(1, [2])].concat();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            // Of a batch's header the epoch counts for nothing here.
            if let Ok((names, ..)) = told(&[(FIRST, flipped)]) {
                assert!(
                    ["t1", "t2"].starts_with(&names.iter().map(String::as_str).collect::<Vec<_>>()),
                    "{at}"
                );
            }
        }
    }

    #[test]
    fn the_newest_snapshot_stands_for_what_came_before_it() {
        let snapshot =
            |numbers: &[u8]| [batch(0, numbers.iter().copied()), footer(numbers.len() as i64)].concat();
        let files = [
            ("00000000000000000002-0000000001.checkpoint", snapshot(&[9])),
            ("00000000000000000004-0000000001.checkpoint", snapshot(&[1, 2])),
            (FIRST, batch(0, [7, 8, 7])),
            ("00000000000000000003.log", batch(3, [5, 6])),
            ("00000000000000000099-0000000001.checkpoint.part", vec![1]),
        ];
        assert_eq!(told(&files).unwrap(), (vec!["t1".to_owned(), "t2".to_owned(), "t6".to_owned()], 5, 0));
        assert_eq!(told(&files[1..2]).unwrap().1, 4);
    }

    #[test]
    fn what_is_missing_or_damaged_but_at_the_end_is_a_fault() {
        assert!(matches!(told(&[]), Err(MetadataFault::Absent)));
        let late = "00000000000000000003.log";
        let gap = told(&[(FIRST, batch(0, [1])), (late, batch(3, [2]))]);
        assert!(matches!(gap, Err(MetadataFault::Gap { found: 3, expected: 1, .. })), "{gap:?}");
        let mut damaged = batch(0, [1, 2, 3]);
        damaged[70] ^= 1;
        let middle = told(&[(FIRST, damaged), (late, batch(3, [2]))]);
        assert!(
            matches!(middle, Err(MetadataFault::Batch { fault: BatchFault::Checksum, .. })),
            "{middle:?}"
        );
        let overlap = told(&[(FIRST, [batch(0, [1]), batch(0, [2])].concat())]);
        assert!(matches!(overlap, Err(MetadataFault::Batch { fault: BatchFault::Offset { .. }, .. })));
        let snapshot = [batch(0, [1]), footer(1)].concat();
        let name = "00000000000000000004-0000000001.checkpoint";
        for length in 0..snapshot.len() {
            told(&[(name, snapshot[..length].to_vec())]).unwrap_err();
        }
        let later = BatchBuilder::new().record(0, None, Some(&[1, 2, 9, 0]));
        let later = told(&[(FIRST, later.build().to_vec())]);
        assert!(matches!(later, Err(MetadataFault::Record { .. })), "{later:?}");
    }
}
