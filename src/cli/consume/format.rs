//! How a record is printed.

use std::io::{self, Write};

use serde_json::json;

use crate::cli::client::TopicPartition;
use crate::cli::text;
use crate::record::Record;

/// A record's form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// These parts, one after the other.
    Template(Vec<Part>),
    /// One JSON object a line.
    Json,
}

/// A piece of a template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    Value,
    Headers,
    Size,
}

/// Reads a template.
///
/// # Errors
/// What stands behind a `%` or a backslash means nothing.
pub(super) fn template(text: &str) -> Result<Vec<Part>, String> {
    let bytes = text::unescape(text).map_err(|error| error.to_string())?;
    let mut parts = Vec::new();
    let mut rest = &bytes[..];
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        parts.push(Part::Text(rest[..at].to_vec()));
        parts.push(match rest.get(at + 1) {
            Some(b't') => Part::Topic,
            Some(b'p') => Part::Partition,
            Some(b'o') => Part::Offset,
            Some(b'T') => Part::Timestamp,
            Some(b'k') => Part::Key,
            Some(b'v') => Part::Value,
            Some(b'h') => Part::Headers,
            Some(b's') => Part::Size,
            Some(b'%') => Part::Text(b"%".to_vec()),
            _ => return Err("behind % may stand t p o T k v h s %".to_owned()),
        });
        rest = &rest[at + 2..];
    }
    parts.push(Part::Text(rest.to_vec()));
    parts.retain(|part| *part != Part::Text(Vec::new()));
    Ok(parts)
}

impl Format {
    /// Prints a record.
    ///
    /// # Errors
    /// The writer's.
    pub(super) fn print(
        &self,
        out: &mut impl Write,
        place: &TopicPartition,
        record: &Record,
    ) -> io::Result<()> {
        match self {
            Self::Template(parts) => parts.iter().try_for_each(|part| part.print(out, place, record)),
            Self::Json => print_json(out, place, record),
        }
    }
}

impl Part {
    fn print(&self, out: &mut impl Write, place: &TopicPartition, record: &Record) -> io::Result<()> {
        match self {
            Self::Text(text) => out.write_all(text),
            Self::Topic => write!(out, "{}", place.topic),
            Self::Partition => write!(out, "{}", place.partition),
            Self::Offset => write!(out, "{}", record.offset),
            Self::Timestamp => write!(out, "{}", record.timestamp),
            Self::Key => out.write_all(record.key.as_deref().unwrap_or_default()),
            Self::Value => out.write_all(record.value.as_deref().unwrap_or_default()),
            Self::Headers => print_headers(out, record),
            Self::Size => write!(out, "{}", record.value.as_ref().map_or(-1, |value| value.len() as i64)),
        }
    }
}

fn print_headers(out: &mut impl Write, record: &Record) -> io::Result<()> {
    for (number, header) in record.headers.iter().enumerate() {
        out.write_all(if number > 0 { b"," } else { b"" })?;
        out.write_all(&header.key)?;
        out.write_all(b"=")?;
        out.write_all(header.value.as_deref().unwrap_or_default())?;
    }
    Ok(())
}

fn print_json(out: &mut impl Write, place: &TopicPartition, record: &Record) -> io::Result<()> {
    let headers = record.headers.iter().map(|header| {
        // A key is UTF-8 unless the broker stored what it should have refused.
        let key = String::from_utf8_lossy(&header.key);
        json!({ "key": key, "value": text::to_json(header.value.as_deref()) })
    });
    let object = json!({
        "topic": &place.topic[..],
        "partition": place.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": text::to_json(record.key.as_deref()),
        "value": text::to_json(record.value.as_deref()),
        "headers": headers.collect::<Vec<_>>(),
    });
    writeln!(out, "{object}")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::records::Header;

    fn record() -> Record {
        let header = |key: &'static str, value: Option<&'static str>| Header {
            key: Bytes::from_static(key.as_bytes()),
            value: value.map(|value| Bytes::from_static(value.as_bytes())),
        };
        Record {
            offset: 7,
            timestamp: 123,
            key: Some(Bytes::from_static(b"\xff")),
            value: Some(Bytes::from_static(b"two\nlines")),
            headers: vec![header("a", Some("1")), header("b", None)],
        }
    }

    fn printed(format: &Format, record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        format.print(&mut out, &TopicPartition::new(&"t".into(), 3), record).unwrap();
        out
    }

    #[test]
    fn each_part_stands_for_its_field() {
        let format = Format::Template(template(r"%t-%p@%o %T [%k] (%v) {%h} %s 100%%\t\n").unwrap());
        assert_eq!(printed(&format, &record()), b"t-3@7 123 [\xff] (two\nlines) {a=1,b=} 9 100%\t\n");
        let tombstone = Record { key: None, value: None, headers: vec![], ..record() };
        assert_eq!(printed(&format, &tombstone), b"t-3@7 123 [] () {} -1 100%\t\n");
        for bad in ["%", "%x", "a%", r"\q"] {
            assert!(template(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn json_has_all_of_a_record() {
        let expected = json!({
            "topic": "t", "partition": 3, "offset": 7, "timestamp": 123,
            "key": {"base64": "/w=="}, "value": "two\nlines",
            "headers": [{"key": "a", "value": "1"}, {"key": "b", "value": null}],
        });
        assert_eq!(printed(&Format::Json, &record()), format!("{expected}\n").into_bytes());
    }
}
