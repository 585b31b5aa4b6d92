//! What the log knows of idempotent producers: for each its epoch and last five batches, so that a batch that is sent twice is
//! stored once (KIP-98). A fold over the batch headers of the log; snapshots spare a start from reading them all again.

use std::collections::HashMap;

use super::LogError;
use crate::clock::TimestampMs;
use crate::record::BatchHeader;
use crate::record::batch::next_sequence;

/// Batches of each producer that are recognized when they come again.
pub const WINDOW_BATCHES: usize = 5;

const SNAPSHOT_VERSION: i16 = 1;
const SNAPSHOT_HEADER_BYTES: usize = 10;
const SNAPSHOT_ENTRY_BYTES: usize = 46;

/// Largest snapshot that is read: far more producers than are ever kept.
pub const SNAPSHOT_LIMIT_BYTES: u64 = 256 << 20;

/// What is wrong with a snapshot's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidSnapshot {
    /// Shorter than its own header, or not of the length that its count implies.
    #[error("{0} bytes long, which does not fit its count")]
    Length(usize),
    /// A format that we do not know.
    #[error("version {0} where 1 is the only one known")]
    Version(i16),
    /// Its bytes are not the ones that were written.
    #[error("checksum does not match")]
    Checksum,
}

/// One appended batch of a producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Sent {
    last_sequence: i32,
    last_offset: i64,
    offset_delta: i32,
    timestamp: TimestampMs,
}

/// What is known of one producer.
#[derive(Clone, Debug)]
struct Producer {
    epoch: i16,
    /// The newest last; only the first `sent_count` count.
    sent: [Sent; WINDOW_BATCHES],
    sent_count: usize,
    coordinator_epoch: i32,
    transaction_first_offset: Option<i64>,
    /// When it last appended, by the broker's clock: record time is the client's business and may lie years back.
    seen_ms: TimestampMs,
}

/// A producer as DescribeProducers shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerView {
    /// The producer's id.
    pub producer_id: i64,
    /// Its newest epoch.
    pub producer_epoch: i16,
    /// Sequence of its last record, -1 if none is known.
    pub last_sequence: i32,
    /// Offset of its last record, -1 if none is known.
    pub last_offset: i64,
    /// Timestamp of its last batch, -1 if none is known.
    pub last_timestamp: TimestampMs,
    /// Coordinator epoch of its last transaction marker, -1 without one.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction, -1 without one.
    pub current_transaction_first_offset: i64,
}

/// What an append has to do with a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Append it.
    New,
    /// It is in the log already.
    Duplicate {
        /// Where its first record lies.
        base_offset: i64,
        /// Where its last record lies, inclusive.
        last_offset: i64,
        /// Its largest timestamp as stored.
        timestamp: TimestampMs,
    },
}

/// All producers of a log, at most a given number.
#[derive(Debug)]
pub struct Producers {
    entries: HashMap<i64, Producer>,
    limit: usize,
}

impl Producers {
    /// Knows nobody yet, and never more than `limit`: beyond that the eighth that has been silent longest is forgotten.
    pub fn new(limit: usize) -> Self {
        Self { entries: HashMap::new(), limit: limit.max(1) }
    }

    /// Judges a batch by its producer id, epoch and sequence; batches without a producer id are always new.
    pub fn check(&self, batch: &BatchHeader) -> Result<Verdict, LogError> {
        let known = batch.has_producer_id().then(|| self.entries.get(&batch.producer_id)).flatten();
        match known {
            // Nothing known (new, expired, log begun anew): any sequence may be the first.
            None => Ok(Verdict::New),
            Some(producer) => producer.check(batch),
        }
    }

    /// Takes in a batch that is in the log, with its assigned offsets.
    pub fn update(&mut self, batch: &BatchHeader, now_ms: TimestampMs) {
        if !batch.has_producer_id() {
            return;
        }
        if let Some(producer) = self.entries.get_mut(&batch.producer_id) {
            return producer.update(batch, now_ms);
        }
        if self.entries.len() >= self.limit {
            self.forget_most_silent();
        }
        let mut producer = Producer::new(batch.producer_epoch);
        producer.update(batch, now_ms);
        self.entries.insert(batch.producer_id, producer);
    }

