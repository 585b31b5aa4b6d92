//! DeleteTopics, by name or by id.

use std::collections::HashMap;

use super::RequestContext;
use crate::catalog::CatalogError;
use crate::protocol::ErrorCode;
use crate::protocol::messages::delete_topics::{
    DeletableTopic, DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse,
};
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

/// First version whose topics may be named by id. KIP-516.
const IDS_FROM_VERSION: i16 = 6;

/// Deletes the topics that there are; each has its own answer.
pub async fn handle(cx: RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let wanted: Vec<DeletableTopic> = match cx.version < IDS_FROM_VERSION {
        true => {
            let named = |name| DeletableTopic { name: Some(name), ..Default::default() };
            request.topic_names.into_iter().map(named).collect()
        }
        false => request.topics,
    };
    let refused = (!cx.config.delete_topic_enable).then_some(match cx.version {
        // TOPIC_DELETION_DISABLED came with version 3. KIP-322.
        ..3 => ErrorCode::InvalidRequest,
        _ => ErrorCode::TopicDeletionDisabled,
    });
    let responses = match refused {
        Some(code) => wanted.iter().map(|topic| failed(topic, code, "Topic deletion is disabled.")).collect(),
        None => delete(&cx, wanted).await,
    };
    DeleteTopicsResponse { responses, ..Default::default() }
}

async fn delete(cx: &RequestContext, wanted: Vec<DeletableTopic>) -> Vec<DeletableTopicResult> {
    let (asked, before) = (wanted.clone(), cx.catalog.view());
    let deleted = cx.catalog.change(move |batch| {
        // By id, so that a topic named by name and by id is noticed.
        let mut times: HashMap<Uuid, usize> = HashMap::new();
        let found: Vec<_> = asked
            .iter()
            .map(|topic| {
                let found = resolve(batch.state(), topic);
                if let Ok((_, id)) = &found {
                    *times.entry(*id).or_default() += 1;
                }
                found
            })
            .collect();
        found
            .into_iter()
            .map(|found| {
                let (name, id) = found?;
                if times[&id] > 1 {
                    return Err(CatalogError::Twice);
                }
                let change = batch.state().delete_topic(id)?;
                batch.push(change);
                Ok((name, id))
            })
            .collect::<Vec<_>>()
    });
    match deleted.await {
        Err(error) => {
            wanted.iter().map(|topic| failed(topic, ErrorCode::from(&error), &error.to_string())).collect()
        }
        Ok(deleted) => {
            let topics = deleted.iter().flatten().filter_map(|(_, id)| before.topic_by_id(*id).cloned());
            cx.door.forget_deleted(&topics.collect::<Vec<_>>()).await;
            let answer =
                |(topic, deleted): (&DeletableTopic, Result<(Str, Uuid), CatalogError>)| match deleted {
                    Ok((name, topic_id)) => {
                        DeletableTopicResult { name: Some(name), topic_id, ..Default::default() }
                    }
                    Err(error) => failed(topic, ErrorCode::from(&error), &error.to_string()),
                };
            wanted.iter().zip(deleted).map(answer).collect()
        }
    }
}

fn resolve(
    state: &crate::catalog::CatalogState,
    topic: &DeletableTopic,
) -> Result<(Str, Uuid), CatalogError> {
    match (&topic.name, topic.topic_id.is_zero()) {
        (Some(name), true) => {
            let found = state.topic(name).ok_or(CatalogError::UnknownTopic)?;
            Ok((name.clone(), found.id))
        }
        (None, false) => {
            let name = state.name_of(topic.topic_id).ok_or(CatalogError::UnknownTopicId)?;
            Ok((Str::from(&**name), topic.topic_id))
        }
        _ => Err(CatalogError::NameXorId),
    }
}

fn failed(topic: &DeletableTopic, code: ErrorCode, message: &str) -> DeletableTopicResult {
    DeletableTopicResult {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        error_code: code.into(),
        error_message: Some(Str::from(message)),
    }
}
