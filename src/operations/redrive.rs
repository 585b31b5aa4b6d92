//! Messages of a queue dealt with by what they are: dead letters sent on, to where they came from or elsewhere, and messages dropped.
//!
//! What is to be sent on is held first, so that nobody receives it meanwhile, and nobody who has had it can still settle it; then it is sent,
//! with the place that it is taken from in its headers; then it is done. What a process that ended in between has sent on is
//! found by these headers, so that it is there once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::dead_letters::{
    CLOCK_SLACK_MS, PREFIX, REDRIVEN, REDRIVEN_FROM, came_at_earliest, look_since, place_in,
};
use super::desk::Desk;
use super::intake::{DEDUP_ID, DELAY_MS, DELIVER_AT};
use super::{MessageState, Outgoing, Peek, Peeked, Place, QueueDoor, QueueRefusal, SendRefusal, Sent};
use crate::clock::TimestampMs;
use crate::coordinator::CoordinatorError;
use crate::queue::{Pick, Picked};
use crate::uuid::Uuid;

/// Messages that are dealt with at a time.
const TOGETHER_MAX: usize = 100;

/// How long messages are held while they are sent on; anew as long as that is not over.
const HELD: Duration = Duration::from_secs(10);

const HOLD: Pick = Pick::Hold { for_ms: HELD.as_millis() as i64 };

/// How often a message is sent on, unless it must be: what dies each time is sent on for ever else.
const REDRIVEN_MAX: u32 = 3;

/// Which messages. All that is said must be so.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Filter {
    /// It died for this reason.
    pub reason: Option<String>,
    /// It died in this queue.
    pub queue: Option<String>,
    /// It has these headers; `None` is for any value.
    pub headers: Vec<(String, Option<String>)>,
    /// Its body has these bytes somewhere.
    pub body: Option<String>,
    /// It died, or else was sent, so long ago at least, ms.
    pub older_than_ms: Option<i64>,
    /// It died, or else was sent, so long ago at most, ms.
    pub newer_than_ms: Option<i64>,
    /// It has this id.
    pub message_id: Option<String>,
}

impl Filter {
    /// Whether the message is one of those.
    pub fn takes(&self, message: &Peeked, now: TimestampMs) -> bool {
        let letter = message.letter.as_ref();
        let is = |wanted: &Option<String>, found: Option<&String>| {
            wanted.as_ref().is_none_or(|wanted| found == Some(wanted))
        };
        let has = |(name, value): &(String, Option<String>)| {
            message.headers.iter().any(|(found, bytes)| {
                found == name && value.as_ref().is_none_or(|value| value.as_bytes() == &bytes[..])
            })
        };
        let age_ms = now.saturating_sub(letter.map_or(message.sent_ms, |letter| letter.moved_at_ms));
        is(&self.reason, letter.map(|letter| &letter.reason))
            && is(&self.queue, letter.map(|letter| &letter.queue))
            && is(&self.message_id, Some(&message.message_id))
            && self.headers.iter().all(has)
            && self.older_than_ms.is_none_or(|ms| age_ms >= ms)
            && self.newer_than_ms.is_none_or(|ms| age_ms <= ms)
            && self.body.as_ref().is_none_or(|part| has_part(&message.body, part.as_bytes()))
    }
}

fn has_part(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

/// What becomes of messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// They are sent on. Those that somebody has, or that are delayed, stay.
    Redrive {
        /// To which queue; without, each to the one that it died in.
        to: Option<String>,
        /// However often they were sent on before.
        is_forced: bool,
    },
    /// They are dropped. Those that somebody has stay.
    Drop,
}

/// Messages to be dealt with, in order of their places.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Which.
    pub filter: Filter,
    /// What becomes of them.
    pub fate: Fate,
    /// Behind that one.
    pub after: Option<Place>,
    /// What died later stays: so that what comes back at once is not sent on again and again. Ms since the epoch.
    pub began_ms: TimestampMs,
    /// At most; `None` for all.
    pub max: Option<u64>,
    /// Messages a second; `None` for as fast as can be.
    pub rate: Option<u32>,
    /// Only tells which there are.
    pub is_dry_run: bool,
    /// When to end with what has been done.
    pub until: Option<Instant>,
}

impl Sweep {
    /// All messages, now, to their end.
    pub fn new(fate: Fate, began_ms: TimestampMs) -> Self {
        Self {
            filter: Filter::default(),
            fate,
            after: None,
            began_ms,
            max: None,
            rate: None,
            is_dry_run: false,
            until: None,
        }
    }
}

/// What has become of messages.
#[derive(Clone, Default, Debug)]
pub struct Swept {
    /// Messages that were such.
    pub matched: u64,
    /// Messages that were sent on, or dropped.
    pub done: u64,
    /// Those that stay, although they were such: the first ones.
    pub left: Vec<Left>,
    /// What to go on behind; `None` at the end.
    pub next: Option<Place>,
}

