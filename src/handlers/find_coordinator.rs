//! FindCoordinator: this broker, which coordinates everything.

use super::RequestContext;
use crate::catalog::CatalogError;
use crate::protocol::ErrorCode;
use crate::protocol::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};
use crate::protocol::wire::Str;

/// First version with many keys. KIP-699.
const KEYS_FROM_VERSION: i16 = 4;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// Makes the internal topic when it is first needed, so that the answer can be used at once.
pub async fn handle(cx: RequestContext, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let found = match request.key_type {
        GROUP => start_groups(&cx).await.map_err(|error| ErrorCode::from(&error)),
        // Where a transactional producer learns why it is refused: InitProducerId says it.
        TRANSACTION => Ok(()),
        _ => Err(ErrorCode::InvalidRequest),
    };
    let (host, port) = cx.endpoint();
    let answer = |key: Str| match found {
        Ok(()) => Coordinator { key, node_id: cx.node_id(), host: host.clone(), port, ..Default::default() },
        Err(code) => Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code: code.into(),
            error_message: Some(code.name().into()),
            ..Default::default()
        },
    };
    if cx.version >= KEYS_FROM_VERSION {
        let coordinators = request.coordinator_keys.into_iter().map(answer).collect();
        return FindCoordinatorResponse { coordinators, ..Default::default() };
    }
    let Coordinator { key: _, node_id, host, port, error_code, error_message } = answer(request.key);
    FindCoordinatorResponse { node_id, host, port, error_code, error_message, ..Default::default() }
}

async fn start_groups(cx: &RequestContext) -> Result<(), CatalogError> {
    let topic = cx.catalog.consumer_offsets(&cx.config).await?;
    cx.groups.start(&topic.partitions);
    Ok(())
}
