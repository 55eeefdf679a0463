//! Checks bare requests that librdkafka never sends, and responses that it does not expose.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, ApiKey, ApiVersionsRequest, ApiVersionsResponse, BrokerId, EndTxnRequest,
    FetchRequest, FindCoordinatorRequest, InitProducerIdRequest, InitProducerIdResponse, ProduceRequest,
    ProducerId, TransactionalId,
};

use crate::harness::{eventually, topic, unique, values};
use crate::raw::{Raw, batch, text, transactional_batch};

pub fn produce(
    raw: &mut Raw,
    topic: &str,
    transactional_id: Option<&str>,
    records: Bytes,
) -> PartitionProduceResponse {
    produce_at(raw, 8, topic, transactional_id, records)
}

fn produce_at(
    raw: &mut Raw,
    version: i16,
    topic: &str,
    transactional_id: Option<&str>,
    records: Bytes,
) -> PartitionProduceResponse {
    let data = PartitionProduceData::default().with_records(Some(records));
    let topic = TopicProduceData::default().with_name(text(topic).into()).with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_transactional_id(transactional_id.map(|id| text(id).into()))
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic]);
    let response = raw.call(version, &request);
    response.responses[0].partition_responses[0].clone()
}

pub fn producer_id(raw: &mut Raw, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let retriable = [
        ResponseError::ConcurrentTransactions,
        ResponseError::CoordinatorLoadInProgress,
        ResponseError::CoordinatorNotAvailable,
        ResponseError::NotCoordinator,
    ];
    eventually("a producer id is assigned", || {
        let response = raw.call(4, &request);
        let again = retriable.iter().any(|error| error.code() == response.error_code);
        (!again).then_some(response)
    })
}

fn idempotent(raw: &mut Raw) -> i64 {
    let response = producer_id(raw, init("").with_transactional_id(None));
    assert_eq!((response.error_code, response.producer_epoch), (0, 0));
    response.producer_id.0
}

pub fn init(id: &str) -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text(id))))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}

#[test]
fn a_repeated_batch_is_acknowledged_with_its_first_offset_and_stored_once() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    let id = idempotent(&mut raw);
    for sequence in 0..5 {
        let appended = produce(&mut raw, &topic, None, batch(id, 0, sequence, &["x"]));
        assert_eq!((appended.error_code, appended.base_offset), (0, i64::from(sequence)));
    }
    for sequence in 0..5 {
        let repeated = produce(&mut raw, &topic, None, batch(id, 0, sequence, &["x"]));
        assert_eq!((repeated.error_code, repeated.base_offset), (0, i64::from(sequence)));
    }
    assert_eq!(values(&topic, "read_committed"), ["x"; 5]);
}

#[test]
fn a_gap_in_the_sequence_is_refused() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    let id = idempotent(&mut raw);
    let error = |response: PartitionProduceResponse| response.error_code;
    assert_eq!(error(produce(&mut raw, &topic, None, batch(id, 0, 0, &["a", "b"]))), 0);
    let gap = produce(&mut raw, &topic, None, batch(id, 0, 3, &["d"]));
    assert_eq!(error(gap), ResponseError::OutOfOrderSequenceNumber.code());
    assert_eq!(error(produce(&mut raw, &topic, None, batch(id, 0, 2, &["c"]))), 0);
    let new_epoch = produce(&mut raw, &topic, None, batch(id, 1, 0, &["d"]));
    assert_eq!(error(new_epoch), 0);
    let old_epoch = produce(&mut raw, &topic, None, batch(id, 0, 3, &["e"]));
    assert_eq!(error(old_epoch), ResponseError::InvalidProducerEpoch.code());
    assert_eq!(values(&topic, "read_committed"), ["a", "b", "c", "d"]);
}

#[test]
fn a_batch_damaged_in_transit_is_refused() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    let mut damaged = batch(-1, -1, -1, &["value"]).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let refused = produce(&mut raw, &topic, None, damaged.into());
    assert_eq!(refused.error_code, ResponseError::CorruptMessage.code());
    assert_eq!(refused.base_offset, -1);
    assert_eq!(values(&topic, "read_committed"), [""; 0]);
}

#[test]
fn records_that_are_not_exactly_one_batch_are_refused() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    let one = batch(-1, -1, -1, &["value"]);
    let two = [one.clone(), one].concat();
    for records in [two.into(), Bytes::new()] {
        let refused = produce(&mut raw, &topic, None, records);
        assert_eq!(refused.error_code, ResponseError::InvalidRecord.code());
    }
}

