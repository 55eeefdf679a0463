//! Checks how groups and their offsets are deleted and listed.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetDeleteResponse,
};
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::harness::{committed, config, eventually, is_kafka_4, topic, unique};
use crate::raw::{Raw, text};

const GROUP_NOT_FOUND: i16 = ResponseError::GroupIdNotFound.code();
const UNKNOWN_TOPIC: i16 = ResponseError::UnknownTopicOrPartition.code();

/// Commits an offset for a member, or without one, and returns the error code.
fn commit(raw: &mut Raw, group: &str, generation: i32, member: &str, topic: &str, partition: i32) -> i16 {
    let partition =
        OffsetCommitRequestPartition::default().with_partition_index(partition).with_committed_offset(7);
    let topic =
        OffsetCommitRequestTopic::default().with_name(text(topic).into()).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(text(group).into())
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member))
        .with_topics(vec![topic]);
    raw.call(7, &request).topics[0].partitions[0].error_code
}

/// Returns a connection to the coordinator of a group that has an offset for each partition, and no members.
fn group_with_offsets(group: &str, topic: &str, partitions: i32) -> Raw {
    let mut raw = Raw::to_group_coordinator(group);
    for partition in 0..partitions {
        eventually("the offset is committed", || {
            (commit(&mut raw, group, -1, "", topic, partition) == 0).then_some(())
        });
    }
    raw
}

pub fn delete_groups(raw: &mut Raw, version: i16, groups: &[&str]) -> Vec<i16> {
    let names = groups.iter().map(|group| text(group).into()).collect();
    let mut response = raw.call(version, &DeleteGroupsRequest::default().with_groups_names(names));
    response.results.sort_by_key(|result| groups.iter().position(|name| *name == result.group_id.as_str()));
    response.results.iter().map(|result| result.error_code).collect()
}

pub fn delete_offsets(raw: &mut Raw, group: &str, topics: &[(&str, &[i32])]) -> OffsetDeleteResponse {
    let topics = topics.iter().map(|(topic, partitions)| {
        let partitions = partitions.iter();
        let partitions =
            partitions.map(|index| OffsetDeleteRequestPartition::default().with_partition_index(*index));
        OffsetDeleteRequestTopic::default()
            .with_name(text(topic).into())
            .with_partitions(partitions.collect())
    });
    let request =
        OffsetDeleteRequest::default().with_group_id(text(group).into()).with_topics(topics.collect());
    raw.call(0, &request)
}

/// Returns the error code of a partition.
fn code_of(response: &OffsetDeleteResponse, topic: &str, partition: i32) -> i16 {
    let topic = response.topics.iter().find(|found| found.name.as_str() == topic).unwrap();
    let mut partitions = topic.partitions.iter();
    partitions.find(|found| found.partition_index == partition).unwrap().error_code
}

/// Returns a consumer that is a member of the group.
fn member(group: &str, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer =
        config(&[("group.id", group), ("enable.auto.commit", "false"), ("session.timeout.ms", "6000")])
            .create()
            .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    eventually("the member has joined", || {
        let _ = consumer.poll(Duration::from_millis(50));
        (consumer.assignment().unwrap().count() > 0).then_some(())
    });
    consumer
}

#[test]
fn a_group_without_members_is_deleted_with_its_offsets_at_each_version() {
    let topic = topic(1);
    for version in 0..=2 {
        let group = unique("group");
        let mut raw = group_with_offsets(&group, &topic, 1);
        assert_eq!(committed(&group, &topic, 0), Some(7));
        assert_eq!(delete_groups(&mut raw, version, &[&group, &group]), [0]);
        assert_eq!(committed(&group, &topic, 0), None);
        assert_eq!(delete_groups(&mut raw, version, &[&group]), [GROUP_NOT_FOUND]);
    }
}

#[test]
fn a_group_with_members_is_not_deleted() {
    let topic = topic(1);
    let group = unique("group");
    let consumer = member(&group, &topic);
    let mut raw = Raw::to_group_coordinator(&group);
    let refused = delete_groups(&mut raw, 2, &[&group]);
    assert_eq!(refused, [ResponseError::NonEmptyGroup.code()]);
    drop(consumer);
    eventually("the group is empty", || (delete_groups(&mut raw, 2, &[&group]) == [0]).then_some(()));
    assert_eq!(delete_groups(&mut raw, 2, &[&group]), [GROUP_NOT_FOUND]);
}

