//! `ottla bench members`: groups full of members that do nothing but live. How long the last join takes to become a stable
//! group, and what a server pays for members and their heartbeats. One thread serves all of them in turn, and never sleeps: the
//! server is not to pay for waking it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;

use super::report::Members;
use super::topic::Topic;
use super::{BenchError, TargetFlags, process};
use crate::cli::client::{ClientError, Connection, Frame, check};
use crate::group::consumer_protocol::{Subscription, Versioned};
use crate::protocol::ErrorCode;
use crate::protocol::api::Api;
use crate::protocol::messages::find_coordinator::FindCoordinatorRequest;
use crate::protocol::messages::heartbeat::HeartbeatRequest;
use crate::protocol::messages::join_group::{JoinGroupProtocol, JoinGroupRequest, JoinGroupResponse};
use crate::protocol::messages::sync_group::{SyncGroupAssignment, SyncGroupRequest};
use crate::protocol::messages::{FindCoordinator, Heartbeat, JoinGroup, SyncGroup};
use crate::protocol::wire::Str;

/// Last version with one key a request.
const FIND_VERSION: i16 = 3;
const JOIN_VERSION: i16 = 9;
const SYNC_VERSION: i16 = 5;
const HEARTBEAT_VERSION: i16 = 4;

/// What a new group's coordinator may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);

const PROTOCOL: &str = "range";
const PROTOCOL_TYPE: &str = "consumer";

#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    pub(super) target: TargetFlags,
    /// Groups
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    groups: u32,
    /// Members of each group, each with a connection
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    members: u32,
    /// Pause between the heartbeats of a member, seconds
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = crate::cli::some_seconds)]
    heartbeat: Duration,
    /// How long the members live
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = crate::cli::some_seconds)]
    seconds: Duration,
    /// Process of the server on this machine: its CPU time and memory are measured too
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

/// # Errors
/// No broker, or one that refuses.
pub(super) fn measure(flags: &Flags) -> Result<Members, BenchError> {
    let TargetFlags { bootstrap, topic, .. } = &flags.target;
    Topic::prepare(bootstrap, topic, 1)?;
    // The first group makes the coordinator start, which is not what a member costs.
    Group::gather(bootstrap, topic, &group_id(flags.groups), 1)?;
    let resident = |pid: Option<u32>| pid.map(process::resident_bytes).transpose();
    let resident_before = resident(flags.pid)?;
    let mut groups = Vec::with_capacity(flags.groups as usize);
    for index in 0..flags.groups {
        groups.push(Group::gather(bootstrap, topic, &group_id(index), flags.members as usize)?);
    }
    let (cpu, began) = (flags.pid.map(process::cpu_time).transpose()?, Instant::now());
    let heartbeats = live(&mut groups, flags.heartbeat, flags.seconds)?;
    let (elapsed, cpu_after) = (began.elapsed(), flags.pid.map(process::cpu_time).transpose()?);
    let slowest = groups.iter().map(|group| group.stable_after).max().unwrap_or_default();
    Ok(Members {
        members: u64::from(flags.groups) * u64::from(flags.members),
        stable_milliseconds: slowest.as_secs_f64() * 1e3,
        heartbeats,
        server_cpu_share: cpu_after
            .zip(cpu)
            .map(|(after, before)| (after - before).as_secs_f64() / elapsed.as_secs_f64()),
        server_added_bytes: resident(flags.pid)?
            .zip(resident_before)
            .map(|(after, before)| after.saturating_sub(before)),
    })
}

/// A group that no run before has left members in.
pub(super) fn group_id(index: u32) -> String {
    format!("bench-{}-{index}", std::process::id())
}

/// A connection to the broker that coordinates `group`.
///
/// # Errors
/// There is none, or it does not become ready in time.
pub(super) fn coordinator(bootstrap: &str, group: &str) -> Result<Connection, ClientError> {
    let mut client = Connection::connect(bootstrap)?;
    let version = client.version_up_to::<FindCoordinator>(FIND_VERSION)?;
    let request = FindCoordinatorRequest { key: group.into(), ..Default::default() };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = client.call_at::<FindCoordinator>(version, &request)?;
        if found.error_code == 0 {
            return Connection::connect(&format!("{}:{}", found.host, found.port));
        }
        // A broker that makes its internal topic says so until it has.
        if Instant::now() > deadline {
            check(FindCoordinator::NAME, found.error_code)?;
        }
        sleep(Duration::from_millis(50));
    }
}

struct Member {
    client: Connection,
    joined: JoinGroupResponse,
}

struct Group {
    id: Str,
    subscription: Bytes,
    members: Vec<Member>,
    /// From the last member's join to the last assignment.
    stable_after: Duration,
}

