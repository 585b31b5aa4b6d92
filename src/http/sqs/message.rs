//! What a message is made of: body, attributes, digests, and how it lies in the log as a record that Kafka consumers can read. A
//! text attribute is a header of the same name; what is no plain `String` is named in one more header.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use serde::Deserialize;

use super::error::SqsError;
use super::request::{Pairs, Text};

/// The header that says of what type the attributes are that are no plain strings: a JSON map from name to DataType. It has those
/// that steer the queue in any case, as headers of their names are not only made of attributes.
pub(super) const TYPES_HEADER: &str = "ottla.sqs.types";

/// The system attribute that may be sent, and its header.
pub(super) const TRACE_HEADER: &str = "AWSTraceHeader";

/// The header with what two sends of the same message have in common.
pub(super) const DEDUP_HEADER: &str = "ottla.dedup-id";

/// The header with the name of the queue that a dead letter comes from.
pub(super) const SOURCE_HEADER: &str = "ottla.dead-letter.queue";

/// The attribute that says how to read a body that is no text which SQS could carry.
pub(super) const ENCODING_ATTRIBUTE: &str = "ottla.body-encoding";

/// Attributes beginning so are the server's...
const RESERVED_PREFIX: &str = "ottla.";

/// ...but for these, which steer the queue as they do in records of Kafka producers.
const STEERING: [&str; 4] = ["ottla.delay-ms", "ottla.deliver-at", "ottla.priority", "ottla.ttl-ms"];

/// Those of them that say when the message is to be received.
pub(super) const STEERING_DELAYS: [&str; 2] = [STEERING[0], STEERING[1]];

/// Attributes that a message may be sent with.
const ATTRIBUTES_MAX: usize = 10;

/// Longest name of an attribute, and longest DataType, characters.
const ATTRIBUTE_NAME_MAX: usize = 256;

/// Most digits of a number.
const NUMBER_DIGITS_MAX: usize = 38;

/// An attribute as it stands in a request.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct AttributeValue<'a> {
    #[serde(borrow)]
    data_type: Option<Text<'a>>,
    string_value: Option<Text<'a>>,
    /// Base64 of the bytes, in both protocols.
    binary_value: Option<Text<'a>>,
}

impl AttributeValue<'_> {
    /// Bytes that count against the limit of a batch.
    pub(super) fn len(&self) -> usize {
        let text = |text: &Option<Text<'_>>| text.as_deref().map_or(0, str::len);
        // Four characters of base64 are three bytes.
        text(&self.data_type) + text(&self.string_value) + text(&self.binary_value) / 4 * 3
    }
}

/// An attribute that keeps the rules.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Attribute<'a> {
    pub(super) name: Cow<'a, str>,
    /// With its label.
    pub(super) data_type: Cow<'a, str>,
    pub(super) value: Value<'a>,
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    Bytes(Bytes),
}

impl Value<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl Attribute<'_> {
    /// Bytes that count against the limit of a message.
    pub(super) fn len(&self) -> usize {
        self.name.len() + self.data_type.len() + self.value.bytes().len()
    }

    /// As a header of the record.
    pub(super) fn header(&self, body: &Bytes) -> (String, Bytes) {
        let value = match &self.value {
            Value::Text(text) => Text(Cow::Borrowed(text)).shared(body),
            Value::Bytes(bytes) => bytes.clone(),
        };
        (self.name.clone().into_owned(), value)
    }
}

/// Reads the attributes of a message that is sent.
pub(super) fn attributes<'a>(
    given: &'a Pairs<'a, AttributeValue<'a>>,
) -> Result<Vec<Attribute<'a>>, SqsError> {
    if given.len() > ATTRIBUTES_MAX {
        return Err(SqsError::InvalidParameter(
            format!(
                "Number of message attributes [{}] exceeds the allowed maximum [{ATTRIBUTES_MAX}].",
                given.len()
            )
            .into(),
        ));
    }
    given.iter().map(|(name, value)| attribute(name, value)).collect()
}

/// Reads the system attributes of a message that is sent: there is one.
pub(super) fn system_attributes<'a>(
    given: &'a Pairs<'a, AttributeValue<'a>>,
) -> Result<Vec<Attribute<'a>>, SqsError> {
    given
        .iter()
        .map(|(name, value)| {
            if &**name != TRACE_HEADER || value.data_type.as_deref() != Some("String") {
                return Err(SqsError::value(
                    name,
                    "MessageSystemAttributes",
                    "The only supported message system attribute is AWSTraceHeader, of type String.",
                ));
            }
            read_value(name, value)
        })
        .collect()
}

