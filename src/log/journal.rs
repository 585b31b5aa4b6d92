//! The commit journal of a log directory: what was appended to many partitions since they were last synced, in one file, so that
//! one sync makes it durable instead of one for each of them. The partitions' own files are synced later, before the journal's
//! place is used again.
//!
//! There are two files, used in turn, and used again from the start without being cut: a sync of bytes that have their place on
//! the disk already costs less than one that makes a file longer. An entry is
//!
//! ```text
//! crc (CRC-32C of all that follows) 4 | length 4 | generation 8 | segment 8 | position 8
//! | topic id 16 | partition 4 | length of the topic's name 2 | name | bytes
//! ```
//!
//! big-endian; the length is that of the bytes, which are those of the segment's file from that position on. One without bytes says
//! that what earlier ones have for segments below that one is void. All entries of a file that count have the generation of its
//! first one, in a row from its start. After an unclean stop [`replay`] brings them into the files.

use std::collections::{HashMap, hash_map};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut};

use super::LogError;
use super::partition::Partition;
use super::recovery::topic_id_of;
use super::segment::file_name;
use crate::storage::{Disk, DiskFile, read_file, write_all_at};
use crate::uuid::Uuid;

/// The names of the two files.
pub const JOURNAL_FILES: [&str; 2] = ["ottla-journal-0", "ottla-journal-1"];

/// Largest run of bytes of one partition that is worth writing twice.
pub const ENTRY_BYTES_MAX: u64 = 32 << 10;

/// Bytes that are written at once, at most.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// More than a file of the journal has, however it was configured.
const FILE_BYTES_LIMIT: u64 = 2 << 30;

/// A file grows by this part of its largest size, so that most syncs find its length unchanged.
const GROWTHS: u64 = 32;

/// What the buffer keeps between two writes.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

/// Bytes of an entry before the topic's name.
const HEADER_BYTES: usize = 54;

/// What entries of a partition are known by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Owner<'a> {
    pub topic: &'a str,
    pub topic_id: Uuid,
    pub partition: i32,
}

/// What the journal has of a segment.
#[derive(Clone, Copy, Debug)]
struct Entry<'a> {
    generation: u64,
    owner: Owner<'a>,
    segment: i64,
    position: u64,
    bytes: &'a [u8],
}

/// The writing side.
#[derive(Debug)]
pub struct Journal {
    /// Where a file is full; 0 if there is to be no journal.
    file_bytes_max: u64,
    files: [File; 2],
    active: usize,
    generation: u64,
    /// Entries that are being put together.
    buffer: Vec<u8>,
    has_ended: bool,
}

#[derive(Debug, Default)]
struct File {
    /// Made at the first use.
    file: Option<Arc<dyn DiskFile>>,
    /// Whether its name is durable.
    is_named: bool,
    /// Where the next entry goes.
    end: u64,
    length: u64,
    /// By address the partitions of which it has entries, and up to which offset their files must be synced before its place is
    /// used again.
    owed: HashMap<usize, (Arc<Partition>, i64)>,
}

impl Journal {
    /// Of two files of at most so many bytes each; with 0 it never has room.
    pub fn new(file_bytes_max: u64) -> Self {
        Self {
            file_bytes_max,
            files: Default::default(),
            active: 0,
            generation: 1,
            buffer: Vec::new(),
            has_ended: file_bytes_max == 0,
        }
    }

    /// Takes up that earlier entries of `owner` for segments below `segment` are void; must be all that is written.
    pub fn add_void(&mut self, owner: Owner<'_>, segment: i64) {
        self.begin();
        self.put_header(owner, (segment, 0), 0);
    }

    /// Begins a new write.
    pub fn begin(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
    }

    /// Takes up `length` bytes of a segment, at most [`ENTRY_BYTES_MAX`], which `read` fills in. Whether there is room for them
    /// in this write; if not, or after an error, nothing was taken up.
    pub fn add<E>(
        &mut self,
        owner: Owner<'_>,
        (segment, position): (i64, u64),
        length: usize,
        read: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        let start = self.buffer.len();
        let bytes_start = start + HEADER_BYTES + owner.topic.len();
        if bytes_start + length > WRITE_BYTES_MAX {
            return Ok(false);
        }
        self.put_header(owner, (segment, position), length);
        self.buffer.resize(bytes_start + length, 0);
        let read = read(&mut self.buffer[bytes_start..]);
        if read.is_err() {
            self.buffer.truncate(start);
        }
        read.map(|()| true)
    }

