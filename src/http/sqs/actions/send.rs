//! Messages sent, one or up to ten.

use bytes::Bytes;
use serde::Deserialize;

use super::{Answer, BatchAnswer, Context, Entry, List, Pairs, SqsError, Text, Writer, bounded, check_batch};
use crate::http::sqs::attributes::MESSAGE_MAX_BYTES;
use crate::http::sqs::message::{
    Attribute, AttributeValue, Digest, STEERING_DELAYS, attributes, is_legal_text, md5_of_attributes,
    md5_of_body, system_attributes, types_header,
};
use crate::operations::{Outgoing, Queue, SendRefusal, Sent};

/// Bytes that the messages of a batch may have together.
const BATCH_MAX_BYTES: usize = MESSAGE_MAX_BYTES as usize;

/// Longest group, deduplication and attempt id, characters.
const ID_MAX: usize = 128;

const NOT_FOR_THIS_QUEUE: &str = "The request include parameter that is not valid for this queue type.";

/// A message; with a queue it is a request, with an id an entry of a batch.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct SendMessageRequest<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    queue_url: Option<Text<'a>>,
    message_body: Option<Text<'a>>,
    delay_seconds: Option<i64>,
    #[serde(alias = "MessageAttribute")]
    message_attributes: Pairs<'a, AttributeValue<'a>>,
    #[serde(alias = "MessageSystemAttribute")]
    message_system_attributes: Pairs<'a, AttributeValue<'a>>,
    message_deduplication_id: Option<Text<'a>>,
    message_group_id: Option<Text<'a>>,
}

/// What a client is told of a message that it has sent.
pub(super) struct SentAnswer {
    message_id: String,
    body: Digest,
    attributes: Option<Digest>,
    system_attributes: Option<Digest>,
    sequence_number: Option<String>,
}

impl Answer for SentAnswer {
    fn write(&self, out: &mut Writer) {
        out.word("MessageId", &self.message_id);
        out.digits("MD5OfMessageBody", &self.body);
        out.digits_if("MD5OfMessageAttributes", self.attributes);
        out.digits_if("MD5OfMessageSystemAttributes", self.system_attributes);
        out.text_if("SequenceNumber", self.sequence_number.as_deref());
    }
}

impl Entry for SentAnswer {
    fn write(&self, out: &mut Writer) {
        Answer::write(self, out);
    }
}

/// A message that keeps the rules, and its digests.
struct Message {
    outgoing: Outgoing,
    digests: SentAnswer,
}

pub(super) async fn send(cx: &Context<'_>, request: SendMessageRequest<'_>) -> Result<SentAnswer, SqsError> {
    let queue = cx.queue(&request.queue_url)?;
    if queue.config.fifo && request.message_group_id.is_none() {
        return Err(SqsError::MissingParameter("MessageGroupId"));
    }
    let Message { outgoing, digests } = message(&queue, &request, cx.body)?;
    let mut sent = cx.site.door.send(&queue.name, vec![outgoing]).await?;
    let sent = sent.pop().ok_or_else(|| SqsError::Internal("a message got no answer".to_owned()))?;
    answer(&queue, digests, sent)
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct SendMessageBatchRequest<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    #[serde(alias = "SendMessageBatchRequestEntry")]
    entries: List<SendMessageRequest<'a>>,
}

pub(super) async fn send_batch<'c>(
    cx: &Context<'c>,
    request: SendMessageBatchRequest<'c>,
) -> Result<BatchAnswer<'c, SentAnswer>, SqsError> {
    let queue = cx.queue(&request.queue_url)?;
    check_batch("SendMessageBatchRequestEntry", request.entries.iter().map(|entry| &entry.id))?;
    let bytes: usize = request.entries.iter().map(size_of).sum();
    if bytes > BATCH_MAX_BYTES {
        return Err(SqsError::BatchTooLong { limit: BATCH_MAX_BYTES, bytes });
    }
    if queue.config.fifo {
        request.entries.iter().try_for_each(|entry| check_fifo_entry(&queue, entry))?;
    }
    let mut outgoing = Vec::with_capacity(request.entries.len());
    let mut entries = Vec::with_capacity(request.entries.len());
    for entry in request.entries {
        let prepared = message(&queue, &entry, cx.body).map(|message| {
            outgoing.push(message.outgoing);
            message.digests
        });
        entries.push((entry.id, prepared));
    }
    let mut sent = match outgoing.is_empty() {
        true => Vec::new(),
        false => cx.site.door.send(&queue.name, outgoing).await?,
    }
    .into_iter();
    let told = entries.into_iter().map(|(id, prepared)| {
        let told = prepared.and_then(|digests| match sent.next() {
            Some(sent) => answer(&queue, digests, sent),
            None => Err(SqsError::Internal("a message got no answer".to_owned())),
        });
        (id, told)
    });
    Ok(BatchAnswer { element: "SendMessageBatchResultEntry", entries: told.collect() })
}

/// What is the matter with an entry spoils the whole batch here, as in AWS.
fn check_fifo_entry(queue: &Queue, entry: &SendMessageRequest<'_>) -> Result<(), SqsError> {
    if entry.message_group_id.is_none() {
        return Err(SqsError::InvalidParameter(
            "The request must contain the parameter MessageGroupId.".into(),
        ));
    }
    check_dedup_id(queue, entry)
}

