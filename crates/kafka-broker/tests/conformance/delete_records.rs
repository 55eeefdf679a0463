//! Checks that records are deleted from the start of a partition.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, DeleteRecordsRequest, FetchRequest};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::Producer;

use crate::harness::*;
use crate::protocol::produce;
use crate::raw::{Raw, batch, text};

const OUT_OF_RANGE: i16 = ResponseError::OffsetOutOfRange.code();

/// Deletes the records before an offset. Returns the error code and the first offset that is left.
pub fn delete_before(raw: &mut Raw, version: i16, topic: &str, partition: i32, offset: i64) -> (i16, i64) {
    let partition = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
    let wanted = DeleteRecordsTopic::default().with_name(text(topic).into()).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![wanted]).with_timeout_ms(30_000);
    let response = raw.call(version, &request);
    let partition = &response.topics[0].partitions[0];
    (partition.error_code, partition.low_watermark)
}

fn fetch(raw: &mut Raw, topic: &str, offset: i64) -> PartitionData {
    let partition = FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(100_000);
    let wanted = FetchTopic::default().with_topic(text(topic).into()).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(100)
        .with_max_bytes(i32::MAX)
        .with_session_epoch(-1)
        .with_topics(vec![wanted]);
    raw.call(11, &request).responses[0].partitions[0].clone()
}

fn watermarks(topic: &str) -> (i64, i64) {
    let consumer: BaseConsumer = config(&[]).create().unwrap();
    consumer.fetch_watermarks(topic, 0, PATIENCE).unwrap()
}

#[test]
fn deleted_records_are_gone_and_the_others_keep_their_offsets() {
    let topic = topic(1);
    let producer = producer(&[]);
    for value in ["a", "b", "c", "d"] {
        send(&producer, &topic, 0, value).unwrap();
    }
    let mut raw = Raw::to_leader_of(&topic, 0);
    assert_eq!(delete_before(&mut raw, 2, &topic, 0, 2), (0, 2));
    let left = read_all(&topic, "read_committed");
    assert_eq!(left.iter().map(|record| record.offset).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(watermarks(&topic), (2, 4));
    let fetched = fetch(&mut raw, &topic, 2);
    assert_eq!((fetched.error_code, fetched.log_start_offset), (0, 2));
    assert_eq!(fetch(&mut raw, &topic, 1).error_code, OUT_OF_RANGE);
    let appended = produce(&mut raw, &topic, None, batch(-1, -1, -1, &["e"]));
    assert_eq!((appended.base_offset, appended.log_start_offset), (4, 2));
}

#[test]
fn a_part_of_a_batch_can_be_deleted() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    let appended = produce(&mut raw, &topic, None, batch(-1, -1, -1, &["a", "b", "c"]));
    assert_eq!(appended.error_code, 0);
    assert_eq!(delete_before(&mut raw, 2, &topic, 0, 1), (0, 1));
    assert_eq!(values(&topic, "read_committed"), ["b", "c"]);
    assert_eq!(watermarks(&topic), (1, 3));
}

#[test]
fn records_up_to_the_end_are_deleted_at_each_version() {
    let topic = topic(1);
    let producer = producer(&[]);
    let mut raw = Raw::to_leader_of(&topic, 0);
    for version in 0..=2 {
        let offset = send(&producer, &topic, 0, "x").unwrap();
        producer.flush(PATIENCE).unwrap();
        assert_eq!(delete_before(&mut raw, version, &topic, 0, -1), (0, offset + 1));
        assert_eq!(values(&topic, "read_committed"), [""; 0]);
        assert_eq!(watermarks(&topic), (offset + 1, offset + 1));
    }
}

#[test]
fn the_start_of_a_partition_moves_neither_back_nor_beyond_its_end() {
    let topic = topic(1);
    let producer = producer(&[]);
    for value in ["a", "b"] {
        send(&producer, &topic, 0, value).unwrap();
    }
    let mut raw = Raw::to_leader_of(&topic, 0);
    assert_eq!(delete_before(&mut raw, 2, &topic, 0, 3), (OUT_OF_RANGE, -1));
    assert_eq!(delete_before(&mut raw, 2, &topic, 0, -2), (OUT_OF_RANGE, -1));
    assert_eq!(delete_before(&mut raw, 2, &topic, 0, 1), (0, 1));
    assert_eq!(delete_before(&mut raw, 2, &topic, 0, 0), (0, 1));
    assert_eq!(watermarks(&topic), (1, 2));
    let unknown = delete_before(&mut raw, 2, &unique("unknown"), 0, 0);
    assert_eq!(unknown, (ResponseError::UnknownTopicOrPartition.code(), -1));
}

#[test]
fn records_of_a_topic_that_is_only_compacted_are_not_deleted() {
    let topic = configured_topic(&[("cleanup.policy", "compact")]);
    let mut raw = Raw::to_leader_of(&topic, 0);
    let refused = eventually("the config is known", || {
        let deleted = delete_before(&mut raw, 2, &topic, 0, -1);
        (deleted.0 != 0).then_some(deleted)
    });
    assert_eq!(refused, (ResponseError::PolicyViolation.code(), -1));
}

#[test]
fn an_open_transaction_whose_records_are_deleted_can_still_end() {
    let topic = topic(1);
    let producer = transactional(&unique("txn"));
    producer.begin_transaction().unwrap();
    send(&producer, &topic, 0, "deleted").unwrap();
    let mut raw = Raw::to_leader_of(&topic, 0);
    assert_eq!(delete_before(&mut raw, 2, &topic, 0, 1), (0, 1));
    send(&producer, &topic, 0, "kept").unwrap();
    producer.commit_transaction(PATIENCE).unwrap();
    expect_values(&topic, "read_committed", &["kept"]);
}
