//! Reads, validates and places record batches of format v2, and writes control batches.
//!
//! The CRC does not cover the base offset and the leader epoch. So a batch is stored as it was received, compressed or
//! not, with these two rewritten. In a topic with LogAppendTime its timestamp and CRC are rewritten too.
//! <https://kafka.apache.org/documentation/#recordbatch>

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;

/// Size of base offset and length, which precede the bytes that the length counts.
const LOG_OVERHEAD: usize = 12;
const HEADER: usize = 61;
const CRC_END: usize = 21;
const MAX_TIMESTAMP: usize = 35;
const MAGIC: i8 = 2;
const CODEC_MASK: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
const ZSTD: i16 = 4;
/// The leader epoch of every partition: its leader never changes.
pub const LEADER_EPOCH: i32 = 0;

/// Holds the fields of a batch header that the broker uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header of a batch that was validated before. Returns `None` when the bytes are too few for one.
    pub fn read(mut batch: &[u8]) -> Option<Self> {
        if batch.len() < HEADER {
            return None;
        }
        let base_offset = batch.get_i64();
        batch.advance(CRC_END - size_of::<i64>());
        Some(Self {
            base_offset,
            attributes: batch.get_i16(),
            last_offset_delta: batch.get_i32(),
            base_timestamp: batch.get_i64(),
            max_timestamp: batch.get_i64(),
            producer_id: batch.get_i64(),
            producer_epoch: batch.get_i16(),
            base_sequence: batch.get_i32(),
            record_count: batch.get_i32(),
        })
    }

    /// Validates what a client wants to append to one partition, as `ProduceRequest.validateRecords`,
    /// `UnifiedLog.analyzeAndValidateRecords` and `LogValidator.validateBatch` do.
    pub fn validate(records: &[u8], request_version: i16) -> Result<Self, ResponseError> {
        let mut prefix = records.get(size_of::<i64>()..).ok_or(ResponseError::InvalidRecord)?;
        let length = prefix.try_get_i32().map_err(|_| ResponseError::InvalidRecord)?;
        let length = usize::try_from(length).map_err(|_| ResponseError::CorruptMessage)?;
        let size = length.saturating_add(LOG_OVERHEAD);
        if size < HEADER {
            return Err(ResponseError::CorruptMessage);
        }
        // With fewer bytes the batch is incomplete. More bytes are a second batch, which Produce v3+ forbids.
        if size != records.len() || records.get(16) != Some(&(MAGIC as u8)) {
            return Err(ResponseError::InvalidRecord);
        }
        let header = Self::read(records).ok_or(ResponseError::InvalidRecord)?;
        if request_version < 7 && header.attributes & CODEC_MASK == ZSTD {
            return Err(ResponseError::UnsupportedCompressionType);
        }
        let (head, covered) = records.split_at_checked(CRC_END).ok_or(ResponseError::InvalidRecord)?;
        if !head.ends_with(&crc32c::crc32c(covered).to_be_bytes()) {
            return Err(ResponseError::CorruptMessage);
        }
        let count_from_offsets = i64::from(header.last_offset_delta) + 1;
        let lacks_sequence = header.producer_id >= 0 && header.base_sequence < 0;
        if count_from_offsets <= 0
            || count_from_offsets != i64::from(header.record_count)
            || header.is_control()
            || lacks_sequence
        {
            return Err(ResponseError::InvalidRecord);
        }
        Ok(header)
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub fn is_compressed(&self) -> bool {
        self.attributes & CODEC_MASK != 0
    }

    fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Returns the last sequence number. Sequence numbers wrap around to 0
    /// (`DefaultRecordBatch.incrementSequence`).
    pub fn last_sequence(&self) -> i32 {
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last % (i64::from(i32::MAX) + 1)) as i32
    }
}

/// Returns a copy of `batch` that begins at `base_offset`.
pub fn placed_at(batch: &[u8], base_offset: i64) -> Bytes {
    let mut placed = BytesMut::with_capacity(batch.len());
    placed.put_i64(base_offset);
    placed.extend(batch.get(8..12).unwrap_or_default());
    placed.put_i32(LEADER_EPOCH);
    placed.extend(batch.get(16..).unwrap_or_default());
    placed.freeze()
}

