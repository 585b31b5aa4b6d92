//! One partition of an internal topic and the machine that is a fold over it.

use std::collections::{HashMap, VecDeque};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use super::{CoordinatorError, Effects, Machine, Stored, Ticket};
use crate::clock::{Clock, TimestampMs};
use crate::log::{self, Appended, LogError, Partition, ReplayError};
use crate::record::{BatchBuilder, ValidBatch};

/// Events that one append takes together at most.
const EVENTS_A_STEP: usize = 256;

/// Bytes of records at which a batch is closed.
const BATCH_BYTES: usize = 256 << 10;

/// Appends that may wait for the disk; beyond, events wait.
const UNSETTLED_MAX: usize = 64;

/// Pause before the machine is made anew after a failed append; it doubles from one failure to the next.
const START_OVER_FIRST: Duration = Duration::from_millis(100);

/// The longest such pause.
const START_OVER_LAST: Duration = Duration::from_secs(5);

/// Records beyond twice what lives that make a snapshot worth writing after a replay.
const SPARE_AT_LOAD: usize = 1_000;

/// The same while running.
const SPARE_WHILE_RUNNING: usize = 200_000;

/// An event and who waits for its reply.
pub(super) struct Asked<M: Machine> {
    pub event: M::Event,
    pub reply: oneshot::Sender<Result<M::Reply, CoordinatorError>>,
}

type Sender<M> = oneshot::Sender<Result<<M as Machine>::Reply, CoordinatorError>>;

/// Replies that leave when the log is durable up to an offset.
struct Unsettled<M: Machine> {
    offset_end_exclusive: i64,
    replies: Vec<(Sender<M>, M::Reply)>,
}

/// The task's state.
pub(super) struct Shard<M: Machine> {
    log: Arc<Partition>,
    clock: Clock,
    machine: M,
    /// Makes an empty machine, for a replay after a failed append.
    fresh: Box<dyn Fn() -> M + Send + Sync>,
    /// Starts over since the last append that went well.
    failures: u32,
    /// Whether the log has records that no snapshot would have: of later versions of this program, or unreadable.
    has_strange_records: bool,
    next_ticket: u64,
    waiting: HashMap<Ticket, Sender<M>>,
    unsettled: VecDeque<Unsettled<M>>,
    /// Records in the log.
    stored: usize,
}

impl<M: Machine> Shard<M> {
    pub(super) fn new(log: Arc<Partition>, clock: Clock, fresh: Box<dyn Fn() -> M + Send + Sync>) -> Self {
        Self {
            log,
            clock,
            machine: fresh(),
            fresh,
            failures: 0,
            has_strange_records: false,
            next_ticket: 0,
            waiting: HashMap::new(),
            unsettled: VecDeque::new(),
            stored: 0,
        }
    }

