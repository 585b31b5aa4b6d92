//! A compacted log under random use and random deaths, compared with all that was ever appended.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::cleaner::CleanerConfig;
use super::super::config::tests::config;
use super::super::fixture::{Fixture, NOW_MS, TOPIC_ID, append, bytes, eventually, headers, log_file, path};
use super::super::segment::Visible;
use super::super::{FlushMode, LogConfig, LogError, Partition, ReplayError, replay};
use super::keys::ENTRY_BYTES;
use crate::record::range::Reads;
use crate::record::records::{records, split_batch};
use crate::record::{BatchBuilder, BatchHeader, Codec, HEADER_BYTES, ValidBatch};
use crate::storage::{Disk, write_all_at};

const RETENTION_MS: i64 = 1000;

fn compacted(flush: FlushMode) -> LogConfig {
    LogConfig {
        compact: true,
        delete: false,
        flush,
        segment_bytes: 600,
        index_interval_bytes: 100,
        file_delete_delay_ms: 0,
        delete_retention_ms: RETENTION_MS,
        min_cleanable_dirty_ratio: 0.0,
        ..config()
    }
}

/// A cleaner whose map holds so many keys.
fn cleaner(keys: u64) -> CleanerConfig {
    CleanerConfig {
        threads: 1,
        dedupe_buffer_bytes: (keys + 2) * ENTRY_BYTES,
        load_factor: 1.0,
        ..CleanerConfig::default()
    }
}

const ALL_KEYS: u64 = 1000;

