//! Checks the limits of connections to the embedded broker, and the address that it advertises.

use std::time::{Duration, Instant};

use bytes::Bytes;
use embedded_kafka_broker::{Broker, Limits};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DescribeGroupsRequest, FetchRequest, FetchResponse, JoinGroupRequest,
    MetadataRequest, MetadataResponse, OffsetFetchRequest, SyncGroupRequest,
};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::FutureProducer;
use tokio::net::TcpListener;

use crate::harness::{config_for, error_code, eventually, send, topic_at, topic_with, wait};
use crate::protocol::produce;
use crate::raw::{Raw, batch, text};

/// Long enough that a busy client sends its request in time.
const SHORT: Duration = Duration::from_secs(3);
/// Long enough that a busy machine does not reach it.
const LONG: Duration = Duration::from_secs(50);

fn start(limits: Limits) -> (Broker, String) {
    let broker = wait(Broker::builder().limits(limits).start()).unwrap();
    let address = broker.address().to_string();
    (broker, address)
}

/// Begins a request of this size and sends only its beginning.
fn begin_request(address: &str, size: u32) -> Raw {
    let mut raw = Raw::connect_to(address);
    raw.write(&size.to_be_bytes());
    raw.write(&[0; 100]);
    raw
}

#[test]
fn clients_receive_the_advertised_address() {
    let listener = wait(TcpListener::bind("127.0.0.1:0")).unwrap();
    let own = listener.local_addr().unwrap().to_string();
    let advertised = "127.0.0.1:4".parse().unwrap();
    let broker = wait(Broker::builder().listener(listener).advertise(advertised).start()).unwrap();
    assert_eq!(broker.address(), advertised);
    let metadata = Raw::connect_to(&own).call(9, &MetadataRequest::default());
    assert_eq!(metadata.brokers[0].port, 4);
}

#[test]
fn an_idle_connection_is_closed() {
    let (_broker, address) = start(Limits { max_idle: SHORT, ..Limits::default() });
    let mut raw = Raw::connect_to(&address);
    let begun = Instant::now();
    raw.call(9, &MetadataRequest::default());
    assert!(raw.is_closed());
    assert!(begun.elapsed() >= SHORT);
}

#[test]
fn a_request_that_does_not_arrive_in_time_closes_the_connection() {
    let (_broker, address) = start(Limits { request_timeout: SHORT, ..Limits::default() });
    for begun in [&[0_u8, 0][..], &[0, 0, 0, 20, 0, 3], &[0, 0x50, 0, 0, 0, 0]] {
        let mut raw = Raw::connect_to(&address);
        raw.write(begun);
        assert!(raw.is_closed(), "{begun:?}");
    }
}

#[test]
fn a_client_that_does_not_read_its_response_is_disconnected() {
    let (_broker, address) = start(Limits { response_timeout: SHORT, ..Limits::default() });
    let topic = topic_at(&address, 1);
    let value = "x".repeat(900_000);
    for _ in 0..20 {
        let mut raw = Raw::connect_to(&address);
        assert_eq!(produce(&mut raw, &topic, None, batch(-1, -1, -1, &[&value])).error_code, 0);
    }
    let partition = FetchPartition::default().with_partition_max_bytes(i32::MAX);
    let wanted = FetchTopic::default().with_topic(text(&topic).into()).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_bytes(i32::MAX)
        .with_session_epoch(-1)
        .with_topics(vec![wanted]);
    let mut raw = Raw::connect_to(&address);
    // Each response has 18 MB, more than the buffers of a connection hold.
    eventually("the connection is closed", || raw.try_send(11, &request).is_err().then_some(()));
}

#[test]
fn half_sent_requests_of_many_clients_share_their_memory_and_delay_no_small_request() {
    let (broker, address) = start(Limits { request_timeout: LONG, ..Limits::default() });
    let topic = topic_at(&address, 1);
    let halves: Vec<Raw> = (0..30).map(|_| begin_request(&address, 10 << 20)).collect();
    let mut small = Raw::connect_to(&address);
    assert_eq!(produce(&mut small, &topic, None, batch(-1, -1, -1, &["small"])).error_code, 0);
    let mut large = Raw::connect_to(&address);
    let waiting = std::thread::spawn({
        let topic = topic.clone();
        move || produce(&mut large, &topic, None, batch(-1, -1, -1, &[&"x".repeat(900_000)])).error_code
    });
    assert_eq!(produce(&mut small, &topic, None, batch(-1, -1, -1, &["small"])).error_code, 0);
    assert!(!waiting.is_finished());
    drop(halves);
    assert_eq!(waiting.join().unwrap(), 0);
    wait(broker.shutdown());
}