/// A message that stays where it is.
#[derive(Clone, Debug)]
pub struct Left {
    /// Its id.
    pub message_id: String,
    /// Where it lies.
    pub place: Place,
    /// Why.
    pub why: Why,
}

/// Why a message stays where it is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Why {
    /// It does not say where it comes from.
    #[error("it does not say which queue it comes from")]
    NoSource,
    /// There is no such queue.
    #[error("there is no queue {0:?}")]
    NoQueue(String),
    /// The queue does not take it.
    #[error("{0}")]
    Refused(String),
    /// It has been sent on, and died, too often.
    #[error("it has been redriven {0} times already")]
    Redriven(u32),
    /// It went to somebody, or was done, meanwhile.
    #[error("somebody has it")]
    Taken,
}

/// Messages of a sweep that stay are told up to this many.
const LEFT_MAX: usize = 1_000;

impl QueueDoor {
    /// Where the dead letters of a queue are: in its dead letter queue those that come from it; if it has none, it is one itself, and
    /// all that is in it counts.
    ///
    /// # Errors
    /// No such queue.
    pub fn letters_of(&self, name: &str) -> Result<(String, Option<String>), QueueRefusal> {
        let (_, config) = self.topic(name)?;
        Ok(match &config.dead_letter_queue {
            Some(letters) => (letters.clone(), Some(name.to_owned())),
            None => (name.to_owned(), None),
        })
    }

    /// Messages like [`QueueDoor::peek`], of those that `filter` takes.
    ///
    /// # Errors
    /// No such queue, or one that cannot say now.
    pub async fn peek_for(
        &self,
        name: &str,
        wanted: &Peek,
        filter: &Filter,
    ) -> Result<super::Page, QueueRefusal> {
        let (topic, config) = self.topic(name)?;
        let now = self.now_ms();
        self.peek_at(&self.desk(&topic), &config, wanted, |message| filter.takes(message, now)).await
    }

    /// Deals with messages of a queue, some at a time, until there are no more, or `stop`; `told` hears of each time. Dropped, it ends
    /// after those that it is about to deal with.
    ///
    /// # Errors
    /// No such queue, or one that cannot say now; some may have been dealt with.
    pub async fn sweep(
        &self,
        name: &str,
        sweep: Sweep,
        stop: &CancellationToken,
        mut told: impl FnMut(&Swept),
    ) -> Result<Swept, QueueRefusal> {
        let (name, mut sweep): (Arc<str>, _) = (name.into(), sweep);
        let mut swept = Swept { next: sweep.after, ..Swept::default() };
        let per_round = sweep.rate.map_or(TOGETHER_MAX, |rate| (rate as usize).clamp(1, TOGETHER_MAX));
        loop {
            let counted = if sweep.is_dry_run { swept.matched } else { swept.done };
            let left = sweep.max.map_or(u64::MAX, |max| max - counted.min(max));
            let together = per_round.min(usize::try_from(left).unwrap_or(usize::MAX));
            if together == 0
                || stop.is_cancelled()
                || sweep.until.is_some_and(|until| until <= Instant::now())
            {
                return Ok(swept);
            }
            let (door, queue, some) = (self.clone(), Arc::clone(&name), sweep.clone());
            // To its end, even if who wants it is gone by then: what is sent on must be done with.
            let round = tokio::spawn(async move { door.sweep_some(&queue, &some, together).await });
            let round = round.await.unwrap_or(Err(CoordinatorError::NotHere.into()))?;
            swept.matched += round.matched;
            swept.done += round.done;
            swept.next = round.next;
            told(&round);
            let room = LEFT_MAX - swept.left.len();
            swept.left.extend(round.left.into_iter().take(room));
            let Some(next) = round.next else { return Ok(swept) };
            sweep.after = Some(next);
            if let Some(rate) = sweep.rate.filter(|_| round.done > 0) {
                let pause = Duration::from_secs_f64(round.done as f64 / f64::from(rate.max(1)));
                let _: Result<(), _> = timeout(pause, stop.cancelled()).await;
            }
        }
    }

