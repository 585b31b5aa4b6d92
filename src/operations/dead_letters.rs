//! Messages that nobody could deal with go to another queue, with what is known of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tracing::{debug, warn};

use super::desk::{Desk, Station};
use super::history::{self, Attempt};
use super::intake::{DELAY_MS, DELIVER_AT, TTL_MS, header, number};
use super::receive::message_id;
use super::{Place, QueueDoor, QueueRefusal, SendRefusal};
use crate::catalog::Topic;
use crate::catalog::queue_config::QueueConfig;
use crate::clock::TimestampMs;
use crate::coordinator::CoordinatorError;
use crate::log::LogError;
use crate::queue::{Cause, Died, Progress, QueueKey};
use crate::record::records::Record;
use crate::uuid::Uuid;

/// The id that the message has, wherever it goes.
pub(super) const MESSAGE_ID: &str = "ottla.message-id";
/// The queue that it comes from.
const QUEUE: &str = "ottla.dead-letter.queue";
/// Where it lay there: topic id, partition and offset, which tell one copy from the other.
pub(super) const SOURCE: &str = "ottla.dead-letter.source";
/// Why it is here.
const REASON: &str = "ottla.dead-letter.reason";
/// How often it had been delivered.
pub(super) const DELIVERIES: &str = "ottla.dead-letter.deliveries";
/// When it was moved, ms since the epoch.
const MOVED_AT: &str = "ottla.dead-letter.moved-at";
/// Who had it and what came of that, as far as it is remembered: JSON.
const HISTORY: &str = "ottla.dead-letter.history";
/// What the headers above begin with: a message that is sent on is no dead letter any more.
pub(super) const PREFIX: &str = "ottla.dead-letter.";
/// How often it was a dead letter and has been sent on. It keeps that when it dies again.
pub(super) const REDRIVEN: &str = "ottla.redriven";
/// Where it lay among the dead letters: tells whether it has been sent on already.
pub(super) const REDRIVEN_FROM: &str = "ottla.redriven-from";

/// Messages that are moved at a time.
const MOVED_TOGETHER: i64 = 100;

/// How long a mover waits that could not move what is dead: from the first time on, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(60)];

/// How long a mover has for them, ms.
const MOVE_MS: i64 = 60_000;

/// Bytes of the log that are read together to see what was sent before.
const LOOKED_BYTES: usize = 1 << 20;

/// How far the clock may have gone back, ms, between what is sent elsewhere and what that comes from.
pub(super) const CLOCK_SLACK_MS: i64 = 60_000;

/// What a dead letter tells of its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Letter {
    /// The queue that it comes from.
    pub queue: String,
    /// Where it lay there, as a [`super::Place`] is written.
    pub source: String,
    /// Why it is here.
    pub reason: String,
    /// How often it had been delivered.
    pub deliveries: u32,
    /// When it was moved, ms since the epoch.
    pub moved_at_ms: TimestampMs,
    /// Who had it and what came of that: JSON, a list of [`super::Attempt`]s.
    pub history: Option<String>,
}

impl Letter {
    /// Of a record that is one.
    pub(super) fn of(record: &Record) -> Option<Self> {
        let text = |name| header(record, name).map(|value| String::from_utf8_lossy(value).into_owned());
        Some(Self {
            queue: text(QUEUE)?,
            source: text(SOURCE)?,
            reason: text(REASON)?,
            deliveries: number(record, DELIVERIES).and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
            moved_at_ms: number(record, MOVED_AT)?,
            history: text(HISTORY),
        })
    }
}

/// How often a message was a dead letter and has been sent on.
pub(super) fn redriven(record: &Record) -> u32 {
    number(record, REDRIVEN).and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}

impl QueueDoor {
    /// Has the dead letters of all queues moved that there are, and that come: after a restart, nobody need ask for a message.
    pub async fn tend_queues(&self) {
        for topic in self.0.catalog.view().topics() {
            let Some(config) = topic.queue.as_ref().filter(|config| config.dead_letter_queue.is_some())
            else {
                continue;
            };
            if let Err(error) = self.start().await {
                warn!(%error, "dead letters are moved once their queues are used");
                return;
            }
            let desk = self.desk(topic);
            desk.stations.iter().for_each(|station| self.move_dead_letters(&desk, station, config));
        }
    }