#[test]
fn an_unknown_number_of_acks_is_refused() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    let data = PartitionProduceData::default().with_records(Some(batch(-1, -1, -1, &["x"])));
    let data = TopicProduceData::default().with_name(text(&topic).into()).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(2).with_topic_data(vec![data]);
    let response = raw.call(8, &request);
    let code = response.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ResponseError::InvalidRequiredAcks.code());
}

#[test]
fn an_unknown_version_is_refused_with_the_supported_versions() {
    let mut raw = Raw::connect();
    raw.send_bytes(ApiKey::ApiVersions as i16, 127, 2, b"of a future version");
    let response: ApiVersionsResponse = raw.receive(0, 0).unwrap();
    assert_eq!(response.error_code, ResponseError::UnsupportedVersion.code());
    let own = |api: &kafka_protocol::messages::api_versions_response::ApiVersion| {
        api.api_key == ApiKey::ApiVersions as i16
    };
    let supported = response.api_keys.iter().find(|api| own(api)).unwrap().max_version;
    let request = ApiVersionsRequest::default()
        .with_client_software_name(text("raw"))
        .with_client_software_version(text("1"));
    let response = raw.call(supported.min(3), &request);
    assert_eq!(response.error_code, 0);
    assert!(response.api_keys.iter().any(own));
}

#[test]
fn bytes_that_are_not_a_request_close_the_connection() {
    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0, 0, 0, 4, 0, 0, 0, 0],
        &[255, 255, 255, 255],
        &[0, 0, 0, 12, 127, 127, 0, 0, 0, 0, 0, 1, 255, 255, 0, 0],
        // A Metadata request that announces more topics than fit into it, and into memory.
        &[0, 0, 0, 14, 0, 3, 0, 0, 0, 0, 0, 1, 255, 255, 127, 255, 255, 255],
        &[0, 0, 0, 16, 0, 3, 0, 9, 0, 0, 0, 1, 255, 255, 0, 255, 255, 255, 255, 15],
    ] {
        let mut raw = Raw::connect();
        raw.write(nonsense);
        assert!(raw.is_closed(), "{nonsense:?}");
    }
}

#[test]
fn the_coordinators_of_several_keys_are_found_at_once() {
    let mut raw = Raw::connect();
    let keys = [text("one"), text("another"), text("")];
    let find = |raw: &mut Raw, key_type| {
        let request =
            FindCoordinatorRequest::default().with_key_type(key_type).with_coordinator_keys(keys.to_vec());
        raw.call(4, &request).coordinators
    };
    for key_type in [0, 1] {
        let found = eventually("the coordinators are available", || {
            let found = find(&mut raw, key_type);
            found.iter().all(|found| found.error_code == 0).then_some(found)
        });
        assert!(found.iter().all(|found| found.port > 0 && !found.host.is_empty()));
        let found: Vec<_> = found.into_iter().map(|found| found.key).collect();
        assert_eq!(found, keys);
    }
    // The type of share groups, which version 6 adds.
    for refused in find(&mut raw, 2) {
        assert_eq!((refused.error_code, refused.port), (ResponseError::InvalidRequest.code(), -1));
    }
}

