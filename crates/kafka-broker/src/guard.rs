//! Decodes requests without trusting the lengths in them.
//!
//! kafka-protocol allocates as many elements as an array announces, before it reads them. A request of twenty bytes could
//! thus ask for more memory than the machine has, which aborts the process. So a request is decoded twice. The first pass
//! reads through a buffer that limits every number to the bytes that remain: an array or string that is longer fails
//! there, and the value of any other number does not matter in that pass. A varint beyond the limit fails at once: all
//! varints of a request are lengths, except the numbers of tagged fields (KIP-482), which are small.

use anyhow::Result;
use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::Decodable;
use kafka_protocol::protocol::buf::ByteBuf;

/// Four bytes hold lengths up to 256 MiB, more than the largest request.
const LONGEST_VARINT: u32 = 4;

/// Decodes a request body of this version.
pub fn decode<R: Decodable>(body: &Bytes, version: i16) -> Result<R> {
    let mut guarded = Guarded { bytes: body.clone(), varint: 0, read: 0 };
    R::decode(&mut guarded, version)?;
    R::decode(&mut body.clone(), version)
}

struct Guarded {
    bytes: Bytes,
    /// The varint that is being read, as far as it is known.
    varint: usize,
    /// Number of its bytes that were read.
    read: u32,
}

impl Guarded {
    fn too_large(&self) -> TryGetError {
        TryGetError { requested: usize::MAX, available: self.remaining() }
    }
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

    /// Reads the bytes of varints, and booleans. A compact length is one more than the length, and 0 means null.
    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let byte = self.bytes.try_get_u8()?;
        self.varint |= usize::from(byte & 0x7f) << (7 * self.read);
        self.read += 1;
        if byte & 0x80 != 0 {
            return if self.read < LONGEST_VARINT { Ok(byte) } else { Err(self.too_large()) };
        }
        let value = std::mem::take(&mut self.varint);
        self.read = 0;
        if value > self.remaining() + 1 { Err(self.too_large()) } else { Ok(byte) }
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
    use bytes::BytesMut;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{DescribeGroupsRequest, FetchRequest, MetadataRequest, ProduceRequest};
    use kafka_protocol::protocol::Encodable;
    use proptest::prelude::*;

    #[test]
    fn an_array_longer_than_its_request_is_refused_before_memory_is_allocated() {
        for announced in [i32::MAX, 5, 1] {
            let body = Bytes::copy_from_slice(&announced.to_be_bytes());
            assert!(decode::<MetadataRequest>(&body, 0).is_err());
        }
        for varint in
            [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0x80, 0x80, 0x80, 0x80, 0x7f], &[0xff, 0xff, 0x7f]]
        {
            let body = Bytes::copy_from_slice(varint);
            assert!(decode::<MetadataRequest>(&body, 9).is_err());
        }
        // A boolean whose byte looks like the begin of a varint.
        for boolean in [&[1, 0x80, 0xff, 0xff, 0xff, 0x7f][..], &[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f]] {
            let body = Bytes::copy_from_slice(boolean);
            assert!(decode::<DescribeGroupsRequest>(&body, 5).is_err());
        }
    }

    #[test]
    fn a_compact_length_may_be_as_long_as_the_request() {
        for size in [1, 200, 70_000, 3_000_000] {
            let data = PartitionProduceData::default().with_records(Some(vec![7; size].into()));
            let topic = TopicProduceData::default().with_partition_data(vec![data]);
            let request = ProduceRequest::default().with_topic_data(vec![topic]);
            let mut body = BytesMut::new();
            request.encode(&mut body, 9).unwrap();
            let decoded: ProduceRequest = decode(&body.freeze(), 9).unwrap();
            assert_eq!(decoded, request);
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
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), version in 0..14_i16) {
            let bytes = Bytes::from(bytes);
            let _ = decode::<ProduceRequest>(&bytes, version);
            let _ = decode::<MetadataRequest>(&bytes, version);
        }
    }
}