/// Cleans until nothing is to be cleaned.
fn clean(partition: &Partition, config: &CleanerConfig) {
    while partition.directory.clean_dirtiest(config) {}
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Stored {
    offset: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
    timestamp: i64,
}

fn stored(partition: &Partition) -> Vec<Stored> {
    let mut records = Vec::new();
    replay(partition, |record| {
        let crate::record::Record { offset, timestamp, key, value, .. } = record;
        records.push(Stored { offset, key, value, timestamp });
        Ok::<_, ReplayError>(())
    })
    .unwrap();
    records
}

#[derive(Clone, Debug)]
enum Step {
    /// Records of these keys, with a value or without one.
    Append {
        records: Vec<(u8, bool)>,
        codec: u8,
        idempotent: bool,
    },
    Clean {
        keys: u64,
    },
    /// A cleaning that dies after so many changes on the disk; the machine with it, by this seed, or only the process.
    DieCleaning {
        changes: usize,
        power_cut: Option<u64>,
    },
    DeleteRecords {
        share: u8,
    },
    Wait {
        ms: i64,
    },
    Kill,
    Stop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let records = || proptest::collection::vec((0u8..6, prop::bool::weighted(0.7)), 1..4);
    let step = prop_oneof![
        14 => (records(), 0u8..5, any::<bool>())
            .prop_map(|(records, codec, idempotent)| Step::Append { records, codec, idempotent }),
        2 => prop_oneof![Just(ALL_KEYS), 1..5u64].prop_map(|keys| Step::Clean { keys }),
        3 => (0..60usize, any::<Option<u64>>())
            .prop_map(|(changes, power_cut)| Step::DieCleaning { changes, power_cut }),
        1 => any::<u8>().prop_map(|share| Step::DeleteRecords { share }),
        1 => (0..2 * RETENTION_MS).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ];
    proptest::collection::vec(step, 1..80)
}

struct Model {
    fixture: Option<Fixture>,
    config: Arc<LogConfig>,
    partition: Arc<Partition>,
    appended: Vec<Stored>,
    log_start: i64,
    /// Id and next sequence of the idempotent producer, and where its last batch is.
    producer: (i64, i32),
    last_of_producer: i64,
}

impl Model {
    fn new(config: LogConfig) -> Self {
        let fixture = Fixture::new();
        let config = Arc::new(config);
        let partition = fixture.directory.partition("t", TOPIC_ID, 0, 0, Arc::clone(&config));
        Self {
            fixture: Some(fixture),
            config,
            partition,
            appended: Vec::new(),
            log_start: 0,
            producer: (0, 0),
            last_of_producer: 0,
        }
    }

    fn append(&mut self, records: &[(u8, bool)], codec: Codec, idempotent: bool) {
        let now_ms = self.fixture().clock.now_ms();
        let mut batch = BatchBuilder::new().codec(codec);
        let base_offset = self.appended.len() as i64;
        for (place, (key, has_value)) in records.iter().enumerate() {
            let offset = base_offset + place as i64;
            let timestamp = now_ms - place as i64 * 7;
            let value = has_value.then(|| Bytes::from(format!("{offset:040}")));
            let key = Bytes::from(format!("key {key}"));
            batch.push(timestamp, Some(&key), value.as_deref(), &[("h", Some(b"1"))]);
            self.appended.push(Stored { offset, key: Some(key), value, timestamp });
        }
        if idempotent {
            batch = batch.producer(self.producer.0, 0, self.producer.1);
        }
        let batch = batch.build_valid();
        assert_eq!(append(&self.partition, batch.clone()).unwrap(), base_offset);
        if idempotent {
            self.producer.1 += records.len() as i32;
            self.last_of_producer = base_offset;
            let again = self.partition.append(batch).unwrap();
            assert!(again.duplicate && again.base_offset == base_offset);
        }
    }

    fn fixture(&self) -> &Fixture {
        self.fixture.as_ref().unwrap()
    }

    fn reopen(&mut self, with: impl FnOnce(Fixture) -> Fixture) {
        if self.last_of_producer < self.log_start {
            // A start knows no more than the log and its newest snapshot.
            self.producer = (self.producer.0 + 1, 0);
        }
        let now_ms = self.fixture().clock.now_ms();
        let fixture = self.fixture.take().map(with).unwrap();
        fixture.clock.set(now_ms);
        self.partition = fixture.directory.partition("t", TOPIC_ID, 0, 0, Arc::clone(&self.config));
        if !fixture.directory.was_clean() {
            assert!(fixture.recover(&self.partition).is_empty(), "compaction damages nothing");
        }
        self.fixture = Some(fixture);
    }

    /// What must hold at any time.
    fn check(&self) {
        let offsets = self.partition.offsets().unwrap();
        assert_eq!(offsets.log_end_offset, self.appended.len() as i64, "offsets never change");
        assert_eq!(offsets.log_start_offset, self.log_start);
        let found = stored(&self.partition);
        assert!(found.is_sorted_by(|left, right| left.offset < right.offset), "{found:?}");
        let mut last: HashMap<_, _> = HashMap::new();
        for record in &found {
            assert_eq!(*record, self.appended[record.offset as usize]);
            last.insert(record.key.clone(), record);
        }
        for headers in headers(&self.partition, self.log_start).windows(2) {
            assert!(headers[0].last_offset() < headers[1].base_offset, "{headers:?}");
        }
        let newest: BTreeMap<_, _> =
            self.appended.iter().map(|record| (record.key.clone(), record)).collect();
        for (key, newest) in newest.iter().filter(|(_, newest)| newest.offset >= self.log_start) {
            match last.get(key) {
                Some(found) => assert_eq!(found, newest, "the newest is the last"),
                None => {
                    assert_eq!(newest.value, None, "{newest:?} is gone");
                    let age_ms = self.fixture().clock.now_ms() - newest.timestamp;
                    assert!(age_ms >= RETENTION_MS, "{newest:?} went too early");
                }
            }
        }
        // Where consumers begin need not be where a batch is.
        for offset in self.log_start..offsets.high_watermark {
            let read = bytes(&self.partition.read(offset, 1, true).unwrap().ranges);
            let header = BatchHeader::parse(&read).unwrap();
            assert!(
                header.last_offset() >= offset
                    && header.crc == header.checksum(&read[HEADER_BYTES..header.size_bytes()])
            );
        }
    }

    /// What must hold after a round that saw everything: of each key one record below the active segment.
    fn check_clean(&self) {
        let active = self.partition.view.lock().segments.last().map_or(0, |active| active.base_offset());
        let mut seen = HashMap::new();
        for record in stored(&self.partition).into_iter().filter(|record| record.offset < active) {
            if let Some(before) = seen.insert(record.key.clone(), record.offset) {
                panic!("{:?} at {before} and at {}", record.key, record.offset);
            }
        }
    }

    fn live(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Append { records, codec, idempotent } => {
                    self.append(&records, Codec::from_id(codec).unwrap(), idempotent);
                }
                Step::Clean { keys } => {
                    clean(&self.partition, &cleaner(keys));
                    if keys == ALL_KEYS && self.partition.directory.cleaner.uncleanable() == 0 {
                        self.check_clean();
                    }
                }
                Step::DieCleaning { changes, power_cut } => {
                    self.fixture().disk.fail_changes_after(changes);
                    clean(&self.partition, &cleaner(ALL_KEYS));
                    self.reopen(|fixture| {
                        fixture.disk.mend_changes();
                        match power_cut {
                            Some(seed) => fixture.cut_power(seed),
                            None => fixture.kill(),
                        }
                    });
                }
                Step::DeleteRecords { share } => {
                    let end = self.partition.offsets().unwrap().high_watermark;
                    let before = self.log_start + (end - self.log_start) * i64::from(share) / 256;
                    self.log_start = self.partition.delete_records(before).unwrap();
                }
                Step::Wait { ms } => self.fixture().clock.set(self.fixture().clock.now_ms() + ms),
                Step::Kill => self.reopen(Fixture::kill),
                Step::Stop => self.reopen(Fixture::stop),
            }
            self.check();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_newest_of_each_key_survives_whatever_dies_in_commit_mode(steps in steps()) {
        Model::new(compacted(FlushMode::Commit)).live(steps);
    }

    #[test]
    fn the_newest_of_each_key_survives_whatever_process_dies_in_os_mode(steps in steps()) {
        let survivable = |step: Step| match step {
            Step::DieCleaning { changes, .. } => Step::DieCleaning { changes, power_cut: None },
            step => step,
        };
        Model::new(compacted(FlushMode::Os)).live(steps.into_iter().map(survivable).collect());
    }
}

/// A log of many segments in which keys come again and again.
fn written() -> Model {
    let mut model = Model::new(compacted(FlushMode::Commit));
    for number in 0..24u8 {
        model.append(&[(number % 5, number % 7 != 0), (number % 3, true)], Codec::None, number % 2 == 0);
    }
    model
}

#[test]
fn a_death_at_each_change_of_the_disk_leaves_the_old_or_the_new() {
    for (seed, step) in [(None, 1), (Some(1), 1), (Some(2), 3)] {
        for changes in (0..).step_by(step) {
            let mut model = written();
            model.fixture().disk.fail_changes_after(changes);
            clean(&model.partition, &cleaner(ALL_KEYS));
            let died = model.fixture().disk.mend_changes();
            model.reopen(|fixture| match seed {
                Some(seed) => fixture.cut_power(seed + changes as u64 * 10),
                None => fixture.kill(),
            });
            model.check();
            clean(&model.partition, &cleaner(ALL_KEYS));
            model.check_clean();
            model.check();
            model.append(&[(1, true)], Codec::None, true);
            if !died {
                break;
            }
        }
    }
}

#[test]
fn a_reader_of_a_segment_that_is_replaced_reads_it_to_its_end_and_then_what_replaced_it() {
    let model = written();
    let old = model.partition.view.lock().segments.clone();
    assert!(old.len() > 4);
    let before: Vec<_> = old[..2].iter().map(|segment| segment.file().unwrap().length().unwrap()).collect();
    clean(&model.partition, &cleaner(ALL_KEYS));
    for (segment, bytes) in old[..2].iter().zip(before) {
        assert_eq!(segment.size_bytes().unwrap(), bytes);
        let base_offset = segment.base_offset();
        let epochs = Arc::clone(&model.partition.view.lock().epochs);
        let all = Visible { end: bytes, offset_end: i64::MAX, is_full: false, epochs };
        let served = segment.serve(base_offset + 1, &all, u64::MAX, Reads::All).unwrap().unwrap();
        assert_eq!(
            (served.position, served.end),
            (0, bytes),
            "without the index that is another segment's now"
        );
        let mut header = [0; HEADER_BYTES];
        segment.file().unwrap().read_at(&mut header, 0).unwrap();
        assert_eq!(BatchHeader::parse(&header).unwrap().base_offset, base_offset);
    }
    model.check();
}

#[test]
fn segments_become_few_and_their_old_files_go() {
    let mut model = written();
    let folder = "/data/t-0".as_ref();
    let logs = |model: &Model| {
        let entries = model.fixture().disk.list(folder).unwrap();
        entries.iter().filter(|entry| entry.name.ends_with(".log")).count()
    };
    let before = logs(&model);
    clean(&model.partition, &cleaner(ALL_KEYS));
    (0..12).for_each(|_| model.append(&[(5, true)], Codec::None, false));
    // Only now are there small segments: the groups of a round are made by the sizes before it.
    clean(&model.partition, &cleaner(ALL_KEYS));
    assert!(logs(&model) < before, "{} of {before} and three more", logs(&model));
    eventually("nothing is left beside the log", || {
        let entries = model.fixture().disk.list(folder).unwrap();
        !entries
            .iter()
            .any(|entry| [".deleted", ".cleaned", ".swap"].iter().any(|suffix| entry.name.ends_with(suffix)))
    });
    let end = model.partition.view.lock().segments.last().unwrap().base_offset();
    let text = model.fixture().disk.content("/data/cleaner-offset-checkpoint".as_ref()).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), format!("0\n1\nt 0 {end}\n"));
}

