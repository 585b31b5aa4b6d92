//! Messages become records: appended together, answered when they are durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::dead_letters::SOURCE;
use super::dedup::{Dedup, DedupId};
use super::desk::{Desk, Station};
use super::intake::{DEDUP_ID, DELAY_MS, DELIVER_AT, PRIORITY, TTL_MS, dedup_id, deduplicates};
use super::receive::id_of_place;
use super::{Outgoing, QueueDoor, QueueRefusal, SendRefusal, Sent};
use crate::catalog::queue_config::QueueConfig;
use crate::clock::TimestampMs;
use crate::record::partitioner::by_key;
use crate::record::{BatchBuilder, Compression, HEADER_BYTES, ValidBatch};

/// Which partition takes what has no key.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A record to be.
pub(super) struct Prepared {
    pub(super) key: Option<Bytes>,
    pub(super) body: Option<Bytes>,
    pub(super) headers: Vec<(String, Bytes)>,
    pub(super) timestamp: TimestampMs,
    pub(super) dedup: Option<DedupId>,
}

impl Prepared {
    /// Where a dead letter comes from.
    fn source(&self) -> String {
        let source = self.headers.iter().find(|(name, _)| name == SOURCE);
        source.map(|(_, source)| String::from_utf8_lossy(source).into_owned()).unwrap_or_default()
    }

    /// Whether it will be a message of the queue: one that is not would be lost without a word.
    fn passes(&self, config: &QueueConfig) -> bool {
        config
            .filter
            .passes(|name| self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| &value[..]))
    }

    /// Which partition it goes to: that of its key, or of the id that repetitions of it have too.
    fn place(&self) -> Option<&[u8]> {
        let id = self.headers.iter().find(|(name, _)| name == DEDUP_ID).map(|(_, id)| &id[..]);
        let content = self.body.as_deref().filter(|_| self.dedup.is_some());
        self.key.as_deref().or(id).or(content)
    }
}

type Answer = Result<Sent, SendRefusal>;

impl QueueDoor {
    /// Sends messages, each on its own and those of one partition in order, and returns when what was sent is durable. A
    /// message that repeats one of the deduplication window is not stored, and counts as sent.
    ///
    /// # Errors
    /// Of all of them: no such queue, or one that cannot say now.
    pub async fn send(&self, name: &str, messages: Vec<Outgoing>) -> Result<Vec<Answer>, QueueRefusal> {
        let (topic, config) = self.topic(name)?;
        let desk = self.desk(&topic);
        let now = self.now_ms();
        let retention_ms =
            desk.stations.first().map_or(-1, |station| station.partition.config().retention_ms);
        let mut answers: Vec<Option<Answer>> = messages.iter().map(|_| None).collect();
        let mut by_partition: BTreeMap<usize, Vec<(usize, Prepared)>> = BTreeMap::new();
        for (index, message) in messages.into_iter().enumerate() {
            if let Err(refusal) = check(&config, retention_ms, now, &message) {
                answers[index] = Some(Err(refusal));
                continue;
            }
            let prepared = prepare(&config, message, now);
            if !prepared.passes(&config) {
                let refusal = "the queue's filter takes no message with these headers".to_owned();
                answers[index] = Some(Err(SendRefusal::Invalid(refusal)));
                continue;
            }
            let partition = partition_of(prepared.place(), desk.own().len());
            by_partition.entry(partition).or_default().push((index, prepared));
        }
        let admission = self.admit(&topic).await?;
        let mut room = admission.as_ref().map(|admission| admission.room);
        let mut placed = Vec::with_capacity(by_partition.len());
        for (partition, prepared) in by_partition {
            let (indexes, prepared): (Vec<_>, Vec<_>) = prepared.into_iter().unzip();
            let station = &desk.own()[partition];
            placed.push((station, indexes, self.append(station, &config, prepared, &mut room).await?));
        }
        // Who comes next finds them in the log, though they are not on the disk yet.
        drop(admission);
        for (station, indexes, placed) in placed {
            for (index, sent) in indexes.into_iter().zip(confirm(station, placed).await) {
                answers[index] = Some(sent);
            }
        }
        let sent = || answers.iter().flatten().flatten();
        let duplicates = sent().filter(|sent| sent.is_duplicate).count();
        desk.counters.duplicates.add(duplicates as u64);
        desk.counters.sent.add((sent().count() - duplicates) as u64);
        self.make_way(&topic).await;
        Ok(answers.into_iter().flatten().collect())
    }

    /// Stores dead letters, and gives the sources and reasons of those that cannot be.
    pub(super) async fn store(
        &self,
        desk: &Desk,
        config: &QueueConfig,
        letters: Vec<Prepared>,
    ) -> Result<BTreeMap<String, SendRefusal>, QueueRefusal> {
        let mut by_partition: BTreeMap<usize, Vec<Prepared>> = BTreeMap::new();
        for letter in letters {
            let partition = partition_of(letter.key.as_deref(), desk.own().len());
            by_partition.entry(partition).or_default().push(letter);
        }
        let mut failed = BTreeMap::new();
        for (partition, letters) in by_partition {
            let sources: Vec<_> = letters.iter().map(Prepared::source).collect();
            let station = &desk.own()[partition];
            let stored = self.append(station, config, letters, &mut None).await?;
            let stored = confirm(station, stored).await;
            for (source, stored) in sources.into_iter().zip(stored) {
                failed.extend(stored.err().map(|error| (source, error)));
            }
        }
        Ok(failed)
    }

