//! Messages received.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::send::{check_id, sequence_number};
use super::{Answer, Context, List, SqsError, Text, Writer, bounded};
use crate::clock::TimestampMs;
use crate::hex::hex;
use crate::http::receipt::Handle;
use crate::http::sqs::message::{
    Attribute, DEDUP_HEADER, ENCODING_ATTRIBUTE, SOURCE_HEADER, TRACE_HEADER, Value, attributes_of,
    is_legal_text, md5_of_attributes, md5_of_body, text_header, wants,
};
use crate::http::sqs::names::Place;
use crate::operations::{Delivery, Queue, QueueRefusal, Wanted, consumer_name};

/// About how many bytes an answer has of each message besides its body.
const MESSAGE_BYTES: usize = 320;

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ReceiveMessageRequest<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    /// The older name of the next.
    #[serde(alias = "AttributeName")]
    attribute_names: List<Text<'a>>,
    #[serde(alias = "MessageSystemAttributeName")]
    message_system_attribute_names: List<Text<'a>>,
    #[serde(alias = "MessageAttributeName")]
    message_attribute_names: List<Text<'a>>,
    max_number_of_messages: Option<i64>,
    visibility_timeout: Option<i64>,
    wait_time_seconds: Option<i64>,
    receive_request_attempt_id: Option<Text<'a>>,
}

pub(super) struct ReceiveAnswer<'c> {
    queue: Queue,
    place: &'c Place,
    deliveries: Vec<Delivery>,
    received_ms: TimestampMs,
    request: ReceiveMessageRequest<'c>,
}

pub(super) async fn receive<'c>(
    cx: &Context<'c>,
    request: ReceiveMessageRequest<'c>,
) -> Result<ReceiveAnswer<'c>, SqsError> {
    let queue = cx.queue(&request.queue_url)?;
    let max = bounded(
        request.max_number_of_messages,
        "MaxNumberOfMessages",
        1..=10,
        "Must be between 1 and 10, if provided.",
    )?;
    let visibility = bounded(
        request.visibility_timeout,
        "VisibilityTimeout",
        0..=43_200,
        "Must be >= 0 and <= 43200, if provided.",
    )?;
    let wait = bounded(
        request.wait_time_seconds,
        "WaitTimeSeconds",
        0..=20,
        "Must be >= 0 and <= 20, if provided.",
    )?;
    let attempt = request.receive_request_attempt_id.as_deref().filter(|_| queue.config.fifo);
    attempt.map_or(Ok(()), |attempt| check_id(attempt, "ReceiveRequestAttemptId"))?;
    let wanted = Wanted {
        max: max.unwrap_or(1) as usize,
        visibility_ms: visibility.map(|seconds| seconds * 1000),
        wait: wait.map(|seconds| Duration::from_secs(seconds.unsigned_abs())),
    };
    let visibility_ms = wanted.visibility_ms.unwrap_or(queue.config.visibility_timeout_ms);
    let (deliveries, received_ms) = match attempt {
        None => (take(cx, &queue, wanted).await?, cx.site.door.now_ms()),
        Some(attempt) => {
            match cx.site.attempts.repeat(&cx.site.door, &queue, attempt, visibility_ms).await? {
                Some(repeated) => repeated,
                None => {
                    let taken = take(cx, &queue, wanted).await?;
                    let now = cx.site.door.now_ms();
                    cx.site.attempts.remember(&queue, attempt, &taken, now);
                    (taken, now)
                }
            }
        }
    };
    Ok(ReceiveAnswer { queue, place: &cx.site.place, deliveries, received_ms, request })
}

async fn take(cx: &Context<'_>, queue: &Queue, wanted: Wanted) -> Result<Vec<Delivery>, SqsError> {
    let consumer = consumer_name(cx.agent, cx.peer);
    match cx.site.door.receive_for(&queue.name, wanted, Some(&consumer)).await {
        // A FIFO queue with too much in flight has nothing to give; it is no error.
        Err(QueueRefusal::Full) if queue.config.fifo => Ok(Vec::new()),
        taken => Ok(taken?),
    }
}

impl Answer for ReceiveAnswer<'_> {
    fn bytes(&self) -> usize {
        self.deliveries.iter().map(|delivery| MESSAGE_BYTES + delivery.body.len()).sum()
    }

    fn write(&self, out: &mut Writer) {
        out.list("Messages", "Message", &self.deliveries, |out, delivery| self.write_message(out, delivery));
    }
}

