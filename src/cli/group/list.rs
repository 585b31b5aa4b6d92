//! `ottla group list`.

use std::collections::{BTreeMap, HashMap};
use std::io;

use clap::Args;
use serde::Serialize;

use crate::cli::CommandError;
use crate::cli::client::{ClientError, Cluster, code_of};
use crate::cli::output::{NOTHING, Row, or_nothing, print};
use crate::protocol::ErrorCode;
use crate::protocol::api::Api;
use crate::protocol::messages::describe_groups::{DescribeGroupsRequest, DescribedGroup};
use crate::protocol::messages::list_groups::ListGroupsRequest;
use crate::protocol::messages::{DescribeGroups, ListGroups};
use crate::protocol::wire::Str;

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    group: String,
    state: Option<String>,
    /// None from brokers that know only classic groups.
    r#type: Option<String>,
    protocol_type: String,
    /// None of groups that are not classic.
    members: Option<usize>,
}

impl Row for Listed {
    const TITLES: &'static [&'static str] = &["GROUP", "STATE", "TYPE", "PROTOCOL", "MEMBERS"];

    fn cells(&self) -> Vec<String> {
        let protocol = if self.protocol_type.is_empty() { NOTHING } else { &self.protocol_type };
        vec![
            self.group.clone(),
            or_nothing(self.state.as_ref()),
            or_nothing(self.r#type.as_ref()),
            protocol.to_owned(),
            or_nothing(self.members),
        ]
    }
}

pub(super) fn run(cluster: &mut Cluster, flags: &Flags) -> Result<(), CommandError> {
    let mut rows = BTreeMap::new();
    for broker in cluster.brokers() {
        for row in cluster.retrying(|cluster| list(cluster, broker))? {
            rows.insert(row.group.clone(), row);
        }
    }
    let rows: Vec<Listed> = rows.into_values().collect();
    print(&mut io::stdout().lock(), &rows, flags.json).map_err(CommandError::Output)
}

/// The groups that a broker coordinates.
fn list(cluster: &mut Cluster, broker: i32) -> Result<Vec<Listed>, ClientError> {
    let answer = cluster.call::<ListGroups>(broker, &ListGroupsRequest::default())?;
    match code_of(ListGroups::NAME, answer.error_code, None) {
        // A broker without a partition of the offsets' topic has no groups.
        Err(error) if error.is(ErrorCode::CoordinatorNotAvailable) => return Ok(Vec::new()),
        done => done?,
    }
    let some = |text: &Str| Some(text.to_string()).filter(|text| !text.is_empty());
    let described = describe(cluster, broker, answer.groups.iter().map(|group| group.group_id.clone()))?;
    let row = |group: crate::protocol::messages::list_groups::ListedGroup| {
        let described = described.get(&group.group_id);
        Listed {
            group: group.group_id.to_string(),
            state: some(&group.group_state).or_else(|| described.map(|found| found.group_state.to_string())),
            r#type: some(&group.group_type),
            protocol_type: group.protocol_type.to_string(),
            members: described.map(|found| found.members.len()),
        }
    };
    Ok(answer.groups.into_iter().map(row).collect())
}

/// Those of `groups` that are classic, by id.
fn describe(
    cluster: &mut Cluster,
    broker: i32,
    groups: impl Iterator<Item = Str>,
) -> Result<HashMap<Str, DescribedGroup>, ClientError> {
    let request = DescribeGroupsRequest { groups: groups.collect(), ..DescribeGroupsRequest::default() };
    if request.groups.is_empty() {
        return Ok(HashMap::new());
    }
    let answer = cluster.call::<DescribeGroups>(broker, &request)?;
    let is_there = |group: &DescribedGroup| group.error_code == 0 && &group.group_state[..] != "Dead";
    let found = answer.groups.into_iter().filter(is_there);
    Ok(found.map(|group| (group.group_id.clone(), group)).collect())
}