    /// Takes over those of `others` that are not known here, as far as there is room, and those that have gone on there: by batches
    /// that have been deleted since.
    pub fn add_newer(&mut self, others: Self) {
        for (id, producer) in others.entries {
            let is_news = match self.entries.get(&id) {
                Some(known) => known.place() < producer.place(),
                None => self.entries.len() < self.limit,
            };
            if is_news {
                self.entries.insert(id, producer);
            }
        }
    }

    /// Forgets who has been silent for `expiration_ms` and has no open transaction.
    pub fn expire(&mut self, now_ms: TimestampMs, expiration_ms: i64) {
        self.entries.retain(|_, producer| {
            producer.transaction_first_offset.is_some()
                || now_ms.saturating_sub(producer.seen_ms) < expiration_ms
        });
    }

    /// First offset of the oldest transaction that is open.
    pub fn first_open_transaction(&self) -> Option<i64> {
        self.entries.values().filter_map(|producer| producer.transaction_first_offset).min()
    }

    /// How many are known.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Producers that are known.
    pub fn views(&self) -> Vec<ProducerView> {
        let view = |(id, producer): (&i64, &Producer)| ProducerView {
            producer_id: *id,
            producer_epoch: producer.epoch,
            last_sequence: producer.last().map_or(-1, |last| last.last_sequence),
            last_offset: producer.last().map_or(-1, |last| last.last_offset),
            last_timestamp: producer.last().map_or(-1, |last| last.timestamp),
            coordinator_epoch: producer.coordinator_epoch,
            current_transaction_first_offset: producer.transaction_first_offset.unwrap_or(-1),
        };
        let mut views: Vec<_> = self.entries.iter().map(view).collect();
        views.sort_unstable_by_key(|view| view.producer_id);
        views
    }

    /// The bytes of a `.snapshot` file: of each producer the last batch.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|(id, _)| **id);
        let mut bytes = Vec::with_capacity(SNAPSHOT_HEADER_BYTES + entries.len() * SNAPSHOT_ENTRY_BYTES);
        bytes.extend_from_slice(&SNAPSHOT_VERSION.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(entries.len() as i32).to_be_bytes());
        for (id, producer) in entries {
            let none = Sent { last_sequence: -1, last_offset: -1, offset_delta: 0, timestamp: -1 };
            let last = producer.last().unwrap_or(none);
            bytes.extend_from_slice(&id.to_be_bytes());
            bytes.extend_from_slice(&producer.epoch.to_be_bytes());
            bytes.extend_from_slice(&last.last_sequence.to_be_bytes());
            bytes.extend_from_slice(&last.last_offset.to_be_bytes());
            bytes.extend_from_slice(&last.offset_delta.to_be_bytes());
            bytes.extend_from_slice(&last.timestamp.to_be_bytes());
            bytes.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
            bytes.extend_from_slice(&producer.transaction_first_offset.unwrap_or(-1).to_be_bytes());
        }
        let checksum = crc32c::crc32c(&bytes[6..]);
        bytes[2..6].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// Reads a snapshot. Its producers count as seen `now_ms`: their batches' timestamps are the clients' and say nothing
    /// about when they were last here.
    pub fn restore(bytes: &[u8], limit: usize, now_ms: TimestampMs) -> Result<Self, InvalidSnapshot> {
        let mut fields = Fields(bytes);
        if bytes.len() < SNAPSHOT_HEADER_BYTES {
            return Err(InvalidSnapshot::Length(bytes.len()));
        }
        match i16::from_be_bytes(fields.next()) {
            SNAPSHOT_VERSION => {}
            other => return Err(InvalidSnapshot::Version(other)),
        }
        if u32::from_be_bytes(fields.next()) != crc32c::crc32c(fields.0) {
            return Err(InvalidSnapshot::Checksum);
        }
        let count = i32::from_be_bytes(fields.next());
        if i64::from(count) * SNAPSHOT_ENTRY_BYTES as i64 != fields.0.len() as i64 {
            return Err(InvalidSnapshot::Length(bytes.len()));
        }
        let mut producers = Self::new(limit);
        for _ in 0..count {
            let id = i64::from_be_bytes(fields.next());
            let mut producer = Producer::new(i16::from_be_bytes(fields.next()));
            let last = Sent {
                last_sequence: i32::from_be_bytes(fields.next()),
                last_offset: i64::from_be_bytes(fields.next()),
                offset_delta: i32::from_be_bytes(fields.next()),
                timestamp: i64::from_be_bytes(fields.next()),
            };
            producer.coordinator_epoch = i32::from_be_bytes(fields.next());
            let transaction_first_offset = i64::from_be_bytes(fields.next());
            producer.transaction_first_offset =
                (transaction_first_offset >= 0).then_some(transaction_first_offset);
            producer.seen_ms = now_ms;
            if last.last_sequence >= 0 {
                producer.remember(last);
            }
            if producers.entries.len() < producers.limit {
                producers.entries.insert(id, producer);
            }
        }
        Ok(producers)
    }

