//! Reading a log of the broker's own from its start, record by record: what the catalog and the coordinators are folds over.

use bytes::BytesMut;

use super::{LogError, Partition};
use crate::record::records::{records, split_batch};
use crate::record::{InvalidBatch, Record};

/// Bytes that one read takes.
const READ_BYTES: usize = 1 << 20;

/// Most that the records of one batch may decompress to; the broker's own are not compressed.
const RECORDS_MAX_BYTES: usize = 1 << 30;

/// Why a log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log's.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A file of it cannot be read.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// A batch of it cannot be read.
    #[error(transparent)]
    Batch(#[from] InvalidBatch),
    /// Its bytes begin with no batch.
    #[error("there is no batch at offset {offset}")]
    Stuck {
        /// The offset.
        offset: i64,
    },
}

/// Gives every visible record to `take`, in order, but those of control batches. Blocks for the reads.
///
/// # Errors
/// The log's; what `take` gives.
pub fn replay<E: From<ReplayError>>(
    log: &Partition,
    mut take: impl FnMut(Record) -> Result<(), E>,
) -> Result<(), E> {
    let offsets = log.offsets().map_err(ReplayError::from)?;
    let mut offset = offsets.log_start_offset;
    while offset < offsets.high_watermark {
        let mut bytes = BytesMut::new();
        for range in log.read(offset, READ_BYTES, true).map_err(ReplayError::from)?.ranges {
            bytes.extend_from_slice(&range.read().map_err(ReplayError::from)?);
        }
        let mut bytes = bytes.freeze();
        let began = offset;
        // The last batch of a read may be cut; the next read begins with it.
        while let Some((header, payload)) = split_batch(&mut bytes) {
            if !header.attributes.is_control() {
                for record in records(&header, &payload, RECORDS_MAX_BYTES).map_err(ReplayError::from)? {
                    let record = record.map_err(ReplayError::from)?;
                    // The first batch may begin before the log does.
                    if record.offset >= began {
                        take(record)?;
                    }
                }
            }
            offset = header.last_offset() + 1;
        }
        if offset == began {
            return Err(ReplayError::Stuck { offset }.into());
        }
    }
    Ok(())
}
