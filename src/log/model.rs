//! A log under random use and random deaths, compared with a list of what was appended.

use std::sync::Arc;

use proptest::prelude::*;

use super::fixture::{Fixture, NOW_MS, builder, headers, high_watermark, run};
use super::{FlushMode, LogConfig, Partition};
use crate::log::config::tests::config;

#[derive(Clone, Debug)]
enum Step {
    Append {
        records: usize,
        value_bytes: usize,
    },
    /// Waits until everything appended so far counts as stored.
    Settle,
    /// To this share (of 256) of what is visible.
    DeleteRecords {
        share: u8,
    },
    /// Down to so many bytes, or all that is visible.
    Retain {
        bytes: Option<u16>,
    },
    Kill,
    CutPower {
        seed: u64,
    },
    Stop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (1..4usize, 0..120usize).prop_map(|(records, value_bytes)| Step::Append { records, value_bytes }),
        4 => Just(Step::Settle),
        1 => any::<u8>().prop_map(|share| Step::DeleteRecords { share }),
        1 => any::<Option<u16>>().prop_map(|bytes| Step::Retain { bytes }),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(|seed| Step::CutPower { seed }),
        1 => Just(Step::Stop),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What must hold of the log.
#[derive(Default)]
struct Model {
    /// End offset of each batch that was appended, and its checksum.
    batches: Vec<(i64, u32)>,
    /// Where the next batch goes.
    end: i64,
    log_start: i64,
}

impl Model {
    /// The log was opened after a death that left all batches up to the promised end, and some more.
    fn keep_prefix(&mut self, partition: &Partition, promised: i64) {
        let offsets = partition.offsets().unwrap();
        self.end = offsets.log_end_offset;
        assert!(self.end >= promised, "{} is left of {promised} promised", self.end);
        self.batches.retain(|(end, _)| *end <= offsets.log_end_offset);
        let last = self.batches.last().map_or(0, |(end, _)| *end);
        assert_eq!(self.end, last.max(self.log_start), "an end between batches");
        assert_eq!(offsets.log_start_offset, self.log_start);
    }

    /// The log was opened after a death before which nothing was promised: whatever is left was appended once.
    fn keep_some(&mut self, partition: &Partition) {
        let offsets = partition.offsets().unwrap();
        assert!(offsets.log_start_offset >= self.log_start, "what was deleted is back");
        let left = read(partition, offsets.log_start_offset);
        assert!(left.iter().all(|batch| self.batches.contains(batch)));
        let last = left.last().map_or(0, |(end, _)| *end);
        assert_eq!(offsets.log_end_offset, last.max(offsets.log_start_offset), "an end between batches");
        (self.batches, self.end, self.log_start) = (left, offsets.log_end_offset, offsets.log_start_offset);
    }

    /// Readers see a prefix of what was appended, up to the high watermark, which may move meanwhile.
    fn compare(&self, partition: &Partition) {
        let visible = high_watermark(partition);
        let read = read(partition, self.log_start.min(visible));
        let appended: Vec<_> =
            self.batches.iter().filter(|(end, _)| *end > self.log_start).copied().collect();
        assert!(appended.starts_with(&read), "{read:?} of {appended:?}");
        assert!(appended[read.len()..].iter().all(|(end, _)| *end > visible), "{read:?} below {visible}");
    }
}

fn read(partition: &Partition, offset: i64) -> Vec<(i64, u32)> {
    headers(partition, offset).iter().map(|header| (header.last_offset() + 1, header.crc)).collect()
}

fn live(steps: Vec<Step>, flush: FlushMode, preallocate: bool) {
    let config = Arc::new(LogConfig {
        flush,
        preallocate,
        segment_bytes: 700,
        index_interval_bytes: 150,
        file_delete_delay_ms: 0,
        ..config()
    });
    let mut fixture = Fixture::new();
    let open = |fixture: &Fixture| {
        fixture.directory.partition("t", super::fixture::TOPIC_ID, 3, 0, Arc::clone(&config))
    };
    let mut partition = open(&fixture);
    let mut model = Model::default();
    let mut promised = 0;
    for step in steps {
        match step {
            Step::Append { records, value_bytes } => {
                let batch = builder(records, value_bytes).build_valid();
                let appended = partition.append(batch.clone()).unwrap();
                assert_eq!(appended.base_offset, model.end, "dense");
                model.end = appended.last_offset + 1;
                model.batches.push((model.end, batch.header().crc));
            }
            Step::Settle => {
                run(partition.durable(model.end)).unwrap();
                promised = model.end;
                assert_eq!(high_watermark(&partition), promised);
            }
            Step::DeleteRecords { share } => {
                let (from, to) = (model.log_start, high_watermark(&partition));
                let before = from + (to - from) * i64::from(share) / 256;
                assert_eq!(partition.delete_records(before).unwrap(), before);
                model.log_start = before;
            }
            Step::Retain { bytes } => {
                let limited = match bytes {
                    Some(bytes) => {
                        LogConfig { retention_bytes: i64::from(bytes % 2000), ..(*config).clone() }
                    }
                    None => LogConfig { retention_ms: 0, ..(*config).clone() },
                };
                fixture.clock.set(NOW_MS + 1);
                partition.reconfigure(Arc::new(limited));
                let visible = high_watermark(&partition);
                fixture.directory.retain();
                partition.reconfigure(Arc::clone(&config));
                let log_start = partition.offsets().unwrap().log_start_offset;
                // Which may have moved on meanwhile.
                let visible_now = high_watermark(&partition).max(model.log_start);
                assert!((model.log_start..=visible_now).contains(&log_start));
                let all_goes = bytes.is_none() && visible == model.end;
                assert!(!all_goes || log_start == model.end, "{log_start} of {}", model.end);
                model.log_start = log_start;
            }
            Step::Kill | Step::CutPower { .. } | Step::Stop => {
                drop(partition);
                let machine_died = matches!(step, Step::CutPower { .. });
                fixture = match step {
                    Step::Stop => fixture.stop(),
                    Step::CutPower { seed } => fixture.cut_power(seed),
                    _ => fixture.kill(),
                };
                partition = open(&fixture);
                if !fixture.directory.was_clean() {
                    fixture.recover(&partition);
                }
                assert_eq!(high_watermark(&partition), partition.offsets().unwrap().log_end_offset);
                match (machine_died, flush) {
                    (true, FlushMode::Os) => model.keep_some(&partition),
                    // Its first segment may be lost as long as none of it was promised.
                    (true, FlushMode::Commit) if promised <= model.log_start => model.keep_some(&partition),
                    (true, FlushMode::Commit) => model.keep_prefix(&partition, promised),
                    (false, _) => model.keep_prefix(&partition, model.end),
                }
                promised = model.end;
            }
        }
        model.compare(&partition);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_promised_is_lost_in_commit_mode(steps in steps(), preallocate: bool) {
        live(steps, FlushMode::Commit, preallocate);
    }

    #[test]
    fn nothing_is_lost_in_os_mode_while_the_machine_lives(steps in steps(), preallocate: bool) {
        live(steps, FlushMode::Os, preallocate);
    }
}
