//! From lines to records.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::ProduceError;
use crate::cli::position::{BadTime, time};
use crate::cli::text;
use crate::clock::TimestampMs;

/// Longest line, bytes: more than any broker takes.
const LINE_MAX_BYTES: u64 = 256 << 20;
/// Bytes that are read at a time.
const READ_BYTES: usize = 256 << 10;

/// How a line is a record.
pub(super) enum Format {
    /// A value, perhaps behind a key.
    Lines {
        /// Between key and value.
        separator: Option<Vec<u8>>,
        /// The key of every record.
        key: Option<Vec<u8>>,
        /// The value that means null.
        null_value: Option<Vec<u8>>,
    },
    /// See the command's help.
    Json,
}

/// Key and value of a header to be sent.
pub(super) type NewHeader = (String, Option<Vec<u8>>);

/// A record to be sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct NewRecord {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<NewHeader>,
    pub(super) partition: Option<i32>,
    /// `None` is now.
    pub(super) timestamp: Option<TimestampMs>,
    /// Where it was read.
    pub(super) place: std::sync::Arc<str>,
    /// Counted from 1.
    pub(super) line: u64,
    /// Bytes of input that it took.
    pub(super) line_bytes: u64,
}

/// Why a line is no record.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum BadRecord {
    #[error("longer than {LINE_MAX_BYTES} bytes")]
    TooLong,
    #[error("no key separator")]
    NoSeparator,
    #[error("no JSON object of a record: {0}")]
    Json(#[source] serde_json::Error),
    #[error("{0}: expected a string, null, or {{\"base64\": \"…\"}}")]
    NoBytes(&'static str),
    #[error("headers: expected an object, or an array of objects with key and value")]
    Headers,
    #[error("timestamp: {0}")]
    Timestamp(#[source] BadTime),
    #[error("partition {0}")]
    Partition(i32),
}

/// All that is to be read.
pub(super) struct Input {
    sources: Vec<(String, Box<dyn Read + Send>)>,
    format: Format,
    /// `None` of stdin.
    total_bytes: Option<u64>,
}

impl Input {
    /// Opens the files, or stdin if there are none.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub(super) fn open(files: Vec<PathBuf>, format: Format) -> Result<Self, ProduceError> {
        if files.is_empty() {
            let stdin: Box<dyn Read + Send> = Box::new(io::stdin());
            return Ok(Self { sources: vec![("stdin".to_owned(), stdin)], format, total_bytes: None });
        }
        let mut sources: Vec<(String, Box<dyn Read + Send>)> = Vec::with_capacity(files.len());
        let mut total_bytes = 0;
        for path in files {
            let place = path.display().to_string();
            let failed = |source| ProduceError::Input { place: place.clone(), source };
            let file = File::open(&path).map_err(failed)?;
            total_bytes += file.metadata().map_err(failed)?.len();
            sources.push((place, Box::new(file)));
        }
        Ok(Self { sources, format, total_bytes: Some(total_bytes) })
    }

    /// Bytes that there are to read, if known.
    pub(super) fn total_bytes(&self) -> Option<u64> {
        self.total_bytes
    }

    /// Hands on record after record until there are no more, one is bad, or `take` wants no more.
    pub(super) fn for_each(self, mut take: impl FnMut(Result<NewRecord, ProduceError>) -> bool) {
        for (place, source) in self.sources {
            let mut reader = BufReader::with_capacity(READ_BYTES, source);
            let shared: std::sync::Arc<str> = place.as_str().into();
            for number in 1.. {
                let mut line = Vec::new();
                match reader.by_ref().take(LINE_MAX_BYTES + 1).read_until(b'\n', &mut line) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(source) => {
                        take(Err(ProduceError::Input { place, source }));
                        return;
                    }
                }
                let line_bytes = line.len() as u64;
                let record = self.format.record(line).map(|record| NewRecord {
                    place: shared.clone(),
                    line: number,
                    line_bytes,
                    ..record
                });
                let is_bad = record.is_err();
                let bad = |fault| ProduceError::Record { place: place.clone(), line: number, fault };
                if !take(record.map_err(bad)) || is_bad {
                    return;
                }
            }
        }
    }
}

impl Format {
    fn record(&self, mut line: Vec<u8>) -> Result<NewRecord, BadRecord> {
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() as u64 > LINE_MAX_BYTES {
            return Err(BadRecord::TooLong);
        }
        match self {
            Self::Json => parse_json(&line),
            Self::Lines { separator, key, null_value } => {
                let (key, value) = match separator {
                    None => (key.clone(), line),
                    Some(separator) => {
                        let at = find(&line, separator).ok_or(BadRecord::NoSeparator)?;
                        let value = line.split_off(at + separator.len());
                        line.truncate(at);
                        (Some(line), value)
                    }
                };
                let value = Some(value).filter(|value| null_value.as_ref() != Some(value));
                Ok(NewRecord { key, value, ..NewRecord::default() })
            }
        }
    }
}

