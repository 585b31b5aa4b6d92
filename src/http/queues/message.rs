//! Messages in JSON: sent, received, settled. Bytes are text where they are UTF-8, else base64 in a member of its own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::receipt::Handle;
use super::bounded::{Integer, List, Members, Object, Texts};
use super::error::Refusal;
use crate::operations::{Attempt, Delivery, Letter, Outgoing, Peeked, Sent};
use crate::queue::Settlement;

/// Messages of a request: to send, to receive, to settle.
pub(super) const MESSAGES_MAX: usize = 100;

/// Headers of a message to send, and values of one name.
const HEADERS_MAX: usize = 100;

/// Longest that a receive waits.
const WAIT_MAX_MS: i64 = 20_000;

/// Longest that a message is with one receiver, or kept from all of them after it came back.
const VISIBILITY_MAX_MS: i64 = 12 * 60 * 60 * 1000;

/// Longest text by which a consumer says why a delivery came to nothing; of it some hundred bytes are kept.
const ERROR_MAX_CHARS: usize = 1_000;

/// Longest name that a consumer gives itself; of it some hundred bytes are kept.
const CONSUMER_MAX_CHARS: usize = 1_000;

/// What headers begin with that say how a message is to be treated. Here it is said by members.
const RESERVED: &str = "ottla.";

/// What no member of [`Outgoing`] says: a time before which nobody gets the message.
const DELIVER_AT: &str = "ottla.deliver-at";

type Headers = Members<Texts<HEADERS_MAX>, HEADERS_MAX>;

/// Messages to send.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    pub(super) messages: List<Object<Message>, MESSAGES_MAX>,
}

/// A message to send.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Message {
    body: Option<String>,
    body_base64: Option<String>,
    key: Option<String>,
    key_base64: Option<String>,
    headers: Headers,
    headers_base64: Headers,
    delay_ms: Option<Integer>,
    deliver_at_ms: Option<Integer>,
    dedup_id: Option<String>,
    priority: Option<Integer>,
    ttl_ms: Option<Integer>,
}

impl Message {
    /// As it is sent.
    ///
    /// # Errors
    /// It says what cannot be.
    pub(super) fn outgoing(self) -> Result<Outgoing, Refusal> {
        let body = bytes("body", self.body, self.body_base64)?
            .ok_or_else(|| Refusal::invalid("a message has a body or a body_base64"))?;
        let mut headers = Vec::new();
        for (name, Texts(values)) in self.headers.0 {
            for value in values {
                headers.push((header_name(&name)?, value.into()));
            }
        }
        for (name, Texts(values)) in self.headers_base64.0 {
            for value in values {
                headers.push((header_name(&name)?, decode("headers_base64", &value)?));
            }
        }
        if let Some(at) = within("deliver_at_ms", self.deliver_at_ms, 0, i64::MAX)? {
            headers.push((DELIVER_AT.to_owned(), at.to_string().into()));
        }
        let priority = within("priority", self.priority, 0, 9)?;
        if self.dedup_id.as_ref().is_some_and(String::is_empty) {
            return Err(Refusal::invalid("dedup_id: an empty text is none"));
        }
        Ok(Outgoing {
            body,
            key: bytes("key", self.key, self.key_base64)?,
            headers,
            delay_ms: within("delay_ms", self.delay_ms, 0, i64::MAX)?,
            dedup_id: self.dedup_id,
            priority: priority.and_then(|priority| u8::try_from(priority).ok()),
            ttl_ms: within("ttl_ms", self.ttl_ms, 1, i64::MAX)?,
        })
    }
}

fn header_name(name: &str) -> Result<String, Refusal> {
    match name.starts_with(RESERVED) {
        true => {
            Err(Refusal::invalid(format!("the header {name:?}: what begins with {RESERVED} is the queue's")))
        }
        false => Ok(name.to_owned()),
    }
}

fn bytes(name: &str, text: Option<String>, base64: Option<String>) -> Result<Option<Bytes>, Refusal> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(Refusal::invalid(format!("{name} and {name}_base64 exclude each other"))),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(base64)) => decode(&format!("{name}_base64"), &base64).map(Some),
        (None, None) => Ok(None),
    }
}

fn decode(name: &str, base64: &str) -> Result<Bytes, Refusal> {
    STANDARD.decode(base64).map(Bytes::from).map_err(|error| Refusal::invalid(format!("{name}: {error}")))
}

