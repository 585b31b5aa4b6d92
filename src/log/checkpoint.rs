//! Kafka's text checkpoints: a version, a count, then one entry a line. Small, replaced as a whole, read at start.

use std::fmt::{Display, Write};

/// Largest checkpoint that is read: 10,000 partitions with long names stay far below it.
pub const LIMIT_BYTES: u64 = 64 << 20;

const VERSION: &str = "0";

/// What is wrong with a checkpoint's text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidCheckpoint {
    /// Not text, or without the two lines at the top.
    #[error("no version and count at its top")]
    Header,
    /// A format that we do not know.
    #[error("version {0:?} where 0 is the only one known")]
    Version(String),
    /// A line was lost or added.
    #[error("{found} entries where its second line promises {promised}")]
    Count {
        /// Entries that the second line states.
        promised: usize,
        /// Entries that are there.
        found: usize,
    },
    /// An entry that does not parse.
    #[error("line {line} is malformed")]
    Entry {
        /// Counted from 1.
        line: usize,
    },
}

/// The text that [`parse`] reads back.
pub fn render<E: Display>(entries: impl ExactSizeIterator<Item = E>) -> String {
    let mut text = format!("{VERSION}\n{}\n", entries.len());
    for entry in entries {
        writeln!(text, "{entry}").expect("a String takes every write");
    }
    text
}

/// The entries of a checkpoint, each made by `entry` of the fields of its line.
pub fn parse<E>(
    bytes: &[u8],
    entry: impl Fn(&mut dyn Iterator<Item = &str>) -> Option<E>,
) -> Result<Vec<E>, InvalidCheckpoint> {
    let text = std::str::from_utf8(bytes).map_err(|_| InvalidCheckpoint::Header)?;
    let mut lines = text.lines();
    match lines.next() {
        Some(VERSION) => {}
        Some(other) => return Err(InvalidCheckpoint::Version(other.chars().take(20).collect())),
        None => return Err(InvalidCheckpoint::Header),
    }
    let promised: usize =
        lines.next().and_then(|count| count.parse().ok()).ok_or(InvalidCheckpoint::Header)?;
    let mut entries = Vec::new();
    for (number, line) in lines.enumerate() {
        let mut fields = line.split(' ');
        let parsed = entry(&mut fields).filter(|_| fields.next().is_none());
        entries.push(parsed.ok_or(InvalidCheckpoint::Entry { line: number + 3 })?);
    }
    // A number that was cut is still one.
    if !text.ends_with('\n') {
        return Err(InvalidCheckpoint::Entry { line: entries.len() + 2 });
    }
    match entries.len() {
        found if found == promised => Ok(entries),
        found => Err(InvalidCheckpoint::Count { promised, found }),
    }
}

/// The next of an entry's fields as a number.
pub fn number<N: std::str::FromStr>(fields: &mut dyn Iterator<Item = &str>) -> Option<N> {
    fields.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(fields: &mut dyn Iterator<Item = &str>) -> Option<(i32, i64)> {
        Some((number(fields)?, number(fields)?))
    }

    #[test]
    fn what_is_rendered_reads_back() {
        let text = render(["0 0", "3 170"].iter());
        assert_eq!(text, "0\n2\n0 0\n3 170\n");
        assert_eq!(parse(text.as_bytes(), pair), Ok(vec![(0, 0), (3, 170)]));
        assert_eq!(parse(b"0\n0\n", pair), Ok(vec![]));
    }

    #[test]
    fn each_damage_has_its_name() {
        assert_eq!(parse(b"", pair), Err(InvalidCheckpoint::Header));
        assert_eq!(parse(b"0\nmany\n", pair), Err(InvalidCheckpoint::Header));
        assert_eq!(parse(b"\xff\n0\n", pair), Err(InvalidCheckpoint::Header));
        assert_eq!(parse(b"1\n0\n", pair), Err(InvalidCheckpoint::Version("1".to_owned())));
        assert_eq!(parse(b"0\n2\n1 1\n2 1", pair), Err(InvalidCheckpoint::Entry { line: 4 }));
        assert_eq!(parse(b"0\n2\n1 1\n", pair), Err(InvalidCheckpoint::Count { promised: 2, found: 1 }));
        assert_eq!(parse(b"0\n1\n1 x\n", pair), Err(InvalidCheckpoint::Entry { line: 3 }));
        assert_eq!(parse(b"0\n2\n1 1\n1 1 1\n", pair), Err(InvalidCheckpoint::Entry { line: 4 }));
    }
}
