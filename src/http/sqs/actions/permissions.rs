//! Permissions: statements of the queue's policy, which is kept and told. Nobody is kept out by it, as there is one account.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Context, List, SqsError, Text};
use crate::http::sqs::attributes::Kept;

/// Actions of a permission.
const ACTIONS_MAX: usize = 7;

/// Actions that may be permitted to others.
const ACTIONS: [&str; 9] = [
    "*",
    "AddPermission",
    "ChangeMessageVisibility",
    "DeleteMessage",
    "GetQueueAttributes",
    "GetQueueUrl",
    "ListDeadLetterSourceQueues",
    "ReceiveMessage",
    "SendMessage",
];

/// Statements of a policy.
const STATEMENTS_MAX: usize = 20;

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct AddPermissionRequest<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    label: Option<Text<'a>>,
    #[serde(rename = "AWSAccountIds", alias = "AWSAccountId")]
    account_ids: List<Text<'a>>,
    #[serde(alias = "ActionName")]
    actions: List<Text<'a>>,
}

pub(super) async fn add(cx: &Context<'_>, request: AddPermissionRequest<'_>) -> Result<(), SqsError> {
    let label = checked_label(request.label.as_deref())?;
    if request.account_ids.is_empty() {
        return Err(SqsError::MissingParameter("AWSAccountIds"));
    }
    if request.actions.is_empty() {
        return Err(SqsError::MissingParameter("Actions"));
    }
    if request.actions.len() > ACTIONS_MAX {
        return Err(SqsError::OverLimit(
            format!("{} Actions were found, maximum allowed is {ACTIONS_MAX}.", request.actions.len()).into(),
        ));
    }
    if let Some(action) = request.actions.iter().find(|action| !ACTIONS.contains(&&***action)) {
        return Err(SqsError::value(
            action,
            "ActionName",
            "Only the queue owner is allowed to invoke this action.",
        ));
    }
    if let Some(id) =
        request.account_ids.iter().find(|id| id.len() != 12 || !id.bytes().all(|b| b.is_ascii_digit()))
    {
        return Err(SqsError::value(id, "PrincipalId", "Unable to verify."));
    }
    change(cx, &request.queue_url, |policy, arn| {
        let statements = statements(policy)?;
        if statements.iter().any(|statement| has_label(statement, label)) {
            return Err(SqsError::value(label, "Label", "Already exists."));
        }
        if statements.len() == STATEMENTS_MAX {
            return Err(SqsError::OverLimit("A policy has at most 20 statements.".into()));
        }
        let principals = request.account_ids.iter().map(|id| format!("arn:aws:iam::{}:root", &**id));
        let actions = request.actions.iter().map(|action| format!("SQS:{}", &**action));
        statements.push(json!({
            "Sid": label,
            "Effect": "Allow",
            "Principal": { "AWS": one_or_many(principals) },
            "Action": one_or_many(actions),
            "Resource": arn,
        }));
        Ok(())
    })
    .await
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RemovePermissionRequest<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    label: Option<Text<'a>>,
}

pub(super) async fn remove(cx: &Context<'_>, request: RemovePermissionRequest<'_>) -> Result<(), SqsError> {
    let label = checked_label(request.label.as_deref())?;
    change(cx, &request.queue_url, |policy, _| {
        let statements = statements(policy)?;
        let before = statements.len();
        statements.retain(|statement| !has_label(statement, label));
        match statements.len() == before {
            true => Err(SqsError::value(label, "Label", "can't find label.")),
            false => Ok(()),
        }
    })
    .await
}

async fn change(
    cx: &Context<'_>,
    url: &Option<Text<'_>>,
    change: impl FnOnce(&mut Map<String, Value>, &str) -> Result<(), SqsError>,
) -> Result<(), SqsError> {
    let _one_at_a_time = cx.site.changes.lock().await;
    let queue = cx.queue(url)?;
    let arn = cx.site.place.arn(&queue.name);
    let mut kept = Kept::of(&queue.config);
    let stored = kept.policy.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let mut policy = stored.unwrap_or_else(|| {
        let mut policy = Map::new();
        policy.insert("Version".to_owned(), json!("2008-10-17"));
        policy.insert("Id".to_owned(), json!(format!("{arn}/SQSDefaultPolicy")));
        policy.insert("Statement".to_owned(), json!([]));
        policy
    });
    change(&mut policy, &arn)?;
    let is_empty = statements(&mut policy)?.is_empty();
    kept.policy = (!is_empty).then(|| Value::Object(policy).to_string());
    cx.site.door.configure(&queue.name, vec![kept.change()]).await?;
    Ok(())
}

fn statements(policy: &mut Map<String, Value>) -> Result<&mut Vec<Value>, SqsError> {
    let statement = policy.entry("Statement").or_insert_with(|| json!([]));
    // A single statement may stand without a list.
    if statement.is_object() {
        *statement = Value::Array(vec![statement.take()]);
    }
    statement.as_array_mut().ok_or_else(|| {
        SqsError::InvalidParameter("The policy of the queue has no list of statements.".into())
    })
}

fn has_label(statement: &Value, label: &str) -> bool {
    statement.get("Sid").and_then(Value::as_str) == Some(label)
}

fn one_or_many(texts: impl Iterator<Item = String>) -> Value {
    let mut texts: Vec<Value> = texts.map(Value::String).collect();
    match texts.len() {
        1 => texts.remove(0),
        _ => Value::Array(texts),
    }
}

fn checked_label(label: Option<&str>) -> Result<&str, SqsError> {
    let label = label.ok_or(SqsError::MissingParameter("Label"))?;
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if label.is_empty() || label.len() > 80 || !label.bytes().all(is_legal) {
        return Err(SqsError::value(
            label,
            "Label",
            "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length",
        ));
    }
    Ok(label)
}
