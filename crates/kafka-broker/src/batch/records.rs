//! Reads the records within a batch, as `DefaultRecord.readFrom` of Apache Kafka does.

use std::io::{self, BufRead, ErrorKind};
use std::ops::ControlFlow;

use kafka_protocol::ResponseError;

use super::{BatchHeader, Codec, HEADER, compression};

/// Holds what the broker reads of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHead {
    pub offset_delta: i32,
    pub timestamp: i64,
    pub has_key: bool,
}

/// Passes each record of the batch to `visit`, until it breaks. Decompresses the records when they are compressed.
///
/// # Errors
/// INVALID_RECORD when the bytes are not exactly as many records as the header counts, MESSAGE_TOO_LARGE when they
/// inflate to too many bytes, and UNKNOWN_SERVER_ERROR when they do not decompress, as Apache Kafka reports it.
pub fn for_each<T>(
    batch: &[u8],
    header: &BatchHeader,
    visit: impl FnMut(RecordHead) -> ControlFlow<T>,
) -> Result<Option<T>, ResponseError> {
    let records = batch.get(HEADER..).ok_or(ResponseError::InvalidRecord)?;
    match header.codec()? {
        Codec::None => walk(records, header, visit),
        codec => walk(compression::inflate(codec, records).map_err(unreadable)?, header, visit),
    }
}

fn walk<R: BufRead, T>(
    mut reader: R,
    header: &BatchHeader,
    mut visit: impl FnMut(RecordHead) -> ControlFlow<T>,
) -> Result<Option<T>, ResponseError> {
    for _ in 0..header.record_count {
        if let ControlFlow::Break(found) = visit(record(&mut reader, header)?) {
            return Ok(Some(found));
        }
    }
    let rest = reader.fill_buf().map_err(unreadable)?;
    if rest.is_empty() { Ok(None) } else { Err(ResponseError::InvalidRecord) }
}

fn record<R: BufRead>(reader: &mut R, header: &BatchHeader) -> Result<RecordHead, ResponseError> {
    let size = varint(|| byte(reader))?;
    let left = usize::try_from(size).map_err(|_| ResponseError::InvalidRecord)?;
    let mut body = Body { reader, left };
    body.byte()?;
    let timestamp_delta = varlong(|| body.byte())?;
    let offset_delta = body.varint()?;
    let has_key = body.skip_nullable()?;
    body.skip_nullable()?;
    let headers = body.varint()?;
    // Each header has at least two bytes, so a wrong number ends with the record.
    for _ in 0..u32::try_from(headers).map_err(|_| ResponseError::InvalidRecord)? {
        let name = body.varint()?;
        body.skip(u32::try_from(name).map_err(|_| ResponseError::InvalidRecord)? as usize)?;
        body.skip_nullable()?;
    }
    if body.left > 0 {
        return Err(ResponseError::InvalidRecord);
    }
    let timestamp = if header.has_log_append_time() {
        header.max_timestamp
    } else {
        header.base_timestamp.wrapping_add(timestamp_delta)
    };
    Ok(RecordHead { offset_delta, timestamp, has_key })
}

/// Reads the bytes of one record, and no more.
struct Body<'a, R> {
    reader: &'a mut R,
    left: usize,
}

impl<R: BufRead> Body<'_, R> {
    fn take(&mut self, count: usize) -> Result<(), ResponseError> {
        self.left = self.left.checked_sub(count).ok_or(ResponseError::InvalidRecord)?;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, ResponseError> {
        self.take(1)?;
        byte(self.reader)
    }

    fn varint(&mut self) -> Result<i32, ResponseError> {
        varint(|| self.byte())
    }

    /// Skips bytes that follow their length, and returns whether there are any. A negative length means null.
    fn skip_nullable(&mut self) -> Result<bool, ResponseError> {
        let length = self.varint()?;
        self.skip(usize::try_from(length).unwrap_or_default())?;
        Ok(length >= 0)
    }

    fn skip(&mut self, mut count: usize) -> Result<(), ResponseError> {
        self.take(count)?;
        while count > 0 {
            let available = self.reader.fill_buf().map_err(unreadable)?.len().min(count);
            if available == 0 {
                return Err(ResponseError::InvalidRecord);
            }
            self.reader.consume(available);
            count -= available;
        }
        Ok(())
    }
}

fn byte<R: BufRead>(reader: &mut R) -> Result<u8, ResponseError> {
    let buffer = reader.fill_buf().map_err(unreadable)?;
    let byte = *buffer.first().ok_or(ResponseError::InvalidRecord)?;
    reader.consume(1);
    Ok(byte)
}

/// Reads a zigzag varint of at most 5 bytes (`ByteUtils.readVarint`).
fn varint(next: impl FnMut() -> Result<u8, ResponseError>) -> Result<i32, ResponseError> {
    let value = unsigned(5, next)? as u32;
    Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
}

/// Reads a zigzag varint of at most 10 bytes (`ByteUtils.readVarlong`).
fn varlong(next: impl FnMut() -> Result<u8, ResponseError>) -> Result<i64, ResponseError> {
    let value = unsigned(10, next)?;
    Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
}

fn unsigned(longest: u32, mut next: impl FnMut() -> Result<u8, ResponseError>) -> Result<u64, ResponseError> {
    let mut value = 0;
    for index in 0..longest {
        let byte = next()?;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(ResponseError::InvalidRecord)
}

pub fn unreadable(error: io::Error) -> ResponseError {
    match error.kind() {
        ErrorKind::FileTooLarge => ResponseError::MessageTooLarge,
        _ => ResponseError::UnknownServerError,
    }
}
