//! Handles OffsetForLeaderEpoch (KIP-320). A partition has one leader epoch, whose end is the end of the log.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::wire::check_leader_epoch;
use crate::batch::LEADER_EPOCH;
use crate::call::{Call, HandlerResult};
use crate::shared::Shared;
use crate::state::State;

pub fn handle_offset_for_leader_epoch(shared: &Shared, call: &Call) -> HandlerResult {
    let request: OffsetForLeaderEpochRequest = call.request()?;
    let core = shared.lock();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let end = EpochEndOffset::default().with_partition(wanted.partition);
            match end_offset(core.state(), &topic.topic, wanted) {
                Ok(Some(offset)) => end.with_leader_epoch(LEADER_EPOCH).with_end_offset(offset),
                Ok(None) => end,
                Err(error) => end.with_error_code(error.code()),
            }
        });
        OffsetForLeaderTopicResult::default().with_partitions(partitions.collect()).with_topic(topic.topic)
    });
    call.respond(&OffsetForLeaderEpochResponse::default().with_topics(topics.collect()))
}

/// Returns where the wanted epoch ends, or `None` when the partition never had it.
fn end_offset(
    state: &State,
    topic: &str,
    wanted: &OffsetForLeaderPartition,
) -> Result<Option<i64>, ResponseError> {
    let partition = state.partition(topic, wanted.partition);
    let partition = partition.ok_or(ResponseError::UnknownTopicOrPartition)?;
    check_leader_epoch(wanted.current_leader_epoch)?;
    Ok((wanted.leader_epoch == LEADER_EPOCH).then(|| partition.end_offset()))
}
