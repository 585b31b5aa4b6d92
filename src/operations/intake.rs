//! What the headers of a record say of how it is to be treated in a queue.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use super::dead_letters::SOURCE;
use super::dedup::{Dedup, DedupId};
use crate::catalog::queue_config::{DedupScope, QueueConfig};
use crate::clock::TimestampMs;
use crate::hex::hex;
use crate::queue::{Arrival, Kind};
use crate::record::InvalidBatch;
use crate::record::records::{Record, RecordView};

/// Nobody gets the message for so long after its timestamp, ms.
pub(super) const DELAY_MS: &str = "ottla.delay-ms";
/// Nobody gets the message before, ms since the epoch.
pub(super) const DELIVER_AT: &str = "ottla.deliver-at";
/// Of the levels that the queue has, 0 the lowest.
pub(super) const PRIORITY: &str = "ottla.priority";
/// Whoever has it again within the window is no message.
pub(super) const DEDUP_ID: &str = "ottla.dedup-id";
/// How long after its timestamp the message may be received, ms.
pub(super) const TTL_MS: &str = "ottla.ttl-ms";

/// The value of the first header of that name.
pub(super) fn header<'r>(record: &'r Record, name: &str) -> Option<&'r [u8]> {
    let found = record.headers.iter().find(|header| header.key == name.as_bytes())?;
    found.value.as_deref()
}

/// A decimal number; what is none counts as not said.
pub(super) fn number(record: &Record, name: &str) -> Option<i64> {
    number_of(header(record, name))
}

fn number_of(value: Option<&[u8]>) -> Option<i64> {
    std::str::from_utf8(value?).ok()?.trim().parse().ok()
}

/// What the headers of a message say of how it is to be treated: of each name the first header, also if that is null, which hides
/// those that follow.
#[derive(Clone, Copy, Default)]
struct Said<'h> {
    delay_ms: Option<Option<&'h [u8]>>,
    deliver_at: Option<Option<&'h [u8]>>,
    priority: Option<Option<&'h [u8]>>,
    dedup_id: Option<Option<&'h [u8]>>,
    ttl_ms: Option<Option<&'h [u8]>>,
    source: Option<Option<&'h [u8]>>,
}

impl<'h> Said<'h> {
    fn by(headers: impl Iterator<Item = (&'h [u8], Option<&'h [u8]>)>) -> Self {
        let mut said = Self::default();
        for (name, value) in headers {
            let about = match name {
                name if name == DELAY_MS.as_bytes() => &mut said.delay_ms,
                name if name == DELIVER_AT.as_bytes() => &mut said.deliver_at,
                name if name == PRIORITY.as_bytes() => &mut said.priority,
                name if name == DEDUP_ID.as_bytes() => &mut said.dedup_id,
                name if name == TTL_MS.as_bytes() => &mut said.ttl_ms,
                name if name == SOURCE.as_bytes() => &mut said.source,
                _ => continue,
            };
            about.get_or_insert(value);
        }
        said
    }

    fn by_record(record: &'h Record) -> Self {
        Self::by(record.headers.iter().map(|header| (&*header.key, header.value.as_deref())))
    }

    /// Whether it came as a dead letter.
    fn is_letter(&self) -> bool {
        self.source.flatten().is_some()
    }
}

/// The records of one read of the queue's own log, or of another that it reads, as the engine takes them; neighbours that are
/// alike are one.
///
/// # Errors
/// A record that cannot be read.
pub(super) fn arrivals<'b>(
    config: &QueueConfig,
    is_own: bool,
    dedup: Option<&mut Dedup>,
    records: impl Iterator<Item = Result<RecordView<'b>, InvalidBatch>>,
) -> Result<Vec<Arrival>, InvalidBatch> {
    let mut dedup = dedup;
    let mut arrivals: Vec<Arrival> = Vec::new();
    for record in records {
        let record = record?;
        let said = Said::by(record.headers);
        let skip =
            !passes(config, is_own, &record, &said) || repeats(config, dedup.as_deref_mut(), &record, &said);
        let kind = Kind { skip, ..kind(config, record.timestamp, record.key, &said) };
        match arrivals.last_mut() {
            Some(before) if before.last + 1 == record.offset && before.kind == kind => {
                before.last = record.offset
            }
            _ => arrivals.push(Arrival { first: record.offset, last: record.offset, kind }),
        }
    }
    Ok(arrivals)
}

