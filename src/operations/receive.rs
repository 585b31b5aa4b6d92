//! Messages on loan, and what becomes of them.

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::breaker::Allowance;
use super::dead_letters::{DELIVERIES, MESSAGE_ID};
use super::desk::{Desk, Station};
use super::intake::{due, header, number};
use super::stats::between;
use super::{Delivery, Place, QueueDoor, QueueRefusal, Receipt, SettleRefusal, Wanted};
use crate::catalog::Topic;
use crate::catalog::queue_config::QueueConfig;
use crate::clock::TimestampMs;
use crate::log::LogError;
use crate::queue::{Range, Received, Settle, SettleError, Settlement};
use crate::record::records::{Header, Record};
use crate::uuid::Uuid;

/// How long a queue is left alone that is full, or could not answer.
const PAUSE: Duration = Duration::from_millis(100);

/// About how many bytes of messages one receive takes from a partition: they are in memory at once.
const RECEIVE_BYTES: usize = 16 << 20;

/// What is looked for, and where.
#[derive(Clone)]
struct Look {
    desk: Arc<Desk>,
    topic: Arc<Topic>,
    config: Arc<QueueConfig>,
    max: usize,
    lease_ms: i64,
    consumer: Option<Arc<str>>,
}

/// Where is looked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// In all partitions.
    All,
    /// Where something may have come since the last look.
    Changed,
}

/// What a look comes to.
struct Looked {
    found: Vec<Delivery>,
    /// Whether the queue is paused, wholly or but for a probe: there may be more, and nobody tells when it can be had.
    is_held_back: bool,
}

type Found = Result<Looked, QueueRefusal>;

/// A look that goes on when nobody waits for it any more, and then gives back what it has found: who hangs up in the middle hides
/// nothing from the others.
struct Looking {
    door: QueueDoor,
    desk: Arc<Desk>,
    look: Option<Pin<Box<dyn Future<Output = Found> + Send>>>,
}

impl Future for Looking {
    type Output = Found;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Found> {
        // It is not polled once it has ended.
        let Some(look) = &mut self.look else { return Poll::Pending };
        let found = ready!(look.as_mut().poll(cx));
        self.look = None;
        Poll::Ready(found)
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        let Some(look) = self.look.take() else { return };
        let (door, desk) = (self.door.clone(), Arc::clone(&self.desk));
        // Without a runtime the broker is gone, too.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Ok(Looked { found, .. }) = look.await {
                door.give_back(&desk, found.into_iter().map(|delivery| delivery.receipt)).await;
            }
        });
    }
}

impl QueueDoor {
    /// Lends messages: what there is, at once; else the first that come within the time to wait. Those of one partition come in
    /// the order in which the queue hands them out.
    ///
    /// # Errors
    /// No such queue; too many messages in flight and none to be had; a queue that cannot say now.
    pub async fn receive(&self, name: &str, wanted: Wanted) -> Result<Vec<Delivery>, QueueRefusal> {
        self.receive_for(name, wanted, None).await
    }

    /// The same, remembering who it was: see [`super::consumer_name`].
    ///
    /// # Errors
    /// As [`QueueDoor::receive`].
    pub async fn receive_for(
        &self,
        name: &str,
        wanted: Wanted,
        consumer: Option<&Arc<str>>,
    ) -> Result<Vec<Delivery>, QueueRefusal> {
        let (_, config) = self.topic(name)?;
        let wait = wanted.wait.unwrap_or_else(|| {
            Duration::from_millis(u64::try_from(config.receive_wait_ms).unwrap_or_default())
        });
        let until = (!wait.is_zero()).then(|| Instant::now() + wait);
        loop {
            // Anew each time: what a queue goes by may be other things by now.
            let (topic, config) = self.topic(name)?;
            let lease_ms = wanted.visibility_ms.unwrap_or(config.visibility_timeout_ms);
            let desk = self.desk(&topic);
            let look = Look {
                desk: Arc::clone(&desk),
                topic,
                config,
                max: wanted.max,
                lease_ms,
                consumer: consumer.cloned(),
            };
            let found = match until {
                None => self.looking(&look, Scope::All).await.map(|looked| Some(looked.found)),
                Some(until) => self.look_until(until, &look).await,
            };
            let found = match found {
                // It went meanwhile: that says the next look for it.
                Err(QueueRefusal::Storage(LogError::Deleted)) => continue,
                found => found?,
            };
            let Some(found) = found else { continue };
            if found.is_empty() {
                desk.counters.empty_receives.increment();
            }
            return Ok(found);
        }
    }