fn attribute<'a>(name: &'a str, value: &'a AttributeValue<'a>) -> Result<Attribute<'a>, SqsError> {
    if !is_legal_name(name) {
        return Err(SqsError::InvalidParameter(
            format!(
                "The message attribute name '{}' is invalid: it can contain alphanumeric characters, underscore, hyphen and \
                 period, not begin or end with a period or have two in a row, not begin with AWS. or Amazon., and be at most \
                 {ATTRIBUTE_NAME_MAX} long.",
                super::error::shown(name)
            )
            .into(),
        ));
    }
    if name.starts_with(RESERVED_PREFIX) {
        let steers = STEERING.contains(&name);
        let number = value.string_value.as_deref().map(|text| text.parse::<u64>().is_ok());
        if !steers || number != Some(true) {
            return Err(SqsError::InvalidParameter(
                format!("The message attribute '{name}' is reserved, or not a whole number.").into(),
            ));
        }
    }
    read_value(name, value)
}

fn read_value<'a>(name: &'a str, given: &'a AttributeValue<'a>) -> Result<Attribute<'a>, SqsError> {
    let wrong = |message: String| SqsError::InvalidParameter(message.into());
    let data_type = given.data_type.as_deref().unwrap_or_default();
    if data_type.is_empty() {
        return Err(wrong(format!(
            "The message attribute '{name}' must contain a non-empty message attribute type."
        )));
    }
    if data_type.chars().count() > ATTRIBUTE_NAME_MAX {
        return Err(wrong(format!(
            "The type of the message attribute '{name}' is longer than {ATTRIBUTE_NAME_MAX} characters."
        )));
    }
    let kind = data_type.split_once('.').map_or(data_type, |(kind, _)| kind);
    let empty = || {
        wrong(format!("Message (user) attribute '{name}' must contain a non-empty value of type '{kind}'."))
    };
    let value = match kind {
        "String" | "Number" => {
            let text = given.string_value.as_deref().filter(|text| !text.is_empty()).ok_or_else(empty)?;
            if !is_legal_text(text) {
                return Err(SqsError::InvalidMessageContents);
            }
            if kind == "Number" && !is_number(text) {
                return Err(wrong(format!(
                    "Can't cast the value of message (user) attribute '{name}' to a number."
                )));
            }
            Value::Text(Cow::Borrowed(text))
        }
        "Binary" => {
            let text = given.binary_value.as_deref().filter(|text| !text.is_empty()).ok_or_else(empty)?;
            let bytes = STANDARD.decode(text);
            Value::Bytes(
                bytes
                    .map_err(|_| SqsError::Malformed(format!("the value of '{name}' is not base64")))?
                    .into(),
            )
        }
        _ => {
            return Err(wrong(format!(
                "The message attribute '{name}' has an invalid message attribute type, the set of supported type prefixes is \
                 Binary, Number, and String."
            )));
        }
    };
    Ok(Attribute { name: Cow::Borrowed(name), data_type: Cow::Borrowed(data_type), value })
}