/// Returns a copy of `batch` whose records all have the time of the append
/// (`DefaultRecordBatch.setMaxTimestamp`).
pub fn stamped(batch: &[u8], timestamp: i64) -> Bytes {
    let mut stamped = BytesMut::from(batch);
    let Some(header) = BatchHeader::read(batch) else { return stamped.freeze() };
    let attributes = (header.attributes | LOG_APPEND_TIME).to_be_bytes();
    for (at, bytes) in [(CRC_END, &attributes[..]), (MAX_TIMESTAMP, &timestamp.to_be_bytes()[..])] {
        if let Some(field) = stamped.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    }
    let crc = crc32c::crc32c(stamped.get(CRC_END..).unwrap_or_default()).to_be_bytes();
    if let Some(field) = stamped.get_mut(CRC_END - crc.len()..CRC_END) {
        field.copy_from_slice(&crc);
    }
    stamped.freeze()
}

/// Returns the control batch that ends a producer's transaction in one partition (KIP-98).
pub fn end_marker(
    base_offset: i64,
    timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    committed: bool,
) -> Bytes {
    // The batch has one record, with lengths as zigzag varints. Its key is version 0 and the type; its value is
    // version 0 and the coordinator's epoch, which never changes here.
    let record: [u8; 17] =
        [16 << 1, 0, 0, 0, 4 << 1, 0, 0, 0, u8::from(committed), 6 << 1, 0, 0, 0, 0, 0, 0, 0];
    let mut covered = BytesMut::with_capacity(HEADER - CRC_END + record.len());
    covered.put_i16(TRANSACTIONAL | CONTROL);
    covered.put_i32(0);
    covered.put_i64(timestamp);
    covered.put_i64(timestamp);
    covered.put_i64(producer_id);
    covered.put_i16(producer_epoch);
    covered.put_i32(-1);
    covered.put_i32(1);
    covered.put_slice(&record);

    let mut batch = BytesMut::with_capacity(HEADER + record.len());
    batch.put_i64(base_offset);
    batch.put_i32((CRC_END - LOG_OVERHEAD + covered.len()) as i32);
    batch.put_i32(LEADER_EPOCH);
    batch.put_i8(MAGIC);
    batch.put_u32(crc32c::crc32c(&covered));
    batch.put(covered);
    batch.freeze()
}

/// Returns timestamp and offset of the first record from the offset `from` on whose timestamp is at least `timestamp`.
///
/// A compressed batch is not decompressed: its first record is returned, which is never too late.
pub fn first_at_or_after(batch: &[u8], timestamp: i64, from: i64) -> Option<(i64, i64)> {
    let header = BatchHeader::read(batch)?;
    let first_offset = header.base_offset.max(from);
    if header.attributes & LOG_APPEND_TIME != 0 {
        return (header.max_timestamp >= timestamp).then_some((header.max_timestamp, first_offset));
    }
    let first = (header.base_timestamp, first_offset);
    if header.is_compressed() {
        return Some(first);
    }
    let mut records = batch.get(HEADER..)?;
    for _ in 0..header.record_count {
        let length = usize::try_from(varint(&mut records)?).ok()?;
        let (mut record, rest) = records.split_at_checked(length)?;
        records = rest;
        record.try_get_i8().ok()?;
        let record_timestamp = header.base_timestamp.checked_add(varint(&mut record)?)?;
        let offset = header.base_offset.checked_add(varint(&mut record)?)?;
        if record_timestamp >= timestamp && offset >= from {
            return Some((record_timestamp, offset));
        }
    }
    None
}

/// Reads a zigzag varint of up to 64 bits.
fn varint(buffer: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = buffer.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        assert_eq!(BatchHeader::validate(&marker, 8), Err(ResponseError::InvalidRecord));
    }

    #[test]
    fn placing_a_batch_keeps_its_checksum() {
        let batch = placed_at(&end_marker(0, 1, 2, 3, false), 99);
        assert_eq!(BatchHeader::read(&batch).unwrap().base_offset, 99);
        assert_eq!(batch[17..21], crc32c::crc32c(&batch[21..]).to_be_bytes());
    }

    #[test]
    fn a_stamped_batch_has_the_time_and_a_valid_checksum() {
        let batch = stamped(&end_marker(3, 1, 2, 3, false), 99);
        assert_eq!(BatchHeader::read(&batch).unwrap().max_timestamp, 99);
        assert_eq!(batch[17..21], crc32c::crc32c(&batch[21..]).to_be_bytes());
        assert_eq!(first_at_or_after(&batch, 99, 0), Some((99, 3)));
        assert_eq!(first_at_or_after(&batch, 100, 0), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), timestamp: i64) {
            let _ = BatchHeader::validate(&bytes, 8);
            let _ = first_at_or_after(&bytes, timestamp, 0);
            let _ = placed_at(&bytes, 1);
            let _ = stamped(&bytes, timestamp);
        }
    }
}
