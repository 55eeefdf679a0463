//! Handles ElectLeaders, AlterPartitionReassignments and ListPartitionReassignments: each partition has one replica, which
//! stays where it is.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ElectLeadersRequest,
    ElectLeadersResponse, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use super::wire::{BROKER, code};
use crate::call::{Call, HandlerResult};
use crate::shared::Shared;
use crate::state::State;

/// Reports for each named partition that it has its leader. For all partitions it reports none, as no leader changes.
pub fn handle_elect_leaders(shared: &Shared, call: &Call) -> HandlerResult {
    let request: ElectLeadersRequest = call.request()?;
    let core = shared.lock();
    let topics = request.topic_partitions.unwrap_or_default().into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|index| {
            let error = match core.state().partition(&topic.topic, *index) {
                Some(_) => ResponseError::ElectionNotNeeded,
                None => ResponseError::UnknownTopicOrPartition,
            };
            PartitionResult::default().with_partition_id(*index).with_error_code(error.code())
        });
        ReplicaElectionResult::default().with_partition_result(partitions.collect()).with_topic(topic.topic)
    });
    call.respond(&ElectLeadersResponse::default().with_replica_election_results(topics.collect()))
}

pub fn handle_alter_partition_reassignments(shared: &Shared, call: &Call) -> HandlerResult {
    let request: AlterPartitionReassignmentsRequest = call.request()?;
    let core = shared.lock();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let reassigned = reassign(core.state(), &topic.name, wanted);
            ReassignablePartitionResponse::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(code(&reassigned))
        });
        ReassignableTopicResponse::default().with_partitions(partitions.collect()).with_name(topic.name)
    });
    call.respond(&AlterPartitionReassignmentsResponse::default().with_responses(topics.collect()))
}

/// Checks a reassignment, or with null replicas the cancellation of one.
fn reassign(state: &State, topic: &str, wanted: &ReassignablePartition) -> Result<(), ResponseError> {
    state.partition(topic, wanted.partition_index).ok_or(ResponseError::UnknownTopicOrPartition)?;
    match &wanted.replicas {
        Some(replicas) if *replicas == [BROKER] => Ok(()),
        Some(_) => Err(ResponseError::InvalidReplicaAssignment),
        None => Err(ResponseError::NoReassignmentInProgress),
    }
}

pub fn handle_list_partition_reassignments(_: &Shared, call: &Call) -> HandlerResult {
    let _: ListPartitionReassignmentsRequest = call.request()?;
    call.respond(&ListPartitionReassignmentsResponse::default())
}