/// The header with the types of attributes, if it must tell some.
pub(super) fn types_header(attributes: &[Attribute<'_>]) -> Option<(String, Bytes)> {
    let types: BTreeMap<&str, &str> = attributes
        .iter()
        .filter(|attribute| attribute.data_type != "String" || STEERING.contains(&&*attribute.name))
        .map(|attribute| (&*attribute.name, &*attribute.data_type))
        .collect();
    if types.is_empty() {
        return None;
    }
    let json = serde_json::to_vec(&types).expect("a map of texts is JSON");
    Some((TYPES_HEADER.to_owned(), json.into()))
}

/// The attributes among a record's headers, sorted by name. Headers of Kafka producers are among them where they could have
/// been sent as attributes; of two with one name the last counts, as for Kafka consumers that ask for one.
pub(super) fn attributes_of<'h>(headers: &'h [(String, Bytes)]) -> Vec<Attribute<'h>> {
    let types: BTreeMap<String, String> = header(headers, TYPES_HEADER)
        .and_then(|types| serde_json::from_slice(types).ok())
        .unwrap_or_default();
    let mut attributes: BTreeMap<&str, Attribute<'h>> = BTreeMap::new();
    for (name, value) in headers {
        let is_ours = name.starts_with(RESERVED_PREFIX);
        let was_attribute = STEERING.contains(&name.as_str()) && types.contains_key(name);
        let is_hidden = name == TRACE_HEADER || is_ours && !was_attribute;
        if is_hidden || !is_legal_name(name) || value.is_empty() {
            continue;
        }
        let text = || std::str::from_utf8(value).ok().filter(|text| is_legal_text(text));
        let declared = types.get(name).map(String::as_str);
        let is_binary = declared.is_some_and(|kind| kind.starts_with("Binary"));
        let (data_type, value) = match (is_binary, text()) {
            (false, Some(text)) => (declared.unwrap_or("String"), Value::Text(Cow::Borrowed(text))),
            (false, None) => ("Binary", Value::Bytes(value.clone())),
            (true, _) => (declared.unwrap_or("Binary"), Value::Bytes(value.clone())),
        };
        let data_type = Cow::Owned(data_type.to_owned());
        attributes.insert(name, Attribute { name: Cow::Borrowed(name), data_type, value });
    }
    attributes.into_values().collect()
}

/// The last header of that name.
pub(super) fn header<'h>(headers: &'h [(String, Bytes)], name: &str) -> Option<&'h Bytes> {
    headers.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// The last header of that name, if it is a text.
pub(super) fn text_header<'h>(headers: &'h [(String, Bytes)], name: &str) -> Option<&'h str> {
    header(headers, name).and_then(|value| std::str::from_utf8(value).ok())
}

/// Which attributes a receiver wants: names, `All`, `.*`, or prefixes with `.*` or `*`.
pub(super) fn wants(filter: &[Text<'_>], name: &str) -> bool {
    filter.iter().any(|wanted| match wanted.strip_suffix('*') {
        _ if &**wanted == "All" || &**wanted == ".*" => true,
        Some(prefix) => name.starts_with(prefix.strip_suffix('.').unwrap_or(prefix)),
        None => &**wanted == name,
    })
}

/// MD5 of something.
pub(super) type Digest = [u8; 16];

/// MD5 of a body.
pub(super) fn md5_of_body(body: &[u8]) -> Digest {
    Md5::digest(body).into()
}

/// MD5 of attributes as every SDK checks it; `None` without attributes.
pub(super) fn md5_of_attributes(attributes: &[Attribute<'_>]) -> Option<Digest> {
    if attributes.is_empty() {
        return None;
    }
    let mut sorted: Vec<_> = attributes.iter().collect();
    sorted.sort_unstable_by(|left, right| left.name.cmp(&right.name));
    let mut digest = Md5::new();
    let mut part = |bytes: &[u8], prefix: &[u8]| {
        digest.update(prefix);
        digest.update((bytes.len() as u32).to_be_bytes());
        digest.update(bytes);
    };
    for attribute in sorted {
        part(attribute.name.as_bytes(), &[]);
        part(attribute.data_type.as_bytes(), &[]);
        let transport = match attribute.value {
            Value::Text(_) => 1,
            Value::Bytes(_) => 2,
        };
        part(attribute.value.bytes(), &[transport]);
    }
    Some(digest.finalize().into())
}

/// Whether a text has only the characters that a body and a string attribute may have.
pub(super) fn is_legal_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_control = |byte: &u8| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r');
    // U+FFFE and U+FFFF, the only other ones that UTF-8 can write.
    let is_no_character =
        |place: usize| bytes[place..].starts_with(&[0xEF, 0xBF]) && bytes[place + 2] >= 0xBE;
    // All are looked at, several at a time: nearly no text has one.
    let has_control = bytes.iter().fold(false, |found, byte| found | is_control(byte));
    let has_none = bytes.contains(&0xEF) && (0..bytes.len()).any(is_no_character);
    !has_control && !has_none
}

fn is_legal_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let begins =
        |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    !name.is_empty()
        && name.len() <= ATTRIBUTE_NAME_MAX
        && name.bytes().all(is_letter)
        && !name.starts_with('.')
        && !name.ends_with('.')
        && !name.contains("..")
        && !begins("AWS.")
        && !begins("Amazon.")
}