    async fn sweep_some(&self, name: &str, sweep: &Sweep, max: usize) -> Result<Swept, QueueRefusal> {
        let (topic, config) = self.topic(name)?;
        let desk = self.desk(&topic);
        // One at a time: a message that one has taken, another would take too.
        let mut sweeping = desk.sweeping.lock().await;
        let states = match sweep.fate {
            Fate::Redrive { .. } => vec![MessageState::Ready],
            Fate::Drop => vec![MessageState::Ready, MessageState::Delayed],
        };
        let now = self.now_ms();
        let is_wanted = |message: &Peeked| {
            let died = message.letter.as_ref().map_or(i64::MIN, |letter| letter.moved_at_ms);
            died <= sweep.began_ms && sweep.filter.takes(message, now)
        };
        let peek = Peek { states, after: sweep.after, max };
        let page = self.peek_at(&desk, &config, &peek, is_wanted).await?;
        let mut swept = Swept { matched: page.messages.len() as u64, next: page.next, ..Swept::default() };
        match &sweep.fate {
            _ if sweep.is_dry_run => {}
            Fate::Drop => {
                let what = page.messages.iter().map(|message| (message, Pick::Drop));
                let refused = self.pick(&desk, what).await?;
                swept.done = swept.matched - refused.len() as u64;
                swept.leave(&page.messages, |place| refused.contains(place).then_some(Why::Taken));
                desk.counters.dropped.add(swept.done);
            }
            Fate::Redrive { to, is_forced } => {
                let why =
                    self.redrive(&desk, &mut sweeping, &page.messages, to.as_deref(), *is_forced).await?;
                swept.done = swept.matched - why.len() as u64;
                swept.leave(&page.messages, |place| why.get(place).cloned());
                desk.counters.redriven.add(swept.done);
            }
        }
        if swept.done > 0 {
            desk.stations.iter().for_each(|station| station.let_go(self, &desk, &config));
        }
        Ok(swept)
    }

    /// Sends messages on. Gives those that stay, and why.
    async fn redrive(
        &self,
        desk: &Arc<Desk>,
        sent_before: &mut HashMap<Uuid, HashSet<Place>>,
        messages: &[Peeked],
        to: Option<&str>,
        is_forced: bool,
    ) -> Result<HashMap<Place, Why>, QueueRefusal> {
        let mut stay = HashMap::new();
        let mut by_target: BTreeMap<&str, Vec<&Peeked>> = BTreeMap::new();
        for message in messages {
            match to.or_else(|| message.letter.as_ref().map(|letter| letter.queue.as_str())) {
                _ if !is_forced && message.redriven >= REDRIVEN_MAX => {
                    stay.insert(message.place, Why::Redriven(message.redriven));
                }
                None => drop(stay.insert(message.place, Why::NoSource)),
                Some(target) if self.queue(target).is_none() => {
                    stay.insert(message.place, Why::NoQueue(target.to_owned()));
                }
                Some(target) => by_target.entry(target).or_default().push(message),
            }
        }
        for (target, messages) in by_target {
            self.know_sent_before(desk, sent_before, target).await?;
            let taken = self.pick(desk, messages.iter().map(|message| (*message, HOLD))).await?;
            let (mut held, mut going) = (Vec::new(), Vec::new());
            let topic_id = self.topic(target)?.0.id;
            let there = sent_before.entry(topic_id).or_default();
            for message in messages {
                match taken.contains(&message.place) {
                    true => drop(stay.insert(message.place, Why::Taken)),
                    false if there.contains(&message.place) => held.push((message, Pick::Drop)),
                    false => going.push(message),
                }
            }
            let sending = self.send(target, going.iter().map(|message| outgoing(message)).collect());
            let sent = self.while_held(desk, &going, sending).await;
            let is_certain = is_certain(&sent);
            let refused: Vec<_> = match sent {
                Ok(sent) => sent.into_iter().map(|sent| sent.err().map(|why| why.to_string())).collect(),
                Err(refusal) => vec![Some(refusal.to_string()); going.len()],
            };
            for (message, refused) in going.into_iter().zip(refused) {
                match refused {
                    None => {
                        there.insert(message.place);
                        held.push((message, Pick::Drop));
                    }
                    Some(why) => {
                        stay.insert(message.place, Why::Refused(why));
                        // What may be there all the same stays held for a while: nobody is to get it here meanwhile.
                        if is_certain {
                            held.push((message, Pick::PutBack));
                        }
                    }
                }
            }
            let settled = self.pick(desk, held.iter().copied()).await;
            if let Ok(others) = &settled {
                for (message, _) in held.iter().filter(|(message, _)| !others.contains(&message.place)) {
                    there.remove(&message.place);
                }
            }
            if !is_certain {
                // What of them is there already is looked for the next time.
                sent_before.remove(&topic_id);
            }
            for place in settled? {
                // It was not held for so long.
                warn!(queue = &*desk.topic.name, %place, target, "a message was received while it was sent on");
            }
        }
        Ok(stay)
    }