    /// Appends messages, as far as there is `room`, and takes from that.
    async fn append(
        &self,
        station: &Station,
        config: &QueueConfig,
        messages: Vec<Prepared>,
        room: &mut Option<i64>,
    ) -> Result<Vec<Result<Placed, SendRefusal>>, QueueRefusal> {
        station.partition.room().await;
        if !deduplicates(config) || messages.iter().all(|message| message.dedup.is_none()) {
            return Ok(Appending::to(station, None, room).all(messages));
        }
        // Held while the log is looked at and written, but not while it is synced.
        let mut dedup = station.dedup.lock().await;
        station.seed(self, config, &mut dedup, i64::MAX).await?;
        Ok(Appending::to(station, Some((&mut dedup, config.dedup_window_ms)), room).all(messages))
    }
}

/// The answers to what was appended, once it is durable.
async fn confirm(station: &Station, appended: Vec<Result<Placed, SendRefusal>>) -> Vec<Answer> {
    let last = appended.iter().flatten().map(|placed| placed.offset).max();
    let durable = match last {
        Some(last) => station.partition.durable(last + 1).await.map_err(Arc::new),
        None => Ok(()),
    };
    if durable.is_err() {
        let mut dedup = station.dedup.lock().await;
        let lost = appended.iter().flatten().filter(|placed| !placed.is_duplicate);
        lost.for_each(|placed| {
            if let Some(id) = placed.dedup {
                dedup.take_back(id, placed.offset);
            }
        });
    }
    let answer = |appended: Result<Placed, SendRefusal>| {
        let placed = appended?;
        durable.clone().map_err(SendRefusal::Storage)?;
        let (topic_id, partition) = (station.key.topic_id, station.key.partition);
        Ok(Sent {
            message_id: id_of_place(topic_id, partition, placed.offset),
            partition,
            offset: placed.offset,
            is_duplicate: placed.is_duplicate,
        })
    };
    appended.into_iter().map(answer).collect()
}

/// Where a message lies, or the one that it repeats.
struct Placed {
    offset: i64,
    is_duplicate: bool,
    dedup: Option<DedupId>,
}

/// Messages on their way into the log, in batches as large as the topic takes.
struct Appending<'a> {
    station: &'a Station,
    /// The ids that count, and for how long, ms.
    dedup: Option<(&'a mut Dedup, i64)>,
    /// How many messages more the queue takes; `None` for any number.
    room: &'a mut Option<i64>,
    compression: Option<Compression>,
    max_bytes: usize,
    /// The batch to be, and how many bytes it has at most.
    open: Vec<Prepared>,
    open_bytes: usize,
    placed: Vec<Result<Placed, SendRefusal>>,
}

impl<'a> Appending<'a> {
    fn to(station: &'a Station, dedup: Option<(&'a mut Dedup, i64)>, room: &'a mut Option<i64>) -> Self {
        let config = station.partition.config();
        Self {
            station,
            dedup,
            room,
            compression: config.compression,
            max_bytes: config.max_message_bytes,
            open: Vec::new(),
            open_bytes: 0,
            placed: Vec::new(),
        }
    }

    fn all(mut self, messages: Vec<Prepared>) -> Vec<Result<Placed, SendRefusal>> {
        self.open.reserve(messages.len());
        self.placed.reserve(messages.len());
        for message in messages {
            if message.dedup.is_some() && self.open.iter().any(|before| before.dedup == message.dedup) {
                // Only what has an offset can be repeated.
                self.close();
            }
            if let Some(offset) = self.first_of(&message) {
                self.close();
                self.placed.push(Ok(Placed { offset, is_duplicate: true, dedup: message.dedup }));
                continue;
            }
            let bytes = bytes_at_most(&message);
            if self.open_bytes + bytes > self.max_bytes {
                self.close();
            }
            if bytes > self.max_bytes {
                let (bytes, max) = (batch(self.compression, &[message], bytes).size_bytes(), self.max_bytes);
                self.placed.push(Err(SendRefusal::TooLarge { bytes, max }));
                continue;
            }
            match self.room {
                // What repeats another is known all the same.
                Some(0) => {
                    self.close();
                    self.placed.push(Err(SendRefusal::Overflow));
                    continue;
                }
                Some(room) => *room -= 1,
                None => {}
            }
            self.open_bytes += bytes;
            self.open.push(message);
        }
        self.close();
        self.placed
    }

    fn first_of(&self, message: &Prepared) -> Option<i64> {
        let (dedup, window_ms) = self.dedup.as_ref()?;
        dedup.first_of(message.dedup?, message.timestamp, *window_ms)
    }

    fn close(&mut self) {
        let messages = std::mem::take(&mut self.open);
        let bytes = std::mem::take(&mut self.open_bytes);
        if messages.is_empty() {
            return;
        }
        let appended = self.station.partition.append(batch(self.compression, &messages, bytes));
        let appended = appended.map_err(Arc::new);
        for (index, message) in messages.into_iter().enumerate() {
            let appended = appended.as_ref().map_err(|error| SendRefusal::Storage(Arc::clone(error)));
            self.placed.push(appended.map(|appended| {
                let offset = appended.base_offset + index as i64;
                if let (Some((dedup, window_ms)), Some(id)) = (&mut self.dedup, message.dedup) {
                    dedup.saw(id, offset, message.timestamp, *window_ms);
                }
                Placed { offset, is_duplicate: false, dedup: message.dedup }
            }));
        }
    }
}

