//! Attributes of queues, told and changed.

use serde::Deserialize;

use super::{Answer, Context, List, Pairs, SqsError, Text, Writer};
use crate::http::sqs::attributes::{ALL, COUNTERS, Changes, Kept, unknown, value};
use crate::operations::QueueCounts;

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct GetQueueAttributesRequest<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    #[serde(alias = "AttributeName")]
    attribute_names: List<Text<'a>>,
}

pub(super) struct AttributesAnswer(Vec<(&'static str, String)>);

impl Answer for AttributesAnswer {
    fn write(&self, out: &mut Writer) {
        out.map("Attributes", "Attribute", "Name", self.0.iter().map(|(name, value)| (name, value)));
    }
}

pub(super) async fn get(
    cx: &Context<'_>,
    request: GetQueueAttributesRequest<'_>,
) -> Result<AttributesAnswer, SqsError> {
    let queue = cx.queue(&request.queue_url)?;
    let is_all = request.attribute_names.iter().any(|name| &**name == "All");
    if let Some(name) =
        request.attribute_names.iter().find(|name| &***name != "All" && !ALL.contains(&&***name))
    {
        return Err(unknown(name));
    }
    let wanted: Vec<&'static str> = ALL
        .into_iter()
        .filter(|name| is_all || request.attribute_names.iter().any(|one| &**one == *name))
        .collect();
    let counts = match wanted.iter().any(|name| COUNTERS.contains(name)) {
        true => cx.site.door.counts(&queue.name).await?,
        false => QueueCounts::default(),
    };
    let kept = Kept::of(&queue.config);
    let told = |name| Some((name, value(name, &queue, &kept, counts, &cx.site.place)?));
    Ok(AttributesAnswer(wanted.into_iter().filter_map(told).collect()))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct SetQueueAttributesRequest<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    #[serde(alias = "Attribute")]
    attributes: Pairs<'a, Text<'a>>,
}

pub(super) async fn set(cx: &Context<'_>, request: SetQueueAttributesRequest<'_>) -> Result<(), SqsError> {
    if request.attributes.is_empty() {
        return Err(SqsError::MissingParameter("Attribute.Name"));
    }
    let _one_at_a_time = cx.site.changes.lock().await;
    let queue = cx.queue(&request.queue_url)?;
    let is_fifo = queue.config.fifo;
    let given = || request.attributes.iter().map(|(name, value)| (&**name, &**value));
    if given().any(|(name, _)| name == "FifoQueue") {
        return Err(match is_fifo {
            true => SqsError::InvalidAttributeValue {
                parameter: "FifoQueue".into(),
                reason: "Modifying queue type is not supported.".into(),
            },
            false => unknown("FifoQueue"),
        });
    }
    let mut changes = Changes::of(Kept::of(&queue.config));
    changes.take(given(), is_fifo)?;
    changes.kept.modified = Some(cx.site.door.now_ms() / 1000);
    check_redrive(cx, &queue.name, is_fifo, &changes)?;
    cx.site.door.configure(&queue.name, changes.into_changes()).await?;
    Ok(())
}

/// Whether the dead letters of a queue may go where they are to go.
pub(super) fn check_redrive(
    cx: &Context<'_>,
    name: &str,
    is_fifo: bool,
    changes: &Changes,
) -> Result<(), SqsError> {
    let Some((redrive, text)) = &changes.redrive else { return Ok(()) };
    let refused = |reason: &'static str| Err(SqsError::value(text, "RedrivePolicy", reason));
    let Some(target) = cx.site.door.queue(&redrive.queue) else {
        return refused("Dead letter target does not exist.");
    };
    if target.config.fifo != is_fifo {
        return refused("Dead-letter queue must be same type of queue as the source.");
    }
    if !Kept::of(&target.config).allows_redrive_from(name) {
        return refused("The redrive allow policy of the dead-letter queue does not allow this queue.");
    }
    Ok(())
}