#[test]
fn tombstones_stay_for_their_time_and_then_go() {
    let mut model = Model::new(compacted(FlushMode::Commit));
    model.append(&[(0, true), (1, true)], Codec::Gzip, false);
    model.append(&[(0, false)], Codec::Gzip, false);
    let fill = |model: &mut Model| (0..12).for_each(|_| model.append(&[(5, true)], Codec::None, false));
    let has_tombstone = |model: &Model| stored(&model.partition).iter().any(|record| record.value.is_none());
    fill(&mut model);
    clean(&model.partition, &cleaner(ALL_KEYS));
    assert!(has_tombstone(&model));
    let with_horizon = |model: &Model| {
        let headers = headers(&model.partition, 0);
        headers.iter().filter_map(BatchHeader::delete_horizon_ms).collect::<Vec<_>>()
    };
    assert_eq!(with_horizon(&model), [NOW_MS + RETENTION_MS]);
    model.fixture().clock.set(NOW_MS + RETENTION_MS - 1);
    fill(&mut model);
    clean(&model.partition, &cleaner(ALL_KEYS));
    assert!(has_tombstone(&model));
    model.fixture().clock.set(NOW_MS + RETENTION_MS);
    fill(&mut model);
    clean(&model.partition, &cleaner(ALL_KEYS));
    assert!(!has_tombstone(&model));
    assert!(with_horizon(&model).is_empty());
    model.check();
}

