//! Which batches belong to aborted transactions, and which markers have outlived their data: a fold over the headers of a log
//! from its beginning. KIP-98.

use std::collections::{HashMap, HashSet};

use crate::record::BatchHeader;

/// Bytes of an entry of a `.txnindex` file.
pub const ENTRY_BYTES: usize = 34;

const ENTRY_VERSION: i16 = 0;

/// A transaction that was aborted: an entry of a `.txnindex` file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbortedTransaction {
    /// The producer.
    pub producer_id: i64,
    /// First offset of its data.
    pub first_offset: i64,
    /// Offset of its marker.
    pub last_offset: i64,
    /// The last stable offset after it.
    pub last_stable_offset: i64,
}

impl AbortedTransaction {
    /// Its bytes in the file.
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..2].copy_from_slice(&ENTRY_VERSION.to_be_bytes());
        let fields = [self.producer_id, self.first_offset, self.last_offset, self.last_stable_offset];
        for (place, field) in bytes[2..].chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    /// The entries of a file; `None` if it is no such file.
    pub fn decode_all(bytes: &[u8]) -> Option<Vec<Self>> {
        let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        rest.is_empty().then_some(())?;
        entries.iter().map(Self::decode).collect()
    }

    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let (version, fields) = bytes.split_first_chunk()?;
        let (fields, _) = fields.as_chunks::<8>();
        let field = |place: usize| i64::from_be_bytes(fields[place]);
        (i16::from_be_bytes(*version) == ENTRY_VERSION).then(|| Self {
            producer_id: field(0),
            first_offset: field(1),
            last_offset: field(2),
            last_stable_offset: field(3),
        })
    }
}

/// What a control batch says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Marker {
    /// The producer's transaction is void.
    Abort,
    /// It counts.
    Commit,
    /// Something else, which is kept.
    Other,
    /// Nothing any more: compaction has emptied it.
    Emptied,
}

impl Marker {
    /// What the key of a control record means: a version and a type.
    pub fn of_key(key: Option<&[u8]>) -> Self {
        match key {
            Some([_, _, 0, 0, ..]) => Self::Abort,
            Some([_, _, 0, 1, ..]) => Self::Commit,
            _ => Self::Other,
        }
    }
}

/// What becomes of a control batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MarkerFate {
    /// Whether nothing of its transaction was there: then its time to go begins.
    pub is_idle: bool,
    /// The index entry that it still needs.
    pub index_entry: Option<AbortedTransaction>,
}

/// The transactions that are open at a place in the log.
#[derive(Debug)]
pub struct Transactions {
    /// Those whose data has not begun yet, the last one first.
    to_come: Vec<AbortedTransaction>,
    /// By producer, with whether data of theirs was there.
    aborted: HashMap<i64, (AbortedTransaction, bool)>,
    /// Producers of which data was there that is going to be committed.
    committed: HashSet<i64>,
}

impl Transactions {
    /// At the beginning of a log in which these were aborted.
    pub fn new(mut aborted: Vec<AbortedTransaction>) -> Self {
        aborted.sort_unstable_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
        Self { to_come: aborted, aborted: HashMap::new(), committed: HashSet::new() }
    }

    /// The next batch is one of data; whether it was aborted.
    pub fn see_data(&mut self, batch: &BatchHeader) -> bool {
        self.begin_up_to(batch.last_offset());
        if !batch.attributes.is_transactional() {
            return false;
        }
        if let Some((_, has_data)) = self.aborted.get_mut(&batch.producer_id) {
            *has_data = true;
            return true;
        }
        self.committed.insert(batch.producer_id);
        false
    }

    /// The next batch is a control batch.
    pub fn see_marker(&mut self, batch: &BatchHeader, marker: Marker) -> MarkerFate {
        self.begin_up_to(batch.last_offset());
        match marker {
            Marker::Abort => {
                let ended = self.aborted.remove(&batch.producer_id);
                let index_entry = ended.filter(|(_, has_data)| *has_data).map(|(transaction, _)| transaction);
                MarkerFate { is_idle: index_entry.is_none(), index_entry }
            }
            Marker::Commit => {
                MarkerFate { is_idle: !self.committed.remove(&batch.producer_id), index_entry: None }
            }
            Marker::Other => MarkerFate { is_idle: false, index_entry: None },
            Marker::Emptied => MarkerFate { is_idle: true, index_entry: None },
        }
    }

    fn begin_up_to(&mut self, offset: i64) {
        while let Some(begun) = self.to_come.pop_if(|next| next.first_offset <= offset) {
            self.aborted.entry(begun.producer_id).or_insert((begun, false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::BatchBuilder;

    fn batch(producer_id: i64, offset: i64) -> BatchHeader {
        let mut batch = BatchBuilder::new()
            .record(0, Some(b"k"), None)
            .producer(producer_id, 0, 0)
            .transactional()
            .build_valid();
        batch.assign(offset, 0);
        *batch.header()
    }

    fn aborted(producer_id: i64, first_offset: i64, last_offset: i64) -> AbortedTransaction {
        AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset: last_offset + 1 }
    }

    #[test]
    fn an_index_reads_back_and_anything_else_is_refused() {
        let entries = [aborted(1, 2, 3), aborted(4, 5, 6)];
        let mut bytes: Vec<u8> = entries.iter().flat_map(AbortedTransaction::encode).collect();
        assert_eq!(bytes.len(), 68);
        assert_eq!(AbortedTransaction::decode_all(&bytes).unwrap(), entries);
        assert_eq!(AbortedTransaction::decode_all(&bytes[..67]), None);
        bytes[1] = 1;
        assert_eq!(AbortedTransaction::decode_all(&bytes), None);
    }

    #[test]
    fn data_is_aborted_between_its_first_offset_and_its_marker_and_only_its_producers() {
        let mut transactions =
            Transactions::new(vec![aborted(2, 30, 40), aborted(1, 10, 20), aborted(1, 50, 60)]);
        assert!(!transactions.see_data(&batch(1, 9)), "committed before");
        let fate = transactions.see_marker(&batch(1, 9), Marker::Commit);
        assert!(!fate.is_idle);
        assert!(transactions.see_data(&batch(1, 10)));
        assert!(!transactions.see_data(&batch(3, 11)));
        assert!(transactions.see_data(&batch(1, 12)));
        let fate = transactions.see_marker(&batch(1, 20), Marker::Abort);
        assert_eq!(fate, MarkerFate { is_idle: false, index_entry: Some(aborted(1, 10, 20)) });
        assert!(!transactions.see_data(&batch(1, 21)));
        let fate = transactions.see_marker(&batch(2, 40), Marker::Abort);
        assert_eq!(fate, MarkerFate { is_idle: true, index_entry: None }, "its data is gone");
        assert!(transactions.see_data(&batch(1, 55)));
        assert!(transactions.see_marker(&batch(9, 70), Marker::Commit).is_idle);
        assert!(transactions.see_marker(&batch(9, 71), Marker::Emptied).is_idle);
        assert!(!transactions.see_marker(&batch(9, 72), Marker::Other).is_idle);
    }

    #[test]
    fn keys_of_markers_are_told_apart() {
        for (key, marker) in [
            (Some(&[0, 0, 0, 0][..]), Marker::Abort),
            (Some(&[0, 0, 0, 1]), Marker::Commit),
            (Some(&[0, 0, 0, 2]), Marker::Other),
            (Some(&[0, 0]), Marker::Other),
            (None, Marker::Other),
        ] {
            assert_eq!(Marker::of_key(key), marker);
        }
    }
}
