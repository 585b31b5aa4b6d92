//! The `.timeindex` file: where in the log a timestamp was first reached.

use super::IndexEntry;

/// Up to and with the batch that ends with `offset`, the largest timestamp is `timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeEntry {
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Last offset of the first batch that has it.
    pub offset: i64,
}

impl IndexEntry for TimeEntry {
    const BYTES: usize = 12;

    fn key(&self) -> i64 {
        self.timestamp
    }

    fn encode(&self, base_offset: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&((self.offset - base_offset) as i32).to_be_bytes());
    }

    fn decode(base_offset: i64, bytes: &[u8]) -> Self {
        let (timestamp, offset) = bytes.split_first_chunk().expect("the index reads whole entries");
        let (offset, _) = offset.split_first_chunk().expect("the index reads whole entries");
        Self {
            timestamp: i64::from_be_bytes(*timestamp),
            offset: base_offset.saturating_add(i64::from(i32::from_be_bytes(*offset))),
        }
    }
}
