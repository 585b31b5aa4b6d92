//! Retention, reserved space and the syncs of os mode, over a simulated disk: by many partitions, over deaths, without space.

use std::sync::Arc;

use rustix::io::Errno;

use super::config::tests::config;
use super::fixture::*;
use super::{LogConfig, LogError, Partition, Waiter};
use crate::record::BatchBuilder;
use crate::storage::Disk;
use crate::uuid::Uuid;

/// Three batches a segment.
fn narrow() -> LogConfig {
    LogConfig { segment_bytes: 300, file_delete_delay_ms: 0, ..config() }
}

/// Batches of one record, each a second younger than the one before.
fn fill(partition: &Partition, batches: i64) {
    for number in 0..batches {
        let batch = BatchBuilder::new().record(NOW_MS + number * 1000, None, Some(b"0123456789"));
        append(partition, batch.build_valid()).unwrap();
    }
}

fn log_start(partition: &Partition) -> i64 {
    partition.offsets().unwrap().log_start_offset
}

fn with(partition: &Partition, config: LogConfig) {
    partition.reconfigure(Arc::new(config));
}

fn is_out_of_range(partition: &Partition, offset: i64) -> bool {
    matches!(partition.read(offset, 100, true), Err(LogError::OffsetOutOfRange { .. }))
}

#[test]
fn old_segments_go_and_who_reads_or_waits_below_is_told() {
    let fixture = Fixture::new();
    let partition = fixture.partition(narrow());
    fill(&partition, 10);
    let read = partition.read(0, 10_000, true).unwrap();
    let waiter = Waiter::new();
    let _subscription = partition.subscribe(&waiter);
    fixture.directory.retain();
    assert_eq!(log_start(&partition), 0, "all of it is young");
    with(&partition, LogConfig { retention_ms: 1000, ..narrow() });
    assert!(is_ready(waiter.wait()));
    fixture.clock.set(NOW_MS + 6001);
    fixture.directory.retain();
    assert_eq!(log_start(&partition), 6, "the segment with the record of just now stays");
    assert!(is_ready(waiter.wait()));
    assert!(is_out_of_range(&partition, 5));
    assert_eq!(headers(&partition, 6).len(), 4);
    assert!(!bytes(&read.ranges).is_empty(), "who has the file goes on reading it");
    eventually("files go", || fixture.disk.content(&path("00000000000000000003.log.deleted")).is_err());
    assert!(fixture.disk.content(&log_file(3)).is_err());
    assert_eq!(fixture.directory.counters().retired_segments.value(), 2);
    assert_eq!(fixture.directory.counters().retired_bytes.value(), 6 * batch(1).size_bytes() as u64);
}

#[test]
fn a_log_that_expires_as_a_whole_goes_on_at_its_end_over_every_death() {
    for flush in [config(), commit()] {
        for seed in 0..30 {
            let config = LogConfig { flush: flush.flush, retention_ms: 0, ..narrow() };
            let mut fixture = Fixture::new();
            let partition = fixture.partition(config.clone());
            fill(&partition, 8);
            fixture.clock.set(NOW_MS + 60_000);
            fixture.directory.retain();
            assert_eq!((log_start(&partition), end_offset(&partition)), (8, 8));
            assert!(is_out_of_range(&partition, 7));
            assert!(partition.read(8, 100, true).unwrap().ranges.is_empty());
            assert_eq!(partition.offset_for_timestamp(0).unwrap(), None);
            fixture.directory.retain();
            assert_eq!(partition.known().open.unwrap().segments, 1, "an empty one is left alone");
            drop(partition);
            fixture = match seed {
                0 => fixture.kill(),
                1 => fixture.stop(),
                seed => fixture.cut_power(seed),
            };
            let partition = fixture.partition(config);
            if !fixture.directory.was_clean() {
                fixture.recover(&partition);
            }
            assert_eq!((log_start(&partition), end_offset(&partition)), (8, 8), "seed {seed}");
            assert_eq!(append(&partition, batch(1)).unwrap(), 8);
            assert_eq!(headers(&partition, 8).len(), 1);
        }
    }
}

