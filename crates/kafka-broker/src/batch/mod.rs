//! Reads, validates and places record batches of format v2, and writes control batches.
//!
//! The CRC does not cover the base offset and the leader epoch. So a batch is stored as it was received, compressed or
//! not, with these two rewritten. In a topic with LogAppendTime, or when the header has a wrong maximum, its timestamp
//! and CRC are rewritten too. A topic with a codec of its own has its batches compressed again.
//! <https://kafka.apache.org/documentation/#recordbatch>

mod compression;
mod records;
mod rules;

use std::ops::ControlFlow;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use rules::RecordCheck;
pub use rules::{InvalidBatch, MAX_NAMED, Rules};

/// Size of base offset and length, which precede the bytes that the length counts.
const LOG_OVERHEAD: usize = 12;
const HEADER: usize = 61;
const LENGTH: usize = 8;
const CRC_END: usize = 21;
const MAX_TIMESTAMP: usize = 35;
const MAGIC: i8 = 2;
const CODEC_MASK: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
/// The leader epoch of every partition: its leader never changes.
pub const LEADER_EPOCH: i32 = 0;

/// `CompressionType`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Codec {
    /// Returns the codec that `compression.type` names. `producer` names none.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "uncompressed" => Some(Self::None),
            "gzip" => Some(Self::Gzip),
            "snappy" => Some(Self::Snappy),
            "lz4" => Some(Self::Lz4),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

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
    /// `UnifiedLog.analyzeAndValidateRecords` and `LogValidator` do. The maximum timestamp of the returned header is that of
    /// the records: only the broker sets LogAppendTime.
    pub fn validate(records: &[u8], request_version: i16, rules: &Rules) -> Result<Self, InvalidBatch> {
        let received = Self::validate_header(records, request_version)?;
        let mut header = Self { attributes: received.attributes & !LOG_APPEND_TIME, ..received.clone() };
        let mut check = RecordCheck::new(rules, &received);
        header.max_timestamp = header.validate_records(records, &mut check)?;
        check.finish()?;
        Ok(header)
    }

    fn validate_header(records: &[u8], request_version: i16) -> Result<Self, ResponseError> {
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
        if header.codec()? == Codec::Zstd && request_version < 7 {
            return Err(ResponseError::UnsupportedCompressionType);
        }
        let (head, covered) = records.split_at_checked(CRC_END).ok_or(ResponseError::InvalidRecord)?;
        if !head.ends_with(&crc32c::crc32c(covered).to_be_bytes()) {
            return Err(ResponseError::CorruptMessage);
        }
        let count_from_offsets = i64::from(header.last_offset_delta) + 1;
        let lacks_sequence = header.producer_id >= 0 && header.base_sequence < 0;
        if header.base_offset != 0
            || count_from_offsets <= 0
            || count_from_offsets != i64::from(header.record_count)
            || header.is_control()
            || lacks_sequence
        {
            return Err(ResponseError::InvalidRecord);
        }
        Ok(header)
    }

    /// Returns the maximum timestamp of the records, which must be numbered from 0.
    fn validate_records(&self, batch: &[u8], check: &mut RecordCheck) -> Result<i64, ResponseError> {
        let mut max_timestamp = -1;
        let mut next = 0..self.record_count;
        let misplaced = records::for_each(batch, self, |record| {
            max_timestamp = max_timestamp.max(record.timestamp);
            check.check(&record);
            if next.next() == Some(record.offset_delta) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        if misplaced.is_some() { Err(ResponseError::InvalidRecord) } else { Ok(max_timestamp) }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Returns whether the validation of these bytes decompresses or compresses, and so takes long.
    pub fn takes_long(records: &[u8], rules: &Rules) -> bool {
        let codec = Self::read(records).map(|header| header.attributes & CODEC_MASK);
        codec != Some(0) || rules.codec.is_some_and(|codec| codec != Codec::None)
    }

    fn has_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// Returns the codec. Apache Kafka reports an unknown one as an unexpected error.
    fn codec(&self) -> Result<Codec, ResponseError> {
        match self.attributes & CODEC_MASK {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            _ => Err(ResponseError::UnknownServerError),
        }
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

/// Returns the batch with its records in this codec, or `None` when they have it. Its checksum is valid.
pub fn recompressed(batch: &[u8], codec: Codec, max_bytes: usize) -> Result<Option<Bytes>, ResponseError> {
    let header = BatchHeader::read(batch).ok_or(ResponseError::InvalidRecord)?;
    let current = header.codec()?;
    if current == codec {
        return Ok(None);
    }
    let (head, records) = batch.split_at_checked(HEADER).ok_or(ResponseError::InvalidRecord)?;
    let inflated = compression::inflate(current, records).map_err(records::unreadable)?;
    let records = compression::deflate(codec, inflated, max_bytes).map_err(records::unreadable)?;
    let mut out = BytesMut::with_capacity(HEADER + records.len());
    out.extend(head);
    out.extend(&records);
    let length = ((HEADER - LOG_OVERHEAD + records.len()) as i32).to_be_bytes();
    let attributes = (header.attributes & !(CODEC_MASK | LOG_APPEND_TIME) | codec as i16).to_be_bytes();
    put(&mut out, LENGTH, &length);
    put(&mut out, CRC_END, &attributes);
    seal(&mut out);
    Ok(Some(out.freeze()))
}

/// Returns a copy of `batch` with this maximum timestamp, which is the time of all records in a topic with LogAppendTime
/// (`DefaultRecordBatch.setMaxTimestamp`).
pub fn stamped(batch: &[u8], max_timestamp: i64, log_append_time: bool) -> Bytes {
    let mut stamped = BytesMut::from(batch);
    let Some(header) = BatchHeader::read(batch) else { return stamped.freeze() };
    let time_type = if log_append_time { LOG_APPEND_TIME } else { 0 };
    let attributes = (header.attributes & !LOG_APPEND_TIME | time_type).to_be_bytes();
    put(&mut stamped, CRC_END, &attributes);
    put(&mut stamped, MAX_TIMESTAMP, &max_timestamp.to_be_bytes());
    seal(&mut stamped);
    stamped.freeze()
}

/// Sets the checksum of a batch.
fn seal(batch: &mut BytesMut) {
    let crc = crc32c::crc32c(batch.get(CRC_END..).unwrap_or_default()).to_be_bytes();
    put(batch, CRC_END - crc.len(), &crc);
}

fn put(batch: &mut BytesMut, at: usize, bytes: &[u8]) {
    if let Some(field) = batch.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
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
pub fn first_at_or_after(batch: &[u8], timestamp: i64, from: i64) -> Option<(i64, i64)> {
    let header = BatchHeader::read(batch)?;
    let found = records::for_each(batch, &header, |record| {
        let offset = header.base_offset.saturating_add(record.offset_delta.into());
        if record.timestamp < timestamp || offset < from {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break((record.timestamp, offset))
    });
    found.ok()?
}

#[cfg(test)]
pub mod tests;
