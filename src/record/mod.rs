//! Record batches (magic 2): their header, their records, compression, the one validity walk, and where their bytes are.
//!
//! Nothing here knows a topic, a socket or a wire message. See the format in Kafka's documentation of record batches.

pub mod batch;
pub mod builder;
pub mod compression;
pub mod outline;
pub mod partitioner;
pub mod range;
pub mod records;
pub mod rewrite;
pub mod validate;
pub mod varint;
mod walk;

pub use batch::{BatchHeader, HEADER_BYTES};
pub use builder::BatchBuilder;
pub use compression::{Codec, Compression};
pub use records::Record;
pub use validate::{InvalidBatch, Rules, ValidBatch, validate};
pub use walk::MalformedRecord;

/// Whose clock a record's timestamp is from (attribute bit 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TimestampType {
    /// The producer's, per record.
    #[default]
    CreateTime,
    /// The broker's at append, one for the whole batch.
    LogAppendTime,
}