#[test]
fn size_counts_and_the_policy_decides() {
    let fixture = Fixture::new();
    let partition = fixture.partition(narrow());
    fill(&partition, 10);
    let size = batch(1).size_bytes() as i64;
    for (delete, compact, retention_bytes, expected) in
        [(false, true, 0, 0), (false, false, 0, 0), (true, false, 4 * size + 1, 3), (true, true, 4 * size, 6)]
    {
        with(&partition, LogConfig { delete, compact, retention_bytes, ..narrow() });
        fixture.directory.retain();
        assert_eq!(log_start(&partition), expected);
    }
    // Below the log start, every policy lets go.
    with(&partition, LogConfig { delete: false, ..narrow() });
    partition.delete_records(8).unwrap();
    assert_eq!(partition.known().open.unwrap().segments, 2);
    fixture.directory.retain();
    assert_eq!((log_start(&partition), end_offset(&partition)), (8, 10));
}

#[test]
fn records_without_a_time_are_as_old_as_their_file() {
    let fixture = Fixture::new();
    let config = LogConfig { retention_ms: 1000, ..narrow() };
    let partition = fixture.partition(config);
    for _ in 0..4 {
        append(&partition, BatchBuilder::new().record(-1, None, Some(b"0123456789")).build_valid()).unwrap();
    }
    fixture.disk.set_modified(&log_file(0), NOW_MS).unwrap();
    fixture.disk.set_modified(&log_file(3), NOW_MS).unwrap();
    fixture.clock.set(NOW_MS + 1000);
    fixture.directory.retain();
    assert_eq!(log_start(&partition), 0);
    fixture.disk.set_modified(&log_file(0), NOW_MS - 1).unwrap();
    fixture.directory.retain();
    assert_eq!(log_start(&partition), 3);
}

#[test]
fn in_commit_mode_nothing_goes_that_is_not_on_the_disk() {
    let fixture = Fixture::new();
    let partition =
        fixture.partition(LogConfig { retention_ms: 0, ..LogConfig { flush: commit().flush, ..narrow() } });
    fixture.clock.set(NOW_MS + 60_000);
    fixture.disk.hold_syncs();
    for _ in 0..5 {
        partition.append(batch(1)).unwrap();
    }
    fixture.directory.retain();
    assert_eq!(partition.known().log_start_offset, 0);
    fixture.disk.release_syncs();
    run(partition.durable(5)).unwrap();
    fixture.directory.retain();
    assert_eq!(log_start(&partition), 5);
}

#[test]
fn partitions_that_are_not_open_are_looked_at_once_and_opened_only_to_let_something_go() {
    const PARTITIONS: i32 = 200;
    let config = Arc::new(LogConfig { retention_ms: 10_000, ..narrow() });
    let all = |fixture: &Fixture| -> Vec<_> {
        (0..PARTITIONS)
            .map(|index| fixture.directory.partition(TOPIC, TOPIC_ID, index, 0, Arc::clone(&config)))
            .collect()
    };
    let fixture = Fixture::new();
    for (index, partition) in all(&fixture).iter().enumerate() {
        // The last hundred have never been written to.
        fill(partition, if index < 100 { 1 + index as i64 % 4 } else { 0 });
    }
    let fixture = fixture.stop();
    let partitions = all(&fixture);
    let open = || partitions.iter().filter(|partition| partition.known().open.is_some()).count();
    fixture.directory.retain();
    assert_eq!(open(), 0);
    let opens = fixture.disk.opens();
    fixture.directory.retain();
    assert_eq!(fixture.disk.opens(), opens, "nothing can have changed");
    // Those whose only record, or whose first segment, is older than ten seconds: the first of them by a millisecond.
    fixture.clock.set(NOW_MS + 10_001);
    fixture.directory.retain();
    assert_eq!(open(), 25);
    assert!(partitions.iter().step_by(4).take(25).all(|partition| log_start(partition) == 1));
    fixture.clock.set(NOW_MS + 12_001);
    fixture.directory.retain();
    assert_eq!(open(), 100);
    assert_eq!(log_start(&partitions[3]), 3);
    with(&partitions[150], LogConfig { retention_bytes: 0, ..narrow() });
    fixture.directory.retain();
    assert_eq!(open(), 100, "there is nothing of it");
}

