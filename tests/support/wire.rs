//! Writes records byte by byte that no client library would send.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable as _, Encodable as _, HeaderVersion as _, Request as _, StrBytes};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The version of Produce that Kafka 2.1 introduced.
const VERSION: i16 = 7;
/// The position of a batch's checksum, which covers everything after it.
const CRC: std::ops::Range<usize> = 17..21;

/// Writes a record with a single header of the given name to partition 0, on the broker that leads it.
pub async fn produce_with_header(
    broker: &str,
    topic: &str,
    key: &str,
    value: &[u8],
    (name, header): (&[u8], &[u8]),
) {
    // The library encodes only text, so a placeholder of the same length is replaced afterwards.
    let stand_in = "~".repeat(name.len());
    let mut batch = encode(key, value, &stand_in, header).to_vec();
    let at = batch.windows(name.len()).position(|window| window == stand_in.as_bytes()).unwrap();
    batch[at..at + name.len()].copy_from_slice(name);
    let crc = crc32c::crc32c(&batch[CRC.end..]).to_be_bytes();
    batch[CRC].copy_from_slice(&crc);
    produce(broker, topic, batch.into()).await;
}

fn encode(key: &str, value: &[u8], name: &str, header: &[u8]) -> Bytes {
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
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value)),
        headers: [(StrBytes::from_string(name.to_owned()), Some(Bytes::copy_from_slice(header)))]
            .into_iter()
            .collect(),
    };
    let mut batch = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut batch, [&record], &options).unwrap();
    batch.freeze()
}

async fn produce(broker: &str, topic: &str, batch: Bytes) {
    let data = PartitionProduceData::default().with_index(0).with_records(Some(batch));
    let topic = StrBytes::from_string(topic.to_owned()).into();
    let data = TopicProduceData::default().with_name(topic).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![data]);
    let header = RequestHeader::default()
        .with_request_api_key(ProduceRequest::KEY)
        .with_request_api_version(VERSION)
        .with_client_id(Some(StrBytes::from_static_str("wire")));
    let mut body = BytesMut::new();
    header.encode(&mut body, ProduceRequest::header_version(VERSION)).unwrap();
    request.encode(&mut body, VERSION).unwrap();
    let mut frame = BytesMut::new();
    frame.put_u32(u32::try_from(body.len()).unwrap());
    frame.put(body);
    let mut stream = TcpStream::connect(broker).await.unwrap();
    stream.write_all(&frame).await.unwrap();
    let length = stream.read_u32().await.unwrap();
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).await.unwrap();
    let mut answer = Bytes::from(answer);
    ResponseHeader::decode(&mut answer, ProduceResponse::header_version(VERSION)).unwrap();
    let response = ProduceResponse::decode(&mut answer, VERSION).unwrap();
    assert!(!answer.has_remaining());
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}
