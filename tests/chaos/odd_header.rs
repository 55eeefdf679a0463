//! Writes a record that no client library can produce: the name of a header is not UTF-8.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable as _, Encodable as _, HeaderVersion as _, Request, StrBytes};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

use crate::support::eventually;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Replaced with the invalid bytes when the record is encoded.
const PLACEHOLDER: &str = "header-name";
/// Has the same length as the placeholder.
const NO_TEXT: &[u8; PLACEHOLDER.len()] = b"header\xff\xfe\xc0me";

/// Writes the record exactly once to partition 0. As with an idempotent producer, an attempt whose response is lost
/// does not count twice.
pub async fn produce_with_odd_header(bootstrap: &str, topic: &str, key: &str, value: &[u8]) {
    let producer = eventually("a producer id", async || {
        first_of(bootstrap, |broker| {
            let mut connection = Connection::to(broker)?;
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            let answer = connection.call(4, &request)?;
            (answer.error_code == 0).then_some(answer.producer_id.0).ok_or(io::ErrorKind::Other.into())
        })
        .await
    })
    .await;
    let batch = encode(producer, key, value);
    eventually("the record to be written", async || {
        let (topic, batch) = (topic.to_owned(), batch.clone());
        first_of(bootstrap, move |broker| write(broker, &topic, batch.clone())).await
    })
    .await;
}

/// Returns the first successful result of the brokers in turn, as only the partition's leader accepts a record.
async fn first_of<T: Send + 'static>(
    bootstrap: &str,
    ask: impl Fn(&str) -> io::Result<T> + Send + 'static,
) -> Option<T> {
    let bootstrap = bootstrap.to_owned();
    let result =
        tokio::task::spawn_blocking(move || bootstrap.split(',').find_map(|broker| ask(broker).ok()));
    result.await.unwrap()
}

fn write(broker: &str, topic: &str, batch: Bytes) -> io::Result<()> {
    let partition = PartitionProduceData::default().with_records(Some(batch));
    let name = StrBytes::from_string(topic.to_owned()).into();
    let topic = TopicProduceData::default().with_name(name).with_partition_data(vec![partition]);
    let request =
        ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
    let answer = Connection::to(broker)?.call(8, &request)?;
    let code = answer.responses[0].partition_responses[0].error_code;
    if code == 0 || code == ResponseError::DuplicateSequenceNumber.code() {
        return Ok(());
    }
    Err(io::ErrorKind::Other.into())
}

fn encode(producer_id: i64, key: &str, value: &[u8]) -> Bytes {
    let record = Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id,
        producer_epoch: 0,
        timestamp_type: TimestampType::Creation,
        offset: 0,
        sequence: 0,
        timestamp: chrono::Utc::now().timestamp_millis(),
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value)),
        headers: [(StrBytes::from_static_str(PLACEHOLDER), Some(Bytes::from_static(b"value")))].into(),
    };
    // Runs before the checksum is computed.
    let garble = |records: &mut BytesMut, out: &mut BytesMut, _: Compression| {
        let at = records.windows(PLACEHOLDER.len()).rposition(|name| name == PLACEHOLDER.as_bytes()).unwrap();
        records[at..at + NO_TEXT.len()].copy_from_slice(NO_TEXT);
        out.put_slice(records);
        Ok(())
    };
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode_with_custom_compression(&mut out, [&record], &options, Some(garble)).unwrap();
    out.freeze()
}

struct Connection(TcpStream);

impl Connection {
    fn to(broker: &str) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&broker.parse().unwrap(), TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self(stream))
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        let header = RequestHeader::default().with_request_api_key(R::KEY).with_request_api_version(version);
        let mut body = BytesMut::new();
        header.encode(&mut body, R::header_version(version)).unwrap();
        request.encode(&mut body, version).unwrap();
        self.0.write_all(&i32::try_from(body.len()).unwrap().to_be_bytes())?;
        self.0.write_all(&body)?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.0.read_exact(&mut answer)?;
        let mut answer = Bytes::from(answer);
        ResponseHeader::decode(&mut answer, R::Response::header_version(version)).unwrap();
        let response = R::Response::decode(&mut answer, version).unwrap();
        assert!(!answer.has_remaining(), "the answer is longer than its version");
        Ok(response)
    }
}
