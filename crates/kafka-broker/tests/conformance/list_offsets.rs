//! Checks how offsets are found by time, with bare requests.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest};
use rdkafka::producer::FutureRecord;

use crate::delete_records::delete_before;
use crate::harness::{PATIENCE, is_kafka_4, producer, topic, unique, wait};
use crate::raw::{Raw, text};

const UNSUPPORTED: i16 = ResponseError::UnsupportedVersion.code();

fn list(raw: &mut Raw, version: i16, topic: &str, timestamps: &[i64]) -> Vec<ListOffsetsPartitionResponse> {
    let partitions = timestamps.iter();
    let partitions = partitions.map(|timestamp| {
        ListOffsetsPartition::default().with_timestamp(*timestamp).with_current_leader_epoch(-1)
    });
    let wanted =
        ListOffsetsTopic::default().with_name(text(topic).into()).with_partitions(partitions.collect());
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![wanted]);
    raw.call(version, &request).topics[0].partitions.clone()
}

/// Returns error code, timestamp and offset.
fn at(raw: &mut Raw, version: i16, topic: &str, timestamp: i64) -> (i16, i64, i64) {
    let found = &list(raw, version, topic, &[timestamp])[0];
    (found.error_code, found.timestamp, found.offset)
}

fn send_at(topic: &str, times: &[i64]) {
    let producer = producer(&[]);
    for time in times {
        let record = FutureRecord::<(), _>::to(topic).payload("x").timestamp(*time);
        wait(producer.send(record, PATIENCE)).unwrap();
    }
}

#[test]
fn the_record_with_the_largest_timestamp_is_found() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    assert_eq!(at(&mut raw, 7, &topic, -3), (0, -1, -1));
    send_at(&topic, &[1_000, 9_000, 5_000, 9_000]);
    for version in 7..=9 {
        assert_eq!(at(&mut raw, version, &topic, -3), (0, 9_000, 1), "version {version}");
    }
}

#[test]
fn a_negative_timestamp_is_refused_by_versions_that_do_not_define_it() {
    let topic = topic(1);
    send_at(&topic, &[1_000]);
    let mut raw = Raw::to_leader_of(&topic, 0);
    for version in 1..=9 {
        let mut code = |timestamp| at(&mut raw, version, &topic, timestamp).0;
        assert_eq!((code(-1), code(-2), code(0)), (0, 0, 0), "version {version}");
        for (timestamp, since) in [(-3, 7), (-4, 8), (-5, 9), (-6, 10), (-100, 10), (i64::MIN, 10)] {
            let expected = if version >= since { 0 } else { UNSUPPORTED };
            assert_eq!(code(timestamp), expected, "version {version}, timestamp {timestamp}");
        }
    }
    assert_eq!(at(&mut raw, 8, &topic, -4), (0, -1, 0));
    assert_eq!(at(&mut raw, 9, &topic, -5), (0, -1, -1));
    let unknown = unique("unknown");
    assert_eq!(at(&mut raw, 6, &unknown, -3).0, UNSUPPORTED);
    assert_eq!(at(&mut raw, 6, &unknown, -1).0, ResponseError::UnknownTopicOrPartition.code());
}

#[test]
fn the_leader_epoch_is_known_only_of_offsets_that_are_found() {
    let topic = topic(1);
    send_at(&topic, &[1_000]);
    let mut raw = Raw::to_leader_of(&topic, 0);
    for timestamp in [-1, -2, -3, -4, 0] {
        let found = &list(&mut raw, 8, &topic, &[timestamp])[0];
        assert!(found.leader_epoch >= 0, "{timestamp}");
    }
    let found = &list(&mut raw, 8, &topic, &[1_001])[0];
    assert_eq!((found.timestamp, found.offset, found.leader_epoch), (-1, -1, -1));
}

#[test]
fn a_partition_that_is_named_twice_is_refused() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    let listed = list(&mut raw, 7, &topic, &[-1, -2]);
    let codes: Vec<_> = listed.iter().map(|partition| partition.error_code).collect();
    // Kafka 4 answers once for each name.
    let expected = vec![ResponseError::InvalidRequest.code(); if is_kafka_4() { 1 } else { 2 }];
    assert_eq!(codes, expected);
}

#[test]
fn deleted_records_are_not_found_by_time() {
    let topic = topic(1);
    send_at(&topic, &[1_000, 2_000, 3_000]);
    let mut raw = Raw::to_leader_of(&topic, 0);
    assert_eq!(delete_before(&mut raw, 2, &topic, 0, 1), (0, 1));
    assert_eq!(at(&mut raw, 7, &topic, 0), (0, 2_000, 1));
    assert_eq!(at(&mut raw, 7, &topic, 2_001), (0, 3_000, 2));
    assert_eq!(at(&mut raw, 7, &topic, -2), (0, -1, 1));
    assert_eq!(at(&mut raw, 7, &topic, 3_001), (0, -1, -1));
}