/// Where `wanted`, which is not empty, first stands.
fn find(line: &[u8], wanted: &[u8]) -> Option<usize> {
    line.windows(wanted.len()).position(|window| window == wanted)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRecord {
    #[serde(default)]
    key: Value,
    #[serde(default)]
    value: Value,
    #[serde(default)]
    headers: Value,
    partition: Option<i32>,
    #[serde(default)]
    timestamp: Value,
    /// What `consume --json` says of where the record was.
    #[serde(rename = "topic")]
    _topic: Option<String>,
    #[serde(rename = "offset")]
    _offset: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonHeader {
    key: String,
    #[serde(default)]
    value: Value,
}

fn parse_json(line: &[u8]) -> Result<NewRecord, BadRecord> {
    let record: JsonRecord = serde_json::from_slice(line).map_err(BadRecord::Json)?;
    let bytes = |value: &Value, name| text::from_json(value).map_err(|()| BadRecord::NoBytes(name));
    let timestamp = match &record.timestamp {
        Value::Null => None,
        Value::String(text) => Some(time(text).map_err(BadRecord::Timestamp)?),
        // -1 is what a record without a time has.
        other => match other.as_i64().filter(|ms| *ms >= -1) {
            Some(-1) => None,
            Some(ms) => Some(ms),
            None => return Err(BadRecord::Timestamp(BadTime)),
        },
    };
    if let Some(partition) = record.partition.filter(|partition| *partition < 0) {
        return Err(BadRecord::Partition(partition));
    }
    Ok(NewRecord {
        key: bytes(&record.key, "key")?,
        value: bytes(&record.value, "value")?,
        headers: headers(record.headers)?,
        partition: record.partition,
        timestamp,
        ..NewRecord::default()
    })
}

fn headers(value: Value) -> Result<Vec<NewHeader>, BadRecord> {
    let bytes = |value: &Value| text::from_json(value).map_err(|()| BadRecord::NoBytes("header value"));
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| Ok((key, bytes(&value)?))).collect(),
        Value::Array(_) => {
            let headers: Vec<JsonHeader> = serde_json::from_value(value).map_err(|_| BadRecord::Headers)?;
            headers.into_iter().map(|header| Ok((header.key, bytes(&header.value)?))).collect()
        }
        _ => Err(BadRecord::Headers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(separator: Option<&str>, key: Option<&str>, null_value: Option<&str>) -> Format {
        let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        Format::Lines { separator: bytes(separator), key: bytes(key), null_value: bytes(null_value) }
    }

    fn record(format: &Format, line: &[u8]) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let record = format.record(line.to_vec()).unwrap();
        (record.key, record.value)
    }

    #[test]
    fn a_line_is_a_value_or_a_key_and_a_value() {
        assert_eq!(record(&lines(None, None, None), b"a\xffb\n"), (None, Some(b"a\xffb".to_vec())));
        assert_eq!(record(&lines(None, None, None), b"\n"), (None, Some(vec![])));
        assert_eq!(record(&lines(None, Some("k"), None), b"v"), (Some(b"k".to_vec()), Some(b"v".to_vec())));
        let separated = lines(Some("::"), None, Some("NULL"));
        assert_eq!(record(&separated, b"k::v::w\n"), (Some(b"k".to_vec()), Some(b"v::w".to_vec())));
        assert_eq!(record(&separated, b"::\n"), (Some(vec![]), Some(vec![])));
        assert_eq!(record(&separated, b"k::NULL\n"), (Some(b"k".to_vec()), None));
        assert!(matches!(separated.record(b"k:v\n".to_vec()), Err(BadRecord::NoSeparator)));
    }

    #[test]
    fn json_says_all_of_a_record() {
        let line = br#"{"topic":"t","offset":3,"key":"k","value":{"base64":"/w=="},"partition":2,
            "timestamp":"2026-11-22T10:00:00Z","headers":[{"key":"h","value":null},{"key":"h","value":"2"}]}"#;
        let expected = NewRecord {
            key: Some(b"k".to_vec()),
            value: Some(vec![0xff]),
            headers: vec![("h".to_owned(), None), ("h".to_owned(), Some(b"2".to_vec()))],
            partition: Some(2),
            timestamp: Some(1_795_341_600_000),
            ..NewRecord::default()
        };
        assert_eq!(Format::Json.record(line.to_vec()).unwrap(), expected);
        let short = Format::Json.record(br#"{"headers":{"a":"1"},"timestamp":-1}"#.to_vec()).unwrap();
        let headers = vec![("a".to_owned(), Some(b"1".to_vec()))];
        assert_eq!(short, NewRecord { headers, ..NewRecord::default() });
    }

    #[test]
    fn json_that_is_no_record_says_why() {
        for (line, expected) in [
            ("", "no JSON object of a record"),
            ("[]", "no JSON object of a record"),
            (r#"{"vlaue":"x"}"#, "unknown field `vlaue`"),
            (r#"{"value":1}"#, "value: expected a string"),
            (r#"{"key":{"base64":"%"}}"#, "key: expected a string"),
            (r#"{"headers":"x"}"#, "headers: expected"),
            (r#"{"headers":[{"value":"x"}]}"#, "headers: expected"),
            (r#"{"headers":{"a":1}}"#, "header value: expected"),
            (r#"{"timestamp":"yesterday"}"#, "timestamp: expected"),
            (r#"{"timestamp":-2}"#, "timestamp: expected"),
            (r#"{"partition":-1}"#, "partition -1"),
        ] {
            let message = Format::Json.record(line.as_bytes().to_vec()).unwrap_err().to_string();
            assert!(message.contains(expected), "{line}: {message}");
        }
    }
}
