//! A queue's attributes as SQS has them, and its configs as Kafka has them: one is the other in other units. What has no config of
//! its own is kept as JSON in `ottla.queue.sqs.attributes`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{SqsError, shown};
use super::names::{Place, name_of_arn};
use super::tasks::KeptTask;
use crate::catalog::queue_config::{DedupScope, QueueConfig};
use crate::clock::TimestampMs;
use crate::operations::{Queue, QueueCounts};

/// The config that holds what only SQS clients read back.
const KEPT_CONFIG: &str = "ottla.queue.sqs.attributes";

/// Longest Policy, bytes.
const POLICY_MAX_BYTES: usize = 8192;

/// Queues that a RedriveAllowPolicy may name.
const SOURCES_MAX: usize = 10;

/// How long messages are kept when nobody has said, seconds: four days.
const RETENTION_DEFAULT_SECONDS: i64 = 345_600;

/// Longest that SQS can say messages are kept, seconds: of a queue that keeps them longer it is told.
const RETENTION_MAX_SECONDS: i64 = 1_209_600;

/// What a record may have beyond the body and attributes of the largest message, bytes: names of types, the batch around it.
const RECORD_OVERHEAD_BYTES: i64 = 16 << 10;

/// Bytes of the largest message of any queue.
pub(super) const MESSAGE_MAX_BYTES: i64 = 1 << 20;

const KMS_REUSE_DEFAULT_SECONDS: i64 = 300;

