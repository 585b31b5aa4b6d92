//! `ottla group describe`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use crate::cli::CommandError;
use crate::cli::client::{ClientError, Cluster, Isolation, TopicPartition, code_of};
use crate::cli::output::{or_nothing, print_json, print_table};
use crate::cli::position::ranges;
use crate::group::consumer_protocol::{Assignment, Versioned};
use crate::protocol::ErrorCode;
use crate::protocol::messages::describe_groups::{DescribedGroup, DescribedGroupMember};
use crate::protocol::wire::Str;

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Ids of the groups
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<Str>,
    /// Also each member with all its partitions
    #[arg(long)]
    members: bool,
    /// Print one JSON object a line: one a group, always with its members
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Group {
    group: String,
    /// None of a group that is not classic: only its offsets are known.
    state: Option<String>,
    protocol_type: Option<String>,
    assignor: Option<String>,
    coordinator: i32,
    partitions: Vec<Partition>,
    members: Vec<Member>,
}

#[derive(Serialize)]
struct Partition {
    topic: String,
    partition: i32,
    committed: Option<i64>,
    end: Option<i64>,
    lag: Option<i64>,
    member: Option<String>,
    client_id: Option<String>,
    host: Option<String>,
}

#[derive(Serialize)]
struct Member {
    member: String,
    instance_id: Option<String>,
    client_id: String,
    host: String,
    partitions: Vec<String>,
}

pub(super) fn run(cluster: &mut Cluster, flags: &Flags) -> Result<(), CommandError> {
    let mut refused = Vec::new();
    let mut out = io::stdout().lock();
    for (number, group) in flags.groups.iter().enumerate() {
        match describe(cluster, group) {
            Ok(group) if flags.json => print_json(&mut out, &group).map_err(CommandError::Output)?,
            Ok(group) => {
                let gap = if number > 0 { "\n" } else { "" };
                write!(out, "{gap}")
                    .and_then(|()| group.print(&mut out, flags.members))
                    .map_err(CommandError::Output)?;
            }
            Err(error) => refused.push(error),
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(CommandError::Refusals(refused)) }
}

fn describe(cluster: &mut Cluster, group: &Str) -> Result<Group, ClientError> {
    let (coordinator, described) = super::described(cluster, group)?;
    let committed = super::committed(cluster, group, None)?;
    if described.is_none() && committed.is_empty() {
        code_of(&super::named(group), ErrorCode::GroupIdNotFound.into(), None)?;
    }
    let owners = owners(described.as_ref());
    let places: BTreeSet<TopicPartition> = committed.keys().chain(owners.keys()).cloned().collect();
    let ends = ends(cluster, &places)?;
    let partition = |place: TopicPartition| {
        let (committed, end) = (committed.get(&place).copied(), ends.get(&place).copied());
        let owner = owners.get(&place);
        Partition {
            topic: place.topic.to_string(),
            partition: place.partition,
            committed,
            end,
            lag: committed.zip(end).map(|(committed, end)| (end - committed).max(0)),
            member: owner.map(|owner| owner.member_id.to_string()),
            client_id: owner.map(|owner| owner.client_id.to_string()),
            host: owner.map(|owner| owner.client_host.to_string()),
        }
    };
    let members = described.iter().flat_map(|group| &group.members).map(Member::of).collect();
    let some = |text: fn(&DescribedGroup) -> &Str| described.as_ref().map(|group| text(group).to_string());
    Ok(Group {
        group: group.to_string(),
        state: some(|group| &group.group_state),
        protocol_type: some(|group| &group.protocol_type),
        assignor: some(|group| &group.protocol_data).filter(|assignor| !assignor.is_empty()),
        coordinator,
        partitions: places.into_iter().map(partition).collect(),
        members,
    })
}

/// The partitions of a member. What is not of a consumer, or not to be read, is none.
fn assigned(member: &DescribedGroupMember) -> Vec<TopicPartition> {
    let Ok(assignment) = Assignment::decode_versioned(&member.member_assignment) else { return Vec::new() };
    let mut places = Vec::new();
    for topic in assignment.assigned_partitions {
        places.extend(topic.partitions.iter().map(|partition| TopicPartition::new(&topic.topic, *partition)));
    }
    places
}

fn owners(group: Option<&DescribedGroup>) -> BTreeMap<TopicPartition, &DescribedGroupMember> {
    let members = group.into_iter().flat_map(|group| &group.members);
    members.flat_map(|member| assigned(member).into_iter().map(move |place| (place, member))).collect()
}

/// Ends of those partitions that are still there and led.
fn ends(
    cluster: &mut Cluster,
    places: &BTreeSet<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
    let topics: BTreeSet<Str> = places.iter().map(|place| place.topic.clone()).collect();
    let topics: Vec<Str> = topics.into_iter().collect();
    let mut led = BTreeSet::new();
    for topic in cluster.retrying(|cluster| cluster.metadata(Some(&topics), false))? {
        let name = topic.name.unwrap_or_default();
        let partitions = topic.partitions.iter().filter(|partition| partition.leader_id >= 0);
        led.extend(partitions.map(|partition| TopicPartition::new(&name, partition.partition_index)));
    }
    led.retain(|place| places.contains(place));
    let ranges = ranges(cluster, led.iter(), Isolation::ReadUncommitted)?;
    Ok(ranges.into_iter().map(|(place, range)| (place, range.end_exclusive)).collect())
}

impl Member {
    fn of(member: &DescribedGroupMember) -> Self {
        Self {
            member: member.member_id.to_string(),
            instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            partitions: assigned(member).iter().map(ToString::to_string).collect(),
        }
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.member.clone(),
            or_nothing(self.instance_id.as_ref()),
            self.client_id.clone(),
            self.host.clone(),
            or_nothing(Some(self.partitions.join(",")).filter(|partitions| !partitions.is_empty())),
        ]
    }
}

impl Group {
    fn print(&self, out: &mut impl Write, with_members: bool) -> io::Result<()> {
        let state = self.state.as_deref().unwrap_or("not a classic group");
        let assignor = self.assignor.as_ref().map(|assignor| format!(", {assignor}")).unwrap_or_default();
        let members = match self.members.len() {
            1 => "1 member".to_owned(),
            count => format!("{count} members"),
        };
        let (group, coordinator) = (&self.group, self.coordinator);
        writeln!(out, "{group}  {state}, {members}{assignor}, coordinator {coordinator}")?;
        let titles = ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER", "CLIENT", "HOST"];
        print_table(out, &titles, self.partitions.iter().map(Partition::cells).collect(), "  ")?;
        if !with_members {
            return Ok(());
        }
        let titles = ["MEMBER", "INSTANCE", "CLIENT", "HOST", "PARTITIONS"];
        print_table(out, &titles, self.members.iter().map(Member::cells).collect(), "  ")
    }
}

impl Partition {
    fn cells(&self) -> Vec<String> {
        vec![
            self.topic.clone(),
            self.partition.to_string(),
            or_nothing(self.committed),
            or_nothing(self.end),
            or_nothing(self.lag),
            or_nothing(self.member.as_ref()),
            or_nothing(self.client_id.as_ref()),
            or_nothing(self.host.as_ref()),
        ]
    }
}
