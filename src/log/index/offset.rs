//! The `.index` file: where in the log an offset lies.

use super::IndexEntry;

/// The batch at `position` ends with `offset`: whatever is at or above it lies at or behind that position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffsetEntry {
    /// Last offset of the batch.
    pub offset: i64,
    /// First byte of the batch in the `.log` file.
    pub position: u32,
}

impl IndexEntry for OffsetEntry {
    const BYTES: usize = 8;

    fn key(&self) -> i64 {
        self.offset
    }

    fn encode(&self, base_offset: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(&((self.offset - base_offset) as i32).to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(base_offset: i64, bytes: &[u8]) -> Self {
        let (offset, position) = bytes.split_first_chunk().expect("the index reads whole entries");
        let (position, _) = position.split_first_chunk().expect("the index reads whole entries");
        Self {
            offset: base_offset.saturating_add(i64::from(i32::from_be_bytes(*offset))),
            position: u32::from_be_bytes(*position),
        }
    }
}