/// No less than what a batch of the message alone has, uncompressed.
fn bytes_at_most(message: &Prepared) -> usize {
    const VARINT_MAX: usize = 5;
    let field = |length: usize| length + VARINT_MAX;
    let headers: usize =
        message.headers.iter().map(|(name, value)| field(name.len()) + field(value.len())).sum();
    let fields = [&message.key, &message.body].map(|bytes| field(bytes.as_ref().map_or(0, Bytes::len)));
    HEADER_BYTES + 1 + 2 * VARINT_MAX + 10 + fields.iter().sum::<usize>() + headers
}

/// An empty batch as a topic wants it compressed.
pub(super) fn new_batch(compression: Option<Compression>) -> BatchBuilder {
    match compression {
        None => BatchBuilder::new(),
        Some(Compression { codec, level: None }) => BatchBuilder::new().codec(codec),
        Some(Compression { codec, level: Some(level) }) => BatchBuilder::new().codec_at_level(codec, level),
    }
}

/// The batch of messages, of about so many bytes.
fn batch(compression: Option<Compression>, messages: &[Prepared], bytes: usize) -> ValidBatch {
    let mut batch = new_batch(compression).room_for(bytes);
    for message in messages {
        let headers: Vec<_> =
            message.headers.iter().map(|(name, value)| (name.as_str(), Some(&value[..]))).collect();
        batch.push(message.timestamp, message.key.as_deref(), message.body.as_deref(), &headers);
    }
    batch.build_valid()
}

/// Refuses what is larger than the queue's messages may be, and what would be gone before anybody could receive it.
fn check(
    config: &QueueConfig,
    retention_ms: i64,
    now_ms: TimestampMs,
    message: &Outgoing,
) -> Result<(), SendRefusal> {
    // What the doors add themselves is not the sender's.
    let own =
        message.headers.iter().filter(|(name, _)| !name.starts_with("ottla.") && name != "AWSTraceHeader");
    let headers = own.map(|(name, value)| name.len() + value.len());
    let bytes = message.body.len() + headers.sum::<usize>();
    let max = usize::try_from(config.max_message_bytes).unwrap_or(usize::MAX);
    if bytes > max {
        return Err(SendRefusal::TooLarge { bytes, max });
    }
    let said = |name: &str| {
        let found = message.headers.iter().find(|(found, _)| found == name)?;
        std::str::from_utf8(&found.1).ok()?.trim().parse::<i64>().ok()
    };
    let until = said(DELIVER_AT).map(|at| at.saturating_sub(now_ms));
    let delay_ms = [message.delay_ms, said(DELAY_MS), until].into_iter().flatten().max().unwrap_or(0);
    if delay_ms <= 0 {
        return Ok(());
    }
    if config.fifo {
        return Err(SendRefusal::Invalid("a FIFO queue has one delay for all its messages".to_owned()));
    }
    // -1 of a topic is for ever.
    let kept_ms = config.retention_ms.into_iter().chain(Some(retention_ms).filter(|ms| *ms >= 0)).min();
    match kept_ms.filter(|kept_ms| delay_ms > *kept_ms) {
        Some(kept_ms) => Err(SendRefusal::Invalid(format!(
            "a delay of {delay_ms} ms is longer than messages are kept: {kept_ms} ms"
        ))),
        None => Ok(()),
    }
}

fn prepare(config: &QueueConfig, message: Outgoing, now: TimestampMs) -> Prepared {
    let Outgoing { body, key, mut headers, delay_ms, dedup_id: given, priority, ttl_ms } = message;
    let dedup = dedup_id(config, given.as_ref().map(String::as_bytes), key.as_deref(), &body);
    let mut add = |name: &str, value: Option<String>| {
        headers.extend(value.map(|value| (name.to_owned(), Bytes::from(value))));
    };
    add(DELAY_MS, delay_ms.map(|ms| ms.to_string()));
    add(DEDUP_ID, given);
    add(PRIORITY, priority.map(|priority| priority.to_string()));
    add(TTL_MS, ttl_ms.map(|ms| ms.to_string()));
    Prepared { key, body: Some(body), headers, timestamp: now, dedup }
}

/// By its key, so that all of a group go to one partition; without one, each to the next.
fn partition_of(key: Option<&[u8]>, partitions: usize) -> usize {
    match key {
        Some(key) => by_key(key, partitions),
        None => NEXT.fetch_add(1, Ordering::Relaxed) % partitions,
    }
}