fn check_dedup_id(queue: &Queue, request: &SendMessageRequest<'_>) -> Result<(), SqsError> {
    if request.message_deduplication_id.is_none() && !queue.config.dedup_content {
        return Err(SqsError::InvalidParameter(
            "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
                .into(),
        ));
    }
    Ok(())
}

fn answer(
    queue: &Queue,
    digests: SentAnswer,
    sent: Result<Sent, SendRefusal>,
) -> Result<SentAnswer, SqsError> {
    let sent = sent?;
    let sequence_number = queue.config.fifo.then(|| sequence_number(sent.offset));
    Ok(SentAnswer { message_id: sent.message_id, sequence_number, ..digests })
}

/// Twenty digits that rise within a group, as its messages lie in one partition.
pub(super) fn sequence_number(offset: i64) -> String {
    format!("1{offset:019}")
}

/// Reads a message and checks it against the rules of its queue.
fn message(queue: &Queue, request: &SendMessageRequest<'_>, whole: &Bytes) -> Result<Message, SqsError> {
    let body = request.message_body.as_ref().filter(|body| !body.is_empty());
    let body = body.ok_or(SqsError::MissingParameter("MessageBody"))?;
    if !is_legal_text(body) {
        return Err(SqsError::InvalidMessageContents);
    }
    let attributes = attributes(&request.message_attributes)?;
    let system_attributes = system_attributes(&request.message_system_attributes)?;
    let bytes = body.len() + attributes.iter().map(Attribute::len).sum::<usize>();
    if bytes as i64 > queue.config.max_message_bytes {
        return Err(SqsError::too_large(queue.config.max_message_bytes as usize));
    }
    let delay_ms = delay_ms(queue, request)?;
    let group = request.message_group_id.as_ref();
    group.map_or(Ok(()), |group| check_id(group, "MessageGroupId"))?;
    let dedup_id = request.message_deduplication_id.as_ref();
    match dedup_id {
        Some(id) if !queue.config.fifo => {
            return Err(SqsError::value(id, "MessageDeduplicationId", NOT_FOR_THIS_QUEUE));
        }
        Some(id) => check_id(id, "MessageDeduplicationId")?,
        None if queue.config.fifo => check_dedup_id(queue, request)?,
        None => {}
    }
    let mut headers: Vec<(String, Bytes)> = attributes.iter().map(|one| one.header(whole)).collect();
    headers.extend(types_header(&attributes));
    headers.extend(system_attributes.iter().map(|one| one.header(whole)));
    // What says when by a header of its own is not delayed twice.
    let is_timed = attributes.iter().any(|one| STEERING_DELAYS.contains(&&*one.name));
    let outgoing = Outgoing {
        body: body.shared(whole),
        key: group.map(|group| group.shared(whole)),
        headers,
        delay_ms: delay_ms.filter(|_| !is_timed),
        dedup_id: dedup_id.map(|id| id.to_string()),
        ..Outgoing::default()
    };
    let digests = SentAnswer {
        message_id: String::new(),
        body: md5_of_body(body.as_bytes()),
        attributes: md5_of_attributes(&attributes),
        system_attributes: md5_of_attributes(&system_attributes),
        sequence_number: None,
    };
    Ok(Message { outgoing, digests })
}

/// The delay of the message itself. On FIFO queues there is none, and 0 means the queue's.
fn delay_ms(queue: &Queue, request: &SendMessageRequest<'_>) -> Result<Option<i64>, SqsError> {
    if queue.config.fifo {
        return match request.delay_seconds {
            None | Some(0) => Ok(None),
            Some(delay) => Err(SqsError::number(delay, "DelaySeconds", NOT_FOR_THIS_QUEUE)),
        };
    }
    let reason = "DelaySeconds must be >= 0 and <= 900.";
    let delay = bounded(request.delay_seconds, "DelaySeconds", 0..=900, reason)?;
    Ok(delay.map(|seconds| seconds * 1000))
}

/// Bytes of an entry that count, before it is looked into.
fn size_of(entry: &SendMessageRequest<'_>) -> usize {
    let attributes = entry.message_attributes.iter().map(|(name, value)| name.len() + value.len());
    entry.message_body.as_deref().map_or(0, str::len) + attributes.sum::<usize>()
}

/// Checks the id of a group, of a message, or of an attempt.
pub(super) fn check_id(id: &str, parameter: &'static str) -> Result<(), SqsError> {
    if id.is_empty() || id.len() > ID_MAX || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(SqsError::value(
            id,
            parameter,
            format!(
                "{parameter} can only include alphanumeric and punctuation characters. 1 to 128 in length."
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_have_twenty_digits_and_rise() {
        assert_eq!(sequence_number(0), "10000000000000000000");
        assert_eq!(sequence_number(i64::MAX).len(), 20);
        assert!(sequence_number(9) < sequence_number(10));
    }

    #[test]
    fn ids_are_of_letters_digits_and_punctuation() {
        for good in ["a", "A-1_z", "!\"#$%&'()*+,./:;<=>?@[]^`{|}~", &"x".repeat(128)] {
            assert!(check_id(good, "MessageGroupId").is_ok(), "{good}");
        }
        for bad in ["", "a b", "ü", "\t", &"x".repeat(129)] {
            assert!(check_id(bad, "MessageGroupId").is_err(), "{bad}");
        }
    }
}