impl Group {
    /// A stable group: the first member alone, then all others at once.
    fn gather(bootstrap: &str, topic: &str, id: &str, count: usize) -> Result<Self, ClientError> {
        let subscription =
            Subscription { topics: vec![topic.into()], ..Default::default() }.encode_versioned(1);
        let mut group =
            Self { id: id.into(), subscription, members: Vec::new(), stable_after: Duration::ZERO };
        let deadline = Instant::now() + PATIENCE;
        loop {
            group.members = vec![Member {
                client: coordinator(bootstrap, id)?.waiting_busily(),
                joined: JoinGroupResponse::default(),
            }];
            match group.enter(0).and_then(|()| group.settle(0..1)) {
                // A new coordinator may still load.
                Err(error) if error.is_retriable() && Instant::now() < deadline => {
                    sleep(Duration::from_millis(50));
                }
                settled => break settled?,
            }
        }
        for _ in 1..count {
            let client = Connection::connect(bootstrap)?.waiting_busily();
            group.members.push(Member { client, joined: JoinGroupResponse::default() });
            group.enter(group.members.len() - 1)?;
        }
        let last_join = Instant::now();
        if count > 1 {
            group.await_rebalance()?;
            group.send_join(0)?;
            group.settle(0..count)?;
        }
        group.stable_after = last_join.elapsed();
        Ok(group)
    }

    /// Sends a new member's join, with the id that it is given where one is given first.
    fn enter(&mut self, index: usize) -> Result<(), ClientError> {
        self.send_join(index)?;
        let client = &mut self.members[index].client;
        if client.version_up_to::<JoinGroup>(JOIN_VERSION)? >= 4 {
            let answer = client.answer::<JoinGroup>(client.version_up_to::<JoinGroup>(JOIN_VERSION)?)?;
            if answer.error_code != i16::from(ErrorCode::MemberIdRequired) {
                check(JoinGroup::NAME, answer.error_code)?;
            }
            self.members[index].joined.member_id = answer.member_id;
            self.send_join(index)?;
        }
        Ok(())
    }

    fn send_join(&mut self, index: usize) -> Result<(), ClientError> {
        let protocol = JoinGroupProtocol { name: PROTOCOL.into(), metadata: self.subscription.clone() };
        let Member { client, joined } = &mut self.members[index];
        let request = JoinGroupRequest {
            group_id: self.id.clone(),
            session_timeout_ms: 45_000,
            rebalance_timeout_ms: 300_000,
            member_id: joined.member_id.clone(),
            protocol_type: PROTOCOL_TYPE.into(),
            protocols: vec![protocol],
            ..Default::default()
        };
        let version = client.version_up_to::<JoinGroup>(JOIN_VERSION)?;
        client.send([&Frame::new::<JoinGroup>(version, &request)]).map(drop)
    }

    /// Takes the answers to the joins of these members, and gives each its assignment.
    fn settle(&mut self, members: std::ops::Range<usize>) -> Result<(), ClientError> {
        for member in &mut self.members[members.clone()] {
            let version = member.client.version_up_to::<JoinGroup>(JOIN_VERSION)?;
            member.joined = member.client.answer::<JoinGroup>(version)?;
            check(JoinGroup::NAME, member.joined.error_code)?;
        }
        for Member { client, joined } in &mut self.members[members.clone()] {
            let assignment = |member_id: &Str| SyncGroupAssignment {
                member_id: member_id.clone(),
                assignment: Bytes::from_static(b"as many bytes as an assignment of a partition"),
            };
            let request = SyncGroupRequest {
                group_id: self.id.clone(),
                generation_id: joined.generation_id,
                member_id: joined.member_id.clone(),
                protocol_type: Some(PROTOCOL_TYPE.into()),
                protocol_name: Some(PROTOCOL.into()),
                assignments: joined.members.iter().map(|member| assignment(&member.member_id)).collect(),
                ..Default::default()
            };
            let version = client.version_up_to::<SyncGroup>(SYNC_VERSION)?;
            client.send([&Frame::new::<SyncGroup>(version, &request)])?;
        }
        for member in &mut self.members[members] {
            let version = member.client.version_up_to::<SyncGroup>(SYNC_VERSION)?;
            check(SyncGroup::NAME, member.client.answer::<SyncGroup>(version)?.error_code)?;
        }
        Ok(())
    }

    /// The first member learns from a heartbeat that it has to join again.
    fn await_rebalance(&mut self) -> Result<(), ClientError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.heartbeat(0) {
                Err(error) if error.is(ErrorCode::RebalanceInProgress) => return Ok(()),
                alive if Instant::now() > deadline => return alive,
                alive => alive?,
            }
        }
    }

    fn heartbeat(&mut self, index: usize) -> Result<(), ClientError> {
        let Member { client, joined } = &mut self.members[index];
        let request = HeartbeatRequest {
            group_id: self.id.clone(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            ..Default::default()
        };
        let version = client.version_up_to::<Heartbeat>(HEARTBEAT_VERSION)?;
        check(Heartbeat::NAME, client.call_at::<Heartbeat>(version, &request)?.error_code)
    }
}

/// Heartbeats of every member, spread evenly over `pause`, for `seconds`; gives their number.
fn live(groups: &mut [Group], pause: Duration, seconds: Duration) -> Result<u64, ClientError> {
    let all: Vec<_> = groups
        .iter()
        .enumerate()
        .flat_map(|(group, members)| (0..members.members.len()).map(move |member| (group, member)))
        .collect();
    let began = Instant::now();
    let mut sent: u32 = 0;
    while began.elapsed() < seconds {
        let (group, member) = all[sent as usize % all.len()];
        groups[group].heartbeat(member)?;
        sent += 1;
        super::wait_busily_until(began + pause * sent / all.len() as u32);
    }
    Ok(u64::from(sent))
}