/// What a queue has that only SQS clients read back.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    /// Seconds since the epoch; of a queue that was made as a topic nobody has noted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) modified: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redrive_allow_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kms_master_key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kms_data_key_reuse_period_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sqs_managed_sse_enabled: Option<bool>,
    #[serde(skip_serializing_if = "is_false")]
    is_throughput_per_group: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) move_tasks: Vec<KeptTask>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Kept {
    /// What a queue has; nothing, if somebody has written there what we did not.
    pub(super) fn of(config: &QueueConfig) -> Self {
        serde_json::from_str(&config.sqs_attributes).unwrap_or_default()
    }

    /// As a change of the queue's configs.
    pub(super) fn change(&self) -> (String, Option<String>) {
        let json = serde_json::to_string(self).expect("texts and numbers are JSON");
        (KEPT_CONFIG.to_owned(), Some(json))
    }

    /// Whether the queue `source` may have this one for its dead letters.
    pub(super) fn allows_redrive_from(&self, source: &str) -> bool {
        let Some(policy) = &self.redrive_allow_policy else { return true };
        match serde_json::from_str::<RedriveAllowPolicy>(policy) {
            Ok(RedriveAllowPolicy { redrive_permission, source_queue_arns }) => {
                match redrive_permission.as_str() {
                    "denyAll" => false,
                    "byQueue" => source_queue_arns.iter().any(|arn| name_of_arn(arn) == Some(source)),
                    _ => true,
                }
            }
            // Checked when it was set; whoever wrote another has not allowed anything.
            Err(_) => false,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RedriveAllowPolicy {
    redrive_permission: String,
    #[serde(default)]
    source_queue_arns: Vec<String>,
}

/// Where messages go that nobody could deal with, and after how many receives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Redrive {
    pub(super) queue: String,
    pub(super) max_receive_count: u16,
}

/// What a client wants a queue to be.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// By name of the config; `None` for its default.
    pub(super) configs: BTreeMap<String, Option<String>>,
    pub(super) kept: Kept,
    /// A redrive policy with its text, whose target is still to be looked at.
    pub(super) redrive: Option<(Redrive, String)>,
}

impl Changes {
    /// No changes yet of a queue with these kept attributes.
    pub(super) fn of(kept: Kept) -> Self {
        Self { kept, ..Self::default() }
    }

    /// What a queue begins with that is made by SQS clients, before what they say.
    pub(super) fn of_new_queue(now_ms: TimestampMs, is_fifo: bool) -> Self {
        let now = Some(now_ms / 1000);
        let mut changes = Self::of(Kept { created: now, modified: now, ..Kept::default() });
        changes.retain(RETENTION_DEFAULT_SECONDS);
        // In SQS what is deleted is gone.
        changes.set("ottla.queue.keep.acknowledged", false);
        changes.set("max.message.bytes", MESSAGE_MAX_BYTES + RECORD_OVERHEAD_BYTES);
        if is_fifo {
            changes.set("ottla.queue.fifo", true);
        }
        changes
    }

    /// Takes attributes as they were given for a queue that is or is not a FIFO queue.
    pub(super) fn take<'p>(
        &mut self,
        attributes: impl Iterator<Item = (&'p str, &'p str)> + Clone,
        is_fifo: bool,
    ) -> Result<(), SqsError> {
        let given = |name| attributes.clone().find(|(known, _)| *known == name).map(|(_, value)| value);
        let has_key = given("KmsMasterKeyId").is_some_and(|key| !key.is_empty());
        if has_key && given("SqsManagedSseEnabled") == Some("true") {
            return Err(SqsError::InvalidAttributeName(
                "You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or SQS SSE.".into(),
            ));
        }
        attributes.clone().try_for_each(|(name, value)| self.take_one(name, value, is_fifo))?;
        if let Some(limit) = given("FifoThroughputLimit") {
            let scope = self.configs.get("ottla.queue.dedup.scope").and_then(Option::as_deref);
            if limit == "perMessageGroupId" && scope.is_some_and(|scope| scope != "key") {
                return Err(invalid(
                    "FifoThroughputLimit",
                    "perMessageGroupId needs the DeduplicationScope messageGroup.",
                ));
            }
        }
        Ok(())
    }

    fn take_one(&mut self, name: &str, value: &str, is_fifo: bool) -> Result<(), SqsError> {
        match name {
            "DelaySeconds" => self.set("ottla.queue.delay.ms", seconds(name, value, 0, 900)? * 1000),
            "MaximumMessageSize" => {
                self.set("ottla.queue.max.message.bytes", number(name, value, 1024, MESSAGE_MAX_BYTES)?);
            }
            "MessageRetentionPeriod" => self.retain(seconds(name, value, 60, 1_209_600)?),
            "ReceiveMessageWaitTimeSeconds" => {
                self.set("ottla.queue.receive.wait.ms", seconds(name, value, 0, 20)? * 1000);
            }
            "VisibilityTimeout" => {
                self.set("ottla.queue.visibility.timeout.ms", seconds(name, value, 0, 43_200)? * 1000);
            }
            "Policy" => self.kept.policy = checked_policy(value)?,
            "RedrivePolicy" => self.take_redrive_policy(value)?,
            "RedriveAllowPolicy" => self.kept.redrive_allow_policy = checked_allow_policy(value)?,
            "KmsMasterKeyId" => {
                self.kept.kms_master_key_id = Some(value.to_owned()).filter(|key| !key.is_empty());
                if self.kept.kms_master_key_id.is_some() {
                    self.kept.sqs_managed_sse_enabled = Some(false);
                }
            }
            "KmsDataKeyReusePeriodSeconds" => {
                self.kept.kms_data_key_reuse_period_seconds = Some(seconds(name, value, 60, 86_400)?);
            }
            "SqsManagedSseEnabled" => self.kept.sqs_managed_sse_enabled = Some(boolean(name, value)?),
            "ContentBasedDeduplication" if is_fifo => {
                self.set("ottla.queue.dedup.content", boolean(name, value)?);
            }
            "DeduplicationScope" if is_fifo => match value {
                "queue" => self.set("ottla.queue.dedup.scope", "queue"),
                "messageGroup" => self.set("ottla.queue.dedup.scope", "key"),
                _ => return Err(invalid(name, "")),
            },
            "FifoThroughputLimit" if is_fifo => match value {
                "perQueue" => self.kept.is_throughput_per_group = false,
                "perMessageGroupId" => self.kept.is_throughput_per_group = true,
                _ => return Err(invalid(name, "")),
            },
            "DeduplicationScope" | "FifoThroughputLimit" => {
                return Err(SqsError::InvalidAttributeName(
                    format!("You can specify the {name} only when FifoQueue is set to true.").into(),
                ));
            }
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    fn take_redrive_policy(&mut self, value: &str) -> Result<(), SqsError> {
        if value.is_empty() {
            for config in ["ottla.queue.dead.letter.queue", "ottla.queue.max.receive.count"] {
                self.configs.insert(config.to_owned(), None);
            }
            return Ok(());
        }
        let redrive = redrive_policy(value)?;
        self.set("ottla.queue.dead.letter.queue", redrive.queue.clone());
        self.set("ottla.queue.max.receive.count", redrive.max_receive_count);
        self.redrive = Some((redrive, value.to_owned()));
        Ok(())
    }

    /// The topic keeps messages as long as they can be received, and no longer.
    fn retain(&mut self, seconds: i64) {
        self.set("ottla.queue.retention.ms", seconds * 1000);
        self.set("retention.ms", seconds * 1000);
    }

    fn set(&mut self, config: &str, value: impl ToString) {
        self.configs.insert(config.to_owned(), Some(value.to_string()));
    }

    /// The configs of a topic that is to be made.
    pub(super) fn into_configs(self) -> BTreeMap<String, String> {
        let kept = self.kept.change();
        let all = self.configs.into_iter().chain([kept]);
        all.filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The changes of a topic that is there.
    pub(super) fn into_changes(self) -> Vec<(String, Option<String>)> {
        let kept = self.kept.change();
        self.configs.into_iter().chain([kept]).collect()
    }
}

/// Attributes that are counted, not set.
pub(super) const COUNTERS: [&str; 3] = [
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesDelayed",
    "ApproximateNumberOfMessagesNotVisible",
];

/// All attributes that a queue may have.
pub(super) const ALL: [&str; 21] = [
    COUNTERS[0],
    COUNTERS[1],
    COUNTERS[2],
    "ContentBasedDeduplication",
    "CreatedTimestamp",
    "DeduplicationScope",
    "DelaySeconds",
    "FifoQueue",
    "FifoThroughputLimit",
    "KmsDataKeyReusePeriodSeconds",
    "KmsMasterKeyId",
    "LastModifiedTimestamp",
    "MaximumMessageSize",
    "MessageRetentionPeriod",
    "Policy",
    "QueueArn",
    "ReceiveMessageWaitTimeSeconds",
    "RedriveAllowPolicy",
    "RedrivePolicy",
    "SqsManagedSseEnabled",
    "VisibilityTimeout",
];

/// The value of an attribute that a queue has; `counts` are only looked at for the counters.
pub(super) fn value(
    name: &str,
    queue: &Queue,
    kept: &Kept,
    counts: QueueCounts,
    place: &Place,
) -> Option<String> {
    let config = &queue.config;
    let seconds = |ms: i64| Some((ms / 1000).to_string());
    let of_fifo = |value: &str| config.fifo.then(|| value.to_owned());
    match name {
        "ApproximateNumberOfMessages" => Some(counts.ready.to_string()),
        "ApproximateNumberOfMessagesDelayed" => Some(counts.delayed.to_string()),
        "ApproximateNumberOfMessagesNotVisible" => Some(counts.in_flight.to_string()),
        "ContentBasedDeduplication" => of_fifo(if config.dedup_content { "true" } else { "false" }),
        "CreatedTimestamp" => kept.created.map(|seconds| seconds.to_string()),
        "DeduplicationScope" => of_fifo(match config.dedup_scope {
            DedupScope::Queue => "queue",
            DedupScope::Key => "messageGroup",
        }),
        "DelaySeconds" => seconds(config.delay_ms),
        "FifoQueue" => of_fifo("true"),
        "FifoThroughputLimit" => {
            of_fifo(if kept.is_throughput_per_group { "perMessageGroupId" } else { "perQueue" })
        }
        "KmsDataKeyReusePeriodSeconds" => {
            let period = kept.kms_data_key_reuse_period_seconds;
            let default = kept.kms_master_key_id.as_ref().map(|_| KMS_REUSE_DEFAULT_SECONDS);
            period.or(default).map(|seconds| seconds.to_string())
        }
        "KmsMasterKeyId" => kept.kms_master_key_id.clone(),
        "LastModifiedTimestamp" => kept.modified.map(|seconds| seconds.to_string()),
        "MaximumMessageSize" => Some(config.max_message_bytes.to_string()),
        "MessageRetentionPeriod" => {
            let kept = config.retention_ms.unwrap_or(queue.topic_retention_ms);
            seconds(if kept < 0 { RETENTION_MAX_SECONDS * 1000 } else { kept })
        }
        "Policy" => kept.policy.clone(),
        "QueueArn" => Some(place.arn(&queue.name)),
        "ReceiveMessageWaitTimeSeconds" => seconds(config.receive_wait_ms),
        "RedriveAllowPolicy" => kept.redrive_allow_policy.clone(),
        "RedrivePolicy" => {
            let (target, count) = (config.dead_letter_queue.as_ref()?, config.max_receive_count?);
            Some(format!(r#"{{"deadLetterTargetArn":"{}","maxReceiveCount":{count}}}"#, place.arn(target)))
        }
        "SqsManagedSseEnabled" => Some(kept.sqs_managed_sse_enabled.unwrap_or(true).to_string()),
        "VisibilityTimeout" => seconds(config.visibility_timeout_ms),
        _ => None,
    }
}

/// Whether two values of an attribute say the same: texts as they are, policies as what they mean.
pub(super) fn is_same(name: &str, given: &str, current: Option<&str>) -> bool {
    match name {
        "RedrivePolicy" if !given.is_empty() => {
            let parsed = |text: &str| redrive_policy(text).ok();
            parsed(given) == current.and_then(parsed)
        }
        "Policy" | "RedriveAllowPolicy" if !given.is_empty() => {
            let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
            parsed(given) == current.and_then(parsed)
        }
        _ => given == current.unwrap_or_default(),
    }
}

/// The attribute is none, or none of this kind of queue.
pub(super) fn unknown(name: &str) -> SqsError {
    SqsError::InvalidAttributeName(format!("Unknown Attribute {}.", shown(name)).into())
}

fn invalid(name: &str, reason: &'static str) -> SqsError {
    SqsError::InvalidAttributeValue { parameter: shown(name).into(), reason: reason.into() }
}

fn number(name: &str, value: &str, least: i64, most: i64) -> Result<i64, SqsError> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| invalid(name, ""))
}

fn seconds(name: &str, value: &str, least: i64, most: i64) -> Result<i64, SqsError> {
    number(name, value, least, most)
}

fn boolean(name: &str, value: &str) -> Result<bool, SqsError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(invalid(name, "")),
    }
}

fn checked_policy(value: &str) -> Result<Option<String>, SqsError> {
    if value.is_empty() {
        return Ok(None);
    }
    if value.len() > POLICY_MAX_BYTES {
        return Err(invalid("Policy", "It is longer than 8192 bytes."));
    }
    match serde_json::from_str::<Value>(value) {
        Ok(Value::Object(_)) => Ok(Some(value.to_owned())),
        _ => Err(invalid("Policy", "")),
    }
}

fn checked_allow_policy(value: &str) -> Result<Option<String>, SqsError> {
    if value.is_empty() {
        return Ok(None);
    }
    let refused = |reason: &'static str| Err(SqsError::value(value, "RedriveAllowPolicy", reason));
    let Ok(policy) = serde_json::from_str::<RedriveAllowPolicy>(value) else {
        return refused("Redrive allow policy is not a valid JSON map with a redrivePermission.");
    };
    let is_by_queue = match policy.redrive_permission.as_str() {
        "allowAll" | "denyAll" => false,
        "byQueue" => true,
        _ => return refused("redrivePermission must be allowAll, denyAll or byQueue."),
    };
    let sources = &policy.source_queue_arns;
    if is_by_queue == sources.is_empty() {
        return refused("sourceQueueArns are needed with byQueue, and only then.");
    }
    if sources.len() > SOURCES_MAX || sources.iter().any(|arn| name_of_arn(arn).is_none()) {
        return refused("sourceQueueArns must be at most 10 ARNs of queues.");
    }
    Ok(Some(value.to_owned()))
}

fn redrive_policy(value: &str) -> Result<Redrive, SqsError> {
    let refused = |reason: &str| SqsError::value(value, "RedrivePolicy", reason.to_owned());
    let policy = match serde_json::from_str::<Value>(value) {
        Ok(Value::Object(policy)) => policy,
        _ => return Err(refused("Redrive policy is not a valid JSON map.")),
    };
    let member = |name: &str| {
        policy
            .get(name)
            .ok_or_else(|| refused(&format!("Redrive policy does not contain mandatory attribute: {name}.")))
    };
    let arn = member("deadLetterTargetArn")?.as_str().unwrap_or_default();
    let queue = name_of_arn(arn).ok_or_else(|| refused("Invalid value for deadLetterTargetArn."))?;
    let count = member("maxReceiveCount")?;
    let text = count.as_str().map_or_else(|| count.to_string(), str::to_owned);
    let max_receive_count =
        text.parse().ok().filter(|count| (1..=1000).contains(count)).ok_or_else(|| {
            refused(&format!(
                "Invalid value for maxReceiveCount: {text}, valid values are from 1 to 1000 both inclusive."
            ))
        })?;
    Ok(Redrive { queue: queue.to_owned(), max_receive_count })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(attributes: &[(&str, &str)], is_fifo: bool) -> Result<Changes, SqsError> {
        let mut changes = Changes::default();
        changes.take(attributes.iter().copied(), is_fifo)?;
        Ok(changes)
    }

    #[test]
    fn attributes_become_configs() {
        let policy =
            r#"{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":"3"}"#;
        let attributes = [
            ("DelaySeconds", "900"),
            ("MaximumMessageSize", "1024"),
            ("MessageRetentionPeriod", "60"),
            ("ReceiveMessageWaitTimeSeconds", "20"),
            ("VisibilityTimeout", "43200"),
            ("RedrivePolicy", policy),
            ("ContentBasedDeduplication", "true"),
            ("DeduplicationScope", "messageGroup"),
            ("FifoThroughputLimit", "perMessageGroupId"),
        ];
        let changes = taken(&attributes, true).unwrap();
        assert!(changes.kept.is_throughput_per_group);
        let configs = changes.into_configs();
        for (name, value) in [
            ("ottla.queue.delay.ms", "900000"),
            ("ottla.queue.max.message.bytes", "1024"),
            ("ottla.queue.retention.ms", "60000"),
            ("retention.ms", "60000"),
            ("ottla.queue.receive.wait.ms", "20000"),
            ("ottla.queue.visibility.timeout.ms", "43200000"),
            ("ottla.queue.dead.letter.queue", "dead"),
            ("ottla.queue.max.receive.count", "3"),
            ("ottla.queue.dedup.content", "true"),
            ("ottla.queue.dedup.scope", "key"),
            ("ottla.queue.sqs.attributes", r#"{"is_throughput_per_group":true}"#),
        ] {
            assert_eq!(configs.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!(configs.len(), 11);
    }

    #[test]
    fn an_empty_policy_takes_it_away() {
        let changes = taken(&[("RedrivePolicy", ""), ("Policy", "")], false).unwrap().into_changes();
        assert!(changes.contains(&("ottla.queue.dead.letter.queue".to_owned(), None)));
        assert!(changes.contains(&("ottla.queue.max.receive.count".to_owned(), None)));
    }

    #[test]
    fn attributes_out_of_range_and_of_other_queues_are_refused_in_amazons_words() {
        let arn = "arn:aws:sqs:us-east-1:000000000000:dead";
        for (name, value, is_fifo, message) in [
            ("DelaySeconds", "901", false, "Invalid value for the parameter DelaySeconds."),
            ("DelaySeconds", "-1", false, "Invalid value for the parameter DelaySeconds."),
            ("DelaySeconds", "", false, "Invalid value for the parameter DelaySeconds."),
            ("MaximumMessageSize", "1023", false, "Invalid value for the parameter MaximumMessageSize."),
            ("MaximumMessageSize", "1048577", false, "Invalid value for the parameter MaximumMessageSize."),
            (
                "MessageRetentionPeriod",
                "59",
                false,
                "Invalid value for the parameter MessageRetentionPeriod.",
            ),
            ("VisibilityTimeout", "43201", false, "Invalid value for the parameter VisibilityTimeout."),
            ("Nonsense", "1", false, "Unknown Attribute Nonsense."),
            ("QueueArn", "x", false, "Unknown Attribute QueueArn."),
            ("ContentBasedDeduplication", "true", false, "Unknown Attribute ContentBasedDeduplication."),
            (
                "DeduplicationScope",
                "queue",
                false,
                "You can specify the DeduplicationScope only when FifoQueue is set to true.",
            ),
            ("DeduplicationScope", "all", true, "Invalid value for the parameter DeduplicationScope."),
            (
                "RedrivePolicy",
                "[]",
                false,
                "Value [] for parameter RedrivePolicy is invalid. Reason: Redrive policy is not a valid JSON map.",
            ),
            (
                "RedrivePolicy",
                &format!(r#"{{"deadLetterTargetArn":"{arn}"}}"#),
                false,
                "Reason: Redrive policy does not contain mandatory attribute: maxReceiveCount.",
            ),
            (
                "RedrivePolicy",
                &format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":1001}}"#),
                false,
                "Reason: Invalid value for maxReceiveCount: 1001, valid values are from 1 to 1000 both inclusive.",
            ),
            ("RedriveAllowPolicy", r#"{"redrivePermission":"byQueue"}"#, false, "sourceQueueArns are needed"),
            ("Policy", "none", false, "Invalid value for the parameter Policy."),
        ] {
            let error = taken(&[(name, value)], is_fifo).unwrap_err().to_string();
            assert!(error.ends_with(message) || error.contains(message), "{error}");
        }
        let both = [("KmsMasterKeyId", "alias/x"), ("SqsManagedSseEnabled", "true")];
        assert!(matches!(taken(&both, false), Err(SqsError::InvalidAttributeName(_))));
        let fast = [("FifoThroughputLimit", "perMessageGroupId"), ("DeduplicationScope", "queue")];
        assert!(matches!(taken(&fast, true), Err(SqsError::InvalidAttributeValue { .. })));
    }

    #[test]
    fn policies_are_the_same_if_they_mean_the_same() {
        let arn = "arn:aws:sqs:us-east-1:000000000000:dead";
        let text = format!(r#"{{ "maxReceiveCount": "5", "deadLetterTargetArn": "{arn}" }}"#);
        let ours = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":5}}"#);
        assert!(is_same("RedrivePolicy", &text, Some(&ours)));
        assert!(!is_same("RedrivePolicy", &text.replace('5', "6"), Some(&ours)));
        assert!(!is_same("RedrivePolicy", &text, None));
        assert!(is_same("Policy", "", None));
        assert!(is_same("DelaySeconds", "5", Some("5")));
        assert!(!is_same("DelaySeconds", "5", Some("0")));
    }

    #[test]
    fn who_may_send_dead_letters_here_the_allow_policy_says() {
        let kept = |policy: &str| {
            let mut changes = Changes::default();
            changes.take([("RedriveAllowPolicy", policy)].into_iter(), false).unwrap();
            changes.kept
        };
        assert!(Kept::default().allows_redrive_from("jobs"));
        assert!(kept(r#"{"redrivePermission":"allowAll"}"#).allows_redrive_from("jobs"));
        assert!(!kept(r#"{"redrivePermission":"denyAll"}"#).allows_redrive_from("jobs"));
        let by_queue = kept(r#"{"redrivePermission":"byQueue","sourceQueueArns":["arn:aws:sqs:r:1:jobs"]}"#);
        assert!(by_queue.allows_redrive_from("jobs"));
        assert!(!by_queue.allows_redrive_from("others"));
    }
}