#[test]
fn the_end_of_a_transaction_can_be_repeated_but_not_changed() {
    let topic = topic(1);
    let id = unique("txn");
    let mut coordinator = Raw::to_transaction_coordinator(&id);
    let producer = producer_id(&mut coordinator, init(&id));
    let end = |coordinator: &mut Raw, epoch: i16, committed: bool| {
        let request = EndTxnRequest::default()
            .with_transactional_id(text(&id).into())
            .with_producer_id(producer.producer_id)
            .with_producer_epoch(epoch)
            .with_committed(committed);
        // A cluster is still writing markers after the response.
        eventually("the transaction is complete", || {
            let code = coordinator.call(2, &request).error_code;
            (code != ResponseError::ConcurrentTransactions.code()).then_some(code)
        })
    };
    let epoch = producer.producer_epoch;
    let invalid = ResponseError::InvalidTxnState.code();
    assert_eq!(end(&mut coordinator, epoch, true), invalid);
    let mut leader = Raw::to_leader_of(&topic, 0);
    let records = || transactional_batch(producer.producer_id.0, epoch, 0, &["x"]);
    for (version, error) in [(8, invalid), (10, invalid), (11, ResponseError::TransactionAbortable.code())] {
        let too_early = produce_at(&mut leader, version, &topic, Some(&id), records());
        assert_eq!(too_early.error_code, error, "version {version}");
    }
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(text(&id).into())
        .with_v3_and_below_producer_id(producer.producer_id)
        .with_v3_and_below_producer_epoch(epoch)
        .with_v3_and_below_topics(vec![
            AddPartitionsToTxnTopic::default().with_name(text(&topic).into()).with_partitions(vec![0]),
        ]);
    let added = coordinator.call(2, &request);
    let partition = &added.results_by_topic_v3_and_below[0].results_by_partition[0];
    assert_eq!(partition.partition_error_code, 0);
    assert_eq!(produce(&mut leader, &topic, Some(&id), records()).error_code, 0);
    assert_eq!(end(&mut coordinator, epoch, true), 0);
    assert_eq!(end(&mut coordinator, epoch, true), 0);
    assert_eq!(end(&mut coordinator, epoch, false), invalid);
    let fenced = ResponseError::ProducerFenced.code();
    assert_eq!(end(&mut coordinator, epoch + 1, true), fenced);
}

#[test]
fn a_producer_that_names_its_epoch_is_bumped_and_an_unknown_one_fenced() {
    let id = unique("txn");
    let mut coordinator = Raw::to_transaction_coordinator(&id);
    let first = producer_id(&mut coordinator, init(&id));
    assert_eq!(first.error_code, 0);
    let named = init(&id).with_producer_id(first.producer_id).with_producer_epoch(first.producer_epoch);
    for _ in 0..2 {
        let bumped = producer_id(&mut coordinator, named.clone());
        assert_eq!(bumped.error_code, 0);
        assert_eq!(bumped.producer_id, first.producer_id);
        assert_eq!(bumped.producer_epoch, first.producer_epoch + 1);
    }
    let unnamed = producer_id(&mut coordinator, init(&id));
    assert_eq!(unnamed.producer_epoch, first.producer_epoch + 2);
    let stale = producer_id(&mut coordinator, named.clone());
    assert_eq!(stale.error_code, ResponseError::ProducerFenced.code());
    let stranger = named.with_producer_id(ProducerId(first.producer_id.0 + 1_000_000));
    let stranger = producer_id(&mut coordinator, stranger);
    assert_eq!(stranger.error_code, ResponseError::ProducerFenced.code());
}

#[test]
fn a_fetch_reports_the_error_of_each_partition() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    let partition = |index, offset| {
        FetchPartition::default()
            .with_partition(index)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(1000)
    };
    let wanted = FetchTopic::default()
        .with_topic(text(&topic).into())
        .with_partitions(vec![partition(0, 5), partition(7, 0)]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(30_000)
        .with_min_bytes(1)
        .with_session_epoch(-1)
        .with_topics(vec![wanted]);
    let response = raw.call(11, &request);
    let mut codes: Vec<_> =
        response.responses[0].partitions.iter().map(|part| (part.partition_index, part.error_code)).collect();
    codes.sort();
    assert_eq!(
        codes,
        [(0, ResponseError::OffsetOutOfRange.code()), (7, ResponseError::UnknownTopicOrPartition.code())]
    );
}

#[test]
fn a_fetch_does_not_wait_for_more_bytes_than_its_response_may_have() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    for _ in 0..2 {
        assert_eq!(produce(&mut raw, &topic, None, batch(-1, -1, -1, &[&"x".repeat(600)])).error_code, 0);
    }
    let partition = FetchPartition::default().with_partition_max_bytes(i32::MAX);
    let wanted = FetchTopic::default().with_topic(text(&topic).into()).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(i32::MAX)
        .with_min_bytes(i32::MAX)
        .with_max_bytes(1000)
        .with_session_epoch(-1)
        .with_topics(vec![wanted]);
    let fetched = raw.call(11, &request);
    assert!(!fetched.responses[0].partitions[0].records.as_ref().unwrap().is_empty());
}

#[test]
fn a_fetch_without_partitions_does_not_wait() {
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(i32::MAX)
        .with_min_bytes(1)
        .with_max_bytes(1000)
        .with_session_epoch(-1);
    assert_eq!(Raw::connect().call(11, &request).error_code, 0);
}
