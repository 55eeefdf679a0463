//! Checks the ids of topics (KIP-516), which distinguish topics that had the same name.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::FetchableTopicResponse;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, MetadataRequest, TopicName,
};
use uuid::Uuid;

use crate::harness::{eventually, is_kafka_4, producer, send, topic, unique};
use crate::raw::{Raw, described, text, topic_id};

const UNKNOWN: Uuid = Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);

fn create(name: &str, validate_only: bool) -> CreatableTopicResult {
    let wanted = CreatableTopic::default()
        .with_name(text(name).into())
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![wanted])
        .with_timeout_ms(10_000)
        .with_validate_only(validate_only);
    Raw::to_controller().call(7, &request).topics[0].clone()
}

fn delete(wanted: DeleteTopicState) -> (i16, Option<TopicName>) {
    let request = DeleteTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000);
    let deleted = Raw::to_controller().call(6, &request).responses[0].clone();
    (deleted.error_code, deleted.name)
}

fn identified(raw: &mut Raw, version: i16, id: Uuid) -> MetadataResponseTopic {
    let wanted = MetadataRequestTopic::default().with_name(None).with_topic_id(id);
    let found = raw.call(version, &MetadataRequest::default().with_topics(Some(vec![wanted])));
    found.topics[0].clone()
}

fn fetch(raw: &mut Raw, version: i16, wanted: FetchTopic) -> FetchableTopicResponse {
    let request =
        FetchRequest::default().with_max_bytes(i32::MAX).with_session_epoch(-1).with_topics(vec![wanted]);
    raw.call(version, &request).responses[0].clone()
}

fn partition(offset: i64) -> FetchPartition {
    FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(100_000)
}

#[test]
fn a_topic_has_the_id_that_was_returned_when_it_was_created() {
    let name = unique("identified");
    // Kafka 4 draws the id even when it only validates the request.
    assert_eq!(create(&name, true).topic_id.is_nil(), !is_kafka_4());
    let created = create(&name, false);
    assert_eq!(created.error_code, 0);
    assert!(!created.topic_id.is_nil());
    let again = create(&name, false);
    assert_eq!(again.error_code, ResponseError::TopicAlreadyExists.code());
    assert!(again.topic_id.is_nil());
    let mut raw = Raw::connect();
    eventually("the topic is known", || (described(&mut raw, &name).error_code == 0).then_some(()));
    assert_eq!(described(&mut raw, &name).topic_id, created.topic_id);
    let found = identified(&mut raw, 12, created.topic_id);
    assert_eq!((found.error_code, found.name), (0, Some(text(&name).into())));
    assert_eq!(found.partitions.len(), 1);
    assert_ne!(topic_id(&topic(1)), created.topic_id);
}

#[test]
fn an_unknown_id_is_an_error() {
    let mut raw = Raw::connect();
    let unknown = ResponseError::UnknownTopicId.code();
    let described = identified(&mut raw, 12, UNKNOWN);
    assert_eq!((described.error_code, described.name, described.topic_id), (unknown, None, UNKNOWN));
    for version in 13..=17 {
        let wanted = FetchTopic::default().with_topic_id(UNKNOWN).with_partitions(vec![partition(0)]);
        let fetched = fetch(&mut raw, version, wanted);
        assert_eq!((fetched.partitions[0].error_code, fetched.topic_id), (unknown, UNKNOWN));
    }
    assert_eq!(delete(DeleteTopicState::default().with_name(None).with_topic_id(UNKNOWN)), (unknown, None));
}

#[test]
fn metadata_before_version_12_cannot_name_a_topic_by_its_id() {
    let id = topic_id(&topic(1));
    let mut raw = Raw::connect();
    for version in 10..=11 {
        let refused = identified(&mut raw, version, id);
        assert_eq!(refused.error_code, ResponseError::InvalidRequest.code());
        assert_eq!((refused.name, refused.topic_id), (Some(TopicName::default()), id));
    }
}

