//! Handles JoinGroup, SyncGroup, Heartbeat, LeaveGroup, DescribeGroups and ListGroups.

use std::collections::HashSet;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DescribeGroupsRequest, DescribeGroupsResponse, GroupId, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest,
    ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Duration, Instant};

use super::wire::{GROUP_OPERATIONS, code};
use crate::call::{Call, HandlerResult};
use crate::core::Core;
use crate::groups::{Caller, Group, Join, JoinRefused, JoinReply, Joined};
use crate::guard;
use crate::shared::Shared;

/// `group.min.session.timeout.ms` and `group.max.session.timeout.ms`
const SESSION_TIMEOUT_MS: std::ops::RangeInclusive<i32> = 6000..=1_800_000;

/// Most bytes of the protocols of a member, and of the assignments of a generation. The record in which Apache Kafka stores
/// a group has this limit (`max.message.bytes` of the topic of the offsets).
const MAX_STORED: usize = 1024 * 1024;

/// The only type of groups (KIP-848).
const CLASSIC: &str = "classic";

pub async fn handle_join_group(shared: &Shared, call: &Call) -> HandlerResult {
    let request: JoinGroupRequest = call.request()?;
    check_texts(&request)?;
    let member_id = request.member_id.to_string();
    let refused = |error| Err(JoinRefused { error, member_id });
    let reply = if request.group_id.is_empty() {
        refused(ResponseError::InvalidGroupId)
    } else if !SESSION_TIMEOUT_MS.contains(&request.session_timeout_ms) {
        refused(ResponseError::InvalidSessionTimeout)
    } else if is_too_large(
        request.protocols.iter().map(|protocol| protocol.name.len() + protocol.metadata.len()),
    ) {
        refused(ResponseError::UnknownServerError)
    } else {
        let group_id = request.group_id.to_string();
        let join = to_join(request, call);
        call.release();
        let answer = shared.lock().coordinate(|groups| groups.join(&group_id, join, Instant::now()));
        shared.deadlines.notify_one();
        // The sender is dropped when the same member joins again in the meantime.
        call.client.wait(answer).await?.unwrap_or_else(|_| refused(ResponseError::RebalanceInProgress))
    };
    call.respond(&join_response(reply, call.version))
}

fn is_too_large(lengths: impl Iterator<Item = usize>) -> bool {
    lengths.sum::<usize>() > MAX_STORED
}

/// Checks the texts that the group keeps and names to others.
fn check_texts(request: &JoinGroupRequest) -> Result<()> {
    let instance_id = request.group_instance_id.as_deref().unwrap_or_default();
    let own = [&*request.group_id, &*request.member_id, instance_id, &*request.protocol_type];
    guard::check_texts(own.into_iter().chain(request.protocols.iter().map(|protocol| &*protocol.name)))
}

fn to_join(request: JoinGroupRequest, call: &Call) -> Join {
    let millis = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or_default());
    // Version 0 has only one timeout.
    let rebalance_timeout_ms =
        if call.version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms };
    let protocols = request.protocols.iter().map(|protocol| {
        // A slice would keep the whole request in memory, so the bytes are copied.
        let metadata = Bytes::copy_from_slice(&protocol.metadata);
        (protocol.name.to_string(), metadata)
    });
    Join {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.as_ref().map(|id| id.to_string()),
        client_id: call.client_id.clone(),
        client_host: call.client_host.clone(),
        session_timeout: millis(request.session_timeout_ms),
        rebalance_timeout: millis(rebalance_timeout_ms),
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.collect(),
        requires_known_member_id: call.version >= 4,
        may_skip_assignment: call.version >= 9,
    }
}

fn join_response(reply: JoinReply, version: i16) -> JoinGroupResponse {
    // Older versions have no null.
    let no_protocol = if version >= 7 { None } else { Some(StrBytes::new()) };
    match reply {
        Ok(Joined { member_id, generation, protocol_type, protocol, leader, skips_assignment, members }) => {
            let members = members.into_iter().map(|(id, instance_id, metadata)| {
                JoinGroupResponseMember::default()
                    .with_member_id(id.into())
                    .with_group_instance_id(instance_id.map(StrBytes::from_string))
                    .with_metadata(metadata)
            });
            JoinGroupResponse::default()
                .with_generation_id(generation)
                .with_protocol_type(protocol_type.map(StrBytes::from_string))
                .with_protocol_name(protocol.map(StrBytes::from_string).or(no_protocol))
                .with_leader(leader.into())
                .with_skip_assignment(skips_assignment)
                .with_member_id(member_id.into())
                .with_members(members.collect())
        }
        Err(JoinRefused { error, member_id }) => JoinGroupResponse::default()
            .with_error_code(error.code())
            .with_generation_id(-1)
            .with_protocol_name(no_protocol)
            .with_member_id(member_id.into()),
    }
}