    /// Looks until something is found, `until` is over, or the broker stops; `None` when the topic is not what it was. Whoever is
    /// told that there may be something and is gone by then, or has found it, passes that on.
    async fn look_until(&self, until: Instant, wanted: &Look) -> Result<Option<Vec<Delivery>>, QueueRefusal> {
        let mut deadline = pin!(sleep_until(until));
        let mut waits = None;
        let mut scope = if wanted.desk.is_watched() { Scope::Changed } else { Scope::All };
        loop {
            let mut told = pin!(wanted.desk.told());
            if waits.is_some() {
                // What changes from here on is not missed.
                told.as_mut().enable();
            }
            let now = self.0.catalog.topic_by_id(wanted.topic.id);
            if now.is_none_or(|now| !Arc::ptr_eq(&now, &wanted.topic)) {
                return Ok(None);
            }
            let is_hindered = match self.looking(wanted, scope).await {
                Ok(Looked { found, is_held_back }) if found.is_empty() => is_held_back,
                Err(QueueRefusal::NotNow(_) | QueueRefusal::Full) if Instant::now() < until => true,
                done => {
                    // Where something was, more may be.
                    wanted.desk.tell_one();
                    return done.map(|looked| Some(looked.found));
                }
            };
            if self.0.stopping.is_cancelled() {
                return Ok(Some(Vec::new()));
            }
            // What hinders is not watched.
            scope = if is_hindered { Scope::All } else { Scope::Changed };
            if waits.is_none() {
                // Looks once more, now that it would be told.
                waits = Some(wanted.desk.wait(self));
                continue;
            }
            tokio::select! {
                () = told => {}
                () = tokio::time::sleep(PAUSE), if is_hindered => {}
                () = &mut deadline => {
                    return self.looking(wanted, Scope::All).await.map(|looked| Some(looked.found));
                }
                () = self.0.stopping.cancelled() => {}
            }
        }
    }

    fn looking(&self, wanted: &Look, scope: Scope) -> Looking {
        let (door, wanted) = (self.clone(), wanted.clone());
        let desk = Arc::clone(&wanted.desk);
        let look = Box::pin(async move {
            let found = door.look(&wanted, scope).await;
            if found.as_ref().map_or(true, |looked| looked.found.is_empty()) {
                wanted.desk.looked();
            }
            found
        });
        Looking { door: self.clone(), desk, look: Some(look) }
    }

    /// Gives back what nobody has seen.
    async fn give_back(&self, desk: &Desk, receipts: impl Iterator<Item = Receipt>) {
        let settle = |receipt: Receipt| {
            let Receipt { offset, deliveries, .. } = receipt;
            (receipt.place(), Settle { offset, deliveries, what: Settlement::Unseen })
        };
        for (station, settles) in desk.by_station(receipts.map(settle)) {
            if let Err(error) = self.0.queues.settle(&station.key, settles).await {
                let (queue, partition) = (&*desk.topic.name, station.key.partition);
                debug!(queue, partition, %error, "given back when their leases end");
            }
        }
    }

