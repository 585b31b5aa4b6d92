//! `ottla bench share`: partitions are filled, then the members of a share group take the records and accept them, each batch with
//! the request for the next.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::fetch::fill;
use super::members::{coordinator, group_id};
use super::report::{Latencies, Messages};
use super::topic::{Batch, Topic};
use super::{BatchFlags, BenchError, TargetFlags, process};
use crate::cli::client::{ClientError, Connection, check};
use crate::protocol::api::Api;
use crate::protocol::messages::incremental_alter_configs::{
    IncrementalAlterConfig, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResource,
};
use crate::protocol::messages::share_fetch::{
    ShareFetchAcknowledgements, ShareFetchPartition, ShareFetchPartitionResponse, ShareFetchRequest,
    ShareFetchTopic,
};
use crate::protocol::messages::share_group_heartbeat::ShareGroupHeartbeatRequest;
use crate::protocol::messages::{IncrementalAlterConfigs, ShareFetch, ShareGroupHeartbeat};
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

/// Type of a resource that is a group.
const GROUP: i8 = 32;
const ACCEPT: i8 = 1;
/// Most bytes of records in an answer.
const ANSWER_BYTES: i32 = 1 << 20;
/// How long a fetch waits for records, ms.
const MAX_WAIT_MS: i32 = 500;
/// Between the heartbeats of a member; far less than any broker asks for.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// How long the members may take to get something each.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a new member asks for what it is assigned, and the window looks at the progress.
const PAUSE: Duration = Duration::from_millis(1);

#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    pub(super) target: TargetFlags,
    /// Members of the group, each with a connection
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=200))]
    members: u32,
    /// Partitions of the topic
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    partitions: u32,
    /// Records that a member asks for at a time
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_records: u32,
    #[command(flatten)]
    batch: BatchFlags,
    /// Bytes of record batches to store first, over all partitions
    #[arg(long, value_name = "BYTES", default_value_t = 1_000_000_000)]
    fill_bytes: u64,
    /// How long to measure; no longer than there are records
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = crate::cli::some_seconds)]
    seconds: Duration,
    /// Run at full load for so long first
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = crate::cli::seconds)]
    warm_up: Duration,
    /// Process of the server on this machine: its CPU time is measured too
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

/// What the members and the window share.
#[derive(Default)]
struct Progress {
    /// Records that are accepted.
    messages: AtomicU64,
    requests: AtomicU64,
    /// 1 while the window is open, 2 when it is over.
    phase: AtomicU64,
}

const OPEN: u64 = 1;
const OVER: u64 = 2;