    /// Has the dead letters that a queue has in a partition moved from now on.
    pub(super) fn move_dead_of(&self, queue: &Arc<Topic>, key: &QueueKey) {
        let desk = self.desk(queue);
        if let (Some(config), Some(station)) = (&queue.queue, desk.station(key.topic_id, key.partition)) {
            self.move_dead_letters(&desk, station, config);
        }
    }

    /// Has the dead letters of a partition moved from now on, whenever there are any.
    pub(super) fn move_dead_letters(
        &self,
        desk: &Arc<Desk>,
        station: &Arc<Station>,
        config: &Arc<QueueConfig>,
    ) {
        if config.dead_letter_queue.is_none() || station.is_moving.swap(true, Ordering::AcqRel) {
            return;
        }
        let (door, name, station) = (self.clone(), Arc::clone(&desk.topic.name), Arc::clone(station));
        tokio::spawn(async move {
            tokio::select! {
                () = door.keep_moving(&name, &station) => {}
                () = door.0.stopping.cancelled() => {}
            }
            station.is_moving.store(false, Ordering::Release);
        });
    }

    /// Moves what is dead as it dies, until the queue sends it nowhere any more.
    async fn keep_moving(&self, name: &str, station: &Arc<Station>) {
        let [mut pause, longest] = PAUSES;
        loop {
            let Some((_, config)) = self.sends_its_dead(name, station) else { return };
            match self.move_when_there_are(name, station, &config).await {
                Ok(()) => [pause, _] = PAUSES,
                // Its first receiver makes the window, and comes here once more.
                Err(QueueRefusal::NotNow(CoordinatorError::Loading)) if !self.is_known(station).await => {
                    return;
                }
                Err(error) => {
                    let (queue, partition) = (name, station.partition.index());
                    warn!(queue, partition, %error, "dead letters are kept until they can be moved");
                    tokio::time::sleep(pause).await;
                    pause = longest.min(pause * 2);
                }
            }
        }
    }

    /// The queue as it is now, if the station is one of its and what is dead there goes somewhere.
    fn sends_its_dead(&self, name: &str, station: &Arc<Station>) -> Option<(Arc<Desk>, Arc<QueueConfig>)> {
        let (topic, config) = self.topic(name).ok()?;
        let desk = self.desk(&topic);
        let is_its = desk.stations.iter().any(|its| Arc::ptr_eq(its, station));
        (is_its && config.dead_letter_queue.is_some()).then_some((desk, config))
    }

    /// Whether the station has a window; if that cannot be told, it may.
    async fn is_known(&self, station: &Station) -> bool {
        !matches!(self.0.queues.describe(&station.key).await, Ok(None))
    }

    async fn move_when_there_are(
        &self,
        name: &str,
        station: &Arc<Station>,
        config: &QueueConfig,
    ) -> Result<(), QueueRefusal> {
        // How often is too often, the engine is told by who receives: after a restart, that may be nobody.
        station.show_terms(self, config).await?;
        self.0.queues.await_dead_in(&station.key).await?;
        // That may have been days: where they go is what it is now.
        match self.sends_its_dead(name, station) {
            Some((desk, config)) => self.move_all(&desk, station, &config).await,
            None => Ok(()),
        }
    }

    async fn move_all(
        &self,
        desk: &Desk,
        station: &Station,
        config: &QueueConfig,
    ) -> Result<(), QueueRefusal> {
        let Some(target) = &config.dead_letter_queue else { return Ok(()) };
        let (target_topic, target_config) = self.topic(target)?;
        let target_desk = self.desk(&target_topic);
        loop {
            let dead = self.0.queues.take_dead(&station.key, MOVED_TOGETHER, MOVE_MS).await?;
            if dead.is_empty() {
                return Ok(());
            }
            let failed =
                self.store_letters(desk, station, config, (&target_desk, &target_config), &dead).await?;
            let is_moved = |died: &&Died| !failed.contains_key(&source_of(station, died.offset));
            let stored: Vec<&Died> = dead.iter().filter(is_moved).collect();
            let settles = stored.iter().map(|died| died.settle()).collect();
            let settled = self.0.queues.settle(&station.key, settles).await?;
            let mut moved = 0;
            {
                let (mut known, mut history) = (station.letters.lock().await, desk.history.lock());
                // One that took too long is given to the mover once more, and must not be sent then.
                for (Died { offset, .. }, _) in stored.iter().zip(settled).filter(|(_, done)| done.is_ok()) {
                    history.forget(station.place(*offset));
                    known.sent.remove(offset);
                    moved += 1;
                }
            }
            // What cannot go stays, and is tried again in a minute; the others do not wait for it.
            for (source, error) in failed {
                warn!(queue = &*desk.topic.name, source, target, %error, "a dead letter cannot be moved");
            }
            desk.counters.dead_lettered.add(moved);
            target_desk.tell_one();
            debug!(queue = &*desk.topic.name, moved, target, "dead letters moved");
        }
    }

