//! Messages looked at without lending them: those that wait, that are with somebody, or dead. Nothing about them changes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use super::dead_letters::{DELIVERIES, Letter, redriven};
use super::desk::{Desk, Station};
use super::history::Attempt;
use super::intake::number;
use super::receive::{headers, message_id};
use super::{QueueDoor, QueueRefusal};
use crate::catalog::queue_config::QueueConfig;
use crate::clock::TimestampMs;
use crate::queue::{Condition, QueueError, QueueFailure, Standing};
use crate::record::records::Record;
use crate::uuid::Uuid;

/// Records that the engine is asked for at a time.
const INSPECTED_TOGETHER: usize = 10_000;

/// Records that are read at a time.
const READ_TOGETHER: usize = 100;

/// Records that one page passes over, because of what is asked for, before it ends with what it has.
const PASSED_MAX: i64 = 1_000_000;

/// Records that one page reads.
const LOOKED_AT_MAX: usize = 10_000;

/// Bytes of messages that one page reads, about.
const PAGE_BYTES: usize = 16 << 20;

/// Where a message lies: as text its topic's id, its partition and its offset.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Place {
    /// Topic.
    pub topic_id: Uuid,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// Why a text is not a place.
#[derive(Debug, thiserror::Error)]
#[error("not TOPIC_ID-PARTITION-OFFSET")]
pub struct ParsePlaceError;

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.topic_id, self.partition, self.offset)
    }
}

impl FromStr for Place {
    type Err = ParsePlaceError;

    fn from_str(text: &str) -> Result<Self, ParsePlaceError> {
        // The id may have hyphens, too.
        let mut parts = text.rsplitn(3, '-');
        let mut next = || parts.next().ok_or(ParsePlaceError);
        let offset = next()?.parse().map_err(|_| ParsePlaceError)?;
        let partition = next()?.parse().map_err(|_| ParsePlaceError)?;
        let topic_id = next()?.parse().map_err(|_| ParsePlaceError)?;
        Ok(Self { topic_id, partition, offset })
    }
}

/// What a message waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageState {
    /// A receiver, or the turn of its key.
    Ready,
    /// Whoever has it.
    InFlight,
    /// Its time.
    Delayed,
    /// A way to the dead letter queue.
    Dead,
}

impl MessageState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ready, Self::InFlight, Self::Delayed, Self::Dead];

    /// As counts and metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::InFlight => "in_flight",
            Self::Delayed => "delayed",
            Self::Dead => "dead",
        }
    }
}

/// Which messages to look at, by partition and offset.
#[derive(Clone, Default, Debug)]
pub struct Peek {
    /// In one of these states; in any if there are none.
    pub states: Vec<MessageState>,
    /// Behind that one.
    pub after: Option<Place>,
    /// At most.
    pub max: usize,
}

/// A message as it lies there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peeked {
    /// Where.
    pub place: Place,
    /// What it waits for.
    pub state: MessageState,
    /// Until when somebody has it, or nobody can.
    pub until_ms: Option<TimestampMs>,
    /// Its id, the same at each delivery, in a dead letter queue too.
    pub message_id: String,
    /// The value of its record; empty if that is null.
    pub body: Bytes,
    /// The key of its record.
    pub key: Option<Bytes>,
    /// All headers of its record, in order. A null value is an empty one.
    pub headers: Vec<(String, Bytes)>,
    /// Timestamp of its record.
    pub sent_ms: TimestampMs,
    /// How often it has been received, before it was dead-lettered too.
    pub deliveries: u32,
    /// How often it has been received in this queue.
    pub(super) deliveries_here: u16,
    /// Those deliveries in this queue that this process remembers.
    pub history: Vec<Attempt>,
    /// How often it was a dead letter and has been sent on.
    pub redriven: u32,
    /// What is known of its end, if it is a dead letter.
    pub letter: Option<Letter>,
}

/// A page of messages.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Page {
    /// The messages: perhaps none, although more follow.
    pub messages: Vec<Peeked>,
    /// What the next page comes after; `None` if there is no more.
    pub next: Option<Place>,
}

impl QueueDoor {
    /// Messages of a queue as they are, lent to nobody. Each page costs what it shows, wherever in the queue it begins.
    ///
    /// # Errors
    /// No such queue, or one that cannot say now.
    pub async fn peek(&self, name: &str, wanted: &Peek) -> Result<Page, QueueRefusal> {
        let (topic, config) = self.topic(name)?;
        self.peek_at(&self.desk(&topic), &config, wanted, |_| true).await
    }

