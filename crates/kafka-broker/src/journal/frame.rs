//! Encodes and finds frames: payloads with a length and a checksum.
//!
//! ```text
//! frame = u32 length, u32 crc32c(length, payload), payload     (big-endian, length >= 1)
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use bytes::{BufMut, Bytes, BytesMut};

pub const HEADER: usize = 8;
/// More than the largest request (100 MiB), since every entry comes from one request.
const MAX_PAYLOAD: usize = 128 * 1024 * 1024;

/// Appends the frame of this payload.
pub fn encode(payload: &[u8], out: &mut BytesMut) -> io::Result<()> {
    if payload.is_empty() || payload.len() > MAX_PAYLOAD {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a journal entry is empty or too large"));
    }
    let length = payload.len() as u32;
    out.reserve(HEADER + payload.len());
    out.put_u32(length);
    out.put_u32(checksum(length, payload));
    out.put_slice(payload);
    Ok(())
}

/// Reads the next frame of a reader that has `available` bytes left. Returns its payload, or `None` when no complete, valid
/// frame begins there.
pub fn next(reader: &mut impl Read, available: u64) -> io::Result<Option<Bytes>> {
    let Some(room) = available.checked_sub(HEADER as u64) else { return Ok(None) };
    let (mut length, mut crc) = ([0; 4], [0; 4]);
    reader.read_exact(&mut length)?;
    reader.read_exact(&mut crc)?;
    let length = u32::from_be_bytes(length);
    if length == 0 || length as usize > MAX_PAYLOAD || u64::from(length) > room {
        return Ok(None);
    }
    let mut payload = vec![0; length as usize];
    reader.read_exact(&mut payload)?;
    let valid = checksum(length, &payload) == u32::from_be_bytes(crc);
    Ok(valid.then(|| payload.into()))
}

/// Returns the position of the first valid frame that begins at `from` or at any byte after it.
pub fn find(file: &File, from: u64, file_length: u64) -> io::Result<Option<u64>> {
    // A crash leaves at most one incomplete write. A remainder longer than one frame is certainly damage.
    let largest = (HEADER + MAX_PAYLOAD) as u64;
    if file_length.saturating_sub(from) > largest {
        return Ok(Some(from));
    }
    let mut rest = vec![0; file_length.saturating_sub(from) as usize];
    file.read_exact_at(&mut rest, from)?;
    let found = rest.windows(HEADER).enumerate().find(|(at, header)| {
        let Some((&length, tail)) = header.split_first_chunk::<4>() else {
            return false;
        };
        let length = u32::from_be_bytes(length);
        let start = at + HEADER;
        length > 0
            && rest
                .get(start..start.saturating_add(length as usize))
                .is_some_and(|payload| checksum(length, payload).to_be_bytes() == *tail)
    });
    Ok(found.map(|(at, _)| from + at as u64))
}

/// Returns the checksum of a frame. It covers the length too, so that zeros are not a valid frame.
fn checksum(length: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_be_bytes()), payload)
}
