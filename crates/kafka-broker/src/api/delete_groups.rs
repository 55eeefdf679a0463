//! Handles DeleteGroups and OffsetDelete.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, OffsetDeleteRequest, OffsetDeleteResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::wire::code;
use crate::call::{Call, HandlerResult};
use crate::core::Core;
use crate::entry::Entry;
use crate::shared::Shared;

pub fn handle_delete_groups(shared: &Shared, call: &Call) -> HandlerResult {
    let request: DeleteGroupsRequest = call.request()?;
    let mut core = shared.lock();
    let mut named = HashSet::new();
    let names = request.groups_names.into_iter().filter(|name| named.insert(name.clone()));
    let results = names.map(|name| {
        let deleted = delete_group(&mut core, &name);
        DeletableGroupResult::default().with_group_id(name).with_error_code(code(&deleted))
    });
    call.respond(&DeleteGroupsResponse::default().with_results(results.collect()))
}

/// Deletes a group without members, with its offsets (`GroupCoordinator.handleDeleteGroups`).
fn delete_group(core: &mut Core, group: &StrBytes) -> Result<(), ResponseError> {
    check_known(core, group)?;
    if core.groups.get(group).is_some_and(|group| !group.is_empty()) {
        return Err(ResponseError::NonEmptyGroup);
    }
    core.commit(&Entry::GroupDeleted { group: group.clone() })?;
    core.coordinate(|groups| groups.remove(group));
    Ok(())
}

pub fn handle_offset_delete(shared: &Shared, call: &Call) -> HandlerResult {
    let request: OffsetDeleteRequest = call.request()?;
    let mut core = shared.lock();
    let wanted = request.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| (topic.name.0.clone(), partition.partition_index))
    });
    let deleted = delete_offsets(&mut core, &request.group_id, wanted.collect());
    let mut results = match deleted {
        Ok(results) => results.into_iter(),
        Err(error) => {
            return call.respond(&OffsetDeleteResponse::default().with_error_code(error.code()));
        }
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(results.by_ref());
        let partitions = partitions.map(|(partition, result)| {
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(&result))
        });
        OffsetDeleteResponseTopic::default().with_partitions(partitions.collect()).with_name(topic.name)
    });
    call.respond(&OffsetDeleteResponse::default().with_topics(topics.collect()))
}

/// Deletes committed offsets, except those of topics that a member is subscribed to
/// (`GroupCoordinator.handleDeleteOffsets`). Returns the result for each partition.
fn delete_offsets(
    core: &mut Core,
    group: &StrBytes,
    wanted: Vec<(StrBytes, i32)>,
) -> Result<Vec<Result<(), ResponseError>>, ResponseError> {
    if group.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    check_known(core, group)?;
    let members = core.groups.get(group).filter(|group| !group.is_empty());
    if members.is_some_and(|group| group.protocol_type() != "consumer") {
        return Err(ResponseError::NonEmptyGroup);
    }
    let check = |(topic, index): &(StrBytes, i32)| {
        if core.state().partition(topic, *index).is_none() {
            Err(ResponseError::UnknownTopicOrPartition)
        } else if members.is_some_and(|group| group.subscribes_to(topic)) {
            Err(ResponseError::GroupSubscribedToTopic)
        } else {
            Ok(())
        }
    };
    let results: Vec<_> = wanted.iter().map(check).collect();
    let is_empty = members.is_none();
    let deleted = wanted.into_iter().zip(&results).filter(|(_, result)| result.is_ok());
    let partitions: Vec<_> = deleted.map(|(partition, _)| partition).collect();
    if !partitions.is_empty() {
        core.commit(&Entry::OffsetsDeleted { group: group.clone(), partitions })?;
    }
    // A group without members and offsets does not exist.
    if is_empty && !core.state().offsets.contains_key(group.as_str()) {
        core.coordinate(|groups| groups.remove(group));
    }
    Ok(results)
}

fn check_known(core: &Core, group: &str) -> Result<(), ResponseError> {
    let is_known = core.groups.get(group).is_some() || core.state().offsets.contains_key(group);
    if is_known { Ok(()) } else { Err(ResponseError::GroupIdNotFound) }
}