#[test]
fn a_changed_limit_counts_for_partitions_that_are_not_open() {
    let fixture = Fixture::new();
    fill(&fixture.partition(narrow()), 10);
    let fixture = fixture.stop();
    let partition = fixture.partition(narrow());
    fixture.directory.retain();
    with(&partition, LogConfig { retention_bytes: 0, ..narrow() });
    fixture.directory.retain();
    assert_eq!(log_start(&partition), 10);
}

#[test]
fn what_a_killed_broker_had_set_aside_goes_with_the_next_look() {
    let fixture = Fixture::new();
    fill(&fixture.partition(narrow()), 4);
    let fixture = fixture.stop();
    let partition = fixture.partition(narrow());
    let left = path("00000000000000000000.log.deleted");
    fixture.disk.create(&left).unwrap();
    fixture.directory.retain();
    assert!(fixture.disk.content(&left).is_err() && partition.known().open.is_none());
}

#[test]
fn a_full_disk_does_not_keep_retention_from_making_space() {
    let fixture = Fixture::new();
    let partition = fixture.partition(LogConfig { flush: commit().flush, ..narrow() });
    fill(&partition, 10);
    with(&partition, LogConfig { retention_ms: 0, ..narrow() });
    fixture.clock.set(NOW_MS + 60_000);
    fixture.disk.fail_writes_after(0, Errno::NOSPC);
    fixture.directory.retain();
    assert_eq!(log_start(&partition), 9, "without space for another, the last segment stays");
    eventually("files go", || fixture.disk.content(&path("00000000000000000006.log.deleted")).is_err());
    assert!(fixture.disk.content(&log_file(6)).is_err());
    fixture.disk.mend_writes();
    fixture.directory.retain();
    assert_eq!(log_start(&partition), 10);
    assert_eq!(append(&partition, batch(1)).unwrap(), 10);
    let fixture = fixture.kill();
    let partition = fixture.partition(narrow());
    fixture.recover(&partition);
    assert_eq!((log_start(&partition), headers(&partition, 10).len()), (10, 1));
}

#[test]
fn what_could_not_be_taken_away_goes_later_and_not_from_a_new_topic_of_the_name() {
    let fixture = Fixture::new();
    let partition = fixture.partition(narrow());
    fill(&partition, 10);
    // In os mode the log's start would not be evident without the checkpoint.
    fixture.disk.fail_writes_after(0, Errno::NOSPC);
    assert!(matches!(partition.delete_records(6), Err(LogError::NoSpace { .. })));
    assert!(fixture.disk.content(&log_file(0)).is_ok());
    fixture.disk.mend_writes();
    fixture.directory.retain();
    assert!(fixture.disk.content(&log_file(0)).is_err());

    fixture.disk.fail_writes_after(0, Errno::NOSPC);
    assert!(partition.delete_records(9).is_err());
    fixture.disk.mend_writes();
    fixture.directory.delete(&partition).unwrap();
    let again = fixture.directory.partition(TOPIC, Uuid([8; 16]), 0, 0, Arc::new(narrow()));
    fill(&again, 10);
    fixture.directory.retain();
    assert_eq!((log_start(&again), headers(&again, 0).len()), (0, 10));
    let fixture = fixture.kill();
    let again = fixture.directory.partition(TOPIC, Uuid([8; 16]), 0, 0, Arc::new(narrow()));
    fixture.recover(&again);
    assert_eq!((log_start(&again), headers(&again, 0).len()), (0, 10));
}

