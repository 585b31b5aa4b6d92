//! Tags of queues: kept, told, and without any effect of their own.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Answer, Context, List, Pairs, QueueRequest, SqsError, Text, Writer};
use crate::http::sqs::attributes::Kept;

/// Tags that a queue may have.
const TAGS_MAX: usize = 50;

/// Longest key, characters.
const KEY_MAX: usize = 128;

/// Longest value, characters.
const VALUE_MAX: usize = 256;

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct TagQueueRequest<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    #[serde(alias = "Tag")]
    tags: Pairs<'a, Text<'a>>,
}

pub(super) async fn tag(cx: &Context<'_>, request: TagQueueRequest<'_>) -> Result<(), SqsError> {
    if request.tags.is_empty() {
        return Err(SqsError::MissingParameter("Tags"));
    }
    change(cx, &request.queue_url, |tags| add(tags, &request.tags)).await
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct UntagQueueRequest<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    #[serde(alias = "TagKey")]
    tag_keys: List<Text<'a>>,
}

pub(super) async fn untag(cx: &Context<'_>, request: UntagQueueRequest<'_>) -> Result<(), SqsError> {
    if request.tag_keys.is_empty() {
        return Err(SqsError::MissingParameter("TagKeys"));
    }
    let remove = |tags: &mut BTreeMap<String, String>| {
        tags.retain(|key, _| request.tag_keys.iter().all(|gone| **gone != **key));
        Ok(())
    };
    change(cx, &request.queue_url, remove).await
}

pub(super) struct TagsAnswer(BTreeMap<String, String>);

impl Answer for TagsAnswer {
    fn write(&self, out: &mut Writer) {
        out.map("Tags", "Tag", "Key", &self.0);
    }
}

pub(super) async fn list(cx: &Context<'_>, request: QueueRequest<'_>) -> Result<TagsAnswer, SqsError> {
    let queue = cx.queue(&request.queue_url)?;
    Ok(TagsAnswer(Kept::of(&queue.config).tags))
}

async fn change(
    cx: &Context<'_>,
    url: &Option<Text<'_>>,
    change: impl FnOnce(&mut BTreeMap<String, String>) -> Result<(), SqsError>,
) -> Result<(), SqsError> {
    let _one_at_a_time = cx.site.changes.lock().await;
    let queue = cx.queue(url)?;
    let mut kept = Kept::of(&queue.config);
    change(&mut kept.tags)?;
    cx.site.door.configure(&queue.name, vec![kept.change()]).await?;
    Ok(())
}

/// Adds tags, within their limits.
pub(super) fn add(tags: &mut BTreeMap<String, String>, added: &Pairs<'_, Text<'_>>) -> Result<(), SqsError> {
    for (key, value) in &**added {
        if key.is_empty() || key.chars().count() > KEY_MAX {
            return Err(SqsError::value(key, "TagKey", "Tag keys have 1 to 128 characters."));
        }
        if value.chars().count() > VALUE_MAX {
            return Err(SqsError::value(value, "TagValue", "Tag values have up to 256 characters."));
        }
        tags.insert(key.to_string(), value.to_string());
    }
    if tags.len() > TAGS_MAX {
        return Err(SqsError::InvalidParameter("Too many tags added for queue: there may be 50.".into()));
    }
    Ok(())
}
