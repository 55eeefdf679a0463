use std::io::{Read, Write};

use super::*;
use proptest::prelude::*;

/// Returns the rules of a topic without configs.
pub fn rules() -> Rules {
    Rules {
        needs_keys: false,
        log_append_time: false,
        timestamps: i64::MIN..=i64::MAX,
        codec: None,
        max_bytes: usize::MAX,
    }
}

/// Returns a batch of records with these offsets, timestamps and values, compressed by hand with this codec.
pub fn batch(codec: i16, records: &[(u8, u8, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (offset, timestamp, value) in records {
        let mut record = BytesMut::new();
        record.put_slice(&[0, timestamp << 1, offset << 1, 1]);
        put_varint(&mut record, value.len());
        record.put_slice(value);
        record.put_u8(0);
        let mut sized = BytesMut::new();
        put_varint(&mut sized, record.len());
        sized.put(record);
        bytes.extend(sized);
    }
    of(codec, records.len() as i32, &compressed(codec, &bytes))
}

/// Returns a batch with these bytes for its records.
pub fn of(attributes: i16, count: i32, records: &[u8]) -> Vec<u8> {
    let mut batch = BytesMut::new();
    batch.put_i64(0);
    batch.put_i32((HEADER - LOG_OVERHEAD + records.len()) as i32);
    batch.put_i32(-1);
    batch.put_i8(MAGIC);
    batch.put_u32(0);
    batch.put_i16(attributes);
    batch.put_i32(count - 1);
    batch.put_i64(1000);
    batch.put_i64(1000);
    batch.put_i64(-1);
    batch.put_i16(-1);
    batch.put_i32(-1);
    batch.put_i32(count);
    batch.put_slice(records);
    let crc = crc32c::crc32c(&batch[CRC_END..]).to_be_bytes();
    batch[CRC_END - 4..CRC_END].copy_from_slice(&crc);
    batch.to_vec()
}

fn put_varint(out: &mut BytesMut, length: usize) {
    let mut rest = length << 1;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
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
        4 => zstd::encode_all(bytes, 3).unwrap(),
        _ => bytes.to_vec(),
    }
}

/// Returns records in the framing of snappy-java, in blocks of this size.
fn snappy_java(bytes: &[u8], block: usize) -> Vec<u8> {
    let mut out = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01".to_vec();
    for chunk in bytes.chunks(block) {
        let block = compressed(2, chunk);
        out.extend((block.len() as u32).to_be_bytes());
        out.extend(block);
    }
    out
}

fn refusal(batch: &[u8]) -> Option<ResponseError> {
    BatchHeader::validate(batch, 8, &rules()).err().map(|refused| refused.error)
}

#[test]
fn records_of_each_codec_are_validated_and_found_by_time() {
    let values: [(u8, u8, &[u8]); 3] = [(0, 5, b"a"), (1, 30, b"b"), (2, 7, b"c")];
    for codec in 0..=4 {
        let valid = batch(codec, &values);
        let header = BatchHeader::validate(&valid, 8, &rules()).unwrap();
        assert_eq!(header.max_timestamp, 1030, "codec {codec}");
        assert_eq!(first_at_or_after(&valid, 1006, 0), Some((1030, 1)), "codec {codec}");
        assert_eq!(first_at_or_after(&valid, 1031, 0), None, "codec {codec}");
        let count = of(codec, 4, &valid[HEADER..]);
        assert_eq!(refusal(&count), Some(ResponseError::InvalidRecord), "codec {codec}");
        let count = of(codec, 2, &valid[HEADER..]);
        assert_eq!(refusal(&count), Some(ResponseError::InvalidRecord), "codec {codec}");
        for cut in HEADER..valid.len() - 1 {
            assert!(refusal(&of(codec, 3, &valid[HEADER..cut])).is_some(), "codec {codec} cut at {cut}");
        }
    }
    for codec in 5..=7 {
        assert_eq!(refusal(&batch(codec, &values)), Some(ResponseError::UnknownServerError));
    }
}

#[test]
fn records_must_be_numbered_from_zero() {
    for codec in [0, 4] {
        for offsets in [[0, 2], [1, 2], [1, 0], [0, 0]] {
            let records = offsets.map(|offset| (offset, 0, &b"x"[..]));
            assert_eq!(refusal(&batch(codec, &records)), Some(ResponseError::InvalidRecord), "{offsets:?}");
        }
    }
}

#[test]
fn the_framing_of_snappy_java_is_read() {
    let valid = batch(0, &[(0, 0, b"a value"), (1, 0, b"another value")]);
    for block in [1, 3, 1000] {
        let framed = snappy_java(&valid[HEADER..], block);
        assert_eq!(refusal(&of(2, 2, &framed)), None);
        assert_eq!(refusal(&of(2, 2, &framed[..framed.len() - 1])), Some(ResponseError::UnknownServerError));
    }
    let streams = [snappy_java(&valid[HEADER..HEADER + 20], 7), snappy_java(&valid[HEADER + 20..], 7)];
    assert_eq!(refusal(&of(2, 2, &streams.concat())), None);
}

#[test]
fn what_follows_a_compressed_stream_is_read_as_the_java_client_does() {
    let valid = batch(0, &[(0, 0, b"a value"), (1, 0, b"another value")]);
    let (first, second) = valid[HEADER..].split_at(20);
    let members = [compressed(1, first), compressed(1, second), b"garbage".to_vec()];
    assert_eq!(refusal(&of(1, 2, &members.concat())), None);
    let frames = [compressed(4, first), compressed(4, second)];
    assert_eq!(refusal(&of(4, 2, &frames.concat())), None);
    let lz4 = [compressed(3, &valid[HEADER..]), b"garbage".to_vec()];
    assert_eq!(refusal(&of(3, 2, &lz4.concat())), None);
}

#[test]
fn lz4_frames_that_the_java_client_cannot_read_are_refused() {
    let valid = batch(0, &[(0, 0, b"a value")]);
    let info = lz4_flex::frame::FrameInfo::new().block_mode(lz4_flex::frame::BlockMode::Linked);
    let mut out = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    out.write_all(&valid[HEADER..]).unwrap();
    let linked = out.finish().unwrap();
    assert_eq!(refusal(&of(3, 1, &linked)), Some(ResponseError::UnknownServerError));
}

#[test]
fn a_batch_that_inflates_without_bound_is_refused() {
    let size = compression::MAX_INFLATED;
    let mut record = BytesMut::new();
    put_varint(&mut record, size + 9);
    record.put_slice(&[0, 0, 0, 1]);
    put_varint(&mut record, size);
    let mut bytes = compressed(4, &record);
    let zeros = compressed(4, &[0; 1 << 20]);
    for _ in 0..=size >> 20 {
        bytes.extend(&zeros);
    }
    assert!(bytes.len() < 1 << 20);
    assert_eq!(refusal(&of(4, 1, &bytes)), Some(ResponseError::MessageTooLarge));
    // Snappy announces the size. This one is wrong.
    let bomb = of(2, 1, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
    assert_eq!(refusal(&bomb), Some(ResponseError::MessageTooLarge));
}

#[test]
fn a_snappy_block_inflates_as_far_as_snappy_compresses() {
    for size in [0, 1, 60, 1 << 20] {
        let zeros = vec![0; size];
        let bytes = compressed(2, &zeros);
        let mut inflated = Vec::new();
        compression::inflate(Codec::Snappy, &bytes).unwrap().read_to_end(&mut inflated).unwrap();
        assert_eq!(inflated, zeros);
    }
    // The block announces 127 MiB.
    let mut block = vec![0x80, 0x80, 0x80 | 0x40, 0x3f];
    block.resize(80, 0);
    assert_eq!(snap::raw::decompress_len(&block).unwrap(), 127 << 20);
    let error = compression::inflate(Codec::Snappy, &block).unwrap().read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}

fn header(base_sequence: i32, last_offset_delta: i32) -> BatchHeader {
    BatchHeader {
        base_sequence,
        last_offset_delta,
        ..BatchHeader::read(&end_marker(0, 0, 0, 0, true)).unwrap()
    }
}

#[test]
fn sequences_wrap_around_to_zero() {
    assert_eq!(header(3, 4).last_sequence(), 7);
    assert_eq!(header(i32::MAX, 0).last_sequence(), i32::MAX);
    assert_eq!(header(i32::MAX, 1).last_sequence(), 0);
    assert_eq!(header(i32::MAX - 1, 4).last_sequence(), 2);
}

#[test]
fn a_marker_is_a_complete_control_batch_that_clients_may_not_write() {
    let marker = end_marker(7, 1234, 5, 2, true);
    let read = BatchHeader::read(&marker).unwrap();
    assert_eq!((read.base_offset, read.record_count), (7, 1));
    assert!(read.is_control() && read.is_transactional());
    assert_eq!(first_at_or_after(&marker, 1234, 0), Some((1234, 7)));
    assert_eq!(first_at_or_after(&marker, 1235, 0), None);
    assert_eq!(BatchHeader::validate(&marker, 8, &rules()), Err(ResponseError::InvalidRecord.into()));
}

#[test]
fn placing_a_batch_keeps_its_checksum() {
    let batch = placed_at(&end_marker(0, 1, 2, 3, false), 99);
    assert_eq!(BatchHeader::read(&batch).unwrap().base_offset, 99);
    assert_eq!(batch[17..21], crc32c::crc32c(&batch[21..]).to_be_bytes());
}

#[test]
fn a_stamped_batch_has_the_time_and_a_valid_checksum() {
    let batch = stamped(&end_marker(3, 1, 2, 3, false), 99, true);
    assert_eq!(BatchHeader::read(&batch).unwrap().max_timestamp, 99);
    assert_eq!(batch[17..21], crc32c::crc32c(&batch[21..]).to_be_bytes());
    assert_eq!(first_at_or_after(&batch, 99, 0), Some((99, 3)));
    assert_eq!(first_at_or_after(&batch, 100, 0), None);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), timestamp: i64) {
        let _ = BatchHeader::validate(&bytes, 8, &rules());
        let _ = first_at_or_after(&bytes, timestamp, 0);
        let _ = placed_at(&bytes, 1);
        let _ = stamped(&bytes, timestamp, true);
    }
}

#[test]
fn a_batch_holds_the_same_records_in_every_codec() {
    let long = b"a value ".repeat(20_000);
    let records: [(u8, u8, &[u8]); 2] = [(0, 5, b"a value"), (1, 30, &long)];
    let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    let inflated = |batch: &[u8]| {
        let codec = BatchHeader::read(batch).unwrap().codec().unwrap();
        let mut bytes = Vec::new();
        compression::inflate(codec, &batch[HEADER..]).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    for from in codecs {
        let original = batch(from as i16, &records);
        for to in codecs {
            let Some(compressed) = recompressed(&original, to, 1 << 20).unwrap() else {
                assert_eq!(from, to);
                continue;
            };
            let header = BatchHeader::validate(&compressed, 8, &rules()).unwrap();
            assert_eq!(header.codec(), Ok(to));
            assert_eq!(inflated(&compressed), inflated(&original), "{from:?} to {to:?}");
        }
    }
    let inflating = batch(Codec::Zstd as i16, &records);
    let refused = recompressed(&inflating, Codec::None, 100_000);
    assert_eq!(refused, Err(ResponseError::MessageTooLarge));
}