    async fn look(&self, wanted: &Look, scope: Scope) -> Found {
        let look = wanted;
        let Look { desk, config, max, lease_ms, .. } = wanted;
        let (max, lease_ms) = (*max, *lease_ms);
        let mut found = Vec::new();
        let (mut is_full, mut is_held_back) = (false, false);
        for station in desk.in_turn().filter(|station| scope == Scope::All || station.may_have_more()) {
            let wanted = i64::try_from(max - found.len()).unwrap_or(i64::MAX);
            let from_ms = self.now_ms();
            station.begin_look();
            let taken = self.take_of(desk, station, config, wanted, lease_ms).await;
            match &taken {
                Ok((received, allowance)) if received.ranges.is_empty() => {
                    station.found_nothing(received, *allowance == Allowance::All && !received.is_full);
                }
                _ => station.look_again(),
            }
            let (received, allowance) = match taken {
                Err(error) if desk.is_gone(station, &error) => continue,
                // What another partition has given is delivered; who comes next hears of it.
                Err(_) if !found.is_empty() => break,
                taken => taken?,
            };
            is_full |= received.is_full;
            is_held_back |= allowance != Allowance::All;
            let lease_ms = lease_ms.max(0);
            let ends_ms = from_ms.saturating_add(lease_ms)..=self.now_ms().saturating_add(lease_ms);
            self.move_dead_letters(desk, station, config);
            if !received.ranges.is_empty() {
                match self.deliver(look, station, &received.ranges, &ends_ms).await {
                    Ok(delivered) => found.extend(delivered),
                    Err(error) => {
                        let (topic_id, partition) = (station.key.topic_id, station.key.partition);
                        let records = received.ranges.iter().flat_map(|range| range.records());
                        let queue_id = desk.topic.id;
                        let receipt = |(offset, deliveries)| Receipt {
                            queue_id,
                            topic_id,
                            partition,
                            offset,
                            deliveries,
                        };
                        self.give_back(desk, records.map(receipt)).await;
                        return if found.is_empty() {
                            Err(error)
                        } else {
                            Ok(Looked { found, is_held_back })
                        };
                    }
                }
            }
            if found.len() >= max {
                break;
            }
        }
        match found.is_empty() && is_full {
            true => Err(QueueRefusal::Full),
            false => Ok(Looked { found, is_held_back }),
        }
    }

    async fn take_of(
        &self,
        desk: &Desk,
        station: &Station,
        config: &QueueConfig,
        wanted: i64,
        lease_ms: i64,
    ) -> Result<(Received, Allowance), QueueRefusal> {
        let wanted = wanted.min(station.messages_of(RECEIVE_BYTES)?);
        self.take_as_allowed(desk, station, config, wanted, lease_ms, None).await
    }

    /// As much of `wanted` as the queue's breaker allows, which comes with it.
    async fn take_as_allowed(
        &self,
        desk: &Desk,
        station: &Station,
        config: &QueueConfig,
        wanted: i64,
        lease_ms: i64,
        member: Option<&Arc<str>>,
    ) -> Result<(Received, Allowance), QueueRefusal> {
        let allowance = desk.breaker.lock().allows(config, self.now_ms());
        let received = station.take(self, config, allowance.of(wanted), lease_ms, member).await;
        if received.as_ref().map_or(true, |received| received.ranges.is_empty()) {
            desk.breaker.lock().not_needed(allowance, self.now_ms());
        }
        Ok((received?, allowance))
    }

    /// Lends records of a queue, of its own topic or another that it reads, to a member of its share group, of which is remembered
    /// that it was this consumer: about so many bytes at most, in the order of their offsets.
    ///
    /// # Errors
    /// No such queue; one that cannot say now.
    pub async fn lend(
        &self,
        name: &str,
        (topic_id, partition): (Uuid, i32),
        (member, consumer): (&Arc<str>, &Arc<str>),
        max_records: i64,
        max_bytes: usize,
    ) -> Result<Received, QueueRefusal> {
        let (topic, config) = self.topic(name)?;
        let desk = self.desk(&topic);
        let station =
            desk.station(topic_id, partition).ok_or_else(|| QueueRefusal::Unknown(name.to_owned()))?;
        let max_records = max_records.min(station.messages_of(max_bytes)?);
        let lease_ms = config.visibility_timeout_ms;
        let (mut received, _) =
            self.take_as_allowed(&desk, station, &config, max_records, lease_ms, Some(member)).await?;
        self.move_dead_letters(&desk, station, &config);
        let now = self.now_ms();
        desk.rates.lock().add(now, &received.ranges);
        for range in &received.ranges {
            let records = range.last.abs_diff(range.first) + 1;
            desk.counters.received.add(records);
            desk.counters.redelivered.add(if range.deliveries > 1 { records } else { 0 });
            desk.history.lock().lent(&station.key, *range, now, consumer);
            (range.first..=range.last)
                .filter(|_| range.deliveries > 1)
                .for_each(|_| desk.note(&config, false, now));
        }
        received.ranges.sort_unstable_by_key(|range| range.first);
        Ok(received)
    }