/// The number, if it is from `least` to `most`.
pub(super) fn within(
    name: &str,
    number: Option<Integer>,
    least: i64,
    most: i64,
) -> Result<Option<i64>, Refusal> {
    let number = number.map(|Integer(number)| number);
    match number.filter(|number| !(least..=most).contains(number)) {
        Some(number) if most == i64::MAX => {
            Err(Refusal::invalid(format!("{name}: {number} is not at least {least}")))
        }
        Some(number) => Err(Refusal::invalid(format!("{name}: {number} is not from {least} to {most}"))),
        None => Ok(number),
    }
}

/// A message that was sent, or the one that it repeats.
#[derive(Serialize)]
pub(super) struct SentMessage {
    message_id: String,
    partition: i32,
    offset: i64,
    pub(super) is_duplicate: bool,
}

impl From<Sent> for SentMessage {
    fn from(sent: Sent) -> Self {
        let Sent { message_id, partition, offset, is_duplicate } = sent;
        Self { message_id, partition, offset, is_duplicate }
    }
}

/// What a receiver wants.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Receive {
    max: Option<Integer>,
    wait_ms: Option<Integer>,
    visibility_ms: Option<Integer>,
    /// What the receiver calls itself.
    pub(super) consumer: Option<String>,
}

impl Receive {
    /// How many, for how long, and how long to wait for the first, both in ms.
    ///
    /// # Errors
    /// More than there can be.
    pub(super) fn checked(&self) -> Result<(usize, Option<i64>, Option<u64>), Refusal> {
        let max = within("max", self.max, 1, MESSAGES_MAX as i64)?.unwrap_or(1);
        let wait_ms = within("wait_ms", self.wait_ms, 0, WAIT_MAX_MS)?;
        let visibility_ms = within("visibility_ms", self.visibility_ms, 0, VISIBILITY_MAX_MS)?;
        if self.consumer.as_ref().is_some_and(|name| name.chars().count() > CONSUMER_MAX_CHARS) {
            return Err(Refusal::invalid(format!("consumer: more than {CONSUMER_MAX_CHARS} characters")));
        }
        Ok((max as usize, visibility_ms, wait_ms.map(i64::cast_unsigned)))
    }
}

/// A message that was received.
#[derive(Serialize)]
pub(super) struct ReceivedMessage {
    receipt: String,
    message_id: String,
    #[serde(flatten)]
    content: Content,
    partition: i32,
    offset: i64,
    sent_ms: i64,
    first_received_ms: i64,
    deliveries: u32,
}

/// Members for bytes: none, or one that is text or base64.
type Named = Map<String, Value>;

/// What its sender has put into a message.
#[derive(Serialize)]
struct Content {
    #[serde(flatten)]
    body: Named,
    #[serde(flatten)]
    key: Named,
    #[serde(skip_serializing_if = "Map::is_empty")]
    headers: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    headers_base64: Map<String, Value>,
}

impl Content {
    fn new(body: Bytes, key: Option<Bytes>, all: Vec<(String, Bytes)>) -> Self {
        let (mut headers, mut headers_base64) = (Map::new(), Map::new());
        for (name, value) in all {
            let (members, text) = match std::str::from_utf8(&value) {
                Ok(text) => (&mut headers, text.to_owned()),
                Err(_) => (&mut headers_base64, STANDARD.encode(&value)),
            };
            match members.get_mut(&name) {
                None => drop(members.insert(name, text.into())),
                Some(Value::Array(texts)) => texts.push(text.into()),
                Some(first) => *first = Value::Array(vec![first.take(), text.into()]),
            }
        }
        Self { body: named("body", Some(body)), key: named("key", key), headers, headers_base64 }
    }
}

impl ReceivedMessage {
    /// As of `now_ms`, when it was received.
    pub(super) fn new(delivery: Delivery, now_ms: i64) -> Self {
        let handle = Handle { receipt: delivery.receipt, received_ms: now_ms };
        Self {
            receipt: handle.text(),
            message_id: delivery.message_id,
            content: Content::new(delivery.body, delivery.key, delivery.headers),
            partition: delivery.receipt.partition,
            offset: delivery.receipt.offset,
            sent_ms: delivery.sent_ms,
            first_received_ms: delivery.first_received_ms,
            deliveries: delivery.deliveries,
        }
    }
}

/// A message that is looked at.
#[derive(Serialize)]
pub(super) struct PeekedMessage {
    place: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<i64>,
    message_id: String,
    #[serde(flatten)]
    content: Content,
    partition: i32,
    offset: i64,
    sent_ms: i64,
    deliveries: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<Attempt>,
    redriven: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<DeadLetter>,
}