    fn forget_most_silent(&mut self) {
        let mut seen: Vec<_> = self.entries.iter().map(|(id, producer)| (producer.seen_ms, *id)).collect();
        let forgotten = (self.limit / 8).clamp(1, seen.len());
        seen.select_nth_unstable(forgotten - 1);
        for (_, id) in &seen[..forgotten] {
            self.entries.remove(id);
        }
    }
}

impl Producer {
    fn new(epoch: i16) -> Self {
        Self {
            epoch,
            sent: [Sent::default(); WINDOW_BATCHES],
            sent_count: 0,
            coordinator_epoch: -1,
            transaction_first_offset: None,
            seen_ms: 0,
        }
    }

    /// Grows with what the producer does.
    fn place(&self) -> (i16, Option<i64>) {
        (self.epoch, self.last().map(|last| last.last_offset))
    }

    fn last(&self) -> Option<Sent> {
        self.sent[..self.sent_count].last().copied()
    }

    fn check(&self, batch: &BatchHeader) -> Result<Verdict, LogError> {
        if batch.producer_epoch == self.epoch {
            let same = |sent: &&Sent| {
                sent.last_sequence == batch.last_sequence() && sent.offset_delta == batch.last_offset_delta
            };
            if let Some(sent) = self.sent[..self.sent_count].iter().find(same) {
                return Ok(Verdict::Duplicate {
                    base_offset: sent.last_offset - i64::from(sent.offset_delta),
                    last_offset: sent.last_offset,
                    timestamp: sent.timestamp,
                });
            }
        }
        if batch.producer_epoch < self.epoch {
            return Err(LogError::InvalidProducerEpoch {
                producer_id: batch.producer_id,
                known: self.epoch,
                found: batch.producer_epoch,
            });
        }
        let expected = match self.last() {
            Some(last) if batch.producer_epoch == self.epoch => next_sequence(last.last_sequence),
            _ => 0,
        };
        if batch.base_sequence != expected && self.epoch != -1 {
            return Err(LogError::OutOfOrderSequence {
                producer_id: batch.producer_id,
                expected,
                found: batch.base_sequence,
            });
        }
        Ok(Verdict::New)
    }

    fn update(&mut self, batch: &BatchHeader, now_ms: TimestampMs) {
        self.seen_ms = now_ms;
        if batch.producer_epoch != self.epoch {
            self.epoch = batch.producer_epoch;
            self.sent_count = 0;
        }
        if batch.attributes.is_control() {
            self.transaction_first_offset = None;
            return;
        }
        if batch.attributes.is_transactional() {
            self.transaction_first_offset.get_or_insert(batch.base_offset);
        }
        self.remember(Sent {
            last_sequence: batch.last_sequence(),
            last_offset: batch.last_offset(),
            offset_delta: batch.last_offset_delta,
            timestamp: batch.max_timestamp,
        });
    }