    pub(super) async fn run(
        mut self,
        mut mailbox: mpsc::Receiver<Asked<M>>,
        loading: watch::Sender<bool>,
        stop: CancellationToken,
    ) {
        if !self.load().await {
            return;
        }
        // Whoever looks at this later than now finds the channel closed or the shard loaded.
        let _ = loading.send(true);
        let mut asked = Vec::new();
        let mut stopped = pin!(stop.cancelled());
        let mut alarm = Alarm::default();
        let log = Arc::clone(&self.log);
        loop {
            let settling = self.unsettled.front().map(|unsettled| unsettled.offset_end_exclusive);
            alarm.ring_by(&self.clock, self.machine.deadline());
            let stored = tokio::select! {
                biased;
                () = stopped.as_mut() => break,
                settled = log.durable(settling.unwrap_or_default()), if settling.is_some() => self.settle(settled),
                taken = mailbox.recv_many(&mut asked, EVENTS_A_STEP), if self.unsettled.len() < UNSETTLED_MAX => {
                    if taken == 0 {
                        break;
                    }
                    self.step(&mut asked)
                }
                () = alarm.rung() => self.tick(),
            };
            let kept = match stored {
                Ok(()) => self.snapshot_if_due(SPARE_WHILE_RUNNING).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = kept
                && !self.start_over(&failure).await
            {
                return;
            }
        }
        // Who waits for other members is told to come back; what was decided is still told when it is durable.
        self.waiting.clear();
        while let Some(unsettled) = self.unsettled.front() {
            let settled = self.log.durable(unsettled.offset_end_exclusive).await;
            if self.settle(settled).is_err() {
                return;
            }
        }
    }

    fn step(&mut self, asked: &mut Vec<Asked<M>>) -> Result<(), LogError> {
        let now = self.clock.now_ms();
        let mut effects = Effects::default();
        for Asked { event, reply } in asked.drain(..) {
            let ticket = Ticket(self.next_ticket);
            self.next_ticket += 1;
            self.waiting.insert(ticket, reply);
            self.machine.step(now, ticket, event, &mut effects);
        }
        self.carry_out(effects)
    }

    fn tick(&mut self) -> Result<(), LogError> {
        let mut effects = Effects::default();
        self.machine.tick(self.clock.now_ms(), &mut effects);
        self.carry_out(effects)
    }

    /// Appends the records; the replies leave at once if nothing is on its way to the disk.
    fn carry_out(&mut self, effects: Effects<M::Reply, M::Record>) -> Result<(), LogError> {
        let replies = self.addressed(effects.replies);
        let prompt = self.addressed(effects.prompt);
        if effects.records.is_empty() && self.unsettled.is_empty() {
            replies.into_iter().chain(prompt).for_each(|(to, reply)| drop(to.send(Ok(reply))));
            return Ok(());
        }
        let is_awaited = !replies.is_empty() || prompt.is_empty();
        let appended = match is_awaited {
            true => self.append(&effects.records, Partition::append),
            // Whoever asked for it has not waited for the disk, and does not.
            false => self.append(&effects.records, Partition::append_unawaited),
        };
        if let Err(failure) = appended {
            let all = replies.into_iter().chain(prompt);
            all.for_each(|(to, _)| drop(to.send(Err(CoordinatorError::NotStored))));
            return Err(failure);
        }
        prompt.into_iter().for_each(|(to, reply)| drop(to.send(Ok(reply))));
        if !is_awaited {
            return Ok(());
        }
        let end = match appended? {
            Some(end) => end,
            None => self.unsettled.back().map_or(0, |unsettled| unsettled.offset_end_exclusive),
        };
        self.unsettled.push_back(Unsettled { offset_end_exclusive: end, replies });
        let durable = self.log.offsets()?.high_watermark;
        self.release(durable);
        Ok(())
    }

    /// The replies with who waits for them.
    fn addressed(&mut self, replies: Vec<(Ticket, M::Reply)>) -> Vec<(Sender<M>, M::Reply)> {
        replies.into_iter().filter_map(|(to, reply)| Some((self.waiting.remove(&to)?, reply))).collect()
    }

    /// Returns the end of what was appended, if anything was.
    fn append(
        &mut self,
        records: &[M::Record],
        append: impl Fn(&Partition, ValidBatch) -> Result<Appended, LogError>,
    ) -> Result<Option<i64>, LogError> {
        let now = self.clock.now_ms();
        let mut end = None;
        let mut batch = BatchBuilder::new();
        for (index, record) in records.iter().enumerate() {
            let (key, value) = record.encode();
            batch.push(now, Some(&key), value.as_deref(), &[]);
            if batch.block_bytes() >= BATCH_BYTES || index + 1 == records.len() {
                let full = std::mem::take(&mut batch);
                end = Some(append(&self.log, full.build_valid())?.last_offset + 1);
                self.failures = 0;
            }
        }
        self.stored += records.len();
        Ok(end)
    }

    /// The oldest append that was waited for is durable, or never will be.
    fn settle(&mut self, settled: Result<(), LogError>) -> Result<(), LogError> {
        settled?;
        let durable = self.log.offsets()?.high_watermark;
        self.release(durable);
        Ok(())
    }

    fn release(&mut self, durable_end_exclusive: i64) {
        while let Some(settled) =
            self.unsettled.pop_front_if(|next| next.offset_end_exclusive <= durable_end_exclusive)
        {
            // Who asked may have gone.
            settled.replies.into_iter().for_each(|(to, reply)| drop(to.send(Ok(reply))));
        }
    }

    /// After a failed append or sync: what is durable is told, all else is forgotten, and the machine made anew from the log.
    /// Whether that went well.
    async fn start_over(&mut self, failure: &LogError) -> bool {
        let (topic, partition) = (self.log.topic(), self.log.index());
        error!(topic, partition, error = %failure, "a coordinator could not store its records and starts over");
        if let Ok(offsets) = self.log.offsets() {
            // What has got into the log is replayed, even if what should have followed has not.
            let _ = self.log.durable(offsets.log_end_offset).await;
        }
        while let Some(Unsettled { offset_end_exclusive, replies }) = self.unsettled.pop_front() {
            let settled = self.log.durable(offset_end_exclusive).await.is_ok();
            for (to, reply) in replies {
                drop(to.send(if settled { Ok(reply) } else { Err(CoordinatorError::NotStored) }));
            }
        }
        let parked = self.waiting.drain();
        parked.for_each(|(_, to)| drop(to.send(Err(CoordinatorError::NotStored))));
        // A full disk stays full for a while: not a replay for each commit that meets it.
        let pause = START_OVER_FIRST * 2u32.saturating_pow(self.failures);
        tokio::time::sleep(pause.min(START_OVER_LAST)).await;
        self.failures += 1;
        self.load().await
    }

    /// Makes the machine anew from the log. Whether that went well; if not, the shard ends, and its clients are told to look
    /// for the coordinator again.
    async fn load(&mut self) -> bool {
        let (log, clock, machine) = (Arc::clone(&self.log), self.clock.clone(), (self.fresh)());
        let replayed = tokio::task::spawn_blocking(move || replay(&log, &clock, machine)).await;
        let log = Arc::clone(&self.log);
        let (topic, partition) = (log.topic(), log.index());
        match replayed {
            Ok(Ok(Replayed { machine, stored, strange })) => {
                debug!(topic, partition, records = stored, strange, "coordinator replayed");
                (self.machine, self.stored, self.has_strange_records) = (machine, stored, strange > 0);
                if let Err(failure) = self.snapshot_if_due(SPARE_AT_LOAD).await {
                    error!(topic, partition, error = %failure, "no snapshot: the log stays as long as it is");
                }
                true
            }
            Ok(Err(failure)) => {
                error!(topic, partition, error = %failure, "coordinator not replayed");
                false
            }
            // The pool is gone only when the process is about to be.
            Err(_stopped) => false,
        }
    }

    /// Writes what lives and lets the log before it go, if the log has `spare` records more than twice as many.
    async fn snapshot_if_due(&mut self, spare: usize) -> Result<(), LogError> {
        if self.has_strange_records || self.stored <= spare + 2 * self.machine.live_records() {
            return Ok(());
        }
        let snapshot = self.machine.snapshot();
        let first_of_snapshot = self.log.offsets()?.log_end_offset;
        let Some(end) = self.append(&snapshot, Partition::append)? else { return Ok(()) };
        self.log.durable(end).await?;
        self.stored = snapshot.len();
        let log = Arc::clone(&self.log);
        let deleting = tokio::task::spawn_blocking(move || log.delete_records(first_of_snapshot));
        match deleting.await {
            Ok(deleted) => deleted.map(drop)?,
            Err(_stopped) => return Ok(()),
        }
        let (topic, partition) = (self.log.topic(), self.log.index());
        info!(topic, partition, records = snapshot.len(), "coordinator snapshot written");
        Ok(())
    }
}

/// One timer for all that a machine waits for. Deadlines that only move on, as with each heartbeat, leave it as it is: it then
/// rings once for nothing, instead of being set anew for every event.
#[derive(Default)]
struct Alarm {
    /// When it rings next, by the broker's clock.
    due: Option<TimestampMs>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Sees to it that it rings at `deadline` or earlier.
    fn ring_by(&mut self, clock: &Clock, deadline: Option<TimestampMs>) {
        let Some(deadline) = deadline else { return };
        if self.due.is_some_and(|due| due <= deadline) {
            return;
        }
        let left_ms = deadline.saturating_sub(clock.now_ms()).max(0);
        let at = Instant::now() + Duration::from_millis(left_ms as u64);
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(sleep_until(at))),
        }
        self.due = Some(deadline);
    }

    /// Returns when it rings; never if it was not set.
    async fn rung(&mut self) {
        match (&mut self.sleep, self.due) {
            (Some(sleep), Some(_)) => sleep.await,
            _ => std::future::pending().await,
        }
        self.due = None;
    }
}