    /// Does that to messages as they were seen, and gives those that are otherwise by now.
    async fn pick(
        &self,
        desk: &Desk,
        what: impl IntoIterator<Item = (&Peeked, Pick)>,
    ) -> Result<HashSet<Place>, QueueRefusal> {
        let picked = |(message, what): (&Peeked, Pick)| {
            let offset = message.place.offset;
            (message.place, Picked { offset, deliveries: message.deliveries_here, what })
        };
        let mut refused = HashSet::new();
        for (station, picked) in desk.by_station(what.into_iter().map(picked)) {
            let done = self.0.queues.pick(&station.key, picked.clone()).await?;
            let mut history = desk.history.lock();
            for (picked, done) in picked.iter().zip(done) {
                let place = station.place(picked.offset);
                match done {
                    Err(_) => drop(refused.insert(place)),
                    Ok(()) if picked.what == Pick::Drop => drop(history.forget(place)),
                    Ok(()) => {}
                }
            }
        }
        Ok(refused)
    }

    /// Does something while messages are held, however long it takes.
    async fn while_held<T>(&self, desk: &Desk, held: &[&Peeked], doing: impl Future<Output = T>) -> T {
        let mut doing = pin!(doing);
        loop {
            tokio::select! {
                done = &mut doing => return done,
                () = tokio::time::sleep(HELD / 3) => {}
            }
            if let Err(error) = self.pick(desk, held.iter().map(|message| (*message, HOLD))).await {
                debug!(queue = &*desk.topic.name, %error, "what is sent on may not be held for as long as that takes");
            }
        }
    }

    /// Looks for what a process before this one has sent on to `target` without being done with it: once, and again when it is not
    /// known what has come of something.
    async fn know_sent_before(
        &self,
        desk: &Desk,
        sent_before: &mut HashMap<Uuid, HashSet<Place>>,
        target: &str,
    ) -> Result<(), QueueRefusal> {
        let (topic, _) = self.topic(target)?;
        if sent_before.contains_key(&topic.id) {
            return Ok(());
        }
        // Not sent on before it came; and of what is done nothing needs to be known.
        let mut starts = HashMap::new();
        let mut since: Option<TimestampMs> = None;
        for station in &desk.stations {
            let Some(progress) = self.0.queues.describe(&station.key).await? else { continue };
            starts.insert((station.key.topic_id, station.key.partition), progress.start);
            let log_start = match station.partition.offsets().map_err(QueueRefusal::from) {
                Err(error) if desk.is_gone(station, &error) => continue,
                offsets => offsets?.log_start_offset,
            };
            let from = progress.start.max(log_start);
            let (oldest, _) = station.read_records(self, from, 1).await?;
            let came = oldest.first().map(|record| match super::Letter::of(record) {
                Some(letter) => letter.moved_at_ms.saturating_sub(CLOCK_SLACK_MS),
                None => came_at_earliest(station, record),
            });
            since = [since, came].into_iter().flatten().min();
        }
        let mut found = HashSet::new();
        if let Some(since) = since {
            for station in self.desk(&topic).own() {
                let end = station.partition.offsets()?.high_watermark;
                let look = look_since(self, station, since, end, |records| {
                    let places = records.iter().filter_map(|record| place_in(record, REDRIVEN_FROM));
                    found.extend(places.filter(|place| {
                        let start = starts.get(&(place.topic_id, place.partition));
                        start.is_some_and(|start| place.offset >= *start)
                    }));
                });
                look.await?;
            }
        }
        sent_before.insert(topic.id, found);
        Ok(())
    }
}

impl Swept {
    fn leave(&mut self, messages: &[Peeked], why: impl Fn(&Place) -> Option<Why>) {
        self.left.extend(messages.iter().filter_map(|message| {
            let (message_id, place) = (message.message_id.clone(), message.place);
            why(&place).map(|why| Left { message_id, place, why })
        }));
    }
}

/// Whether it is known of each message if it was sent.
fn is_certain(sent: &Result<Vec<Result<Sent, SendRefusal>>, QueueRefusal>) -> bool {
    match sent {
        Ok(sent) => sent.iter().filter_map(|sent| sent.as_ref().err()).all(SendRefusal::is_certain),
        Err(_) => false,
    }
}

/// The message as it was before it was dead: a new one in its age, with nothing left of its end but how often it was sent on.
fn outgoing(message: &Peeked) -> Outgoing {
    let is_over = |name: &str| {
        name.starts_with(PREFIX) || [DEDUP_ID, DELAY_MS, DELIVER_AT, REDRIVEN, REDRIVEN_FROM].contains(&name)
    };
    let kept = message.headers.iter().filter(|(name, _)| !is_over(name)).cloned();
    let place = message.place.to_string();
    let ours = [(REDRIVEN, message.redriven.saturating_add(1).to_string()), (REDRIVEN_FROM, place.clone())];
    Outgoing {
        body: message.body.clone(),
        key: message.key.clone(),
        headers: kept.chain(ours.map(|(name, value)| (name.to_owned(), Bytes::from(value)))).collect(),
        delay_ms: Some(0),
        // Whatever the destination remembers of ids: this one is to arrive, and once.
        dedup_id: Some(place),
        ..Outgoing::default()
    }
}