#[test]
fn metadata_describes_a_topic_once_however_often_it_is_named() {
    let topics = [topic(1), topic(1)];
    let mut raw = Raw::connect();
    let ids = topics.each_ref().map(|topic| described(&mut raw, topic).topic_id);
    let named = |name: &String| MetadataRequestTopic::default().with_name(Some(text(name).into()));
    let identified = |id: &Uuid| MetadataRequestTopic::default().with_name(None).with_topic_id(*id);
    let mut describe = |wanted: Vec<MetadataRequestTopic>| {
        let twice = [wanted.clone(), wanted].concat();
        let found = raw.call(12, &MetadataRequest::default().with_topics(Some(twice)));
        let mut found: Vec<_> = found.topics.into_iter().map(|topic| topic.topic_id).collect();
        found.sort();
        found
    };
    let mut expected = ids.to_vec();
    expected.sort();
    assert_eq!(describe(topics.iter().map(named).collect()), expected);
    assert_eq!(describe(ids.iter().map(identified).collect()), expected);
    // An id takes precedence over all names.
    assert_eq!(describe(vec![named(&topics[0]), identified(&ids[1])]), [ids[1]]);
}

#[test]
fn a_topic_that_is_created_again_has_another_id() {
    let name = topic(1);
    send(&producer(&[]), &name, 0, "old").unwrap();
    let old = topic_id(&name);
    let by_id = DeleteTopicState::default().with_name(None).with_topic_id(old);
    assert_eq!(delete(by_id), (0, Some(text(&name).into())));
    let new = eventually("the topic is created again", || {
        let created = create(&name, false);
        (created.error_code == 0).then_some(created.topic_id)
    });
    assert_ne!(new, old);
    let code = |raw: &mut Raw, id| {
        let wanted = FetchTopic::default().with_topic_id(id).with_partitions(vec![partition(0)]);
        fetch(raw, 13, wanted).partitions[0].error_code
    };
    let unknown = ResponseError::UnknownTopicId.code();
    let mut raw = eventually("the new topic is led", || {
        let mut raw = Raw::to_leader_of(&name, 0);
        (code(&mut raw, new) == 0).then_some(raw)
    });
    assert_eq!(code(&mut raw, old), unknown);
    assert_eq!(identified(&mut raw, 12, old).error_code, unknown);
}

#[test]
fn a_topic_is_deleted_by_its_name_or_its_id_but_not_by_both() {
    let name = topic(1);
    let both = DeleteTopicState::default().with_name(Some(text(&name).into())).with_topic_id(topic_id(&name));
    assert_eq!(delete(both).0, ResponseError::InvalidRequest.code());
    let by_name = DeleteTopicState::default().with_name(Some(text(&name).into()));
    assert_eq!(delete(by_name), (0, Some(text(&name).into())));
}

#[test]
fn a_consumer_that_read_further_than_the_log_reaches_is_given_its_end() {
    let topic = topic(1);
    let producer = producer(&[]);
    for value in ["a", "b"] {
        send(&producer, &topic, 0, value).unwrap();
    }
    let mut raw = Raw::to_leader_of(&topic, 0);
    let mut at = |offset, last_epoch| {
        let wanted = partition(offset).with_last_fetched_epoch(last_epoch);
        let wanted = FetchTopic::default().with_topic(text(&topic).into()).with_partitions(vec![wanted]);
        let fetched = fetch(&mut raw, 12, wanted).partitions[0].clone();
        (fetched.error_code, fetched.diverging_epoch.epoch, fetched.diverging_epoch.end_offset)
    };
    let out_of_range = ResponseError::OffsetOutOfRange.code();
    assert_eq!(at(1, 0), (0, -1, -1));
    assert_eq!(at(2, 0), (0, -1, -1));
    assert_eq!(at(3, 0), (0, 0, 2));
    assert_eq!(at(3, -1), (out_of_range, -1, -1));
    assert_eq!(at(1, 1), (out_of_range, -1, -1));
}