#[test]
fn a_damaged_batch_ends_compaction_of_its_log_and_nothing_else() {
    let model = written();
    let log = "/data/t-0/00000000000000000000.log".as_ref();
    model.fixture().disk.flip(log, 70, 1).unwrap();
    let before = model.fixture().disk.content(log).unwrap();
    clean(&model.partition, &cleaner(ALL_KEYS));
    assert_eq!(model.partition.directory.cleaner.uncleanable(), 1);
    assert_eq!(model.fixture().disk.content(log).unwrap(), before);
    assert!(
        !model
            .fixture()
            .disk
            .list("/data/t-0".as_ref())
            .unwrap()
            .iter()
            .any(|entry| entry.name.ends_with("cleaned"))
    );
    append(&model.partition, keyed(None, None)).unwrap();
}

#[test]
fn no_space_is_waited_for() {
    let model = written();
    model.fixture().disk.fail_writes_after(200, rustix::io::Errno::NOSPC);
    clean(&model.partition, &cleaner(ALL_KEYS));
    model.fixture().disk.mend_writes();
    assert_eq!(model.partition.directory.cleaner.uncleanable(), 0);
    clean(&model.partition, &cleaner(ALL_KEYS));
    model.check_clean();
    model.check();
}

fn keyed(key: Option<&[u8]>, value: Option<&[u8]>) -> ValidBatch {
    BatchBuilder::new().record(NOW_MS, key, value).build_valid()
}

