//! Handles OffsetCommit.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use tokio::time::Instant;

use super::wire::code;
use crate::call::{Call, HandlerResult};
use crate::entry::{Entry, OffsetCommit};
use crate::groups::Caller;
use crate::shared::Shared;
use crate::state::State;

/// `offset.metadata.max.bytes`
const MAX_METADATA: usize = 4096;

pub fn handle_offset_commit(shared: &Shared, call: &Call) -> HandlerResult {
    let request: OffsetCommitRequest = call.request()?;
    let mut core = shared.lock();
    let caller = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id_or_member_epoch,
    };
    let has_offsets = core.state().offsets.contains_key(request.group_id.as_str());
    let allowed = core.groups.check_commit(&request.group_id, caller, has_offsets, Instant::now());
    let wanted = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|wanted| OffsetCommit {
            topic: topic.name.0.clone(),
            partition: wanted.partition_index,
            offset: wanted.committed_offset,
            leader_epoch: wanted.committed_leader_epoch,
            metadata: wanted.committed_metadata.clone().unwrap_or_default(),
        })
    });
    let (offsets, checked) = check_commits(core.state(), allowed, wanted);
    let written = if offsets.is_empty() {
        Ok(())
    } else {
        core.commit(&Entry::OffsetsCommitted { group: request.group_id.0.clone(), offsets })
    };
    let mut checked = checked.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(checked.by_ref());
        let partitions = partitions.map(|(wanted, valid)| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(code(&valid.and(written)))
        });
        OffsetCommitResponseTopic::default().with_partitions(partitions.collect()).with_name(topic.name)
    });
    call.respond(&OffsetCommitResponse::default().with_topics(topics.collect()))
}

/// Checks the offset commits of a request, in a transaction or outside one. Returns the valid ones, and the result for
/// each.
pub fn check_commits(
    state: &State,
    allowed: Result<(), ResponseError>,
    wanted: impl Iterator<Item = OffsetCommit>,
) -> (Vec<OffsetCommit>, Vec<Result<(), ResponseError>>) {
    let mut valid = Vec::new();
    let mut checked = Vec::new();
    for commit in wanted {
        let result = allowed.and_then(|()| check_commit(state, &commit));
        if result.is_ok() {
            valid.push(commit);
        }
        checked.push(result);
    }
    (valid, checked)
}

fn check_commit(state: &State, commit: &OffsetCommit) -> Result<(), ResponseError> {
    if state.partition(&commit.topic, commit.partition).is_none() {
        Err(ResponseError::UnknownTopicOrPartition)
    } else if commit.metadata.len() > MAX_METADATA {
        Err(ResponseError::OffsetMetadataTooLarge)
    } else {
        Ok(())
    }
}