/// What is known of the end of a message.
#[derive(Serialize)]
struct DeadLetter {
    queue: String,
    source: String,
    reason: String,
    deliveries: u32,
    moved_at_ms: i64,
    history: Value,
}

impl From<Letter> for DeadLetter {
    fn from(letter: Letter) -> Self {
        let Letter { queue, source, reason, deliveries, moved_at_ms, history } = letter;
        // Whoever can append to the topic can write what is none.
        let history = history.and_then(|text| serde_json::from_str(&text).ok());
        let history = history.filter(Value::is_array).unwrap_or_else(|| Value::Array(Vec::new()));
        Self { queue, source, reason, deliveries, moved_at_ms, history }
    }
}

impl From<Peeked> for PeekedMessage {
    fn from(peeked: Peeked) -> Self {
        Self {
            place: peeked.place.to_string(),
            state: peeked.state.name(),
            until_ms: peeked.until_ms,
            message_id: peeked.message_id,
            content: Content::new(peeked.body, peeked.key, peeked.headers),
            partition: peeked.place.partition,
            offset: peeked.place.offset,
            sent_ms: peeked.sent_ms,
            deliveries: peeked.deliveries,
            history: peeked.history,
            redriven: peeked.redriven,
            dead_letter: peeked.letter.map(DeadLetter::from),
        }
    }
}

fn named(name: &str, bytes: Option<Bytes>) -> Named {
    let member = bytes.map(|bytes| match String::from_utf8(bytes.into()) {
        Ok(text) => (name.to_owned(), text.into()),
        Err(error) => (format!("{name}_base64"), STANDARD.encode(error.as_bytes()).into()),
    });
    member.into_iter().collect()
}

/// What is to become of deliveries.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settle {
    pub(super) receipts: List<Object<Verdict>, MESSAGES_MAX>,
}

/// What is to become of one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Verdict {
    pub(super) receipt: String,
    action: Action,
    after_ms: Option<Integer>,
    for_ms: Option<Integer>,
    error: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Acknowledge,
    Reject,
    Release,
    Extend,
}

impl Verdict {
    /// As the queue takes it.
    ///
    /// # Errors
    /// It lacks what its action needs, or has what that does not have.
    pub(super) fn settlement(&self) -> Result<Settlement, Refusal> {
        let after_ms = within("after_ms", self.after_ms, 0, VISIBILITY_MAX_MS)?;
        let for_ms = within("for_ms", self.for_ms, 0, VISIBILITY_MAX_MS)?;
        match (self.action, after_ms, for_ms) {
            (Action::Acknowledge, None, None) => Ok(Settlement::Done),
            (Action::Reject, None, None) => Ok(Settlement::Reject),
            (Action::Release, after_ms, None) => Ok(Settlement::Return { after_ms }),
            (Action::Extend, None, Some(for_ms)) => Ok(Settlement::Extend { for_ms }),
            (Action::Extend, None, None) => Err(Refusal::invalid("extend needs for_ms")),
            _ => Err(Refusal::invalid("after_ms is for release, for_ms for extend")),
        }
    }

