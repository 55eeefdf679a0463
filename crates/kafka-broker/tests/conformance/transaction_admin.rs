//! Checks how operators list, describe and abort transactions.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState};
use kafka_protocol::messages::describe_transactions_response::TransactionState;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeTransactionsRequest, ListTransactionsRequest, ListTransactionsResponse,
    ProducerId, WriteTxnMarkersRequest,
};
use rdkafka::producer::Producer;

use crate::harness::*;
use crate::raw::{Raw, text};

fn describe(raw: &mut Raw, id: &str) -> TransactionState {
    let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![text(id).into()]);
    raw.call(0, &request).transaction_states[0].clone()
}

fn list(raw: &mut Raw, version: i16, states: &[&str], duration: i64) -> ListTransactionsResponse {
    let states = states.iter().map(|state| text(state)).collect();
    let request = ListTransactionsRequest::default().with_state_filters(states);
    raw.call(version, &request.with_duration_filter(duration))
}

fn producers(raw: &mut Raw, topic: &str) -> PartitionResponse {
    let wanted = TopicRequest::default().with_name(text(topic).into()).with_partition_indexes(vec![0]);
    raw.call(0, &DescribeProducersRequest::default().with_topics(vec![wanted])).topics[0].partitions[0]
        .clone()
}

fn only_producer(raw: &mut Raw, topic: &str) -> ProducerState {
    let described = producers(raw, topic);
    assert_eq!((described.error_code, described.active_producers.len()), (0, 1));
    described.active_producers[0].clone()
}

#[test]
fn transactions_are_listed_and_described_while_they_are_open_and_after() {
    let topic = topic(2);
    let id = unique("txn");
    let producer = transactional(&id);
    let mut raw = Raw::to_transaction_coordinator(&id);
    assert_eq!(describe(&mut raw, &id).transaction_state.as_str(), "Empty");
    producer.begin_transaction().unwrap();
    send(&producer, &topic, 1, "x").unwrap();

    let described = describe(&mut raw, &id);
    assert_eq!((described.error_code, described.transaction_state.as_str()), (0, "Ongoing"));
    assert_eq!((described.producer_epoch, described.transaction_timeout_ms), (0, 60_000));
    assert!(described.transaction_start_time_ms > 1_600_000_000_000);
    let topics: Vec<_> =
        described.topics.iter().map(|found| (found.topic.as_str(), found.partitions.clone())).collect();
    assert_eq!(topics, [(topic.as_str(), vec![1])]);

    let has = |listed: &ListTransactionsResponse| {
        listed
            .transaction_states
            .iter()
            .any(|found| found.transactional_id.as_str() == id && found.producer_id == described.producer_id)
    };
    for version in 0..=1 {
        assert!(has(&list(&mut raw, version, &[], -1)));
        assert!(has(&list(&mut raw, version, &["Ongoing"], -1)));
        assert!(!has(&list(&mut raw, version, &["Empty"], -1)));
    }
    assert!(!has(&list(&mut raw, 1, &[], 600_000)));
    let unknown = list(&mut raw, 1, &["Sleeping"], -1);
    assert_eq!((unknown.unknown_state_filters.len(), unknown.transaction_states.len()), (1, 0));

    producer.commit_transaction(PATIENCE).unwrap();
    let ended = eventually("the transaction is complete", || {
        let described = describe(&mut raw, &id);
        (described.transaction_state.as_str() == "CompleteCommit").then_some(described)
    });
    assert_eq!(ended.topics, []);
    assert_eq!(describe(&mut raw, "").error_code, ResponseError::InvalidRequest.code());
}

#[test]
fn an_unknown_transaction_is_not_described() {
    let id = unique("unknown");
    let mut raw = Raw::to_transaction_coordinator(&id);
    assert_eq!(describe(&mut raw, &id).error_code, ResponseError::TransactionalIdNotFound.code());
}

#[test]
fn the_producers_of_a_partition_are_described() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    assert_eq!(producers(&mut raw, &topic).active_producers, []);
    let producer = transactional(&unique("txn"));
    producer.begin_transaction().unwrap();
    send(&producer, &topic, 0, "x").unwrap();
    send(&producer, &topic, 0, "y").unwrap();
    let open = only_producer(&mut raw, &topic);
    assert_eq!((open.producer_epoch, open.last_sequence), (0, 1));
    assert_eq!((open.current_txn_start_offset, open.coordinator_epoch), (0, -1));
    assert!(open.last_timestamp > 1_600_000_000_000);
    producer.commit_transaction(PATIENCE).unwrap();
    let ended = eventually("the marker is written", || {
        let ended = only_producer(&mut raw, &topic);
        (ended.current_txn_start_offset == -1).then_some(ended)
    });
    assert_eq!(ended.producer_id, open.producer_id);
    assert!(ended.coordinator_epoch >= 0);
    let unknown = producers(&mut raw, &unique("unknown")).error_code;
    assert_eq!(unknown, ResponseError::UnknownTopicOrPartition.code());
    let invalid = producers(&mut raw, "a b").error_code;
    assert_eq!(invalid, ResponseError::InvalidTopicException.code());
}

/// Aborts the transaction of a producer in partition 0, and returns the error code.
fn abort(raw: &mut Raw, topic: &str, producer: ProducerId, epoch: i16) -> i16 {
    let wanted =
        WritableTxnMarkerTopic::default().with_name(text(topic).into()).with_partition_indexes(vec![0]);
    let marker = WritableTxnMarker::default()
        .with_producer_id(producer)
        .with_producer_epoch(epoch)
        .with_topics(vec![wanted]);
    let response = raw.call(1, &WriteTxnMarkersRequest::default().with_markers(vec![marker]));
    response.markers[0].topics[0].partitions[0].error_code
}

/// Aborts the transaction of the only producer of partition 0, and returns the error code.
pub fn abort_in_partition(raw: &mut Raw, topic: &str) -> i16 {
    let open = only_producer(raw, topic);
    abort(raw, topic, open.producer_id, open.producer_epoch as i16)
}

#[test]
fn an_operator_aborts_the_transaction_of_a_producer_in_one_partition() {
    let topic = topic(1);
    let id = unique("txn");
    let producer = transactional(&id);
    producer.begin_transaction().unwrap();
    send(&producer, &topic, 0, "aborted").unwrap();
    let mut raw = Raw::to_leader_of(&topic, 0);
    let producer_id = only_producer(&mut raw, &topic).producer_id;
    let unknown = abort(&mut raw, &unique("unknown"), producer_id, 0);
    assert_eq!(unknown, ResponseError::UnknownTopicOrPartition.code());
    assert_eq!(abort_in_partition(&mut raw, &topic), 0);
    send(&crate::harness::producer(&[]), &topic, 0, "after").unwrap();
    expect_values(&topic, "read_committed", &["after"]);
    // The next producer with this id fences the epoch.
    let _successor = transactional(&id);
    let fenced = abort(&mut raw, &topic, producer_id, 0);
    assert_eq!(fenced, ResponseError::InvalidProducerEpoch.code());
}

#[test]
fn a_marker_without_a_producer_is_refused_and_blocks_no_partition() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    for (producer, epoch) in [(-1, -1), (-1, 0), (i64::MAX, -1)] {
        assert_ne!(abort(&mut raw, &topic, producer.into(), epoch), 0, "{producer} {epoch}");
    }
    send(&crate::harness::producer(&[]), &topic, 0, "after").unwrap();
    expect_values(&topic, "read_committed", &["after"]);
}
