//! `ottla group delete` and `ottla group delete-offsets`.

use std::collections::BTreeMap;

use clap::Args;

use crate::cli::CommandError;
use crate::cli::client::{ClientError, Cluster, code_of};
use crate::cli::consume::Selection;
use crate::cli::output::say;
use crate::protocol::api::Api;
use crate::protocol::messages::delete_groups::DeleteGroupsRequest;
use crate::protocol::messages::offset_delete::{
    OffsetDeletePartition, OffsetDeleteRequest, OffsetDeleteTopic,
};
use crate::protocol::messages::{DeleteGroups, OffsetDelete};
use crate::protocol::wire::Str;

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Ids of the groups
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<Str>,
}

#[derive(Args, Debug)]
pub(super) struct OffsetsFlags {
    /// Id of the group
    group: Str,
    /// What to forget. Repeatable
    #[arg(long, required = true, value_name = "TOPIC[:PARTITION,...]")]
    topic: Vec<Selection>,
}

pub(super) fn run(cluster: &mut Cluster, flags: &Flags) -> Result<(), CommandError> {
    let mut refused = Vec::new();
    for group in &flags.groups {
        match delete(cluster, group) {
            Ok(()) => say(&format!("deleted {group}"))?,
            Err(error) => refused.push(error),
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(CommandError::Refusals(refused)) }
}

fn delete(cluster: &mut Cluster, group: &Str) -> Result<(), ClientError> {
    let request = DeleteGroupsRequest { groups_names: vec![group.clone()] };
    cluster.retrying(|cluster| {
        let coordinator = cluster.coordinator(group)?;
        let answer = cluster.call::<DeleteGroups>(coordinator, &request)?;
        let deleted = answer.results.first().ok_or(ClientError::Incomplete { api: DeleteGroups::NAME })?;
        code_of(&super::named(group), deleted.error_code, deleted.error_message.as_ref())
    })
}

pub(super) fn run_offsets(cluster: &mut Cluster, flags: &OffsetsFlags) -> Result<(), CommandError> {
    let mut topics: BTreeMap<Str, Vec<OffsetDeletePartition>> = BTreeMap::new();
    for selection in &flags.topic {
        for place in selection.places(cluster)? {
            let partition = OffsetDeletePartition { partition_index: place.partition };
            topics.entry(place.topic).or_default().push(partition);
        }
    }
    let topic = |(name, partitions)| OffsetDeleteTopic { name, partitions };
    let request = OffsetDeleteRequest {
        group_id: flags.group.clone(),
        topics: topics.into_iter().map(topic).collect(),
    };
    let what = super::named(&flags.group);
    let refused = cluster.retrying(|cluster| {
        let coordinator = cluster.coordinator(&flags.group)?;
        let answer = cluster.call::<OffsetDelete>(coordinator, &request)?;
        code_of(&what, answer.error_code, None)?;
        let mut refused = Vec::new();
        for topic in &answer.topics {
            for partition in &topic.partitions {
                let place = format!("{what}, offset of {}-{}", topic.name, partition.partition_index);
                refused.extend(code_of(&place, partition.error_code, None).err());
            }
        }
        Ok(refused)
    })?;
    match refused.is_empty() {
        true => say(&format!("deleted offsets of {}", flags.group)),
        false => Err(CommandError::Refusals(refused)),
    }
}
