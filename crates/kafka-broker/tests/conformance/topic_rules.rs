//! Checks that the configs of a topic apply to what producers send.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use rdkafka::producer::FutureRecord;

use crate::configs::{alter, connect_for};
use crate::harness::*;
use crate::protocol::{init, produce, producer_id};
use crate::raw::{Raw, batch};

const INVALID_TIMESTAMP: i16 = ResponseError::InvalidTimestamp.code();
const INVALID_RECORD: i16 = ResponseError::InvalidRecord.code();
const HOUR_MS: i64 = 3_600_000;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Returns one batch with a record for each key and timestamp.
fn batch_of(records: &[(Option<&'static str>, i64)]) -> Bytes {
    let records = (0..).zip(records).map(|(index, (key, timestamp))| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset: i64::from(index),
        sequence: index - 1,
        timestamp: *timestamp,
        key: key.map(|key| Bytes::from_static(key.as_bytes())),
        value: Some(Bytes::from_static(b"value")),
        headers: Default::default(),
    });
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode(&mut out, &records.collect::<Vec<_>>(), &options).unwrap();
    out.freeze()
}

fn at(timestamps: &[i64]) -> Bytes {
    let records: Vec<_> = timestamps.iter().map(|timestamp| (Some("key"), *timestamp)).collect();
    batch_of(&records)
}

/// Returns the attributes of the first batch that is stored in partition 0.
fn stored_attributes(topic: &str) -> i16 {
    let partition = FetchPartition::default().with_partition_max_bytes(1_000_000);
    let wanted =
        FetchTopic::default().with_topic(crate::raw::text(topic).into()).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(10_000)
        .with_min_bytes(1)
        .with_max_bytes(i32::MAX)
        .with_session_epoch(-1)
        .with_topics(vec![wanted]);
    let response = Raw::to_leader_of(topic, 0).call(11, &request);
    let records = response.responses[0].partitions[0].records.clone().unwrap();
    i16::from_be_bytes(records[21..23].try_into().unwrap())
}

#[test]
fn the_time_of_the_append_replaces_that_of_the_producer() {
    let topic = configured_topic(&[("message.timestamp.type", "LogAppendTime")]);
    let mut raw = Raw::to_leader_of(&topic, 0);
    let before = now_ms();
    let appended = produce(&mut raw, &topic, None, at(&[1_000, 2_000]));
    assert_eq!(appended.error_code, 0);
    assert!((before..=now_ms()).contains(&appended.log_append_time_ms));
    let times: Vec<_> = read_all(&topic, "read_committed").iter().map(|record| record.timestamp).collect();
    assert_eq!(times, [Some(appended.log_append_time_ms); 2]);
    // Only the broker sets the type of the timestamps.
    let mut own_type = at(&[now_ms()]).to_vec();
    own_type[22] |= 1 << 3;
    let crc = crc32c::crc32c(&own_type[21..]).to_be_bytes();
    own_type[17..21].copy_from_slice(&crc);
    let refused = produce(&mut raw, &topic, None, own_type.into());
    assert_eq!(refused.error_code, INVALID_TIMESTAMP);
}

#[test]
fn the_type_of_timestamps_can_change() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    let created = produce(&mut raw, &topic, None, at(&[1_000]));
    assert_eq!((created.error_code, created.log_append_time_ms), (0, -1));
    let change = [(0, "message.timestamp.type", Some("LogAppendTime"))];
    assert_eq!(alter(&mut connect_for(&topic), 2, &topic, &change), 0);
    eventually("the config applies", || {
        let appended = produce(&mut raw, &topic, None, at(&[1_000]));
        assert_eq!(appended.error_code, 0);
        (appended.log_append_time_ms >= 0).then_some(())
    });
}

#[test]
fn timestamps_too_far_from_the_clock_of_the_broker_are_refused() {
    let hour = HOUR_MS.to_string();
    let (past, future) = (now_ms() - 2 * HOUR_MS, now_ms() + 2 * HOUR_MS);
    let (before, after) = ("message.timestamp.before.max.ms", "message.timestamp.after.max.ms");
    // Since Kafka 4, timestamps are at most an hour in the future by default.
    let unlimited = i64::MAX.to_string();
    let mut cases = vec![
        (vec![(before, &*hour), (after, &*unlimited)], [now_ms(), future], vec![past]),
        (vec![(after, &*hour)], [now_ms(), past], vec![future]),
    ];
    // Kafka 4 has no limit for both directions.
    if !is_kafka_4() {
        let both = vec![("message.timestamp.difference.max.ms", &*hour)];
        cases.push((both, [now_ms(), now_ms()], vec![past, future]));
    }
    for (configs, accepted, refused) in cases {
        let config = configs[0].0;
        let topic = configured_topic(&[configs.as_slice(), &[KEEP_RECORDS]].concat());
        let mut raw = Raw::to_leader_of(&topic, 0);
        assert_eq!(produce(&mut raw, &topic, None, at(&accepted)).error_code, 0, "{config}");
        // A record without a timestamp is not checked.
        assert_eq!(produce(&mut raw, &topic, None, at(&[-1])).error_code, 0, "{config}");
        for timestamp in refused {
            let response = produce(&mut raw, &topic, None, at(&[now_ms(), timestamp]));
            assert_eq!((response.error_code, response.base_offset), (INVALID_TIMESTAMP, -1), "{config}");
            let wrong: Vec<_> = response.record_errors.iter().map(|error| error.batch_index).collect();
            assert_eq!(wrong, [1], "{config}");
            assert!(response.error_message.is_some());
        }
        assert_eq!(read_all(&topic, "read_uncommitted").len(), 3, "{config}");
    }
}