impl ReceiveAnswer<'_> {
    fn write_message(&self, out: &mut Writer, delivery: &Delivery) {
        let handle = Handle { receipt: delivery.receipt, received_ms: self.received_ms };
        let text = std::str::from_utf8(&delivery.body).ok().filter(|text| is_legal_text(text));
        // What a Kafka producer has sent may be no text: then it comes in base64, and an attribute says so.
        let body = text.map_or_else(|| Cow::Owned(STANDARD.encode(&delivery.body)), Cow::Borrowed);
        out.text("MessageId", &delivery.message_id);
        out.word("ReceiptHandle", &handle.text());
        out.digits("MD5OfBody", &md5_of_body(body.as_bytes()));
        out.text("Body", &body);
        out.map("Attributes", "Attribute", "Name", self.system_attributes(delivery));
        let filter = &self.request.message_attribute_names;
        if filter.is_empty() {
            return;
        }
        let mut attributes = attributes_of(&delivery.headers);
        if text.is_none() {
            attributes.push(Attribute {
                name: ENCODING_ATTRIBUTE.into(),
                data_type: "String".into(),
                value: Value::Text("base64".into()),
            });
        }
        attributes.retain(|attribute| wants(filter, &attribute.name));
        out.digits_if("MD5OfMessageAttributes", md5_of_attributes(&attributes));
        let named = attributes.iter().map(|attribute| (&attribute.name, attribute));
        out.map_of("MessageAttributes", "MessageAttribute", named, |out, attribute| {
            match &attribute.value {
                Value::Text(text) => out.text("StringValue", text),
                Value::Bytes(bytes) => out.text("BinaryValue", &STANDARD.encode(bytes)),
            }
            out.text("DataType", &attribute.data_type);
        });
    }

    /// Those system attributes that were asked for, under either name, and that apply.
    fn system_attributes<'d>(&'d self, delivery: &'d Delivery) -> Vec<(&'static str, Cow<'d, str>)> {
        let asked = [&self.request.attribute_names, &self.request.message_system_attribute_names];
        if asked.iter().all(|names| names.is_empty()) {
            return Vec::new();
        }
        let is_asked =
            |name: &str| asked.iter().any(|names| names.iter().any(|one| &**one == "All" || &**one == name));
        let all = [
            "ApproximateFirstReceiveTimestamp",
            "ApproximateReceiveCount",
            "AWSTraceHeader",
            "DeadLetterQueueSourceArn",
            "MessageDeduplicationId",
            "MessageGroupId",
            "SenderId",
            "SentTimestamp",
            "SequenceNumber",
        ];
        let told = |name| Some((name, self.system_attribute(name, delivery)?));
        all.into_iter().filter(|name| is_asked(name)).filter_map(told).collect()
    }

    fn system_attribute<'d>(&'d self, name: &str, delivery: &'d Delivery) -> Option<Cow<'d, str>> {
        let is_fifo = self.queue.config.fifo;
        match name {
            "ApproximateFirstReceiveTimestamp" => Some(delivery.first_received_ms.to_string().into()),
            "ApproximateReceiveCount" => Some(delivery.deliveries.to_string().into()),
            "AWSTraceHeader" => text_header(&delivery.headers, TRACE_HEADER).map(Cow::Borrowed),
            "DeadLetterQueueSourceArn" => {
                text_header(&delivery.headers, SOURCE_HEADER).map(|source| self.place.arn(source).into())
            }
            "MessageDeduplicationId" if is_fifo => {
                let given = text_header(&delivery.headers, DEDUP_HEADER).map(Cow::Borrowed);
                let of_content = || Cow::Owned(hex(&Sha256::digest(&delivery.body)));
                given.or_else(|| self.queue.config.dedup_content.then(of_content))
            }
            "MessageGroupId" => std::str::from_utf8(delivery.key.as_ref()?).ok().map(Cow::Borrowed),
            // There is one account, and nobody else sends.
            "SenderId" => Some(Cow::Borrowed(&self.place.account_id)),
            "SentTimestamp" => Some(delivery.sent_ms.to_string().into()),
            "SequenceNumber" if is_fifo => Some(sequence_number(delivery.receipt.offset).into()),
            _ => None,
        }
    }
}