#[test]
fn reserved_space_is_given_back_at_a_roll_and_a_stop_and_is_no_data_after_a_death() {
    let length = |fixture: &Fixture, base| fixture.disk.content(&log_file(base)).unwrap().len();
    let size = batch(1).size_bytes();
    let reserving = LogConfig { segment_bytes: 300, preallocate: true, retention_ms: -1, ..config() };
    let fixture = Fixture::new();
    let partition = fixture.partition(reserving.clone());
    fill(&partition, 4);
    assert_eq!((length(&fixture, 0), length(&fixture, 3)), (3 * size, 300));
    assert_eq!(headers(&partition, 0).len(), 4);
    assert_eq!(partition.available_bytes(3), size as u64);

    let fixture = fixture.kill();
    let partition = fixture.partition(reserving.clone());
    assert!(fixture.recover(&partition).is_empty(), "nothing of value was cut");
    assert_eq!((end_offset(&partition), length(&fixture, 3)), (4, size));
    fill(&partition, 3);
    assert_eq!(length(&fixture, 6), 300);

    with(&partition, LogConfig { retention_ms: 0, ..reserving.clone() });
    fixture.clock.set(NOW_MS + 60_000);
    fixture.directory.retain();
    assert_eq!(length(&fixture, 7), 300);
    let fixture = fixture.stop();
    assert_eq!(length(&fixture, 7), 0);
    let partition = fixture.partition(reserving.clone());
    assert_eq!(append(&partition, batch(1)).unwrap(), 7);
    for _ in 0..3 {
        append(&partition, batch(1)).unwrap();
    }
    assert_eq!(length(&fixture, 10), 300);
    with(&partition, LogConfig { preallocate: false, ..reserving });
    for _ in 0..3 {
        append(&partition, batch(1)).unwrap();
    }
    assert_eq!((length(&fixture, 10), length(&fixture, 13)), (3 * size, size));
}

#[test]
fn without_the_space_to_reserve_an_append_is_refused_and_comes_through_later() {
    let fixture = Fixture::new();
    let partition = fixture.partition(LogConfig { segment_bytes: 300, preallocate: true, ..config() });
    fill(&partition, 3);
    fixture.disk.fail_writes_after(200, Errno::NOSPC);
    for _ in 0..3 {
        assert!(matches!(partition.append(batch(1)), Err(LogError::NoSpace { .. })));
    }
    fixture.disk.mend_writes();
    assert_eq!(append(&partition, batch(1)).unwrap(), 3);
    assert_eq!(headers(&partition, 0).len(), 4);
}

#[test]
fn in_os_mode_every_so_many_records_count_only_once_synced() {
    let fixture = Fixture::new();
    let partition = fixture.partition(LogConfig { flush_messages: 5, ..config() });
    fixture.disk.hold_syncs();
    partition.append(batch(4)).unwrap();
    assert_eq!(high_watermark(&partition), 4);
    partition.append(batch(1)).unwrap();
    eventually("a thread syncs", || fixture.disk.syncs_waiting() > 0);
    partition.append(batch(1)).unwrap();
    assert_eq!(high_watermark(&partition), 4, "what comes behind waits with it");
    assert!(!is_ready(partition.durable(5)));
    fixture.disk.release_syncs();
    run(partition.durable(6)).unwrap();
    let before = fixture.directory.counters().syncs.count();
    for _ in 0..20 {
        append(&partition, batch(1)).unwrap();
    }
    let syncs = fixture.directory.counters().syncs.count() - before;
    assert!((4..=5).contains(&syncs), "{syncs}");
    // A new limit counts from the next append on.
    with(&partition, LogConfig { flush_messages: 1, ..config() });
    let before = fixture.directory.counters().syncs.count();
    for _ in 0..7 {
        append(&partition, batch(1)).unwrap();
    }
    // The journal may have asked for one more: its place is used again.
    let syncs = fixture.directory.counters().syncs.count() - before;
    assert!((7..=8).contains(&syncs), "{syncs}");
}

#[test]
fn in_os_mode_nothing_waits_for_a_sync_longer_than_it_may() {
    let fixture = Fixture::new();
    let partition = fixture.partition(config());
    append(&partition, batch(1)).unwrap();
    assert_eq!(fixture.directory.counters().syncs.count(), 0);
    with(&partition, LogConfig { flush_ms: 5, ..config() });
    eventually("what waits is synced too", || fixture.directory.unsynced_bytes() == 0);
    append(&partition, batch(1)).unwrap();
    eventually("it is synced", || fixture.directory.unsynced_bytes() == 0);
    with(&partition, LogConfig { flush_ms: 0, ..config() });
    append(&partition, batch(1)).unwrap();
    eventually("it is synced", || fixture.directory.unsynced_bytes() == 0);
    eventually("three syncs", || fixture.directory.counters().syncs.count() == 3);
    let fixture = fixture.cut_power(3);
    let partition = fixture.partition(config());
    fixture.recover(&partition);
    assert_eq!(end_offset(&partition), 3);
}
