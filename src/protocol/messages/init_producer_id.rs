//! InitProducerId, API 22.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// A producer id and epoch for an idempotent or transactional producer. KIP-98, KIP-360.
    InitProducerId { key: 22, versions: 0..=5, flexible: 2.. }

    request InitProducerIdRequest {
        transactional_id: Option<Str>,
        transaction_timeout_ms: i32,
        producer_id: i64 [3..] = -1,
        producer_epoch: i16 [3..] = -1,
    }

    response InitProducerIdResponse {
        throttle_time_ms: i32,
        error_code: i16,
        producer_id: i64 = -1,
        producer_epoch: i16,
    }
}
