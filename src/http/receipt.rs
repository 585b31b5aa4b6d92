//! Receipts as text, the same at every HTTP door: what a client settles a delivery by. Nothing is kept of them here; a checksum tells ours
//! from made-up ones.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::BufMut;

use crate::clock::TimestampMs;
use crate::operations::Receipt;
use crate::uuid::Uuid;

const VERSION: u8 = 2;
const CHECKSUM_BYTES: usize = 4;
/// Version, id of the queue, topic id, partition, offset, deliveries, time of the receive, checksum.
const BYTES: usize = 1 + 16 + 16 + 4 + 8 + 2 + 8 + CHECKSUM_BYTES;

/// A receipt and when it was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Handle {
    pub(super) receipt: Receipt,
    pub(super) received_ms: TimestampMs,
}

impl Handle {
    /// As clients hold it.
    pub(super) fn text(&self) -> String {
        let Receipt { queue_id, topic_id, partition, offset, deliveries } = self.receipt;
        let mut bytes = [0; BYTES];
        let mut rest = &mut bytes[..];
        rest.put_u8(VERSION);
        rest.put_slice(&queue_id.0);
        rest.put_slice(&topic_id.0);
        rest.put_i32(partition);
        rest.put_i64(offset);
        rest.put_u16(deliveries);
        rest.put_i64(self.received_ms);
        let checksum = crc32c::crc32c(&bytes[..BYTES - CHECKSUM_BYTES]);
        bytes[BYTES - CHECKSUM_BYTES..].copy_from_slice(&checksum.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads one back; `None` for what we never gave.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; BYTES];
        if URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()? != BYTES {
            return None;
        }
        let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        if u32::from_be_bytes(*checksum) != crc32c::crc32c(content) {
            return None;
        }
        let (&version, rest) = content.split_first()?;
        let (queue_id, rest) = rest.split_first_chunk::<16>()?;
        let (topic_id, rest) = rest.split_first_chunk::<16>()?;
        let (partition, rest) = rest.split_first_chunk::<4>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (deliveries, rest) = rest.split_first_chunk::<2>()?;
        let (received_ms, _) = rest.split_first_chunk::<8>()?;
        let receipt = Receipt {
            queue_id: Uuid(*queue_id),
            topic_id: Uuid(*topic_id),
            partition: i32::from_be_bytes(*partition),
            offset: i64::from_be_bytes(*offset),
            deliveries: u16::from_be_bytes(*deliveries),
        };
        // Nobody has a receipt for what was never delivered.
        (version == VERSION && receipt.deliveries > 0)
            .then_some(Self { receipt, received_ms: i64::from_be_bytes(*received_ms) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn handle(offset: i64, deliveries: u16) -> Handle {
        let (queue_id, topic_id) = (Uuid([6; 16]), Uuid([7; 16]));
        let receipt = Receipt { queue_id, topic_id, partition: 3, offset, deliveries };
        Handle { receipt, received_ms: 1_700_000_000_123 }
    }

    #[test]
    fn a_handle_reads_back_and_a_changed_one_does_not() {
        let text = handle(5, 2).text();
        assert!(text.len() <= 1024);
        assert_eq!(Handle::parse(&text), Some(handle(5, 2)));
        for place in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            assert_eq!(Handle::parse(&String::from_utf8(changed).unwrap()), None, "{place}");
        }
    }

    proptest! {
        #[test]
        fn every_receipt_survives_and_no_text_panics(offset: i64, deliveries in 1..=u16::MAX, text in ".{0,80}") {
            let whole = handle(offset, deliveries);
            prop_assert_eq!(Handle::parse(&whole.text()), Some(whole));
            prop_assert_eq!(Handle::parse(&handle(offset, 0).text()), None);
            prop_assert_eq!(Handle::parse(&text), None);
        }
    }
}