    /// Checksum and generation come when it is written.
    fn put_header(&mut self, owner: Owner<'_>, (segment, position): (i64, u64), length: usize) {
        self.buffer.put_u32(0);
        self.buffer.put_u32(length as u32);
        self.buffer.put_u64(0);
        self.buffer.put_i64(segment);
        self.buffer.put_u64(position);
        self.buffer.put_slice(&owner.topic_id.0);
        self.buffer.put_i32(owner.partition);
        self.buffer.put_u16(owner.topic.len() as u16);
        self.buffer.put_slice(owner.topic.as_bytes());
    }

    /// Whether nothing was taken up.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether what was taken up can be written: there is room in the file, or in the other one. If not, partitions must be
    /// synced first, which they have been told; or it has ended.
    pub fn has_room(&mut self) -> bool {
        let bytes = self.buffer.len() as u64;
        if self.has_ended || bytes > self.file_bytes_max {
            return false;
        }
        if self.files[self.active].end + bytes <= self.file_bytes_max {
            return true;
        }
        let other = &mut self.files[1 - self.active];
        other.owed.retain(|_, (partition, offset)| !partition.is_settled(*offset));
        if !other.owed.is_empty() {
            return false;
        }
        other.end = 0;
        for (partition, offset) in self.files[self.active].owed.values() {
            partition.settle_up_to(*offset);
        }
        self.active = 1 - self.active;
        self.generation += 1;
        true
    }

    /// Writes what was taken up, for which there must be room; it is durable when this returns, after `make_name_durable` where the
    /// file is new. `NoSpace` leaves the journal as it was.
    pub fn write(
        &mut self,
        disk: &dyn Disk,
        directory: &Path,
        make_name_durable: impl FnOnce() -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let path = directory.join(JOURNAL_FILES[self.active]);
        let writing = &mut self.files[self.active];
        let file = match &writing.file {
            Some(file) => Arc::clone(file),
            None => {
                let file = disk.create(&path).map_err(|source| LogError::disk(&path, source))?;
                Arc::clone(writing.file.insert(file))
            }
        };
        seal(&mut self.buffer, self.generation);
        let end = writing.end + self.buffer.len() as u64;
        if end > writing.length {
            let grown = end.next_multiple_of((self.file_bytes_max / GROWTHS).max(1));
            self.buffer.resize((grown - writing.end) as usize, 0);
        }
        write_all_at(&*file, &mut [IoSlice::new(&self.buffer)], writing.end)
            .map_err(|source| LogError::disk(&path, source))?;
        file.sync_data().map_err(|source| LogError::sync(&path, source))?;
        if !writing.is_named {
            make_name_durable()?;
            writing.is_named = true;
        }
        writing.length = writing.length.max(writing.end + self.buffer.len() as u64);
        writing.end = end;
        Ok(())
    }

    /// Notes that `partition` has entries in what was just written, up to an offset (exclusive).
    pub fn owes(&mut self, partition: &Arc<Partition>, offset: i64) {
        let owed = &mut self.files[self.active].owed;
        owed.insert(Arc::as_ptr(partition) as usize, (Arc::clone(partition), offset));
    }

    /// Lets go of the partitions; nothing more is written.
    pub fn end(&mut self) {
        self.has_ended = true;
        self.files.iter_mut().for_each(|file| file.owed.clear());
    }
}

/// Gives the entries in `buffer` their generation and checksums.
fn seal(buffer: &mut [u8], generation: u64) {
    let mut rest = buffer;
    while !rest.is_empty() {
        let length = (&rest[4..]).get_u32() as usize + (&rest[HEADER_BYTES - 2..]).get_u16() as usize;
        let (entry, behind) = rest.split_at_mut(HEADER_BYTES + length);
        (&mut entry[8..16]).put_u64(generation);
        let crc = crc32c::crc32c(&entry[4..]);
        (&mut entry[..4]).put_u32(crc);
        rest = behind;
    }
}

/// The entries that count in a file of the journal.
fn entries_of(mut file: &[u8]) -> Vec<Entry<'_>> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    while let Some((entry, behind)) = next_entry(file)
        && entries.first().is_none_or(|first| first.generation == entry.generation)
    {
        entries.push(entry);
        file = behind;
    }
    entries
}

