//! Handles ListOffsets, OffsetCommit and OffsetFetch.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
    OffsetFetchResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::wire::{check_leader_epoch, code, unreadable};
use crate::batch::{self, LEADER_EPOCH};
use crate::call::{Call, HandlerResult};
use crate::entry::{Entry, OffsetCommit};
use crate::groups::Caller;
use crate::journal::Reader;
use crate::partition::{Isolation, Stored};
use crate::shared::Shared;
use crate::state::State;

/// `offset.metadata.max.bytes`
const MAX_METADATA: usize = 4096;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

pub async fn handle_list_offsets(shared: &Shared, call: &Call) -> HandlerResult {
    let request: ListOffsetsRequest = call.request()?;
    let isolation = Isolation::from(request.isolation_level);
    // Older versions of the response have no field for it.
    let leader_epoch = if call.version >= 4 { LEADER_EPOCH } else { -1 };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let (found, reader) = {
                let core = shared.lock();
                (locate(core.state(), &topic.name, wanted, isolation), core.reader())
            };
            let found = match found {
                Ok(Located::Offset(offset)) => Ok(Some((-1, offset))),
                Ok(Located::None) => Ok(None),
                Ok(Located::Within { stored, end }) => {
                    let timestamp = wanted.timestamp;
                    tokio::task::spawn_blocking(move || search(&reader, stored, timestamp, end)).await?
                }
                Err(error) => Err(error),
            };
            let (timestamp, offset) = found.ok().flatten().unwrap_or((-1, -1));
            partitions.push(
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(wanted.partition_index)
                    .with_error_code(code(&found))
                    .with_timestamp(timestamp)
                    .with_offset(offset)
                    .with_leader_epoch(leader_epoch),
            );
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    call.respond(&ListOffsetsResponse::default().with_topics(topics))
}

enum Located {
    Offset(i64),
    None,
    /// The offset is in this batch, and visible if it is before `end`.
    Within {
        stored: Stored,
        end: i64,
    },
}

fn locate(
    state: &State,
    topic: &str,
    wanted: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<Located, ResponseError> {
    let partition = state.partition(topic, wanted.partition_index);
    let partition = partition.ok_or(ResponseError::UnknownTopicOrPartition)?;
    check_leader_epoch(wanted.current_leader_epoch)?;
    let end = partition.readable_end(isolation);
    Ok(match wanted.timestamp {
        LATEST => Located::Offset(end),
        EARLIEST => Located::Offset(partition.start_offset()),
        timestamp => match partition.batches_at_or_after(timestamp).next() {
            Some(found) => Located::Within { stored: found.map_err(unreadable)?, end },
            None => Located::None,
        },
    })
}

fn search(
    reader: &Reader,
    stored: Stored,
    timestamp: i64,
    end: i64,
) -> Result<Option<(i64, i64)>, ResponseError> {
    let mut bytes = vec![0; stored.length as usize];
    reader.read_into(&mut bytes, stored.position).map_err(unreadable)?;
    let found = batch::first_at_or_after(&bytes, timestamp);
    Ok(found.filter(|(_, offset)| *offset < end))
}

pub fn handle_offset_commit(shared: &Shared, call: &Call) -> HandlerResult {
    let request: OffsetCommitRequest = call.request()?;
    let mut core = shared.lock();
    let caller = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id_or_member_epoch,
    };
    let allowed = core.groups.check_commit(&request.group_id, caller, Instant::now());
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

pub fn handle_offset_fetch(shared: &Shared, call: &Call) -> HandlerResult {
    let request: OffsetFetchRequest = call.request()?;
    let core = shared.lock();
    let state = core.state();
    let group = request.group_id.as_str();
    let wanted: Vec<(StrBytes, Vec<i32>)> = match request.topics {
        Some(topics) => {
            let topics = topics.into_iter();
            topics.map(|topic| (topic.name.0, topic.partition_indexes)).collect()
        }
        None => committed_partitions(state, group),
    };
    let topics = wanted.into_iter().map(|(topic, indexes)| {
        let partitions = indexes.into_iter();
        let partitions =
            partitions.map(|index| committed(state, group, &topic, index, request.require_stable));
        OffsetFetchResponseTopic::default()
            .with_partitions(partitions.collect())
            .with_name(topic.clone().into())
    });
    call.respond(&OffsetFetchResponse::default().with_topics(topics.collect()))
}

fn committed_partitions(state: &State, group: &str) -> Vec<(StrBytes, Vec<i32>)> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    let offsets = state.offsets.get(group);
    for (topic, partition, _) in offsets.into_iter().flat_map(|offsets| offsets.iter()) {
        topics.entry(topic).or_default().push(partition);
    }
    let topics = topics.into_iter();
    topics.map(|(topic, partitions)| (topic.to_owned().into(), partitions)).collect()
}

fn committed(
    state: &State,
    group: &str,
    topic: &str,
    partition: i32,
    require_stable: bool,
) -> OffsetFetchResponsePartition {
    let offsets = state.offsets.get(group);
    let response = OffsetFetchResponsePartition::default()
        .with_partition_index(partition)
        .with_committed_offset(-1)
        .with_committed_leader_epoch(-1)
        .with_metadata(Some(StrBytes::new()));
    if require_stable && offsets.is_some_and(|offsets| offsets.is_unstable(topic, partition)) {
        return response.with_error_code(ResponseError::UnstableOffsetCommit.code());
    }
    match offsets.and_then(|offsets| offsets.get(topic, partition)) {
        Some(committed) => response
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(committed.metadata.clone().into())),
        None => response,
    }
}
