//! Checks that batches with a valid checksum and invalid records are refused, and that their partition continues.

use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest};

use crate::harness::{topic, values};
use crate::protocol::produce;
use crate::raw::{Raw, text};

const TIMESTAMP: i64 = 1_700_000_000_000;

/// Describes a batch of which each part can be wrong.
#[derive(Clone)]
struct Batch {
    base_offset: i64,
    attributes: i16,
    last_offset_delta: i32,
    max_timestamp: i64,
    producer_id: i64,
    count: i32,
    records: Vec<u8>,
}

impl Batch {
    /// Returns a valid batch of two records.
    fn valid() -> Self {
        let records = [record(0, b"a"), record(1, b"b")].concat();
        Self {
            base_offset: 0,
            attributes: 0,
            last_offset_delta: 1,
            max_timestamp: TIMESTAMP + 1,
            producer_id: -1,
            count: 2,
            records,
        }
    }

    fn of(records: &[Vec<u8>]) -> Self {
        Self { records: records.concat(), ..Self::valid() }
    }

    /// Returns a batch of one record with these fields.
    fn of_one(fields: &[u8]) -> Self {
        Self { count: 1, last_offset_delta: 0, records: sized(fields), ..Self::valid() }
    }

    fn encode(&self) -> Bytes {
        let mut covered = BytesMut::new();
        covered.put_i16(self.attributes);
        covered.put_i32(self.last_offset_delta);
        covered.put_i64(TIMESTAMP);
        covered.put_i64(self.max_timestamp);
        covered.put_i64(self.producer_id);
        covered.put_i16(-1);
        covered.put_i32(-1);
        covered.put_i32(self.count);
        covered.put_slice(&self.records);
        let mut batch = BytesMut::new();
        batch.put_i64(self.base_offset);
        batch.put_i32(covered.len() as i32 + 9);
        batch.put_i32(-1);
        batch.put_i8(2);
        batch.put_u32(crc32c::crc32c(&covered));
        batch.put(covered);
        batch.freeze()
    }
}

/// Returns a record with its length. Numbers below 64 are varints of one byte, twice as large.
fn record(offset: u8, value: &[u8]) -> Vec<u8> {
    let mut fields = vec![0, offset << 1, offset << 1, 1, (value.len() as u8) << 1];
    fields.extend(value);
    fields.push(0);
    sized(&fields)
}

fn sized(fields: &[u8]) -> Vec<u8> {
    [&[(fields.len() as u8) << 1], fields].concat()
}

fn refused(what: &str, batch: &Batch, error: ResponseError) {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    let before = produce(&mut raw, &topic, None, Batch::valid().encode());
    assert_eq!((before.error_code, before.base_offset), (0, 0), "{what}");
    let refused = produce(&mut raw, &topic, None, batch.encode());
    assert_eq!((refused.error_code, refused.base_offset), (error.code(), -1), "{what}");
    let after = produce(&mut raw, &topic, None, Batch::valid().encode());
    assert_eq!((after.error_code, after.base_offset), (0, 2), "{what}");
    assert_eq!(values(&topic, "read_committed"), ["a", "b", "a", "b"], "{what}");
}

#[test]
fn records_that_do_not_fit_their_batch_are_refused() {
    let valid = Batch::valid();
    let mut longer = record(1, b"b");
    longer[0] += 2;
    let mut shorter = record(1, b"b");
    shorter[0] -= 2;
    let cases = [
        ("fewer records than counted", Batch { count: 3, last_offset_delta: 2, ..valid.clone() }),
        ("more records than counted", Batch { count: 1, last_offset_delta: 0, ..valid.clone() }),
        ("another number of offsets than of records", Batch { last_offset_delta: 2, ..valid.clone() }),
        ("no records", Batch { count: 0, last_offset_delta: -1, records: vec![], ..valid.clone() }),
        ("a negative count", Batch { count: -1, ..valid.clone() }),
        ("another first offset than 0", Batch { base_offset: 1, ..valid.clone() }),
        ("a control batch", Batch { attributes: 1 << 5, ..valid.clone() }),
        ("a producer without a sequence number", Batch { producer_id: 7, ..valid }),
        ("bytes after the records", Batch::of(&[record(0, b"a"), record(1, b"b"), vec![0]])),
        ("a record longer than the batch", Batch::of(&[record(0, b"a"), longer])),
        ("a record longer than its length", Batch::of(&[record(0, b"a"), shorter])),
        ("a negative length", Batch::of(&[record(0, b"a"), vec![1]])),
    ];
    for (what, batch) in cases {
        refused(what, &batch, ResponseError::InvalidRecord);
    }
}