/// The entry that `file` begins with, if it is whole, and what comes after it.
fn next_entry(file: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let mut header = file.get(..HEADER_BYTES)?;
    let crc = header.get_u32();
    let length = header.get_u32() as usize;
    let generation = header.get_u64();
    let segment = header.get_i64();
    let position = header.get_u64();
    let mut topic_id = Uuid::default();
    header.copy_to_slice(&mut topic_id.0);
    let partition = header.get_i32();
    let name_end = HEADER_BYTES + usize::from(header.get_u16());
    let end = name_end.checked_add(length)?;
    if crc32c::crc32c(file.get(4..end)?) != crc {
        return None;
    }
    let topic = std::str::from_utf8(&file[HEADER_BYTES..name_end]).ok()?;
    let owner = Owner { topic, topic_id, partition };
    Some((Entry { generation, owner, segment, position, bytes: &file[name_end..end] }, &file[end..]))
}

/// Of each entry, whether a later one makes it void.
fn voided(entries: &[Entry<'_>]) -> Vec<bool> {
    let mut void_below: HashMap<Owner<'_>, i64> = HashMap::new();
    let mut voided: Vec<bool> = entries
        .iter()
        .rev()
        .map(|entry| {
            let below = void_below.entry(entry.owner).or_insert(i64::MIN);
            if entry.bytes.is_empty() {
                *below = entry.segment.max(*below);
            }
            entry.bytes.is_empty() || entry.segment < *below
        })
        .collect();
    voided.reverse();
    voided
}

/// Before any partition is opened after an unclean stop: makes durable in the segments' files what the journal has, and takes the
/// journal away. `is_in_files`: whether the files have it all already, for the machine has not died. How many files it was.
pub fn replay(disk: &dyn Disk, directory: &Path, is_in_files: bool) -> Result<usize, LogError> {
    let mut files = Vec::new();
    for path in JOURNAL_FILES.map(|name| directory.join(name)) {
        match read_file(disk, &path, FILE_BYTES_LIMIT) {
            Ok(bytes) => files.push(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(LogError::disk(&path, source)),
        }
    }
    if files.is_empty() {
        return Ok(0);
    }
    let mut journals: Vec<_> = files.iter().map(|file| entries_of(file)).collect();
    journals.sort_by_key(|entries| entries.first().map(|first| first.generation));
    let entries = journals.concat();
    // By what an entry says of its place; `None` where that is not in the log any more.
    let mut targets: HashMap<(Owner<'_>, i64), Option<Target>> = HashMap::new();
    for (entry, is_void) in entries.iter().zip(voided(&entries)) {
        if is_void {
            continue;
        }
        let target = match targets.entry((entry.owner, entry.segment)) {
            hash_map::Entry::Occupied(known) => known.into_mut(),
            hash_map::Entry::Vacant(new) => new.insert(Target::of(disk, directory, entry)?),
        };
        if let (Some(target), false) = (target, is_in_files) {
            target.write(entry.bytes, entry.position)?;
        }
    }
    let targets: Vec<Target> = targets.into_values().flatten().collect();
    for target in &targets {
        target.file.sync_data().map_err(|source| LogError::sync(&target.path, source))?;
    }
    forget(disk, directory)?;
    disk.sync_dir(directory).map_err(|source| LogError::sync(directory, source))?;
    Ok(targets.len())
}

/// A segment's file that the journal has bytes of.
struct Target {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
    is_named: bool,
}

impl Target {
    /// `None` if the folder is gone, or another topic's, or the log begins later now.
    fn of(disk: &dyn Disk, directory: &Path, entry: &Entry<'_>) -> Result<Option<Self>, LogError> {
        let Owner { topic, topic_id, partition } = entry.owner;
        let folder = directory.join(format!("{topic}-{partition}"));
        let named = topic_id_of(disk, &folder)?;
        if named.is_some_and(|other| other != topic_id) {
            return Ok(None);
        }
        let path = folder.join(file_name(entry.segment, "log"));
        let opened = disk.open(&path).and_then(|file| Ok((file.length()?, file)));
        match opened {
            Ok((length, file)) => Ok(Some(Self { path, file, length, is_named: named.is_some() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LogError::disk(&path, source)),
        }
    }

    fn write(&mut self, bytes: &[u8], position: u64) -> Result<(), LogError> {
        // A folder that does not say whose it is may be that of a new topic, none of which is on the disk yet.
        if self.is_named || position <= self.length {
            write_all_at(&*self.file, &mut [IoSlice::new(bytes)], position)
                .map_err(|source| LogError::disk(&self.path, source))?;
            self.length = self.length.max(position + bytes.len() as u64);
        }
        Ok(())
    }
}

/// Takes the journal's files away, if there are any: everything that they have is durable elsewhere.
pub fn forget(disk: &dyn Disk, directory: &Path) -> Result<(), LogError> {
    for path in JOURNAL_FILES.map(|name| directory.join(name)) {
        match disk.remove(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(LogError::disk(&path, source)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{
        Fixture, TOPIC, TOPIC_ID, append, batch, commit, end_offset, eventually, headers, run,
    };
    use super::super::{DirectoryOptions, LogDirectory, Partition};
    use super::*;
    use crate::clock::Clock;
    use crate::storage::simulated::SimulatedDisk;

    const OWNER: Owner<'static> = Owner { topic: TOPIC, topic_id: TOPIC_ID, partition: 0 };

    fn open(disk: &SimulatedDisk, journal_bytes: u64) -> Arc<LogDirectory> {
        let options = DirectoryOptions { journal_bytes, flush_threads: 1, ..DirectoryOptions::new("/data") };
        LogDirectory::open(options, Arc::new(disk.clone()), Clock::system()).unwrap()
    }

    fn partitions(directory: &Arc<LogDirectory>, count: i32) -> Vec<Arc<Partition>> {
        let partitions: Vec<_> = (0..count)
            .map(|index| directory.partition(TOPIC, TOPIC_ID, index, 0, Arc::new(commit())))
            .collect();
        let recovered = directory.recover(&partitions);
        assert!(recovered.failed.is_empty() && recovered.cuts.is_empty(), "{recovered:?}");
        partitions
    }

    /// Of what was not synced nothing is left.
    fn lose(disk: &SimulatedDisk, directory: Arc<LogDirectory>, partitions: Vec<Arc<Partition>>) {
        drop(partitions);
        drop(directory);
        disk.power_cut_at_its_worst();
    }

    fn is_there(disk: &SimulatedDisk) -> bool {
        let entries = disk.list("/data".as_ref()).unwrap();
        entries.iter().any(|entry| JOURNAL_FILES.contains(&&*entry.name))
    }

    #[test]
    fn one_sync_makes_durable_what_many_partitions_wait_for() {
        let disk = SimulatedDisk::default();
        let directory = open(&disk, 1 << 20);
        let all = partitions(&directory, 20);
        all.iter().for_each(|partition| assert!(append(partition, batch(1)).is_ok()));
        // The first append to each has made files and names.
        disk.hold_syncs();
        let ends: Vec<_> =
            all.iter().map(|partition| partition.append(batch(2)).unwrap().last_offset + 1).collect();
        eventually("the first of them waits", || disk.syncs_waiting() == 1);
        let before = disk.file_syncs();
        disk.release_syncs();
        for (partition, end) in all.iter().zip(ends) {
            run(partition.durable(end)).unwrap();
        }
        assert!(disk.file_syncs() - before <= 2, "{} syncs", disk.file_syncs() - before);
        lose(&disk, directory, all);
        let directory = open(&disk, 1 << 20);
        let all = partitions(&directory, 20);
        assert!(all.iter().all(|partition| end_offset(partition) == 3 && headers(partition, 0).len() == 2));
        assert!(!is_there(&disk), "it is in the files now");
        // Twice the same is no different.
        lose(&disk, directory, all);
        let directory = open(&disk, 1 << 20);
        assert!(partitions(&directory, 20).iter().all(|partition| end_offset(partition) == 3));
    }

    #[test]
    fn its_place_is_used_again_once_the_files_are_synced() {
        for appended in 1..60 {
            let disk = SimulatedDisk::default();
            let directory = open(&disk, 1000);
            let all = partitions(&directory, 3);
            for number in 0..appended {
                append(&all[number % 3], batch(1)).unwrap();
            }
            let longest = JOURNAL_FILES.map(|name| {
                disk.content(Path::new("/data").join(name).as_ref()).map_or(0, |content| content.len())
            });
            assert!(longest.iter().all(|length| *length <= 1000 + 1000 / GROWTHS as usize), "{longest:?}");
            lose(&disk, directory, all);
            let directory = open(&disk, 1000);
            let all = partitions(&directory, 3);
            let left: i64 = all.iter().map(|partition| end_offset(partition)).sum();
            assert_eq!(left, appended as i64);
        }
    }

    #[test]
    fn a_clean_stop_leaves_none() {
        let fixture = Fixture::new();
        let partition = fixture.partition(commit());
        (0..3).for_each(|_| assert!(append(&partition, batch(1)).is_ok()));
        assert!(is_there(&fixture.disk));
        drop(partition);
        let fixture = fixture.stop();
        assert!(fixture.directory.was_clean() && !is_there(&fixture.disk));
        assert_eq!(end_offset(&fixture.partition(commit())), 3);
    }

    #[test]
    fn without_a_place_for_it_files_are_synced() {
        let disk = SimulatedDisk::default();
        let directory = open(&disk, 0);
        let all = partitions(&directory, 2);
        (0..4).for_each(|number| assert!(append(&all[number % 2], batch(1)).is_ok()));
        assert!(!is_there(&disk));
        lose(&disk, directory, all);
        let directory = open(&disk, 0);
        assert!(partitions(&directory, 2).iter().all(|partition| end_offset(partition) == 2));
    }

    #[test]
    fn a_topic_gets_nothing_of_one_that_had_its_name() {
        let disk = SimulatedDisk::default();
        let directory = open(&disk, 1 << 20);
        let all = partitions(&directory, 1);
        (0..5).for_each(|_| assert!(append(&all[0], batch(1)).is_ok()));
        directory.delete(&all[0]).unwrap();
        let other = directory.partition(TOPIC, Uuid([9; 16]), 0, 0, Arc::new(commit()));
        append(&other, batch(1)).unwrap();
        drop(other);
        lose(&disk, directory, all);
        let directory = open(&disk, 1 << 20);
        let other = directory.partition(TOPIC, Uuid([9; 16]), 0, 0, Arc::new(commit()));
        assert!(directory.recover(std::slice::from_ref(&other)).failed.is_empty());
        assert_eq!((end_offset(&other), headers(&other, 0).len()), (1, 1));
    }

    #[test]
    fn what_is_void_or_damaged_does_not_count() {
        let mut journal = Journal::new(1 << 20);
        let mut add = |segment, position, bytes: &[u8]| {
            let add = |buffer: &mut [u8]| {
                buffer.copy_from_slice(bytes);
                Ok::<_, ()>(())
            };
            assert_eq!(journal.add(OWNER, (segment, position), bytes.len(), add), Ok(true));
        };
        add(0, 0, b"first");
        add(7, 0, b"second");
        add(7, 0, b"");
        add(0, 5, b"third");
        add(9, 0, b"fourth");
        let mut file = std::mem::take(&mut journal.buffer);
        seal(&mut file, 3);
        let entries = entries_of(&file);
        let found: Vec<_> =
            entries.iter().map(|entry| (entry.segment, entry.position, entry.bytes)).collect();
        let expected: [(i64, u64, &[u8]); 5] =
            [(0, 0, b"first"), (7, 0, b"second"), (7, 0, b""), (0, 5, b"third"), (9, 0, b"fourth")];
        assert_eq!(found, expected);
        assert!(entries.iter().all(|entry| entry.owner == OWNER && entry.generation == 3));
        assert_eq!(voided(&entries), [true, false, true, false, false]);
        // An older generation lies behind the newer one; a flipped bit ends what can be believed; a torn one is none.
        let whole = file.len();
        let mut older = file.clone();
        seal(&mut older, 2);
        assert_eq!(entries_of(&[&file[..], &older].concat()).len(), 5);
        for at in 0..whole {
            let mut flipped = file.clone();
            flipped[at] ^= 4;
            let left = entries_of(&flipped);
            assert!(
                left.len() < 5 && left.iter().zip(&entries).all(|(left, entry)| left.bytes == entry.bytes)
            );
            assert!(entries_of(&file[..at]).len() < 5);
        }
        let mut random = fastrand::Rng::with_seed(1);
        for length in 0..300 {
            let noise: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            assert!(entries_of(&noise).is_empty());
        }
    }
}