    /// A member of a queue's share group has spoken of what it was lent.
    pub fn settled(&self, name: &str, (topic_id, partition): (Uuid, i32), accepted: i64, refused: i64) {
        let Ok((topic, config)) = self.topic(name) else { return };
        let (desk, now, refuses) = (self.desk(&topic), self.now_ms(), refused > 0);
        desk.counters.acknowledged.add(accepted.max(0).cast_unsigned());
        desk.counters.rejected.add(refused.max(0).cast_unsigned());
        // More than the breaker looks at need not be told to it.
        let told = |records: i64| records.min(i64::from(config.breaker_window));
        (0..told(accepted)).for_each(|_| desk.note(&config, true, now));
        (0..told(refused)).for_each(|_| desk.note(&config, false, now));
        let Some(station) = desk.station(topic_id, partition) else { return };
        if refuses {
            self.move_dead_letters(&desk, station, &config);
        }
        station.let_go(self, &desk, &config);
    }

    async fn deliver(
        &self,
        wanted: &Look,
        station: &Station,
        ranges: &[Range],
        ends_ms: &RangeInclusive<TimestampMs>,
    ) -> Result<Vec<Delivery>, QueueRefusal> {
        let Look { desk, config, consumer, .. } = wanted;
        let places: Vec<(i64, u16)> = ranges.iter().flat_map(|range| range.records()).collect();
        let offsets: Vec<i64> = places.iter().map(|(offset, _)| *offset).collect();
        let records = station.records_at(self, &offsets).await?;
        let now = self.now_ms();
        let (topic_id, partition) = (station.key.topic_id, station.key.partition);
        let mut found = Vec::with_capacity(places.len());
        let mut records = records.into_iter().peekable();
        let mut missing = Vec::new();
        for (offset, deliveries) in places {
            let Some(record) = records.next_if(|record| record.offset == offset) else {
                missing.push(Settle { offset, deliveries, what: Settlement::Done });
                continue;
            };
            let receipt = Receipt { queue_id: desk.topic.id, topic_id, partition, offset, deliveries };
            let is_first = deliveries == 1;
            let place = station.place(offset);
            let first_received_ms = desk.history.lock().received(place, deliveries, now, consumer.as_ref());
            desk.counters.received.increment();
            match is_first {
                true => desk.counters.wait.observe(between(due(config, &record), now)),
                false => {
                    // Of a delivery that came to nothing this is the first that is heard.
                    desk.note(config, false, now);
                    desk.counters.redelivered.increment();
                }
            }
            found.push(delivery(receipt, (first_received_ms, ends_ms.clone()), record));
        }
        desk.rates.lock().add(now, ranges);
        if !missing.is_empty() {
            // Compaction or retention has taken them between the two looks: there is nothing to be done with them.
            self.0.queues.settle(&station.key, missing).await?;
        }
        Ok(found)
    }

    /// Keeps why deliveries are about to be given back or refused, in their consumers' words, for who looks at what becomes of them.
    ///
    /// # Errors
    /// No such queue.
    pub fn explain(&self, name: &str, errors: &[(Receipt, String)]) -> Result<(), QueueRefusal> {
        let (topic, _) = self.topic(name)?;
        let desk = self.desk(&topic);
        let mut history = desk.history.lock();
        for (receipt, error) in errors {
            history.explain(receipt.place(), receipt.deliveries, error);
        }
        Ok(())
    }

    pub(super) async fn settle_at(
        &self,
        desk: &Arc<Desk>,
        config: &Arc<QueueConfig>,
        what: Vec<(Receipt, Settlement)>,
    ) -> Result<Vec<Result<(), SettleRefusal>>, QueueRefusal> {
        self.start().await?;
        let mut settled = vec![Err(SettleRefusal::OtherQueue); what.len()];
        let own = what.into_iter().enumerate().filter(|(_, (receipt, _))| receipt.queue_id == desk.topic.id);
        let wanted = own.map(|(index, (receipt, what))| {
            let Receipt { offset, deliveries, .. } = receipt;
            (receipt.place(), (index, Settle { offset, deliveries, what }))
        });
        for (station, wanted) in desk.by_station(wanted) {
            let (indexes, settles): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
            let is_last = |deliveries| config.max_receive_count.is_some_and(|max| deliveries >= max);
            let kills = settles.iter().any(|settle| match settle.what {
                Settlement::Reject => true,
                Settlement::Return { .. } | Settlement::Abandon { .. } | Settlement::Extend { for_ms: 0 } => {
                    is_last(settle.deliveries)
                }
                Settlement::Done | Settlement::Drop | Settlement::Unseen | Settlement::Extend { .. } => false,
            });
            let done = self.0.queues.settle(&station.key, settles.clone()).await?;
            let now = self.now_ms();
            for (at, (index, done)) in indexes.into_iter().zip(done).enumerate() {
                if done.is_ok() {
                    count(desk, config, station.place(settles[at].offset), &settles[at], now);
                }
                settled[index] = done.map_err(|error| match error {
                    SettleError::Gone => SettleRefusal::Gone,
                    SettleError::TakenAgain => SettleRefusal::TakenAgain,
                });
            }
            if kills {
                self.move_dead_letters(desk, station, config);
            }
            station.let_go(self, desk, config);
        }
        Ok(settled)
    }
}