    fn remember(&mut self, sent: Sent) {
        if self.sent_count == WINDOW_BATCHES {
            self.sent.rotate_left(1);
            self.sent_count -= 1;
        }
        self.sent[self.sent_count] = sent;
        self.sent_count += 1;
    }
}

/// Takes fixed-size fields off the front of bytes whose length was checked before.
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the length was checked before");
        self.0 = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::BatchBuilder;

    const ID: i64 = 4000;

    fn header(epoch: i16, sequence: i32, records: usize) -> BatchHeader {
        let builder = (0..records).fold(BatchBuilder::new(), |builder, _| builder.record(55, None, None));
        *builder.producer(ID, epoch, sequence).build_valid().header()
    }

    /// Appends to an imaginary log, as far as that is allowed.
    struct Sender {
        producers: Producers,
        next_offset: i64,
    }

    impl Sender {
        fn new() -> Self {
            Self { producers: Producers::new(100), next_offset: 0 }
        }

        fn send(&mut self, mut batch: BatchHeader) -> Result<Verdict, LogError> {
            let verdict = self.producers.check(&batch)?;
            if verdict == Verdict::New {
                batch.base_offset = self.next_offset;
                self.next_offset = batch.last_offset() + 1;
                self.producers.update(&batch, 1000);
            }
            Ok(verdict)
        }
    }

    fn is_out_of_order(result: &Result<Verdict, LogError>, wanted: i32) -> bool {
        matches!(result, Err(LogError::OutOfOrderSequence { expected, .. }) if *expected == wanted)
    }

    #[test]
    fn the_last_five_batches_are_recognized_and_the_sixth_back_is_not() {
        let mut sender = Sender::new();
        for sequence in (0..14).step_by(2) {
            assert_eq!(sender.send(header(0, sequence, 2)).unwrap(), Verdict::New);
        }
        for sequence in (4..14).step_by(2) {
            let (base_offset, last_offset) = (i64::from(sequence), i64::from(sequence) + 1);
            let duplicate = Verdict::Duplicate { base_offset, last_offset, timestamp: 55 };
            assert_eq!(sender.send(header(0, sequence, 2)).unwrap(), duplicate);
        }
        assert!(is_out_of_order(&sender.send(header(0, 2, 2)), 14));
        assert!(is_out_of_order(&sender.send(header(0, 12, 1)), 14), "same start, other length");
        assert!(is_out_of_order(&sender.send(header(0, 15, 1)), 14));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut sender = Sender::new();
        sender.send(header(0, i32::MAX - 1, 4)).unwrap();
        assert!(is_out_of_order(&sender.send(header(0, 3, 1)), 2));
        assert_eq!(sender.send(header(0, 2, 1)).unwrap(), Verdict::New);
        assert!(matches!(sender.send(header(0, i32::MAX - 1, 4)).unwrap(), Verdict::Duplicate { .. }));
        let mut sender = Sender::new();
        sender.send(header(0, i32::MAX, 1)).unwrap();
        assert_eq!(sender.send(header(0, 0, 1)).unwrap(), Verdict::New);
    }

    #[test]
    fn a_newer_epoch_starts_at_zero_and_ends_the_older() {
        let mut sender = Sender::new();
        sender.send(header(1, 7, 1)).unwrap();
        assert!(is_out_of_order(&sender.send(header(2, 8, 1)), 0));
        assert_eq!(sender.send(header(2, 0, 1)).unwrap(), Verdict::New);
        let fenced = sender.send(header(1, 8, 1));
        assert!(matches!(fenced, Err(LogError::InvalidProducerEpoch { known: 2, found: 1, .. })));
        assert!(matches!(sender.send(header(2, 0, 1)).unwrap(), Verdict::Duplicate { base_offset: 1, .. }));
    }

    #[test]
    fn who_is_not_known_may_begin_anywhere() {
        assert_eq!(Sender::new().send(header(3, 77, 1)).unwrap(), Verdict::New);
        let mut plain = header(0, 5, 1);
        plain.producer_id = -1;
        let mut sender = Sender::new();
        sender.send(plain).unwrap();
        assert!(sender.producers.views().is_empty());
    }

    #[test]
    fn a_snapshot_reads_back_with_a_window_of_one() {
        let mut sender = Sender::new();
        for sequence in 0..3 {
            sender.send(header(4, sequence, 1)).unwrap();
        }
        let bytes = sender.producers.snapshot();
        assert_eq!(bytes.len(), 10 + 46);
        assert_eq!(&bytes[..2], [0, 1]);
        let restored = Producers::restore(&bytes, 100, 1000).unwrap();
        assert_eq!(restored.views(), sender.producers.views());
        assert_eq!(restored.snapshot(), bytes);
        assert!(matches!(restored.check(&header(4, 2, 1)), Ok(Verdict::Duplicate { base_offset: 2, .. })));
        assert!(is_out_of_order(&restored.check(&header(4, 1, 1)), 3));
    }

    #[test]
    fn a_damaged_snapshot_is_refused_wherever_the_damage_is() {
        let mut sender = Sender::new();
        sender.send(header(4, 0, 1)).unwrap();
        let bytes = sender.producers.snapshot();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Producers::restore(&damaged, 100, 0).is_err(), "{at}");
            assert!(Producers::restore(&bytes[..at], 100, 0).is_err(), "{at}");
        }
    }

    #[test]
    fn a_marker_ends_the_transaction_and_with_a_new_epoch_the_window() {
        let mut sender = Sender::new();
        let mut data = header(1, 0, 1);
        data.attributes = data.attributes.with_transactional(true);
        sender.send(data).unwrap();
        assert_eq!(sender.producers.views()[0].current_transaction_first_offset, 0);
        let mut marker = header(2, 0, 1);
        marker.base_sequence = -1;
        marker.attributes = marker.attributes.with_transactional(true).with_control(true);
        sender.producers.update(&marker, 1000);
        let view = sender.producers.views()[0];
        assert_eq!(
            (view.current_transaction_first_offset, view.last_sequence, view.producer_epoch),
            (-1, -1, 2)
        );
        let restored = Producers::restore(&sender.producers.snapshot(), 100, 0).unwrap();
        assert_eq!(restored.views(), [view]);
        assert!(is_out_of_order(&restored.check(&header(2, 4, 1)), 0));
        assert_eq!(restored.check(&header(2, 0, 1)).unwrap(), Verdict::New);
    }

    #[test]
    fn the_silent_are_forgotten_by_time_and_by_number() {
        let mut producers = Producers::new(80);
        for id in 0..100 {
            let mut batch = header(0, 0, 1);
            batch.producer_id = id;
            producers.update(&batch, 1000 + id);
        }
        let known: Vec<_> = producers.views().iter().map(|view| view.producer_id).collect();
        assert_eq!(known, (20..100).collect::<Vec<_>>());
        let mut others = Producers::new(90);
        for id in [5, 60] {
            let mut batch = header(9, 0, 1);
            batch.producer_id = id;
            others.update(&batch, 9000);
        }
        producers.expire(2050, 1000);
        assert_eq!(producers.views()[0].producer_id, 51);
        producers.add_newer(others);
        let epoch =
            |id| producers.views().iter().find(|view| view.producer_id == id).map(|view| view.producer_epoch);
        assert_eq!((epoch(5), epoch(60)), (Some(9), Some(9)), "both have gone on");
        let mut older = Producers::new(90);
        older.update(&BatchHeader { producer_id: 60, ..header(8, 0, 1) }, 9000);
        producers.add_newer(older);
        let view =
            producers.views().into_iter().find(|view| view.producer_id == 60).map(|view| view.producer_epoch);
        assert_eq!(view, Some(9), "what is known to be newer stays");
        producers.expire(i64::MAX, 1000);
        assert!(producers.views().is_empty());
    }
}
