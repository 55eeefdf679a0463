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

use super::refused::{Refused, code_and_message, refused};
use super::wire::BROKER;
use crate::call::{Call, HandlerResult};
use crate::partition::Partition;
use crate::shared::Shared;
use crate::state::State;

/// Reports for each named partition that it has its leader. For all partitions it reports none, as no leader changes.
pub fn handle_elect_leaders(shared: &Shared, call: &Call) -> HandlerResult {
    let request: ElectLeadersRequest = call.request()?;
    let core = shared.lock();
    let topics = request.topic_partitions.unwrap_or_default().into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|index| {
            let elected = find_partition(core.state(), &topic.topic, *index).and_then(|_| {
                refused::<()>(
                    ResponseError::ElectionNotNeeded,
                    "The partition has its only replica as leader.",
                )
            });
            let (error_code, message) = code_and_message(&elected);
            PartitionResult::default()
                .with_partition_id(*index)
                .with_error_code(error_code)
                .with_error_message(message)
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
            let (error_code, message) = code_and_message(&reassigned);
            ReassignablePartitionResponse::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(error_code)
                .with_error_message(message)
        });
        ReassignableTopicResponse::default().with_partitions(partitions.collect()).with_name(topic.name)
    });
    call.respond(&AlterPartitionReassignmentsResponse::default().with_responses(topics.collect()))
}

/// Checks a reassignment, or with null replicas the cancellation of one.
fn reassign(state: &State, topic: &str, wanted: &ReassignablePartition) -> Result<(), Refused> {
    find_partition(state, topic, wanted.partition_index)?;
    match &wanted.replicas {
        Some(replicas) if *replicas == [BROKER] => Ok(()),
        Some(_) => {
            let message = "Each partition must have broker 1 as its only replica.";
            refused(ResponseError::InvalidReplicaAssignment, message)
        }
        None => refused(ResponseError::NoReassignmentInProgress, "No partition reassignment is in progress."),
    }
}

fn find_partition<'a>(state: &'a State, topic: &str, index: i32) -> Result<&'a Partition, Refused> {
    let unknown = || refused(ResponseError::UnknownTopicOrPartition, "The partition does not exist.");
    state.partition(topic, index).map_or_else(unknown, Ok)
}

pub fn handle_list_partition_reassignments(_: &Shared, call: &Call) -> HandlerResult {
    let _: ListPartitionReassignmentsRequest = call.request()?;
    call.respond(&ListPartitionReassignmentsResponse::default())
}
