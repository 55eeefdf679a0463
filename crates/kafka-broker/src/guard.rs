//! Decodes requests without trusting the lengths in them.
//!
//! kafka-protocol allocates as many elements as an array announces, before it reads them. A request of twenty bytes could
//! thus ask for more memory than the machine has, which aborts the process. So a request is decoded twice. The first pass
//! reads through a buffer that limits every number to the bytes that remain: an array or string that is longer fails
//! there, and the value of any other number does not matter in that pass.

use anyhow::Result;
use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::Decodable;
use kafka_protocol::protocol::buf::ByteBuf;

/// Three bytes hold lengths up to two million; requests of the served versions have no longer ones as varints.
const LONGEST_VARINT: u8 = 3;

/// Decodes a request body of this version.
pub fn decode<R: Decodable>(body: &Bytes, version: i16) -> Result<R> {
    let mut guarded = Guarded { bytes: body.clone(), continued: 0 };
    R::decode(&mut guarded, version)?;
    R::decode(&mut body.clone(), version)
}

struct Guarded {
    bytes: Bytes,
    /// Consecutive bytes so far whose continuation bit is set.
    continued: u8,
}

impl Buf for Guarded {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    /// Reads every length that is not a varint.
    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        let value = self.bytes.try_get_i32()?;
        let too_many = self.remaining().saturating_add(1);
        Ok(value.min(i32::try_from(too_many).unwrap_or(i32::MAX)))
    }

    /// Reads the bytes of varints, and booleans.
    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let byte = self.bytes.try_get_u8()?;
        self.continued = if byte & 0x80 == 0 { 0 } else { self.continued + 1 };
        if self.continued >= LONGEST_VARINT {
            return Err(TryGetError { requested: usize::MAX, available: self.remaining() });
        }
        Ok(byte)
    }
}

impl ByteBuf for Guarded {
    fn peek_bytes(&mut self, range: std::ops::Range<usize>) -> Bytes {
        self.bytes.peek_bytes(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.bytes.get_bytes(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::{FetchRequest, MetadataRequest, ProduceRequest};
    use proptest::prelude::*;

    #[test]
    fn an_array_longer_than_its_request_is_refused_before_memory_is_allocated() {
        for announced in [i32::MAX, 5, 1] {
            let body = Bytes::copy_from_slice(&announced.to_be_bytes());
            assert!(decode::<MetadataRequest>(&body, 0).is_err());
        }
        for varint in [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0xff, 0xff, 0x7f]] {
            let body = Bytes::copy_from_slice(varint);
            assert!(decode::<MetadataRequest>(&body, 9).is_err());
        }
    }

    #[test]
    fn large_numbers_that_are_not_lengths_are_unchanged() {
        let mut body = Vec::new();
        for field in [-1, i32::MAX, 1, i32::MAX] {
            body.extend(field.to_be_bytes());
        }
        body.push(1);
        body.extend(0_i32.to_be_bytes());
        let request: FetchRequest = decode(&body.into(), 4).unwrap();
        assert_eq!((request.max_wait_ms, request.max_bytes), (i32::MAX, i32::MAX));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), version in 0..9_i16) {
            let bytes = Bytes::from(bytes);
            let _ = decode::<ProduceRequest>(&bytes, version);
            let _ = decode::<MetadataRequest>(&bytes, version);
        }
    }
}
