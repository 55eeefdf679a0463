//! Handles OffsetFetch.

use std::collections::{BTreeMap, HashSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};
use kafka_protocol::protocol::StrBytes;

use crate::call::{Call, HandlerResult};
use crate::shared::Shared;
use crate::state::State;

/// First version that asks for the offsets of several groups (KIP-709).
const GROUPS: i16 = 8;

pub fn handle_offset_fetch(shared: &Shared, call: &Call) -> HandlerResult {
    let request: OffsetFetchRequest = call.request()?;
    let core = shared.lock();
    let mut groups = if call.version >= GROUPS {
        request.groups
    } else {
        let topics = request.topics.map(|topics| topics.into_iter().map(from_old_topic).collect());
        vec![OffsetFetchRequestGroup::default().with_group_id(request.group_id).with_topics(topics)]
    };
    keep_first(&mut groups);
    let fetched = groups.into_iter().map(|group| fetch_group(core.state(), group, request.require_stable));
    let response = if call.version >= GROUPS {
        OffsetFetchResponse::default().with_groups(fetched.collect())
    } else {
        let topics = fetched.flat_map(|group| group.topics).map(to_old_topic);
        OffsetFetchResponse::default().with_topics(topics.collect())
    };
    call.respond(&response)
}

/// Removes what is wanted a second time, or a small request could have a very large response: all offsets of a group, or
/// the offset of a partition.
fn keep_first(groups: &mut Vec<OffsetFetchRequestGroup>) {
    let mut wanted = HashSet::new();
    groups.retain_mut(|group| {
        let id = &group.group_id;
        let Some(topics) = &mut group.topics else { return wanted.insert((id.clone(), None)) };
        for topic in topics {
            let name = &topic.name;
            let indexes = &mut topic.partition_indexes;
            indexes.retain(|index| wanted.insert((id.clone(), Some((name.clone(), *index)))));
        }
        true
    });
}

fn fetch_group(state: &State, group: OffsetFetchRequestGroup, stable: bool) -> OffsetFetchResponseGroup {
    let wanted = group.topics.map(|topics| {
        let topics = topics.into_iter();
        topics.map(|topic| (topic.name.0, topic.partition_indexes)).collect()
    });
    let topics = fetch(state, &group.group_id, wanted, stable).into_iter().map(|(name, partitions)| {
        OffsetFetchResponseTopics::default().with_name(name.into()).with_partitions(partitions)
    });
    OffsetFetchResponseGroup::default().with_topics(topics.collect()).with_group_id(group.group_id)
}

fn from_old_topic(topic: OffsetFetchRequestTopic) -> OffsetFetchRequestTopics {
    OffsetFetchRequestTopics::default().with_name(topic.name).with_partition_indexes(topic.partition_indexes)
}

fn to_old_topic(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(to_old_partition).collect();
    OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions)
}

fn to_old_partition(partition: OffsetFetchResponsePartitions) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition::default()
        .with_partition_index(partition.partition_index)
        .with_committed_offset(partition.committed_offset)
        .with_committed_leader_epoch(partition.committed_leader_epoch)
        .with_metadata(partition.metadata)
        .with_error_code(partition.error_code)
}

/// Returns the committed offsets of these partitions, or of all that have one.
fn fetch(
    state: &State,
    group: &str,
    wanted: Option<Vec<(StrBytes, Vec<i32>)>>,
    stable: bool,
) -> Vec<(StrBytes, Vec<OffsetFetchResponsePartitions>)> {
    let wanted = wanted.unwrap_or_else(|| committed_partitions(state, group)).into_iter();
    let fetched = wanted.map(|(topic, indexes)| {
        let partitions = indexes.into_iter().map(|index| committed(state, group, &topic, index, stable));
        let partitions = partitions.collect();
        (topic, partitions)
    });
    fetched.collect()
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
) -> OffsetFetchResponsePartitions {
    let offsets = state.offsets.get(group);
    let response = OffsetFetchResponsePartitions::default()
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