#[test]
fn records_with_invalid_fields_are_refused() {
    let cases: [(&str, &[u8]); 9] = [
        ("no fields", &[]),
        ("a key longer than the record", &[0, 0, 0, 20, 1, 0]),
        ("a value longer than the record", &[0, 0, 0, 1, 20, 0]),
        ("a negative number of headers", &[0, 0, 0, 1, 1, 1]),
        ("more headers than there are", &[0, 0, 0, 1, 1, 2]),
        ("a header with a negative length", &[0, 0, 0, 1, 1, 2, 1, 1]),
        ("a header longer than the record", &[0, 0, 0, 1, 1, 2, 20, 1]),
        ("a header value longer than the record", &[0, 0, 0, 1, 1, 2, 2, b'x', 20]),
        ("bytes after the headers", &[0, 0, 0, 1, 1, 0, 9]),
    ];
    for (what, fields) in cases {
        refused(what, &Batch::of_one(fields), ResponseError::InvalidRecord);
    }
}

fn compressed(codec: i16, bytes: &[u8]) -> Vec<u8> {
    match codec {
        1 => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        }
        2 => snap::raw::Encoder::new().compress_vec(bytes).unwrap(),
        3 => {
            let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        }
        _ => zstd::encode_all(bytes, 3).unwrap(),
    }
}

#[test]
fn compressed_records_are_validated_too() {
    let valid = Batch::valid();
    let (invalid, unexpected) = (ResponseError::InvalidRecord, ResponseError::UnknownServerError);
    let key = sized(&[0, 0, 0, 20, 1, 0]);
    let trailing = [&valid.records[..], &[0]].concat();
    for codec in 1..=4 {
        let of = |count: i32, records: Vec<u8>| Batch {
            attributes: codec,
            count,
            last_offset_delta: count - 1,
            records,
            ..valid.clone()
        };
        let two = compressed(codec, &valid.records);
        let cut = two[..two.len() - 1].to_vec();
        let cases = [
            ("fewer records than counted", of(3, two.clone()), invalid),
            ("more records than counted", of(1, two), invalid),
            ("a key longer than the record", of(1, compressed(codec, &key)), invalid),
            ("bytes after the records", of(2, compressed(codec, &trailing)), invalid),
            ("an incomplete stream", of(2, cut), unexpected),
            ("bytes that are not compressed", of(2, b"this is not compressed at all".to_vec()), unexpected),
        ];
        let topic = topic(1);
        let mut raw = Raw::to_leader_of(&topic, 0);
        for (what, batch, error) in cases {
            let refused = produce(&mut raw, &topic, None, batch.encode());
            assert_eq!(refused.error_code, error.code(), "codec {codec}: {what}");
        }
        let accepted = produce(&mut raw, &topic, None, of(2, compressed(codec, &valid.records)).encode());
        assert_eq!((accepted.error_code, accepted.base_offset), (0, 0));
    }
    for codec in 5..=7 {
        let batch = Batch { attributes: codec, ..valid.clone() };
        refused(&format!("codec {codec}"), &batch, unexpected);
    }
}

#[test]
fn the_largest_timestamp_of_the_records_replaces_a_wrong_one() {
    let topic = topic(1);
    let mut raw = Raw::to_leader_of(&topic, 0);
    for max_timestamp in [TIMESTAMP + 1, TIMESTAMP + 1000, -1, 0] {
        let batch = Batch { max_timestamp, ..Batch::valid() };
        assert_eq!(produce(&mut raw, &topic, None, batch.encode()).error_code, 0);
    }
    let partition = FetchPartition::default().with_partition_max_bytes(100_000);
    let wanted = FetchTopic::default().with_topic(text(&topic).into()).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(10_000)
        .with_min_bytes(300)
        .with_max_bytes(i32::MAX)
        .with_session_epoch(-1)
        .with_topics(vec![wanted]);
    let fetched = raw.call(11, &request);
    let records = fetched.responses[0].partitions[0].records.clone().unwrap();
    let size = Batch::valid().encode().len();
    let stored: Vec<&[u8]> = records.chunks(size).collect();
    assert_eq!(stored.len(), 4);
    for batch in stored {
        assert_eq!(batch[35..43], (TIMESTAMP + 1).to_be_bytes());
        assert_eq!(batch[17..21], crc32c::crc32c(&batch[21..]).to_be_bytes());
    }
    assert_eq!(values(&topic, "read_committed"), ["a", "b"].repeat(4));
}