impl Station {
    /// Drops all that consumers can read now.
    pub(super) async fn purge(&self, door: &QueueDoor) -> Result<(), QueueRefusal> {
        let end = self.partition.offsets()?.high_watermark;
        let epoch = self.partition.leader_epoch();
        door.0.queues.initialise(&self.key, self.partition.offsets()?.log_start_offset, epoch).await?;
        door.0.queues.purge(&self.key, end, epoch).await?;
        self.forget_end();
        Ok(())
    }
}

/// A settlement that held.
fn count(desk: &Desk, config: &QueueConfig, place: Place, settle: &Settle, now: TimestampMs) {
    let counters = &desk.counters;
    match settle.what {
        Settlement::Done => {
            desk.note(config, true, now);
            counters.acknowledged.increment();
        }
        Settlement::Unseen => return,
        Settlement::Reject => {
            desk.note(config, false, now);
            counters.rejected.increment();
        }
        Settlement::Return { .. } | Settlement::Abandon { .. } | Settlement::Extend { for_ms: 0 } => {
            counters.released.increment();
        }
        Settlement::Drop | Settlement::Extend { .. } => {}
    }
    let since = desk.history.lock().settled(place, settle.deliveries, settle.what, now);
    if let Some(since) = since.filter(|_| settle.what != Settlement::Drop) {
        counters.processing.observe(between(since, now));
    }
}

fn delivery(
    receipt: Receipt,
    (first_received_ms, lease_ends_ms): (TimestampMs, RangeInclusive<TimestampMs>),
    record: Record,
) -> Delivery {
    let before = number(&record, DELIVERIES).and_then(|before| u32::try_from(before).ok()).unwrap_or(0);
    Delivery {
        message_id: message_id(receipt.topic_id, receipt.partition, &record),
        deliveries: before.saturating_add(u32::from(receipt.deliveries)),
        receipt,
        body: record.value.unwrap_or_default(),
        key: record.key,
        headers: headers(record.headers),
        sent_ms: record.timestamp,
        first_received_ms,
        lease_ends_ms,
    }
}

/// Headers as texts and bytes.
pub(super) fn headers(headers: Vec<Header>) -> Vec<(String, Bytes)> {
    let text = |header: Header| {
        (String::from_utf8_lossy(&header.key).into_owned(), header.value.unwrap_or_default())
    };
    headers.into_iter().map(text).collect()
}

/// The id of a message: the one that it has been given, or one that follows from its place.
pub(super) fn message_id(topic_id: Uuid, partition: i32, record: &Record) -> String {
    match header(record, MESSAGE_ID).and_then(|id| std::str::from_utf8(id).ok()) {
        Some(id) => id.to_owned(),
        None => id_of_place(topic_id, partition, record.offset),
    }
}

/// Differs from place to place, as its parts can be told from it; looks like what SDKs expect, a random UUID.
pub(super) fn id_of_place(topic_id: Uuid, partition: i32, offset: i64) -> String {
    let place = u128::from(partition.cast_unsigned()) << 64 | u128::from(offset.cast_unsigned());
    // An odd factor only moves numbers around: no two places come to the same.
    let spread = place.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Uuid((u128::from_be_bytes(topic_id.0) ^ spread).to_be_bytes()).hyphenated()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_place_has_an_id_of_its_own() {
        let topic = Uuid::random();
        let places = (0..50).flat_map(|partition| (0..2_000).map(move |offset| (partition, offset)));
        let ids: HashSet<_> =
            places.map(|(partition, offset)| id_of_place(topic, partition, offset)).collect();
        assert_eq!(ids.len(), 100_000);
        assert!(ids.iter().all(|id| id.len() == 36));
        assert_ne!(id_of_place(topic, 0, 1), id_of_place(Uuid::random(), 0, 1));
    }
}