    /// Why it came to nothing, in the words of who had the message.
    ///
    /// # Errors
    /// It did not come to nothing, or too many words.
    pub(super) fn error(&self) -> Result<Option<String>, Refusal> {
        let Some(error) = &self.error else { return Ok(None) };
        if !matches!(self.action, Action::Reject | Action::Release) {
            return Err(Refusal::invalid("error is for reject and release"));
        }
        match error.chars().count() > ERROR_MAX_CHARS {
            true => Err(Refusal::invalid(format!("error: more than {ERROR_MAX_CHARS} characters"))),
            false => Ok(Some(error.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operations::Receipt;
    use crate::uuid::Uuid;

    fn outgoing(message: Value) -> Result<Outgoing, String> {
        let message: Message = serde_json::from_value(message).map_err(|error| error.to_string())?;
        message.outgoing().map_err(|refusal| refusal.message)
    }

    #[test]
    fn a_message_is_sent_as_it_says() {
        let sent = outgoing(json!({
            "body_base64": "/wA=", "key": "k", "headers": {"b": "1", "a": ["2", "3"]},
            "headers_base64": {"c": "/w=="}, "delay_ms": 5, "deliver_at_ms": 6, "dedup_id": "d",
            "priority": 9, "ttl_ms": 7,
        }))
        .unwrap();
        let Outgoing { body, key, headers, delay_ms, dedup_id, priority, ttl_ms } = sent;
        assert_eq!((&body[..], key.as_deref()), (&b"\xff\0"[..], Some(&b"k"[..])));
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
        let expected: [(&str, &[u8]); 5] =
            [("b", b"1"), ("a", b"2"), ("a", b"3"), ("c", b"\xff"), ("ottla.deliver-at", b"6")];
        assert_eq!(headers, expected);
        assert_eq!((delay_ms, dedup_id.as_deref(), priority, ttl_ms), (Some(5), Some("d"), Some(9), Some(7)));
        assert_eq!(outgoing(json!({"body": ""})).unwrap().body, "");
    }

    #[test]
    fn what_cannot_be_sent_is_told_by_name() {
        for (message, told) in [
            (json!({}), "a message has a body"),
            (json!({"body": "a", "body_base64": "YQ=="}), "body and body_base64 exclude each other"),
            (json!({"body_base64": "Y"}), "body_base64: "),
            (json!({"body": 5}), "expected a string"),
            (json!({"body": "a", "bdoy": "a"}), "unknown field `bdoy`"),
            (json!({"body": "a", "headers": {"ottla.priority": "1"}}), "\"ottla.priority\""),
            (json!({"body": "a", "headers_base64": {"x": "%"}}), "headers_base64: "),
            (json!({"body": "a", "delay_ms": -1}), "delay_ms: -1 is not at least 0"),
            (json!({"body": "a", "priority": 10}), "priority: 10 is not from 0 to 9"),
            (json!({"body": "a", "ttl_ms": 0}), "ttl_ms: 0 is not at least 1"),
            (json!({"body": "a", "dedup_id": ""}), "dedup_id: "),
        ] {
            let refused = outgoing(message).unwrap_err();
            assert!(refused.contains(told), "{refused} | {told}");
        }
    }

    #[test]
    fn a_delivery_shows_text_as_text_and_the_rest_in_base64() {
        let header = |name: &str, value: &'static [u8]| (name.to_owned(), Bytes::from_static(value));
        let delivery = Delivery {
            receipt: Receipt {
                queue_id: Uuid([1; 16]),
                topic_id: Uuid([1; 16]),
                partition: 2,
                offset: 3,
                deliveries: 4,
            },
            message_id: "id".to_owned(),
            body: Bytes::from_static(b"\xff"),
            key: Some(Bytes::from_static(b"k")),
            headers: vec![header("b", b"1"), header("a", b"2"), header("b", b"3"), header("a", b"\xfe")],
            sent_ms: 5,
            first_received_ms: 6,
            deliveries: 7,
            lease_ends_ms: 9..=9,
        };
        let shown = serde_json::to_value(ReceivedMessage::new(delivery, 8)).unwrap();
        let receipt = shown["receipt"].as_str().unwrap();
        assert_eq!(Handle::parse(receipt).unwrap().receipt.offset, 3);
        assert_eq!(
            shown,
            json!({
                "receipt": receipt, "message_id": "id", "body_base64": "/w==", "key": "k",
                "headers": {"b": ["1", "3"], "a": "2"}, "headers_base64": {"a": "/g=="},
                "partition": 2, "offset": 3, "sent_ms": 5, "first_received_ms": 6, "deliveries": 7,
            })
        );
    }

    #[test]
    fn an_action_has_what_belongs_to_it_and_nothing_else() {
        let settlement = |action: &str, times: Value| {
            let mut verdict = json!({"receipt": "r", "action": action});
            verdict.as_object_mut().unwrap().extend(times.as_object().unwrap().clone());
            serde_json::from_value::<Verdict>(verdict).unwrap().settlement()
        };
        assert_eq!(settlement("acknowledge", json!({})), Ok(Settlement::Done));
        assert_eq!(settlement("reject", json!({})), Ok(Settlement::Reject));
        assert_eq!(settlement("release", json!({})), Ok(Settlement::Return { after_ms: None }));
        assert_eq!(
            settlement("release", json!({"after_ms": 1})),
            Ok(Settlement::Return { after_ms: Some(1) })
        );
        assert_eq!(settlement("extend", json!({"for_ms": 0})), Ok(Settlement::Extend { for_ms: 0 }));
        for (action, times) in [
            ("acknowledge", json!({"after_ms": 1})),
            ("reject", json!({"for_ms": 1})),
            ("release", json!({"for_ms": 1})),
            ("extend", json!({})),
            ("extend", json!({"for_ms": 1, "after_ms": 1})),
            ("extend", json!({"for_ms": VISIBILITY_MAX_MS + 1})),
        ] {
            assert!(settlement(action, times).is_err(), "{action}");
        }
    }
}