    /// Stores letters of the dead that have none yet. Gives the sources of those that cannot be stored, and why.
    async fn store_letters(
        &self,
        desk: &Desk,
        station: &Station,
        config: &QueueConfig,
        (target, target_config): (&Desk, &QueueConfig),
        dead: &[Died],
    ) -> Result<BTreeMap<String, SendRefusal>, QueueRefusal> {
        let progress = self.0.queues.describe(&station.key).await?.ok_or(CoordinatorError::Loading)?;
        // Not known again until it is told what has come of these.
        let mut known = std::mem::take(&mut *station.letters.lock().await);
        if known.made_at != progress.made_at {
            known = SentBefore { made_at: progress.made_at, ..SentBefore::default() };
        }
        if known.target != Some(target.topic.id) {
            let (target, since) = (Some(target.topic.id), TimestampMs::MAX);
            known = SentBefore { target, since, looked_from: HashMap::new(), ..known };
        }
        // Purged meanwhile, or settled by whoever had them last.
        known.sent.retain(|offset| *offset >= progress.start);
        let offsets = dead.iter().map(|died| died.offset).filter(|offset| !known.sent.contains(offset));
        let mut records = station.records_at(self, &offsets.collect::<Vec<_>>()).await?;
        self.look_for_letters(station, target, &records, &mut known, &progress).await?;
        records.retain(|record| !known.sent.contains(&record.offset));
        let mut letters = Vec::with_capacity(records.len());
        for record in &records {
            let Some(died) = dead.iter().find(|died| died.offset == record.offset) else { continue };
            let source = source_of(station, record.offset);
            let attempts = desk.history.lock().of(station.place(record.offset));
            let end = End { died: *died, source, attempts, now_ms: self.now_ms() };
            letters.push(letter(&desk.topic, station, config, record, end));
        }
        let failed = self.store(target, target_config, letters).await?;
        if failed.values().all(SendRefusal::is_certain) {
            let stored = records.iter().map(|record| record.offset);
            known.sent.extend(stored.filter(|offset| !failed.contains_key(&source_of(station, *offset))));
            *station.letters.lock().await = known;
        }
        Ok(failed)
    }

    /// Finds out which of these dead have letters in a queue that nobody here knows of: from a process before this one, or of which it
    /// was not told what has come of them. Of a record that several read there is a letter from each.
    async fn look_for_letters(
        &self,
        from: &Station,
        target: &Desk,
        dead: &[Record],
        known: &mut SentBefore,
        progress: &Progress,
    ) -> Result<(), QueueRefusal> {
        // A letter has the time of its record, or that at which it was moved: after the record came.
        let since = dead.iter().map(|record| came_at_earliest(from, record)).min();
        let Some(since) = since.filter(|since| *since < known.since) else { return Ok(()) };
        let is_from = |record: &&Record| header(record, QUEUE) == Some(from.key.group.as_bytes());
        let is_its = |place: &Place| *place == from.place(place.offset) && place.offset >= progress.start;
        // Of a queue of that name that was deleted, or of before the group's offsets were reset, there may be others.
        let is_of_now =
            |record: &&Record| number(record, MOVED_AT).is_some_and(|moved_at| moved_at >= progress.made_at);
        for station in target.own() {
            let index = station.key.partition;
            let end = match known.looked_from.get(&index) {
                Some(looked_from) => *looked_from,
                None => station.partition.offsets()?.high_watermark,
            };
            let sent = &mut known.sent;
            let first = look_since(self, station, since, end, |records| {
                let letters = records.iter().filter(is_from).filter(is_of_now);
                let places = letters.filter_map(|record| place_in(record, SOURCE)).filter(is_its);
                sent.extend(places.map(|place| place.offset));
            });
            known.looked_from.insert(index, first.await?);
        }
        known.since = since;
        Ok(())
    }
}