#[test]
fn single_offsets_of_a_group_are_deleted() {
    let topic = topic(2);
    let group = unique("group");
    let mut raw = group_with_offsets(&group, &topic, 2);
    let unknown = unique("unknown");
    let deleted = delete_offsets(&mut raw, &group, &[(&topic, &[0, 9]), (&unknown, &[0])]);
    assert_eq!(deleted.error_code, 0);
    assert_eq!(code_of(&deleted, &topic, 0), 0);
    assert_eq!(code_of(&deleted, &topic, 9), UNKNOWN_TOPIC);
    assert_eq!(code_of(&deleted, &unknown, 0), UNKNOWN_TOPIC);
    assert_eq!(committed(&group, &topic, 0), None);
    assert_eq!(committed(&group, &topic, 1), Some(7));
    assert_eq!(delete_offsets(&mut raw, &group, &[(&topic, &[1])]).error_code, 0);
    // A group that has neither members nor offsets does not exist. Kafka 4 removes it some minutes later.
    let deleted = delete_offsets(&mut raw, &group, &[(&topic, &[1])]).error_code;
    assert_eq!(deleted, if is_kafka_4() { 0 } else { GROUP_NOT_FOUND });
    assert_eq!(delete_groups(&mut raw, 2, &[&group]), [deleted]);
    let nameless = delete_offsets(&mut raw, "", &[(&topic, &[0])]);
    assert_eq!(nameless.error_code, ResponseError::InvalidGroupId.code());
}

#[test]
fn offsets_of_topics_that_members_subscribe_to_are_not_deleted() {
    let (subscribed, other) = (topic(1), topic(1));
    let group = unique("group");
    let mut raw = group_with_offsets(&group, &other, 1);
    let consumer = member(&group, &subscribed);
    let deleted = delete_offsets(&mut raw, &group, &[(&subscribed, &[0]), (&other, &[0])]);
    assert_eq!(deleted.error_code, 0);
    assert_eq!(code_of(&deleted, &subscribed, 0), ResponseError::GroupSubscribedToTopic.code());
    assert_eq!(code_of(&deleted, &other, 0), 0);
    assert_eq!(committed(&group, &other, 0), None);
    drop(consumer);
}

#[test]
fn a_member_cannot_commit_offsets_of_a_group_that_it_is_not_in() {
    let topic = topic(1);
    let group = unique("group");
    let mut raw = group_with_offsets(&group, &topic, 1);
    let stranger = commit(&mut raw, &group, 5, "stranger", &topic, 0);
    assert_eq!(stranger, ResponseError::UnknownMemberId.code());
    let group = unique("group");
    let mut raw = Raw::to_group_coordinator(&group);
    let unknown = eventually("the coordinator is available", || {
        let code = commit(&mut raw, &group, 5, "stranger", &topic, 0);
        (code != ResponseError::CoordinatorLoadInProgress.code()).then_some(code)
    });
    assert_eq!(unknown, ResponseError::IllegalGeneration.code());
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let topic = topic(1);
    let group = unique("group");
    let mut raw = group_with_offsets(&group, &topic, 1);
    let mut listed = |version, states: &[&str], types: &[&str]| {
        let request = ListGroupsRequest::default()
            .with_states_filter(states.iter().map(|state| text(state)).collect())
            .with_types_filter(types.iter().map(|kind| text(kind)).collect());
        let groups = raw.call(version, &request).groups;
        groups.into_iter().find(|listed| listed.group_id.as_str() == group)
    };
    let found = listed(5, &["empty"], &["Classic"]).unwrap();
    assert_eq!((found.group_state.as_str(), found.group_type.as_str()), ("Empty", "classic"));
    assert!(listed(5, &[], &["consumer"]).is_none());
    assert!(listed(5, &["Stable"], &[]).is_none());
    assert!(listed(4, &["Empty"], &[]).is_some());
}