    /// The same, of those messages that are wanted for what they are.
    pub(super) async fn peek_at(
        &self,
        desk: &Arc<Desk>,
        config: &Arc<QueueConfig>,
        wanted: &Peek,
        is_wanted: impl Fn(&Peeked) -> bool,
    ) -> Result<Page, QueueRefusal> {
        let place = |station: &Station| (station.key.topic_id, station.key.partition);
        let mut stations: Vec<_> = desk.stations.iter().collect();
        stations.sort_unstable_by_key(|station| place(station));
        let after = wanted.after.map(|after| (after.topic_id, after.partition));
        let mut looking = Looking { wanted, page: Page::default(), bytes: 0, looked_at: 0, passed: 0 };
        for station in stations {
            if after.is_some_and(|after| place(station) < after) {
                continue;
            }
            // Nothing is handed out, but all there is is shown to the engine.
            match station.take(self, config, 0, 0, None).await {
                Err(error) if desk.is_gone(station, &error) => continue,
                taken => taken?,
            };
            let from = wanted
                .after
                .filter(|_| after == Some(place(station)))
                .map_or(0, |after| after.offset.saturating_add(1));
            if looking.look(self, desk, station, from, &is_wanted).await? {
                break;
            }
        }
        Ok(looking.page)
    }
}

/// A page in the making.
struct Looking<'a> {
    wanted: &'a Peek,
    page: Page,
    bytes: usize,
    looked_at: usize,
    passed: i64,
}

impl Looking<'_> {
    /// Looks through a partition from `from` on. Whether the page is full.
    async fn look(
        &mut self,
        door: &QueueDoor,
        desk: &Desk,
        station: &Station,
        from: i64,
        is_wanted: impl Fn(&Peeked) -> bool,
    ) -> Result<bool, QueueRefusal> {
        let (mut from, Peek { states, max, .. }) = (from, self.wanted);
        loop {
            let standings = match door.0.queues.inspect(&station.key, from, INSPECTED_TOGETHER).await {
                Err(QueueFailure::Queue(QueueError::Unknown)) => Vec::new(),
                standings => standings?,
            };
            let Some(end) = standings.last().map(|standing| standing.last) else { return Ok(false) };
            let is_of =
                |standing: &&Standing| states.is_empty() || states.contains(&state_of(standing.condition).0);
            let mut wanted = standings
                .iter()
                .filter(is_of)
                .flat_map(|standing| (standing.first..=standing.last).map(move |offset| (offset, *standing)));
            loop {
                // After the first look it is known that not everything is wanted.
                let few = if self.looked_at == 0 { READ_TOGETHER.min(*max) } else { READ_TOGETHER };
                let some: Vec<(i64, Standing)> = wanted.by_ref().take(few).collect();
                if some.is_empty() {
                    break;
                }
                let offsets: Vec<i64> = some.iter().map(|(offset, _)| *offset).collect();
                let records = station.records_at(door, &offsets).await?;
                let mut records = records.into_iter().peekable();
                for (offset, standing) in some {
                    // Retention may have taken it meanwhile.
                    let Some(record) = records.next_if(|record| record.offset == offset) else { continue };
                    let peeked = peeked(desk, station, &standing, record);
                    self.looked_at += 1;
                    self.bytes += peeked.body.len();
                    let place = peeked.place;
                    if is_wanted(&peeked) {
                        self.page.messages.push(peeked);
                    }
                    if self.is_full() {
                        self.page.next = Some(place);
                        return Ok(true);
                    }
                }
            }
            self.passed += standings.iter().map(|standing| standing.last - standing.first + 1).sum::<i64>();
            if self.is_full() || self.passed >= PASSED_MAX {
                self.page.next = Some(station.place(end));
                return Ok(true);
            }
            from = end + 1;
        }
    }

    fn is_full(&self) -> bool {
        self.page.messages.len() >= self.wanted.max
            || self.bytes >= PAGE_BYTES
            || self.looked_at >= LOOKED_AT_MAX
    }
}

fn state_of(condition: Condition) -> (MessageState, Option<TimestampMs>) {
    match condition {
        Condition::Ready => (MessageState::Ready, None),
        Condition::Leased { until } => (MessageState::InFlight, Some(until)),
        Condition::Waiting { until } => (MessageState::Delayed, Some(until)),
        Condition::Dead => (MessageState::Dead, None),
    }
}

fn peeked(desk: &Desk, station: &Station, standing: &Standing, record: Record) -> Peeked {
    let (topic_id, partition) = (station.key.topic_id, station.key.partition);
    let place = station.place(record.offset);
    let (state, until_ms) = state_of(standing.condition);
    let before = number(&record, DELIVERIES).and_then(|before| u32::try_from(before).ok()).unwrap_or(0);
    Peeked {
        place,
        state,
        until_ms,
        message_id: message_id(topic_id, partition, &record),
        deliveries: before.saturating_add(u32::from(standing.deliveries)),
        deliveries_here: standing.deliveries,
        history: desk.history.lock().of(place),
        redriven: redriven(&record),
        letter: Letter::of(&record),
        sent_ms: record.timestamp,
        key: record.key,
        headers: headers(record.headers),
        body: record.value.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_back_as_it_is_written() {
        for id in [Uuid([0xff; 16]), Uuid([0; 16]), Uuid([0xfb; 16])] {
            let place = Place { topic_id: id, partition: 3, offset: i64::MAX };
            assert_eq!(place.to_string().parse::<Place>().unwrap(), place, "{place}");
        }
        for text in ["", "a-1-2", "AAAAAAAAAAAAAAAAAAAAAA-1", "AAAAAAAAAAAAAAAAAAAAAA-x-1"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