/// What a replay gives.
struct Replayed<M> {
    machine: M,
    /// Records in the log.
    stored: usize,
    /// Those of them that were passed over.
    strange: usize,
}

/// Folds the log from its start into `machine`.
fn replay<M: Machine>(log: &Partition, clock: &Clock, machine: M) -> Result<Replayed<M>, ReplayError> {
    let mut replayed = Replayed { machine, stored: 0, strange: 0 };
    log::replay(log, |record| {
        replayed.take(log, clock.now_ms(), &record);
        Ok::<_, ReplayError>(())
    })?;
    replayed.machine.replayed(clock.now_ms());
    Ok(replayed)
}

impl<M: Machine> Replayed<M> {
    /// One record that cannot be read does not take the groups of its neighbours with it.
    fn take(&mut self, log: &Partition, now: i64, record: &crate::record::Record) {
        self.stored += 1;
        match M::Record::decode(record.key.as_ref(), record.value.as_ref()) {
            Ok(Some(known)) => self.machine.apply(now, &known),
            Ok(None) => self.strange += 1,
            Err(fault) => {
                self.strange += 1;
                let (topic, partition, offset) = (log.topic(), log.index(), record.offset);
                error!(topic, partition, offset, error = %fault, "a coordinator's record cannot be read and is passed over");
            }
        }
    }
}