fn join(metadata: Vec<u8>) -> JoinGroupRequest {
    let protocol =
        JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from(metadata));
    JoinGroupRequest::default()
        .with_group_id(text("g").into())
        .with_session_timeout_ms(600_000)
        .with_rebalance_timeout_ms(600_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

#[test]
fn a_large_request_that_waits_for_other_clients_delays_no_large_request() {
    let (broker, address) = start(Limits { request_timeout: LONG, ..Limits::default() });
    let topic = topic_at(&address, 1);
    let mut leader = Raw::connect_to(&address);
    assert_eq!(leader.call(3, &join(Vec::new())).error_code, 0);
    // This member waits until the first one joins again. No other large request fits next to its request.
    let mut follower = Raw::connect_to(&address);
    let large = Bytes::from(vec![0; (100 << 20) - 1000]);
    let request = join(Vec::new()).with_group_instance_id(Some(text("follower")));
    follower.send(6, &request.with_unknown_tagged_field(7, large));
    let mut large = Raw::connect_to(&address);
    let value = "x".repeat(900_000);
    assert_eq!(produce(&mut large, &topic, None, batch(-1, -1, -1, &[&value])).error_code, 0);
    wait(broker.shutdown());
}

#[test]
fn a_batch_that_is_too_large_without_its_compression_is_refused() {
    let (_broker, address) = start(Limits::default());
    let configs = [("compression.type", "uncompressed"), ("max.message.bytes", "2147483647")];
    let topic = topic_with(&address, 1, &configs);
    let producer: FutureProducer = config_for(&address, &[("compression.type", "zstd")])
        .set("message.max.bytes", "1000000000")
        .create()
        .unwrap();
    let refused = send(&producer, &topic, 0, &"x".repeat(110 << 20));
    assert_eq!(error_code(refused), Some(RDKafkaErrorCode::MessageSizeTooLarge));
    assert_eq!(send(&producer, &topic, 0, &"x".repeat(90 << 20)), Ok(0));
}

#[test]
fn a_member_keeps_at_most_a_mebibyte_of_metadata_and_of_assignments() {
    let (_broker, address) = start(Limits::default());
    let mut raw = Raw::connect_to(&address);
    let too_large = ResponseError::UnknownServerError.code();
    assert_eq!(raw.call(3, &join(vec![0; 1 << 20])).error_code, too_large);
    let joined = raw.call(3, &join(vec![0; (1 << 20) - "range".len()]));
    assert_eq!(joined.error_code, 0);
    let mut sync = |size: usize| {
        let assigned = SyncGroupRequestAssignment::default()
            .with_member_id(joined.member_id.clone())
            .with_assignment(Bytes::from(vec![0; size]));
        let request = SyncGroupRequest::default()
            .with_group_id(text("g").into())
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone())
            .with_assignments(vec![assigned]);
        raw.call(2, &request).error_code
    };
    assert_eq!(sync((1 << 20) + 1), too_large);
    assert_eq!(sync(1 << 20), 0);
}

