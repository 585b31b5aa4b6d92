//! ListGroups: the groups there are.

use super::RequestContext;
use crate::group::Listed;
use crate::protocol::ErrorCode;
use crate::protocol::messages::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};
use crate::protocol::wire::Str;

/// The type of groups whose members assign.
const CLASSIC: &str = "classic";

/// The type of groups whose members share partitions.
const SHARE: &str = "share";

/// Lists the groups of the states and types asked for.
pub async fn handle(cx: RequestContext, request: ListGroupsRequest) -> ListGroupsResponse {
    let wanted = |filter: &[Str], is: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(is))
    };
    let kind = |group: &Listed| if group.is_share { SHARE } else { CLASSIC };
    let listing = match cx.groups.list().await {
        Ok(listing) => listing,
        Err(error) => {
            return ListGroupsResponse { error_code: ErrorCode::from(&error).into(), ..Default::default() };
        }
    };
    let groups = listing
        .groups
        .into_iter()
        .filter(|group| {
            wanted(&request.states_filter, group.state.name()) && wanted(&request.types_filter, kind(group))
        })
        .map(|group| ListedGroup {
            group_id: Str::from(&*group.group_id),
            protocol_type: Str::from(&*group.protocol_type),
            group_state: Str::from_static(group.state.name()),
            group_type: Str::from_static(kind(&group)),
        })
        .collect();
    ListGroupsResponse { groups, ..Default::default() }
}