pub async fn handle_sync_group(shared: &Shared, call: &Call) -> HandlerResult {
    let request: SyncGroupRequest = call.request()?;
    guard::check_texts([request.group_id.as_str(), &request.member_id])?;
    let caller = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let (protocol_type, protocol) = (request.protocol_type.as_deref(), request.protocol_name.as_deref());
    let protocol = match (protocol_type, protocol) {
        _ if is_too_large(request.assignments.iter().map(|assigned| assigned.assignment.len())) => {
            Err(ResponseError::UnknownServerError)
        }
        (Some(protocol_type), Some(protocol)) => Ok(Some((protocol_type, protocol))),
        // Both are required since version 5 (KIP-559).
        _ if call.version >= 5 => Err(ResponseError::InconsistentGroupProtocol),
        _ => Ok(None),
    };
    let assignments = request.assignments.iter().map(|assigned| {
        let assignment = Bytes::copy_from_slice(&assigned.assignment);
        (assigned.member_id.to_string(), assignment)
    });
    let assignments = assignments.collect();
    let waiting = protocol.and_then(|protocol| {
        let now = Instant::now();
        shared.lock().coordinate(|groups| groups.sync(&request.group_id, caller, protocol, assignments, now))
    });
    shared.deadlines.notify_one();
    let copy = |name: &Option<StrBytes>| name.as_ref().map(|name| StrBytes::from_string(name.to_string()));
    let (protocol_type, protocol_name) = (copy(&request.protocol_type), copy(&request.protocol_name));
    drop(request);
    call.release();
    let assignment = match waiting {
        Ok(answer) => call.client.wait(answer).await?.unwrap_or(Err(ResponseError::RebalanceInProgress)),
        Err(error) => Err(error),
    };
    let response = SyncGroupResponse::default().with_error_code(code(&assignment));
    let response = match assignment {
        // The protocol of the request was checked to be the group's.
        Ok(assignment) => response
            .with_assignment(assignment)
            .with_protocol_type(protocol_type)
            .with_protocol_name(protocol_name),
        Err(_) => response,
    };
    call.respond(&response)
}

pub fn handle_heartbeat(shared: &Shared, call: &Call) -> HandlerResult {
    let request: HeartbeatRequest = call.request()?;
    let caller = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let alive = shared.lock().groups.heartbeat(&request.group_id, caller, Instant::now());
    call.respond(&HeartbeatResponse::default().with_error_code(code(&alive)))
}

pub fn handle_leave_group(shared: &Shared, call: &Call) -> HandlerResult {
    let request: LeaveGroupRequest = call.request()?;
    let mut core = shared.lock();
    let now = Instant::now();
    let group = request.group_id.as_str();
    if call.version < 3 {
        let left = core.coordinate(|groups| groups.leave(group, &request.member_id, None, now));
        shared.deadlines.notify_one();
        return call.respond(&LeaveGroupResponse::default().with_error_code(code(&left)));
    }
    let members = request.members.into_iter().map(|member| {
        let instance = member.group_instance_id.as_deref();
        let left = core.coordinate(|groups| groups.leave(group, &member.member_id, instance, now));
        MemberResponse::default()
            .with_error_code(code(&left))
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
    });
    let response = LeaveGroupResponse::default().with_members(members.collect());
    shared.deadlines.notify_one();
    call.respond(&response)
}

pub fn handle_describe_groups(shared: &Shared, call: &Call) -> HandlerResult {
    let request: DescribeGroupsRequest = call.request()?;
    let core = shared.lock();
    let include_operations = request.include_authorized_operations;
    // A group is described once, or a small request that repeats it would have a very large response.
    let mut named = HashSet::new();
    let ids = request.groups.into_iter().filter(|id| named.insert(id.clone()));
    let groups = ids.map(|id| {
        let described = describe_group(&core, id);
        if include_operations { described.with_authorized_operations(GROUP_OPERATIONS) } else { described }
    });
    call.respond(&DescribeGroupsResponse::default().with_groups(groups.collect()))
}

fn describe_group(core: &Core, id: GroupId) -> DescribedGroup {
    let Some(group) = core.groups.get(&id) else {
        let state = if core.state().offsets.contains_key(id.as_str()) { "Empty" } else { "Dead" };
        return DescribedGroup::default()
            .with_group_id(id)
            .with_group_state(StrBytes::from_static_str(state));
    };
    let protocol = group.stable_protocol();
    let members = group.members().map(|member| {
        let of_protocol = |bytes: Bytes| protocol.map(|_| bytes).unwrap_or_default();
        DescribedGroupMember::default()
            .with_member_id(member.id.clone().into())
            .with_group_instance_id(member.instance_id.clone().map(StrBytes::from_string))
            .with_client_id(member.client_id.clone().into())
            .with_client_host(member.client_host.clone().into())
            .with_member_metadata(member.metadata(protocol.unwrap_or_default()))
            .with_member_assignment(of_protocol(member.assignment.clone()))
    });
    DescribedGroup::default()
        .with_group_id(id)
        .with_group_state(StrBytes::from_static_str(group.state()))
        .with_protocol_type(group.protocol_type().to_owned().into())
        .with_protocol_data(protocol.unwrap_or_default().to_owned().into())
        .with_members(members.collect())
}

/// Lists groups that have members, and groups that only have committed offsets.
pub fn handle_list_groups(shared: &Shared, call: &Call) -> HandlerResult {
    let request: ListGroupsRequest = call.request()?;
    let core = shared.lock();
    let listed = |(id, group): (&str, Option<&Group>)| {
        ListedGroup::default()
            .with_group_id(StrBytes::from_string(id.to_owned()).into())
            .with_protocol_type(group.map(Group::protocol_type).unwrap_or_default().to_owned().into())
            .with_group_state(StrBytes::from_static_str(group.map_or("Empty", Group::state)))
            .with_group_type(StrBytes::from_static_str(CLASSIC))
    };
    let present = core.groups.iter().map(|(id, group)| (id, Some(group)));
    let left = core.state().offsets.keys().map(String::as_str);
    let left = left.filter(|id| core.groups.get(id).is_none()).map(|id| (id, None));
    let passes = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    let wanted = |group: &ListedGroup| {
        passes(&request.states_filter, &group.group_state) && passes(&request.types_filter, CLASSIC)
    };
    let groups = present.chain(left).map(listed).filter(wanted).collect();
    call.respond(&ListGroupsResponse::default().with_groups(groups))
}