/// # Errors
/// No broker, or one that refuses.
pub(super) fn measure(flags: &Flags) -> Result<Messages, BenchError> {
    let batch = Batch::build(&flags.batch)?;
    let bootstrap = &flags.target.bootstrap;
    let topic = Topic::prepare(bootstrap, &flags.target.topic, flags.partitions)?;
    let batches = (flags.fill_bytes / u64::from(flags.partitions) / batch.bytes.len() as u64).max(1);
    let mut total = 0;
    for partition in 0..topic.leaders.len() {
        let first = fill(&topic, partition, &batch, batches)?;
        total += first.unsigned_abs() + batches * u64::from(batch.records);
    }
    let group = group_id(0);
    from_the_first_record(&mut coordinator(bootstrap, &group)?, &group)?;
    let mut members = Vec::new();
    for index in 0..flags.members {
        members.push(Member::join(bootstrap, &group, &format!("member-{index}"), &topic.name, flags)?);
    }
    let progress = Progress::default();
    thread::scope(|scope| {
        let progress = &progress;
        let drive = |mut member: Member| {
            scope.spawn(move || {
                let driven = member.drive(progress);
                driven.inspect_err(|_| progress.phase.store(OVER, Ordering::Relaxed))
            })
        };
        // All that is assigned last is assigned to all.
        members.iter_mut().try_for_each(|member| member.beat())?;
        let threads: Vec<_> = members.into_iter().map(drive).collect();
        let measured = watch(flags, progress, total);
        progress.phase.store(OVER, Ordering::Relaxed);
        let mut latencies = Latencies::default();
        for thread in threads {
            latencies.add(&thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(Messages { latency_us: latencies.percentiles(), ..measured? })
    })
}

fn watch(flags: &Flags, progress: &Progress, total: u64) -> Result<Messages, BenchError> {
    let cpu = || flags.pid.map(process::cpu_time).transpose();
    let messages = || progress.messages.load(Ordering::Relaxed);
    let wait = |until: &dyn Fn() -> bool| {
        while !until() && messages() < total && progress.phase.load(Ordering::Relaxed) != OVER {
            thread::sleep(PAUSE);
        }
    };
    let started = Instant::now();
    wait(&|| started.elapsed() >= flags.warm_up);
    let (began, cpu_before, first) = (Instant::now(), cpu()?, messages());
    let requests = progress.requests.load(Ordering::Relaxed);
    progress.phase.fetch_max(OPEN, Ordering::Relaxed);
    wait(&|| began.elapsed() >= flags.seconds);
    let (seconds, messages) = (began.elapsed().as_secs_f64(), messages() - first);
    let requests = progress.requests.load(Ordering::Relaxed) - requests;
    let cpu = cpu()?.zip(cpu_before).map(|(after, before)| (after - before).as_secs_f64());
    Ok(Messages {
        messages,
        seconds,
        messages_per_second: messages as f64 / seconds,
        requests_per_second: requests as f64 / seconds,
        latency_us: None,
        messages_per_server_cpu_second: cpu.map(|cpu| messages as f64 / cpu),
    })
}

fn from_the_first_record(client: &mut Connection, group: &str) -> Result<(), ClientError> {
    let reset = IncrementalAlterConfig {
        name: "share.auto.offset.reset".into(),
        config_operation: 0,
        value: Some("earliest".into()),
    };
    let resource = IncrementalAlterConfigsResource {
        resource_type: GROUP,
        resource_name: group.into(),
        configs: vec![reset],
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let answer = client.call::<IncrementalAlterConfigs>(&request)?;
    answer.responses.iter().try_for_each(|one| check(IncrementalAlterConfigs::NAME, one.error_code))
}

/// A member with its connection.
struct Member {
    client: Connection,
    group: Str,
    id: Str,
    topic: Str,
    epoch: i32,
    beaten_at: Instant,
    assigned: Vec<(Uuid, Vec<i32>)>,
    session_epoch: i32,
    max_records: i32,
}

impl Member {
    /// A member that has been given something.
    fn join(bootstrap: &str, group: &str, id: &str, topic: &Str, flags: &Flags) -> Result<Self, ClientError> {
        let mut member = Self {
            client: coordinator(bootstrap, group)?,
            group: group.into(),
            id: id.into(),
            topic: topic.clone(),
            epoch: 0,
            beaten_at: Instant::now(),
            assigned: Vec::new(),
            session_epoch: 0,
            max_records: flags.max_records as i32,
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let is_late = Instant::now() > deadline;
            match member.beat() {
                Ok(()) if !member.assigned.is_empty() => return Ok(member),
                Ok(()) if is_late => return Err(ClientError::Incomplete { api: ShareGroupHeartbeat::NAME }),
                // A coordinator that was just found may have to load first.
                Err(error) if error.is_retriable() && !is_late => {}
                beaten => beaten?,
            }
            thread::sleep(PAUSE);
        }
    }

    fn beat(&mut self) -> Result<(), ClientError> {
        let is_new = self.epoch == 0;
        let request = ShareGroupHeartbeatRequest {
            group_id: self.group.clone(),
            member_id: self.id.clone(),
            member_epoch: self.epoch,
            subscribed_topic_names: is_new.then(|| vec![self.topic.clone()]),
            ..Default::default()
        };
        let answer = self.client.call::<ShareGroupHeartbeat>(&request)?;
        check(ShareGroupHeartbeat::NAME, answer.error_code)?;
        (self.epoch, self.beaten_at) = (answer.member_epoch, Instant::now());
        if let Some(assignment) = answer.assignment {
            let of_topics = assignment.topic_partitions.into_iter();
            self.assigned = of_topics.map(|topic| (topic.topic_id, topic.partitions)).collect();
        }
        Ok(())
    }

    /// Takes and accepts until it is over; how long each of its requests took.
    fn drive(&mut self, progress: &Progress) -> Result<Latencies, BenchError> {
        let mut latencies = Latencies::default();
        let mut held: Vec<ShareFetchTopic> = Vec::new();
        let mut records = 0;
        loop {
            let is_over = progress.phase.load(Ordering::Relaxed) == OVER;
            if self.beaten_at.elapsed() > HEARTBEAT {
                self.beat()?;
            }
            let sent_at = Instant::now();
            let taken = self.fetch(std::mem::take(&mut held))?;
            progress.requests.fetch_add(1, Ordering::Relaxed);
            progress.messages.fetch_add(records, Ordering::Relaxed);
            if records > 0 && progress.phase.load(Ordering::Relaxed) == OPEN {
                latencies.record(sent_at.elapsed());
            }
            if is_over {
                return Ok(latencies);
            }
            (held, records) = taken;
        }
    }

    /// Accepts what is held and asks for more: what comes, as it is to be accepted, and how many records that is.
    fn fetch(&mut self, held: Vec<ShareFetchTopic>) -> Result<(Vec<ShareFetchTopic>, u64), BenchError> {
        let topics = match self.session_epoch {
            0 => self
                .assigned
                .iter()
                .map(|(topic_id, partitions)| whole_topic(*topic_id, partitions))
                .collect(),
            _ => held,
        };
        let request = ShareFetchRequest {
            group_id: Some(self.group.clone()),
            member_id: Some(self.id.clone()),
            share_session_epoch: self.session_epoch,
            max_wait_ms: MAX_WAIT_MS,
            min_bytes: 1,
            max_bytes: ANSWER_BYTES,
            max_records: self.max_records,
            batch_size: self.max_records,
            topics,
            ..Default::default()
        };
        self.session_epoch += 1;
        let answer = self.client.call::<ShareFetch>(&request)?;
        check(ShareFetch::NAME, answer.error_code)?;
        let mut records = 0;
        let mut taken = Vec::with_capacity(answer.responses.len());
        for topic in answer.responses {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                check(ShareFetch::NAME, partition.error_code)?;
                check(ShareFetch::NAME, partition.acknowledge_error_code)?;
                let accepted = accept(&partition);
                records +=
                    accepted.iter().map(|range| range.last_offset - range.first_offset + 1).sum::<i64>();
                if !accepted.is_empty() {
                    let (partition_index, acknowledgement_batches) = (partition.partition_index, accepted);
                    partitions.push(ShareFetchPartition { partition_index, acknowledgement_batches });
                }
            }
            taken.push(ShareFetchTopic { topic_id: topic.topic_id, partitions });
        }
        Ok((taken, records.unsigned_abs()))
    }
}

fn whole_topic(topic_id: Uuid, partitions: &[i32]) -> ShareFetchTopic {
    let partition = |index: &i32| ShareFetchPartition { partition_index: *index, ..Default::default() };
    ShareFetchTopic { topic_id, partitions: partitions.iter().map(partition).collect() }
}

fn accept(partition: &ShareFetchPartitionResponse) -> Vec<ShareFetchAcknowledgements> {
    let ranges = partition.acquired_records.iter();
    let accepted = ranges.map(|range| ShareFetchAcknowledgements {
        first_offset: range.first_offset,
        last_offset: range.last_offset,
        acknowledge_types: vec![ACCEPT],
    });
    accepted.collect()
}