/// Appends until the segment in hand is closed.
fn roll(partition: &Partition) {
    let active = || partition.view.lock().segments.last().map(|segment| segment.base_offset());
    let before = active();
    while active() == before {
        append(partition, keyed(Some(b"filling"), Some(&[b'v'; 60]))).unwrap();
    }
}

#[test]
fn records_without_a_key_go() {
    let fixture = Fixture::new();
    let partition = fixture.partition(compacted(FlushMode::Commit));
    append(&partition, keyed(None, Some(b"v"))).unwrap();
    append(&partition, keyed(Some(b""), Some(b"an empty key is a key"))).unwrap();
    roll(&partition);
    clean(&partition, &cleaner(ALL_KEYS));
    assert_eq!(stored(&partition)[0].offset, 1);
}

#[test]
fn more_keys_than_the_map_holds_take_more_rounds_and_a_batch_of_too_many_is_reported() {
    let fixture = Fixture::new();
    let partition = fixture.partition(compacted(FlushMode::Commit));
    for number in 0..20u8 {
        append(&partition, keyed(Some(&[number % 10]), Some(b"v"))).unwrap();
    }
    roll(&partition);
    clean(&partition, &cleaner(3));
    let left: Vec<_> = stored(&partition).iter().map(|record| record.offset).take(10).collect();
    assert_eq!(left, (10..20).collect::<Vec<_>>());
    let large = (0..9u8).fold(BatchBuilder::new(), |builder, key| builder.record(NOW_MS, Some(&[key]), None));
    append(&partition, large.build_valid()).unwrap();
    roll(&partition);
    clean(&partition, &cleaner(3));
    assert_eq!(partition.directory.cleaner.uncleanable(), 1);
}

/// The bytes of transactions, one behind the other, each data under these keys and its marker: producer, keys, first sequence,
/// whether it commits. No client can write markers yet, but Kafka's directories have them.
fn transactions(transactions: &[(i64, &[&[u8]], i32, bool)]) -> Vec<u8> {
    let mut log = Vec::new();
    let mut next = 0;
    for (producer, keys, sequence, commits) in transactions {
        let data =
            keys.iter().fold(BatchBuilder::new(), |data, key| data.record(NOW_MS, Some(key), Some(b"v")));
        let marker = BatchBuilder::new().record(NOW_MS, Some(&[0, 0, 0, u8::from(*commits)]), Some(&[0; 6]));
        for batch in [data.producer(*producer, 0, *sequence), marker.producer(*producer, 0, -1).control()] {
            let mut batch = batch.transactional().build_valid();
            batch.assign(next, 0);
            next = batch.header().last_offset() + 1;
            log.extend(batch.to_bytes());
        }
    }
    log
}

