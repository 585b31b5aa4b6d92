//! ApiVersions: the table of handlers, as clients ask for it.

use super::{RequestContext, TABLE};
use crate::protocol::ErrorCode;
use crate::protocol::api::Api;
use crate::protocol::messages::ApiVersions;
use crate::protocol::messages::Produce;
use crate::protocol::messages::api_versions::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse, FinalizedFeature, SupportedFeature,
};
use crate::protocol::wire::Str;

/// Share groups, with dead letter queues. KIP-932, KIP-1191.
const SHARE_VERSION: (&str, i16) = ("share.version", 2);

/// The features that are finalized here never change.
const FEATURES_EPOCH: i64 = 0;

/// Answers what this broker serves.
pub async fn handle(cx: RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse {
    match check(&cx, &request) {
        Ok(()) => with_features(ApiVersionsResponse { api_keys: served(), ..Default::default() }),
        Err(code) => ApiVersionsResponse { error_code: code.into(), ..Default::default() },
    }
}

fn with_features(response: ApiVersionsResponse) -> ApiVersionsResponse {
    let (name, level) = SHARE_VERSION;
    let name = Str::from_static(name);
    ApiVersionsResponse {
        supported_features: vec![SupportedFeature { name: name.clone(), min_version: 1, max_version: level }],
        finalized_features_epoch: FEATURES_EPOCH,
        finalized_features: vec![FinalizedFeature {
            name,
            max_version_level: level,
            min_version_level: level,
        }],
        ..response
    }
}

fn check(cx: &RequestContext, request: &ApiVersionsRequest) -> Result<(), ErrorCode> {
    // From version 3 on clients name themselves, and what they say ends up in metrics. KIP-511.
    let named = cx.version < 3
        || is_software_text(&request.client_software_name)
            && is_software_text(&request.client_software_version);
    if !named {
        return Err(ErrorCode::InvalidRequest);
    }
    // A client that was sent here by an old address finds out that this is another broker. KIP-1242.
    if let Some(cluster_id) = &request.cluster_id
        && request.node_id != -1
        && (**cluster_id != cx.cluster_id.to_string() || request.node_id != cx.node_id())
    {
        return Err(ErrorCode::RebootstrapRequired);
    }
    Ok(())
}

/// Letters and digits, with `-` and `.` between them.
fn is_software_text(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    text.bytes().all(inner) && outer(text.as_bytes().first()) && outer(text.as_bytes().last())
}

fn served() -> Vec<ApiVersion> {
    TABLE
        .iter()
        .map(|api| ApiVersion {
            api_key: api.key,
            // librdkafka decides by Produce's minimum which codecs a broker knows; Kafka keeps this lie for it.
            min_version: if api.key == Produce::KEY { 0 } else { api.min_version },
            max_version: api.max_version,
        })
        .collect()
}

/// The answer to a version that this broker does not know, itself of version 0: which versions to ask with instead.
pub fn unknown_version() -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.into(),
        api_keys: vec![ApiVersion {
            api_key: ApiVersions::KEY,
            min_version: ApiVersions::MIN_VERSION,
            max_version: ApiVersions::MAX_VERSION,
        }],
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::is_software_text;

    #[test]
    fn software_texts_are_kafkas() {
        for good in ["librdkafka", "a", "kafka-go", "2.5.0-rc.1", "0"] {
            assert!(is_software_text(good), "{good}");
        }
        for bad in ["", "-a", "a-", ".", "a b", "ä", "a_b"] {
            assert!(!is_software_text(bad), "{bad}");
        }
    }
}
