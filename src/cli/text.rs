//! Bytes as text and back: escapes on the command line, and keys and values in JSON, which need not be UTF-8.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The one field of the object that stands for bytes that are no text.
const BASE64: &str = "base64";

/// Why a text with escapes means nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no escape: there are \\n \\t \\r \\0 \\\\ and \\xHH")]
pub(super) struct BadEscape(String);

/// The bytes that a text with `\n \t \r \0 \\ \xHH` stands for.
///
/// # Errors
/// Any other character behind a backslash.
pub(super) fn unescape(text: &str) -> Result<Vec<u8>, BadEscape> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, length) = match escape.as_bytes() {
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'r', ..] => (b'\r', 1),
            [b'0', ..] => (0, 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
                (digit(*high) << 4 | digit(*low), 3)
            }
            _ => return Err(BadEscape(format!("\\{}", escape.chars().next().unwrap_or_default()))),
        };
        bytes.push(byte);
        rest = &escape[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// Bytes in JSON: a string if they are UTF-8, else `{"base64": "…"}`.
pub(super) fn to_json(bytes: Option<&[u8]>) -> Value {
    match bytes.map(std::str::from_utf8) {
        None => Value::Null,
        Some(Ok(text)) => json!(text),
        Some(Err(_)) => json!({ BASE64: STANDARD.encode(bytes.unwrap_or_default()) }),
    }
}

/// The bytes that [`to_json`] stands for; `Err` if it is something else.
pub(super) fn from_json(value: &Value) -> Result<Option<Vec<u8>>, ()> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone().into_bytes())),
        Value::Object(fields) if fields.len() == 1 => {
            let encoded = fields.get(BASE64).and_then(Value::as_str).ok_or(())?;
            STANDARD.decode(encoded).map(Some).map_err(drop)
        }
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_bytes_and_others_are_refused() {
        assert_eq!(unescape(r"a\tb\n\r\0\\\xfF€").unwrap(), b"a\tb\n\r\0\\\xff\xe2\x82\xac");
        for bad in [r"\q", r"a\", r"\x1", r"\xg0", r"\€"] {
            assert!(unescape(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn json_holds_any_bytes() {
        for bytes in [None, Some(&b""[..]), Some(b"text"), Some(b"\xff\0")] {
            assert_eq!(from_json(&to_json(bytes)).unwrap().as_deref(), bytes);
        }
        assert_eq!(to_json(Some(b"\xff")).to_string(), r#"{"base64":"/w=="}"#);
        for bad in [json!(1), json!({"base64": 1}), json!({"base64": "%"}), json!({}), json!([])] {
            assert!(from_json(&bad).is_err(), "{bad}");
        }
    }
}
