//! Messages that nobody could deal with go to another queue, with what is known of them.

use std::collections::{BTreeMap, HashSet};
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
use crate::queue::{Settle, Settlement};
use crate::record::records::Record;

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
            let dead: Vec<(i64, u16)> = dead.iter().flat_map(|range| range.records()).collect();
            let failed =
                self.store_letters(desk, station, config, (&target_desk, &target_config), &dead).await?;
            let is_moved = |(offset, _): &(i64, u16)| !failed.contains_key(&source_of(station, *offset));
            let settle = |(offset, deliveries)| Settle { offset, deliveries, what: Settlement::Done };
            let settles: Vec<_> = dead.into_iter().filter(is_moved).map(settle).collect();
            let offsets: Vec<i64> = settles.iter().map(|settle| settle.offset).collect();
            self.0.queues.settle(&station.key, settles).await?;
            {
                let (mut history, mut sent) = (desk.history.lock(), station.moved.lock());
                let mut gave_way = station.gave_way.lock();
                for offset in &offsets {
                    history.forget(station.place(*offset));
                    gave_way.remove(offset);
                    sent.as_mut().map(|sent| sent.remove(offset));
                }
            }
            let moved = offsets.len();
            // What cannot go stays, and is tried again in a minute; the others do not wait for it.
            for (source, error) in failed {
                warn!(queue = &*desk.topic.name, source, target, %error, "a dead letter cannot be moved");
            }
            desk.counters.dead_lettered.add(moved as u64);
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
        dead: &[(i64, u16)],
    ) -> Result<BTreeMap<String, SendRefusal>, QueueRefusal> {
        let is_known = station.moved.lock().is_some();
        if !is_known {
            let sent = self.sent_before(station, target).await?;
            *station.moved.lock() = Some(sent);
        }
        let is_here = |offset: &i64| station.moved.lock().as_ref().is_none_or(|sent| !sent.contains(offset));
        let offsets: Vec<i64> = dead.iter().map(|(offset, _)| *offset).filter(is_here).collect();
        let records = station.records_at(self, &offsets).await?;
        let mut letters = Vec::with_capacity(records.len());
        for record in &records {
            let Some((_, deliveries)) = dead.iter().find(|(offset, _)| *offset == record.offset) else {
                continue;
            };
            let source = source_of(station, record.offset);
            let attempts = desk.history.lock().of(station.place(record.offset));
            let gave_way = station.gave_way.lock().contains(&record.offset);
            let end = End { deliveries: *deliveries, gave_way, source, attempts, now_ms: self.now_ms() };
            letters.push(letter(&desk.topic, station, config, record, end));
        }
        // Not known again until it is told what has come of these.
        let mut sent = station.moved.lock().take().unwrap_or_default();
        let failed = self.store(target, target_config, letters).await?;
        if failed.values().all(SendRefusal::is_certain) {
            sent.extend(offsets.iter().filter(|at| !failed.contains_key(&source_of(station, **at))));
            *station.moved.lock() = Some(sent);
        }
        Ok(failed)
    }

    /// The dead of a station whose letters have come to a queue, and that are not done with. Of a record that several read there is
    /// a letter from each.
    async fn sent_before(&self, from: &Station, desk: &Desk) -> Result<HashSet<i64>, QueueRefusal> {
        let Some(progress) = self.0.queues.describe(&from.key).await? else { return Ok(HashSet::new()) };
        let is_from = |record: &&Record| header(record, QUEUE) == Some(from.key.group.as_bytes());
        let source =
            |record: &Record| std::str::from_utf8(header(record, SOURCE)?).ok()?.parse::<Place>().ok();
        let is_its = |place: &Place| *place == from.place(place.offset) && place.offset >= progress.start;
        // Of a queue of that name that was deleted, or of before the group's offsets were reset, there may be others.
        let is_of_now =
            |record: &&Record| number(record, MOVED_AT).is_some_and(|moved_at| moved_at >= progress.made_at);
        let mut sent = HashSet::new();
        for station in desk.own() {
            let offsets = station.partition.offsets()?;
            let mut from = offsets.log_start_offset;
            while from < offsets.high_watermark {
                let (records, end) = station.read_records(self, from, 1 << 20).await?;
                let places =
                    records.iter().filter(is_from).filter(is_of_now).filter_map(source).filter(is_its);
                sent.extend(places.map(|place| place.offset));
                if end <= from {
                    break;
                }
                from = end;
            }
        }
        Ok(sent)
    }
}

fn source_of(station: &Station, offset: i64) -> String {
    station.place(offset).to_string()
}

/// What is known of a message's end.
struct End {
    deliveries: u16,
    /// To others, in a full queue.
    gave_way: bool,
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
    let End { deliveries, gave_way, source, attempts, now_ms } = end;
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
    let is_worn_out = config.max_receive_count.is_some_and(|max| deliveries >= max);
    let reason = match is_worn_out {
        _ if gave_way => "overflow",
        true => "max-receive-count",
        false => "rejected",
    };
    // To be made to give way is no delivery, though the engine counts it as one.
    let deliveries = before.saturating_add(i64::from(deliveries) - i64::from(gave_way)).max(0);
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
