//! Provides a client that sends arbitrary requests, including those that librdkafka never sends.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    BrokerId, FindCoordinatorRequest, FindCoordinatorResponse, ListOffsetsRequest, MetadataRequest,
    MetadataResponse, RequestHeader, ResponseHeader, metadata_request::MetadataRequestTopic,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use uuid::Uuid;

use crate::harness::{PATIENCE, bootstrap, eventually};

pub struct Raw {
    stream: TcpStream,
    correlation_id: i32,
}

impl Raw {
    pub fn connect() -> Self {
        Self::connect_to(bootstrap().split(',').next().unwrap())
    }

    pub fn connect_to(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, correlation_id: 0 }
    }

    pub fn to_leader_of(topic: &str, partition: i32) -> Self {
        Self::to_leader_at(bootstrap().split(',').next().unwrap(), topic, partition)
    }

    pub fn to_leader_at(address: &str, topic: &str, partition: i32) -> Self {
        let named = MetadataRequestTopic::default().with_name(Some(text(topic).into()));
        let request = MetadataRequest::default().with_topics(Some(vec![named]));
        let address = eventually("the partition has a leader", || {
            let found: MetadataResponse = Self::connect_to(address).call(9, &request);
            let mut partitions = found.topics.first()?.partitions.iter();
            let found_partition = partitions.find(|part| part.partition_index == partition)?;
            broker_address(&found, found_partition.leader_id)
        });
        let mut leader = Self::connect_to(&address);
        // The leader itself may learn of the partition, and of its own role, later than other brokers.
        eventually("the leader serves the partition", || {
            let is_known = leader.call(9, &request).topics.first()?.error_code == 0;
            (is_known && leader.serves(topic, partition)).then_some(())
        });
        leader
    }

    fn serves(&mut self, topic: &str, partition: i32) -> bool {
        let latest = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(-1);
        let wanted = ListOffsetsTopic::default().with_name(text(topic).into()).with_partitions(vec![latest]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![wanted]);
        self.call(6, &request).topics[0].partitions[0].error_code == 0
    }

    /// Waits until this broker knows the leaders of the topic's partitions: each learns of a new topic by itself.
    pub fn await_topic(&mut self, topic: &str, partitions: usize) {
        let named = MetadataRequestTopic::default().with_name(Some(text(topic).into()));
        let request = MetadataRequest::default().with_topics(Some(vec![named]));
        eventually("the broker knows the topic", || {
            let found: MetadataResponse = self.call(9, &request);
            let found = found.topics.first()?.partitions.iter();
            (found.filter(|part| part.leader_id.0 >= 0).count() == partitions).then_some(())
        });
    }

    /// Connects to the broker that creates and deletes topics.
    pub fn to_controller() -> Self {
        let address = eventually("the cluster has a controller", || {
            let found: MetadataResponse = Self::connect().call(9, &MetadataRequest::default());
            broker_address(&found, found.controller_id)
        });
        Self::connect_to(&address)
    }

    pub fn to_group_coordinator(group: &str) -> Self {
        Self::to_coordinator(group, 0)
    }

    pub fn to_transaction_coordinator(transactional_id: &str) -> Self {
        Self::to_coordinator(transactional_id, 1)
    }

    fn to_coordinator(key: &str, key_type: i8) -> Self {
        let request = FindCoordinatorRequest::default().with_key(text(key)).with_key_type(key_type);
        let address = eventually("the coordinator is available", || {
            let found: FindCoordinatorResponse = Self::connect().call(3, &request);
            (found.error_code == 0).then(|| format!("{}:{}", &*found.host, found.port))
        });
        Self::connect_to(&address)
    }

    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request);
        self.receive(R::Response::header_version(version), version).unwrap()
    }

    pub fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.try_send(version, request).unwrap();
    }

    /// Sends a request, or returns an error when the broker has closed the connection.
    pub fn try_send<R: Request>(&mut self, version: i16, request: &R) -> std::io::Result<()> {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).unwrap();
        self.try_send_bytes(R::KEY, version, R::header_version(version), &body)
    }

    pub fn send_bytes(&mut self, api_key: i16, version: i16, header_version: i16, body: &[u8]) {
        self.try_send_bytes(api_key, version, header_version, body).unwrap();
    }

    fn try_send_bytes(
        &mut self,
        api_key: i16,
        version: i16,
        header_version: i16,
        body: &[u8],
    ) -> std::io::Result<()> {
        self.correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(api_key)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(text("raw")));
        let mut request = BytesMut::new();
        header.encode(&mut request, header_version).unwrap();
        request.put_slice(body);
        record(&request);
        let mut frame = BytesMut::new();
        frame.put_i32(request.len() as i32);
        frame.put(request);
        self.stream.write_all(&frame)
    }

    /// Reads a response. Returns `None` when the broker has closed the connection.
    pub fn receive<R: Decodable>(&mut self, header_version: i16, version: i16) -> Option<R> {
        self.receive_of(self.correlation_id, header_version, version)
    }

    /// Reads the response to the request with this number. Requests are numbered from 1 on.
    pub fn receive_of<R: Decodable>(
        &mut self,
        correlation_id: i32,
        header_version: i16,
        version: i16,
    ) -> Option<R> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut frame = vec![0; i32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).ok()?;
        let mut frame = Bytes::from(frame);
        let header = ResponseHeader::decode(&mut frame, header_version).unwrap();
        assert_eq!(header.correlation_id, correlation_id);
        let response = R::decode(&mut frame, version).unwrap();
        assert!(!frame.has_remaining(), "the response is longer than its version allows");
        Some(response)
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn is_closed(&mut self) -> bool {
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        match self.stream.read(&mut [0]) {
            Ok(read) => read == 0,
            // Any other error, such as a timeout, means that the connection is open.
            Err(error) => matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset),
        }
    }
}