#[test]
fn aborted_data_goes_at_once_and_markers_when_their_data_has_been_gone_for_long_enough() {
    let fixture = Fixture::new();
    // Both producers go on, so that nothing is kept as the last of a live one.
    let log = transactions(&[
        (3, &[b"a"], 0, true),
        (1, &[b"a", b"b"], 0, false),
        (2, &[b"c"], 0, true),
        (2, &[b"c"], 1, true),
        (1, &[b"d"], 2, true),
    ]);
    let (aborted, abort, commit) = (2, 4, 6);
    let index = super::transactions::AbortedTransaction {
        producer_id: 1,
        first_offset: aborted,
        last_offset: abort,
        last_stable_offset: abort + 1,
    };
    fixture.disk.create_dir_all(&path("")).unwrap();
    for (name, bytes) in [("log", &log[..]), ("txnindex", &index.encode())] {
        let file = fixture.disk.create(&path(&format!("{:020}.{name}", 0))).unwrap();
        write_all_at(&*file, &mut [std::io::IoSlice::new(bytes)], 0).unwrap();
    }
    let partition = fixture.partition(compacted(FlushMode::Commit));
    assert_eq!(partition.offsets().unwrap().log_end_offset, 11);
    let there = |offset: i64| headers(&partition, 0).iter().any(|header| header.base_offset == offset);
    let has_index = || fixture.disk.content(&path("00000000000000000000.txnindex"));

    roll(&partition);
    clean(&partition, &cleaner(ALL_KEYS));
    assert_eq!(stored(&partition)[0].offset, 0, "what was aborted replaces nothing");
    assert!(!there(aborted) && there(abort), "the marker stays while consumers may still hold its data");
    assert_eq!(has_index().unwrap(), index.encode());
    assert!(there(commit), "its data was there when the round began");

    // A round that finds no data gives the markers their time, and one after that takes them.
    roll(&partition);
    clean(&partition, &cleaner(ALL_KEYS));
    assert!(there(abort) && there(commit) && has_index().is_err());
    fixture.clock.set(NOW_MS + RETENTION_MS);
    roll(&partition);
    clean(&partition, &cleaner(ALL_KEYS));
    assert!(!there(abort) && !there(commit));
}

#[test]
fn an_open_transaction_is_left_alone() {
    let fixture = Fixture::new();
    let partition = fixture.partition(compacted(FlushMode::Commit));
    append(&partition, keyed(Some(b"a"), Some(b"1"))).unwrap();
    append(&partition, keyed(Some(b"a"), Some(b"2"))).unwrap();
    roll(&partition);
    let open = BatchBuilder::new().record(NOW_MS, Some(b"a"), None).producer(1, 0, 0).transactional();
    append(&partition, open.build_valid()).unwrap();
    append(&partition, keyed(Some(b"a"), Some(b"3"))).unwrap();
    append(&partition, keyed(Some(b"a"), Some(b"4"))).unwrap();
    roll(&partition);
    clean(&partition, &cleaner(ALL_KEYS));
    let left: Vec<_> =
        stored(&partition).into_iter().filter(|record| record.key.as_deref() == Some(b"a")).collect();
    let values: Vec<_> = left.iter().map(|record| record.value.as_deref()).collect();
    assert_eq!(values, [Some(&b"2"[..]), None, Some(b"3"), Some(b"4")]);
}

#[test]
fn idle_partitions_are_looked_at_once_and_opened_only_if_they_are_dirty() {
    let fixture = Fixture::new();
    let config = Arc::new(compacted(FlushMode::Commit));
    let open = |fixture: &Fixture, topic: &str, config: &Arc<LogConfig>| {
        fixture.directory.partition(topic, TOPIC_ID, 0, 0, Arc::clone(config))
    };
    let (dirty, small) = (open(&fixture, "dirty", &config), open(&fixture, "small", &config));
    let deleted = Arc::new(LogConfig { compact: false, ..(*config).clone() });
    let other = open(&fixture, "other", &deleted);
    (0..3).for_each(|_| roll(&dirty));
    (0..3).for_each(|_| roll(&other));
    append(&small, keyed(Some(b"a"), None)).unwrap();
    let (never, names) = (open(&fixture, "never", &config), ["dirty", "small", "never"]);
    drop((dirty, small, other, never));
    let fixture = fixture.stop();
    let partitions = names.map(|name| open(&fixture, name, &config));
    let other = open(&fixture, "other", &deleted);
    clean(&partitions[0], &cleaner(ALL_KEYS));
    assert_eq!(partitions.each_ref().map(|partition| partition.is_open()), [true, false, false]);
    assert!(!other.is_open());
    let opens = fixture.disk.opens();
    clean(&partitions[0], &cleaner(ALL_KEYS));
    assert_eq!(fixture.disk.opens(), opens, "once is enough");
}