#[test]
fn records_of_a_compacted_topic_need_keys() {
    let topic = configured_topic(&[("cleanup.policy", "compact,delete")]);
    let mut raw = Raw::to_leader_of(&topic, 0);
    let now = now_ms();
    let refused = produce(&mut raw, &topic, None, batch_of(&[(Some("key"), now), (None, now), (None, now)]));
    assert_eq!((refused.error_code, refused.base_offset), (INVALID_RECORD, -1));
    let wrong: Vec<_> = refused.record_errors.iter().map(|error| error.batch_index).collect();
    assert_eq!(wrong, [1, 2]);
    assert_eq!(produce(&mut raw, &topic, None, batch_of(&[(Some(""), now)])).error_code, 0);
    assert_eq!(read_all(&topic, "read_uncommitted").len(), 1);
}

#[test]
fn compressed_records_are_checked_too() {
    let topic = configured_topic(&[("cleanup.policy", "compact")]);
    let producer = producer(&[("compression.type", "lz4"), ("linger.ms", "50")]);
    let value = "compressible ".repeat(100);
    let without_key = FutureRecord::<(), _>::to(&topic).payload(&value);
    let refused = wait(producer.send(without_key, PATIENCE)).map_err(|(error, _)| error);
    assert!(refused.is_err());
    let with_key = FutureRecord::to(&topic).key("key").payload(&value);
    wait(producer.send(with_key, PATIENCE)).unwrap();
    assert_eq!(values(&topic, "read_committed"), [value]);
}

#[test]
fn batches_are_stored_with_the_codec_of_the_topic() {
    let value = "compressible ".repeat(100);
    for (of_topic, of_producer, stored) in [
        ("producer", "none", 0),
        ("producer", "lz4", 3),
        ("uncompressed", "lz4", 0),
        ("gzip", "none", 1),
        ("snappy", "none", 2),
        ("lz4", "snappy", 3),
        ("zstd", "none", 4),
    ] {
        let topic = configured_topic(&[("compression.type", of_topic), KEEP_RECORDS]);
        let settings = [("compression.type", of_producer), ("linger.ms", "100")];
        let producer = producer(&settings);
        let sent = (0..20).map(|_| {
            let record = FutureRecord::<(), _>::to(&topic).payload(&value).timestamp(1_600_000_000_000);
            producer.send_result(record).map_err(|(error, _)| error).unwrap()
        });
        for delivery in sent.collect::<Vec<_>>() {
            wait(delivery).unwrap().unwrap();
        }
        assert_eq!(stored_attributes(&topic) & 0b111, stored, "{of_topic} from {of_producer}");
        let records = read_all(&topic, "read_committed");
        assert_eq!(records.len(), 20);
        for record in records {
            assert_eq!(record.value.as_deref(), Some(value.as_bytes()));
            assert_eq!(record.timestamp, Some(1_600_000_000_000));
        }
    }
}

#[test]
fn the_largest_size_of_a_batch_can_change() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    let records = || batch(-1, -1, -1, &[&"x".repeat(2_000)]);
    assert_eq!(produce(&mut raw, &topic, None, records()).error_code, 0);
    let limit = [(0, "max.message.bytes", Some("1000"))];
    assert_eq!(alter(&mut connect_for(&topic), 2, &topic, &limit), 0);
    eventually("the config applies", || {
        let code = produce(&mut raw, &topic, None, records()).error_code;
        (code == ResponseError::MessageTooLarge.code()).then_some(())
    });
}

#[test]
fn a_batch_larger_than_a_segment_is_refused() {
    // The smallest segment that Kafka 4 accepts.
    let topic = configured_topic(&[("segment.bytes", "1048576"), ("max.message.bytes", "2000000")]);
    let mut raw = Raw::to_leader_of(&topic, 0);
    let refused = produce(&mut raw, &topic, None, batch(-1, -1, -1, &[&"x".repeat(1_100_000)]));
    assert_eq!(refused.error_code, ResponseError::RecordListTooLarge.code());
    assert_eq!(produce(&mut raw, &topic, None, batch(-1, -1, -1, &["x"])).error_code, 0);
}

#[test]
fn a_repeated_batch_is_acknowledged_with_its_timestamp() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    let producer = producer_id(&mut raw, init("").with_transactional_id(None));
    let records = || batch(producer.producer_id.0, 0, 0, &["x"]);
    assert_eq!(produce(&mut raw, &topic, None, records()).log_append_time_ms, -1);
    assert_eq!(produce(&mut raw, &topic, None, records()).log_append_time_ms, 1_700_000_000_000);
}