/// Whether a text is a number of at most 38 digits, between -10^126 and 10^126.
fn is_number(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()),
        None => (text, Some(0)),
    };
    let unsigned = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let mut digits = whole.bytes().chain(fraction.bytes());
    let count = whole.len() + fraction.len();
    let magnitude = exponent.map(|exponent| i64::from(exponent) + whole.trim_start_matches('0').len() as i64);
    count > 0
        && digits.all(|byte| byte.is_ascii_digit())
        && (whole.trim_start_matches('0').len() + fraction.len()) <= NUMBER_DIGITS_MAX
        && magnitude.is_some_and(|magnitude| (-127..=127).contains(&magnitude))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex::hex;
    use proptest::prelude::*;

    fn string<'a>(name: &'a str, value: &'a str) -> Attribute<'a> {
        let value = Value::Text(value.into());
        Attribute { name: name.into(), data_type: "String".into(), value }
    }

    fn read(json: &str) -> Result<Vec<(String, String)>, SqsError> {
        let given: Pairs<'_, AttributeValue<'_>> = serde_json::from_str(json).unwrap();
        let attributes = attributes(&given)?;
        Ok(attributes.iter().map(|one| (one.name.to_string(), one.data_type.to_string())).collect())
    }

    #[test]
    fn digests_are_those_that_the_sdks_compute() {
        assert_eq!(hex(&md5_of_body(b"test")), "098f6bcd4621d373cade4e832627b4f6");
        let md5 = |attributes: &[Attribute<'_>]| hex(&md5_of_attributes(attributes).unwrap());
        assert_eq!(md5(&[string("MyAttribute", "foobar")]), "adb59cd4678ea5a855436b949cd07ab6");
        assert_eq!(md5(&[string("Foo", "Bar")]), "ae7155c6026991b6d54b11589678bf9c");
        let trace = "traceparent\x1e00-774062d6c37081a5a0b9b5b88e30627c-2d2482211f6489da-01";
        let binary = Attribute {
            name: "attr1".into(),
            data_type: "Binary".into(),
            value: Value::Bytes(Bytes::from_static(trace.as_bytes())),
        };
        assert_eq!(md5(&[binary]), "8cbe4db156db8a94db8b801b7addb984");
        let unsorted = [string("Hello", "There"), string("General", "Kenobi"), string("Help.Me", "Me")];
        assert_eq!(md5(&unsorted), "4c360f3fdafd970e05fae2f149d997f5");
        assert_eq!(md5_of_attributes(&[]), None);
    }

    #[test]
    fn attributes_are_headers_and_come_back_from_them() {
        let json = r#"{
            "plain": {"DataType": "String", "StringValue": "ü"},
            "number": {"DataType": "Number.int", "StringValue": "-1.5e3"},
            "bytes": {"DataType": "Binary.png", "BinaryValue": "AP/+"},
            "ottla.priority": {"DataType": "String", "StringValue": "3"}
        }"#;
        let given: Pairs<'_, AttributeValue<'_>> = serde_json::from_str(json).unwrap();
        let sent = attributes(&given).unwrap();
        let mut headers: Vec<_> = sent.iter().map(|one| one.header(&Bytes::new())).collect();
        assert_eq!(headers[0], ("plain".to_owned(), Bytes::from_static("ü".as_bytes())));
        headers.extend(types_header(&sent));
        let (_, types) = headers.last().unwrap();
        assert_eq!(types, r#"{"bytes":"Binary.png","number":"Number.int","ottla.priority":"String"}"#);
        // What Kafka producers and the server itself add.
        headers.push((TRACE_HEADER.to_owned(), Bytes::from_static(b"Root=1")));
        headers.push((DEDUP_HEADER.to_owned(), Bytes::from_static(b"x")));
        headers.push(("ottla.delay-ms".to_owned(), Bytes::from_static(b"5")));
        headers.push(("no attribute".to_owned(), Bytes::from_static(b"x")));
        headers.push(("empty".to_owned(), Bytes::new()));
        let received = attributes_of(&headers);
        assert_eq!(md5_of_attributes(&received), md5_of_attributes(&sent));
        assert_eq!(received.len(), 4);
        headers.push(("kafka".to_owned(), Bytes::from_static(b"\xff")));
        headers.push(("plain".to_owned(), Bytes::from_static(b"again")));
        let received = attributes_of(&headers);
        assert_eq!(&*received[1].name, "kafka");
        assert_eq!((&*received[1].data_type, received[1].value.bytes()), ("Binary", &b"\xff"[..]));
        let plain = received.iter().find(|one| one.name == "plain").unwrap();
        assert_eq!(plain.value.bytes(), b"again");
    }

    #[test]
    fn attributes_out_of_the_rules_are_refused() {
        for (json, message) in [
            (
                r#"{"A": {"DataType": "String", "StringValue": ""}}"#,
                "Message (user) attribute 'A' must contain a non-empty value of type 'String'.",
            ),
            (r#"{"A": {"DataType": "Binary"}}"#, "must contain a non-empty value of type 'Binary'."),
            (r#"{"A": {"StringValue": "x"}}"#, "must contain a non-empty message attribute type."),
            (r#"{"A": {"DataType": "Stringy", "StringValue": "x"}}"#, "invalid message attribute type"),
            (r#"{"A": {"DataType": "Number", "StringValue": "1x"}}"#, "to a number"),
            (r#"{"AWS.x": {"DataType": "String", "StringValue": "x"}}"#, "name 'AWS.x' is invalid"),
            (r#"{"a..b": {"DataType": "String", "StringValue": "x"}}"#, "name 'a..b' is invalid"),
            (r#"{"ottla.message-id": {"DataType": "String", "StringValue": "1"}}"#, "is reserved"),
            (r#"{"ottla.ttl-ms": {"DataType": "String", "StringValue": "soon"}}"#, "not a whole number"),
            (r#"{"A": {"DataType": "Binary", "BinaryValue": "?"}}"#, "is not base64"),
            (r#"{"A": {"DataType": "String", "StringValue": "\u0001"}}"#, "Invalid characters found"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        let many: Vec<_> =
            (0..11).map(|n| format!(r#""a{n}": {{"DataType": "String", "StringValue": "x"}}"#)).collect();
        assert!(read(&format!("{{{}}}", many.join(","))).is_err());
        assert!(read(&format!("{{{}}}", many[..10].join(","))).is_ok());
    }

    #[test]
    fn numbers_have_at_most_38_digits_and_bounded_size() {
        for (text, is_fine) in [
            ("0", true),
            ("-1.5", true),
            ("+7", true),
            (".5", true),
            ("1e125", true),
            ("1e200", false),
            ("", false),
            (".", false),
            ("1.2.3", false),
            ("abc", false),
            ("1e", false),
            (&"9".repeat(38), true),
            (&"9".repeat(39), false),
        ] {
            assert_eq!(is_number(text), is_fine, "{text}");
        }
    }

    #[test]
    fn a_filter_takes_names_prefixes_and_all() {
        let filter = |names: &[&'static str]| -> Vec<Text<'static>> {
            names.iter().map(|name| Text(Cow::Borrowed(*name))).collect()
        };
        for (names, wanted, unwanted) in [
            (&["All"][..], &["x"][..], &[][..]),
            (&[".*"], &["x"], &[]),
            (&["x", "y"], &["x", "y"], &["z", "xy"]),
            (&["foo.*"], &["foo", "foo.bar"], &["fo"]),
            (&["foo*"], &["foo", "foobar"], &["bar"]),
            (&[], &[], &["x"]),
        ] {
            assert!(wanted.iter().all(|name| wants(&filter(names), name)), "{names:?}");
            assert!(!unwanted.iter().any(|name| wants(&filter(names), name)), "{names:?}");
        }
    }

    #[test]
    fn a_text_has_no_control_characters() {
        for (text, is_fine) in [
            ("plain\t\r\n ü 😀 \u{FFFD}", true),
            ("\u{0}", false),
            ("a\u{1f}b", false),
            ("\u{FFFE}", false),
            ("x\u{FFFF}", false),
            ("\u{7f}", true),
            ("\u{F000}", true),
        ] {
            assert_eq!(is_legal_text(text), is_fine, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(name in ".{0,20}", value: Vec<u8>, types in ".{0,40}") {
            let headers = [(name, value.into()), (TYPES_HEADER.to_owned(), Bytes::from(types))];
            for attribute in attributes_of(&headers) {
                prop_assert!(attribute.len() > 0);
            }
        }
    }
}