#[test]
fn a_large_fetch_does_not_wait_long() {
    let (_broker, address) = start(Limits::default());
    let partition = FetchPartition::default().with_partition_max_bytes(1000);
    let wanted = FetchTopic::default()
        .with_topic(text(&topic_at(&address, 1)).into())
        .with_partitions(vec![partition; 5000]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(i32::MAX)
        .with_min_bytes(1)
        .with_max_bytes(1000)
        .with_session_epoch(-1)
        .with_topics(vec![wanted]);
    let fetched = Raw::connect_to(&address).call(11, &request);
    assert_eq!(fetched.responses[0].partitions.len(), 5000);
}

#[test]
fn a_client_above_the_limit_of_connections_waits_until_one_closes() {
    let (_broker, address) = start(Limits { max_connections: 2, ..Limits::default() });
    let mut first = Raw::connect_to(&address);
    let mut second = Raw::connect_to(&address);
    for raw in [&mut first, &mut second] {
        raw.call(9, &MetadataRequest::default());
    }
    let mut third = Raw::connect_to(&address);
    let waiting = std::thread::spawn(move || third.call(9, &MetadataRequest::default()));
    second.call(9, &MetadataRequest::default());
    assert!(!waiting.is_finished());
    drop(first);
    waiting.join().unwrap();
}

/// Returns a fetch that waits long for the first record of a topic.
fn long_fetch(topic: &str) -> FetchRequest {
    let partition = FetchPartition::default().with_partition_max_bytes(1000);
    let wanted = FetchTopic::default().with_topic(text(topic).into()).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(i32::MAX)
        .with_min_bytes(1)
        .with_max_bytes(1000)
        .with_session_epoch(-1)
        .with_topics(vec![wanted])
}

#[test]
fn a_client_that_closes_its_connection_while_it_waits_frees_the_connection() {
    let (_broker, address) = start(Limits { max_connections: 2, ..Limits::default() });
    let connect = || Raw::connect_to(&address);
    let create = CreatableTopic::default()
        .with_name(text("t").into())
        .with_num_partitions(1)
        .with_replication_factor(1);
    let created = connect().call(2, &CreateTopicsRequest::default().with_topics(vec![create]));
    assert_eq!(created.topics[0].error_code, 0);
    let mut leader = connect();
    let joined = leader.call(3, &join(Vec::new()));
    // One connection is left, which each of the others must free for the next.
    connect().send(11, &long_fetch("t"));
    connect().send(3, &join(Vec::new()));
    connect().call(9, &MetadataRequest::default());
    let members = eventually("the other member joined", || {
        let again = join(Vec::new()).with_member_id(joined.member_id.clone());
        Some(leader.call(3, &again)).filter(|joined| joined.members.len() == 2)
    });
    let other = members.members.iter().find(|member| member.member_id != members.member_id);
    let sync = SyncGroupRequest::default()
        .with_group_id(text("g").into())
        .with_generation_id(members.generation_id)
        .with_member_id(other.unwrap().member_id.clone());
    connect().send(2, &sync);
    connect().call(9, &MetadataRequest::default());
}

#[test]
fn a_request_behind_a_fetch_that_waits_does_not_end_the_wait() {
    let (_broker, address) = start(Limits::default());
    let topic = topic_at(&address, 1);
    let mut raw = Raw::connect_to(&address);
    raw.send(11, &long_fetch(&topic));
    raw.send(9, &MetadataRequest::default());
    let mut producer = Raw::connect_to(&address);
    assert_eq!(produce(&mut producer, &topic, None, batch(-1, -1, -1, &["x"])).error_code, 0);
    let fetched: FetchResponse = raw.receive_of(1, 0, 11).unwrap();
    assert!(!fetched.responses[0].partitions[0].records.as_ref().unwrap().is_empty());
    assert!(raw.receive::<MetadataResponse>(1, 9).is_some());
}

#[test]
fn groups_and_offsets_that_are_named_many_times_are_described_once() {
    let (_broker, address) = start(Limits::default());
    let mut raw = Raw::connect_to(&address);
    let request = DescribeGroupsRequest::default().with_groups(vec![text("g").into(); 100]);
    assert_eq!(raw.call(5, &request).groups.len(), 1);

    let named =
        OffsetFetchRequestTopics::default().with_name(text("t").into()).with_partition_indexes(vec![1, 2, 1]);
    let all = OffsetFetchRequestGroup::default().with_group_id(text("g").into()).with_topics(None);
    let some = all.clone().with_topics(Some(vec![named; 100]));
    let groups = [vec![all.clone(); 100], vec![some], vec![all; 100]].concat();
    let fetched = raw.call(8, &OffsetFetchRequest::default().with_groups(groups)).groups;
    assert_eq!(fetched.len(), 2);
    let indexes = fetched.iter().flat_map(|group| &group.topics).flat_map(|topic| &topic.partitions);
    assert_eq!(indexes.map(|partition| partition.partition_index).collect::<Vec<_>>(), [1, 2]);

    let named =
        OffsetFetchRequestTopic::default().with_name(text("t").into()).with_partition_indexes(vec![3; 100]);
    let request =
        OffsetFetchRequest::default().with_group_id(text("g").into()).with_topics(Some(vec![named]));
    assert_eq!(raw.call(7, &request).topics[0].partitions.len(), 1);
}