fn kind(config: &QueueConfig, timestamp: TimestampMs, key: Option<&[u8]>, said: &Said<'_>) -> Kind {
    let after = |ms: i64| timestamp.saturating_add(ms);
    let due = match (number_of(said.deliver_at.flatten()), number_of(said.delay_ms.flatten())) {
        // A FIFO queue has one delay for all: else a message could overtake its group.
        _ if config.fifo => Some(after(config.delay_ms)),
        (Some(at), None) => Some(at),
        (None, Some(delay)) => Some(after(delay)),
        (Some(at), Some(delay)) => Some(at.max(after(delay))),
        (None, None) => Some(after(config.delay_ms)),
    };
    let ttl_ms = number_of(said.ttl_ms.flatten());
    let ttl = [ttl_ms, config.ttl_ms, config.retention_ms].into_iter().flatten().min();
    let by_key = config.fifo || config.key_concurrency > 0 || config.key_rate > 0;
    Kind {
        due: due.filter(|due| *due > timestamp),
        expires: ttl.map(after),
        priority: level(config, said),
        key: key.filter(|_| by_key).map(hash),
        skip: false,
    }
}

fn level(config: &QueueConfig, said: &Said<'_>) -> u8 {
    let highest = config.priorities.saturating_sub(1);
    let wanted = if highest > 0 { number_of(said.priority.flatten()).unwrap_or(0) } else { 0 };
    u8::try_from(wanted.clamp(0, i64::from(highest))).unwrap_or(highest)
}

/// Another one in each process, so that nobody can choose keys that come to the same: hashes are not kept.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

fn hash(key: &[u8]) -> u64 {
    KEYS.hash_one(key)
}

/// Whether a record is a message of the queue, by its headers. A dead letter in its own log is: it was sent here by name.
fn passes(config: &QueueConfig, is_own: bool, record: &RecordView<'_>, said: &Said<'_>) -> bool {
    let value = |name: &str| {
        let mut headers = record.headers;
        let (_, value) = headers.find(|(key, _)| *key == name.as_bytes())?;
        Some(value.unwrap_or_default())
    };
    config.filter.passes(value) || (is_own && said.is_letter())
}

/// Whether messages of the queue can repeat others at all.
pub(super) fn deduplicates(config: &QueueConfig) -> bool {
    config.dedup_window_ms > 0
}

fn repeats(
    config: &QueueConfig,
    dedup: Option<&mut Dedup>,
    record: &RecordView<'_>,
    said: &Said<'_>,
) -> bool {
    // A dead letter is no repetition, whatever it was in its own queue.
    let Some(dedup) = dedup.filter(|_| !said.is_letter()) else { return false };
    dedup_id(config, said.dedup_id.flatten(), record.key, record.value.unwrap_or_default())
        .is_some_and(|id| dedup.saw(id, record.offset, record.timestamp, config.dedup_window_ms))
}

/// By what a message is known: the id that it has been given, or what its body comes to if the queue says so.
pub(super) fn dedup_id(
    config: &QueueConfig,
    given: Option<&[u8]>,
    key: Option<&[u8]>,
    body: &[u8],
) -> Option<DedupId> {
    let key = match config.dedup_scope {
        DedupScope::Queue => None,
        DedupScope::Key => Some(key.unwrap_or_default()),
    };
    match given {
        Some(id) => Some(DedupId::of(id, key)),
        // In hexadecimal, so that who sends the digest as an id means the same message.
        None if config.dedup_content => Some(DedupId::of(hex(&Sha256::digest(body)).as_bytes(), key)),
        None => None,
    }
}

/// When the message could be received first.
pub(super) fn due(config: &QueueConfig, record: &Record) -> TimestampMs {
    let said = Said::by_record(record);
    kind(config, record.timestamp, record.key.as_deref(), &said).due.unwrap_or(record.timestamp)
}
