//! InitProducerId: a fresh producer id.

use tracing::warn;

use super::RequestContext;
use crate::protocol::ErrorCode;
use crate::protocol::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

/// Answers with an id that was never given before, at epoch 0. A transactional id is refused until transactions exist, with
/// a code that no client retries.
pub async fn handle(cx: RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse {
    match init(&cx, &request).await {
        Ok(producer_id) => InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() },
        Err(code) => {
            InitProducerIdResponse { error_code: code.into(), producer_epoch: -1, ..Default::default() }
        }
    }
}

async fn init(cx: &RequestContext, request: &InitProducerIdRequest) -> Result<i64, ErrorCode> {
    match request.transactional_id.as_deref() {
        Some("") => return Err(ErrorCode::InvalidRequest),
        Some(transactional_id) => {
            warn!(peer = %cx.peer(), transactional_id, "transactions are not served: producer refused");
            return Err(ErrorCode::UnsupportedVersion);
        }
        None => {}
    }
    // Both or neither. KIP-360.
    if (request.producer_id == -1) != (request.producer_epoch == -1) {
        return Err(ErrorCode::InvalidRequest);
    }
    cx.catalog.producer_id().await.map_err(|error| ErrorCode::from(&error))
}
