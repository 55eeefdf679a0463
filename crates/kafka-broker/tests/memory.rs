//! Measures what clients can make the embedded broker allocate. The tests have a process of their own and run one after
//! the other, as they measure the memory of the process.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use embedded_kafka_broker::{Broker, Limits};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, BrokerId, CreateTopicsRequest, FetchRequest, MetadataRequest, ProduceRequest, RequestHeader,
    ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use tokio::runtime::Runtime;

/// Time after which the broker closes the connection of a client that does not read.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(120);
const MIB: u64 = 1024 * 1024;
/// Responses may take this memory (`FETCH_MEMORY` and `RESPONSE_MEMORY`).
const RESPONSES: u64 = 160 * MIB;
/// What a response takes twice while it is encoded, and what an allocator keeps.
const MARGIN: u64 = 128 * MIB;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static ALONE: Mutex<()> = Mutex::new(());

struct Measured {
    address: String,
    _broker: Broker,
    _alone: MutexGuard<'static, ()>,
}

impl Measured {
    fn start() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = Limits { response_timeout: RESPONSE_TIMEOUT, ..Limits::default() };
        let broker = RUNTIME.block_on(Broker::builder().limits(limits).start()).unwrap();
        Self { address: broker.address().to_string(), _broker: broker, _alone: alone }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(stream)
    }

    fn create_topics(&self, names: &[&str], partitions: i32) {
        let topics = names.iter().map(|name| {
            let topic = CreatableTopic::default().with_name(text(name).into());
            topic.with_num_partitions(partitions).with_replication_factor(1)
        });
        let request = CreateTopicsRequest::default().with_topics(topics.collect()).with_timeout_ms(1000);
        let created = self.connect().call(4, &request).unwrap();
        assert!(created.topics.iter().all(|topic| topic.error_code == 0), "{created:?}");
    }
}

struct Client(TcpStream);

impl Client {
    fn send<R: Request>(&mut self, version: i16, request: &R) {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).unwrap();
        self.send_bytes(R::KEY, version, R::header_version(version), &body).unwrap();
    }

    fn send_bytes(&mut self, key: i16, version: i16, header: i16, body: &[u8]) -> std::io::Result<()> {
        let head = RequestHeader::default().with_request_api_key(key).with_request_api_version(version);
        let mut request = BytesMut::new();
        head.encode(&mut request, header).unwrap();
        let mut frame = BytesMut::new();
        frame.put_u32(u32::try_from(request.len() + body.len()).unwrap());
        frame.put(request);
        self.0.write_all(&frame)?;
        self.0.write_all(body)
    }

    /// Reads a response. Returns `None` when the connection is closed.
    fn receive<R: Decodable + HeaderVersion>(&mut self, version: i16) -> Option<R> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame).ok()?;
        let mut frame = Bytes::from(frame);
        ResponseHeader::decode(&mut frame, R::header_version(version)).unwrap();
        Some(R::decode(&mut frame, version).unwrap())
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> Option<R::Response> {
        self.send(version, request);
        self.receive(version)
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Forgets the peak of the memory, and returns the memory.
fn begin_to_measure() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    status("VmRSS:")
}

/// Returns what the memory has grown by at most.
fn growth_since(before: u64) -> u64 {
    let growth = status("VmHWM:").saturating_sub(before);
    println!("the memory has grown by up to {} MiB", growth / MIB);
    growth
}

fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Returns a batch of one record of this size.
fn batch(size: usize) -> Bytes {
    let record = Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset: 0,
        sequence: -1,
        timestamp: 1_700_000_000_000,
        key: None,
        value: Some(vec![7; size].into()),
        headers: Default::default(),
    };
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode(&mut out, &[record], &options).unwrap();
    out.freeze()
}

#[test]
fn fetched_records_that_are_not_read_take_bounded_memory_and_delay_others_for_a_bounded_time() {
    const BATCHES: u64 = 20;
    const SILENT: u64 = 30;
    let measured = Measured::start();
    measured.create_topics(&["t"], 1);
    for _ in 0..BATCHES {
        let data = PartitionProduceData::default().with_records(Some(batch(1_000_000)));
        let data = TopicProduceData::default().with_name(text("t").into()).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_topic_data(vec![data]);
        let produced = measured.connect().call(7, &request).unwrap();
        assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
    }
    let fetch = |max_bytes| {
        let partition = FetchPartition::default().with_partition_max_bytes(max_bytes);
        let wanted = FetchTopic::default().with_topic(text("t").into()).with_partitions(vec![partition]);
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_bytes(max_bytes)
            .with_session_epoch(-1)
            .with_topics(vec![wanted])
    };

    let before = begin_to_measure();
    let silent: Vec<Client> = (0..SILENT)
        .map(|_| {
            let mut client = measured.connect();
            client.send(11, &fetch(i32::MAX));
            client
        })
        .collect();
    // Its turn comes after those of the others, which the broker closes one after the other.
    let fetched = measured.connect().call(11, &fetch(i32::MAX)).unwrap();
    let records = fetched.responses[0].partitions[0].records.as_ref().unwrap();
    assert!(records.len() as u64 > BATCHES * 1_000_000);
    let growth = growth_since(before);
    assert!(growth < RESPONSES + MARGIN, "{growth} bytes for {} of responses", SILENT * BATCHES * 1_000_000);
    drop(silent);
}

#[test]
fn descriptions_that_are_not_read_take_bounded_memory() {
    const SILENT: usize = 150;
    const NAMES: [&str; 20] =
        ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"];
    let measured = Measured::start();
    for names in NAMES.chunks(2) {
        measured.create_topics(names, 5000);
    }
    let all = MetadataRequest::default().with_topics(None);
    let begun = Instant::now();
    let before = begin_to_measure();
    let silent: Vec<Client> = (0..SILENT)
        .map(|_| {
            let mut client = measured.connect();
            // Two, as the buffers of the connection may hold the first one.
            (0..2).for_each(|_| client.send(9, &all));
            client
        })
        .collect();
    let described = loop {
        // While there is no room, connections are closed.
        if let Some(described) = measured.connect().call(9, &all) {
            break described;
        }
        assert!(begun.elapsed() < PATIENCE);
    };
    assert_eq!(described.topics.len(), NAMES.len());
    let growth = growth_since(before);
    assert!(growth < RESPONSES + MARGIN, "{growth} bytes");
    drop(silent);
}

#[test]
fn a_request_with_millions_of_elements_is_refused_before_they_take_memory() {
    let measured = Measured::start();
    let names: u32 = 20_000_000;
    let mut body = BytesMut::new();
    body.put_u32(names);
    // Each name is empty, with a length of two bytes.
    body.put_bytes(0, 2 * names as usize);
    body.put_u8(0);
    let before = begin_to_measure();
    let mut client = measured.connect();
    client.send_bytes(ApiKey::Metadata as i16, 4, 1, &body).unwrap();
    assert!(client.receive::<kafka_protocol::messages::MetadataResponse>(4).is_none());
    let growth = growth_since(before);
    assert!(growth < 2 * body.len() as u64 + 64 * MIB, "{growth} bytes");
}