/// What the mover of a station's dead knows of their letters.
#[derive(Default)]
pub(super) struct SentBefore {
    /// The dead whose letters are where they go, as far as that is known, and that are not done with.
    sent: HashSet<i64>,
    /// When the window was made that they are of.
    made_at: TimestampMs,
    /// Which queue has been looked through for letters.
    target: Option<Uuid>,
    /// Since when.
    since: TimestampMs,
    /// From where on, by its partitions.
    looked_from: HashMap<i32, i64>,
}

/// Shows the records of a log from the first on that is of `since` or later, with those of before that come behind it, up to an offset
/// or a little beyond. Gives where that begins: at that offset if there are none.
pub(super) async fn look_since(
    door: &QueueDoor,
    station: &Station,
    since: TimestampMs,
    offset_end_exclusive: i64,
    mut show: impl FnMut(&[Record]),
) -> Result<i64, LogError> {
    let found = station.first_since(since).await?;
    let first = found.map_or(offset_end_exclusive, |found| found.min(offset_end_exclusive));
    let mut at = first;
    while at < offset_end_exclusive {
        let (records, end) = station.read_records(door, at, LOOKED_BYTES).await?;
        show(&records);
        if end <= at {
            break;
        }
        at = end;
    }
    Ok(first)
}

/// When a record of a station has come to its log, at the earliest: it may have been ahead of its time by as much as its topic allows.
pub(super) fn came_at_earliest(station: &Station, record: &Record) -> TimestampMs {
    let ahead_ms = station.partition.config().message_timestamp_after_max_ms;
    record.timestamp.saturating_sub(ahead_ms.max(CLOCK_SLACK_MS))
}

/// The place that a header of a record names.
pub(super) fn place_in(record: &Record, name: &str) -> Option<Place> {
    std::str::from_utf8(header(record, name)?).ok()?.parse().ok()
}

fn source_of(station: &Station, offset: i64) -> String {
    station.place(offset).to_string()
}

/// What is known of a message's end.
struct End {
    died: Died,
    source: String,
    attempts: Vec<Attempt>,
    now_ms: TimestampMs,
}

/// What stands in the dead letter queue for `record`: the record itself, which keeps its id and its headers, without what would
/// delay it once more, and with what is known of its end.
fn letter(
    topic: &Topic,
    station: &Station,
    config: &QueueConfig,
    record: &Record,
    end: End,
) -> super::send::Prepared {
    let End { died, source, attempts, now_ms } = end;
    let others = [MESSAGE_ID, REDRIVEN_FROM, DELAY_MS, DELIVER_AT, TTL_MS];
    let is_kept = |key: &Bytes| {
        !key.starts_with(PREFIX.as_bytes()) && !others.iter().any(|other| key == other.as_bytes())
    };
    let mut headers: Vec<(String, Bytes)> = record
        .headers
        .iter()
        .filter(|header| is_kept(&header.key))
        .map(|header| {
            let value = header.value.clone().unwrap_or_default();
            (String::from_utf8_lossy(&header.key).into_owned(), value)
        })
        .collect();
    let before = number(record, DELIVERIES).unwrap_or(0);
    let is_worn_out = config.max_receive_count.is_some_and(|max| died.deliveries >= max);
    let reason = match died.cause {
        Cause::GaveWay => "overflow",
        Cause::Failed if is_worn_out => "max-receive-count",
        Cause::Failed => "rejected",
    };
    let deliveries = before.saturating_add(i64::from(died.deliveries)).max(0);
    let mut add = |name: &str, value: String| headers.push((name.to_owned(), Bytes::from(value)));
    add(MESSAGE_ID, message_id(station.key.topic_id, station.key.partition, record));
    add(QUEUE, topic.name.to_string());
    add(SOURCE, source);
    add(REASON, reason.to_owned());
    add(DELIVERIES, deliveries.to_string());
    add(MOVED_AT, now_ms.to_string());
    headers.extend(history::text(&attempts).map(|text| (HISTORY.to_owned(), text)));
    super::send::Prepared {
        key: record.key.clone(),
        body: record.value.clone(),
        headers,
        // A standard message keeps its age; a FIFO one begins anew, as in SQS.
        timestamp: if config.fifo { now_ms } else { record.timestamp },
        dedup: None,
    }
}