/// Appends the request to the file that `RECORD_REQUESTS` names, in hexadecimal (`corpus/record`).
fn record(request: &[u8]) {
    let Ok(path) = std::env::var("RECORD_REQUESTS") else { return };
    let line: String = request.iter().map(|byte| format!("{byte:02x}")).chain(["\n".to_owned()]).collect();
    let file = std::fs::OpenOptions::new().append(true).open(path);
    file.unwrap().write_all(line.as_bytes()).unwrap();
}

fn broker_address(metadata: &MetadataResponse, id: BrokerId) -> Option<String> {
    let mut brokers = metadata.brokers.iter();
    let broker = brokers.find(|broker| broker.node_id == id)?;
    Some(format!("{}:{}", &*broker.host, broker.port))
}

/// Returns the topic as Metadata 12 describes it, by its name.
pub fn described(raw: &mut Raw, topic: &str) -> MetadataResponseTopic {
    let named = MetadataRequestTopic::default().with_name(Some(text(topic).into()));
    let found = raw.call(12, &MetadataRequest::default().with_topics(Some(vec![named])));
    found.topics[0].clone()
}

pub fn topic_id(topic: &str) -> Uuid {
    described(&mut Raw::connect(), topic).topic_id
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Returns one batch with these values, as an idempotent producer sends it.
pub fn batch(producer_id: i64, epoch: i16, base_sequence: i32, values: &[&str]) -> Bytes {
    encoded(producer_id, epoch, base_sequence, values, false)
}

pub fn transactional_batch(producer_id: i64, epoch: i16, sequence: i32, values: &[&str]) -> Bytes {
    encoded(producer_id, epoch, sequence, values, true)
}

fn encoded(
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    values: &[&str],
    transactional: bool,
) -> Bytes {
    let records = (0..).zip(values).map(|(index, value)| Record {
        transactional,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id,
        producer_epoch,
        timestamp_type: TimestampType::Creation,
        offset: i64::from(index),
        sequence: base_sequence + index,
        timestamp: 1_700_000_000_000,
        key: None,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Default::default(),
    });
    let records: Vec<_> = records.collect();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
    out.freeze()
}