#[test]
fn threads_clean_by_themselves_while_others_append_and_read() {
    let fixture = Fixture::new();
    let partition = fixture.partition(LogConfig { segment_bytes: 3000, ..compacted(FlushMode::Os) });
    fixture.directory.clean(CleanerConfig { threads: 2, backoff_ms: 1, ..cleaner(ALL_KEYS) });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..3000u32 {
                append(&partition, keyed(Some(&[number as u8 % 16]), Some(&number.to_be_bytes()))).unwrap();
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let (mut next, mut newest) = (0, BTreeMap::new());
                while next < 3000 {
                    let mut read = Bytes::from(bytes(&partition.read(next, 2000, true).unwrap().ranges));
                    while let Some((header, payload)) = split_batch(&mut read) {
                        assert!(header.last_offset() >= next, "never back");
                        next = header.last_offset() + 1;
                        for record in records(&header, &payload, 1 << 20).unwrap() {
                            let record = record.unwrap();
                            newest.insert(record.key, record.offset);
                        }
                    }
                }
                assert!(newest.into_values().collect::<BTreeSet<_>>().into_iter().eq(3000 - 16..3000));
            });
        }
    });
    eventually("it was compacted", || stored(&partition).len() < 200);
    assert!(partition.directory.cleaner.uncleanable() == 0);
}

#[test]
fn who_reads_finds_what_there_was_when_compaction_comes_before_a_file_was_looked_for() {
    // Twice a closed segment is looked for by name: for its size, and to be opened. Compaction puts two of three in the place of
    // one, so that another file has the one's name then, and none has the other's.
    let config = LogConfig { segment_bytes: 1300, ..compacted(FlushMode::Commit) };
    for (number, size_is_known) in (0..4).flat_map(|number| [(number, false), (number, true)]) {
        let fixture = Fixture::new();
        let partition = fixture.partition(config.clone());
        partition.reconfigure(Arc::new(compacted(FlushMode::Commit)));
        for round in 0..4u8 {
            append(&partition, keyed(Some(&[round % 2]), Some(&vec![round; 40 + usize::from(round)])))
                .unwrap();
            roll(&partition);
        }
        let all = stored(&partition);
        drop(partition);
        let fixture = fixture.stop();
        let partition = fixture.partition(config.clone());
        partition.offsets().unwrap();
        if size_is_known {
            partition.size_bytes().unwrap();
        }
        let segments = partition.view.lock().segments.len();
        let name = partition.view.lock().segments[number].path();
        let (disk, compacted) = (fixture.disk.clone(), Arc::clone(&partition));
        disk.before_finding(&name, move || clean(&compacted, &cleaner(ALL_KEYS)));
        let seen = stored(&partition);
        let context = format!("segment {number}, size {size_is_known}: {seen:?} of {all:?}");
        assert!(partition.view.lock().segments.len() < segments, "it was compacted: {context}");
        assert!(seen.iter().is_sorted_by_key(|record| record.offset), "{context}");
        assert!(seen.iter().all(|record| all.contains(record)), "{context}");
        let newest = |records: &[Stored]| -> BTreeMap<_, _> {
            records.iter().map(|record| (record.key.clone(), record.offset)).collect()
        };
        assert_eq!(newest(&seen), newest(&all), "{context}");
    }
}

#[test]
fn a_deleted_partition_is_left_alone() {
    let model = written();
    model.fixture().directory.delete(&model.partition).unwrap();
    clean(&model.partition, &cleaner(ALL_KEYS));
    assert!(matches!(model.partition.read(0, 1, true), Err(LogError::Deleted)));
    assert!(model.fixture().disk.content(&log_file(0)).is_err());
}
