//! Decodes requests without trusting the lengths in them.
//!
//! kafka-protocol allocates as many elements as an array announces, before it reads them. A request of twenty bytes could
//! thus ask for more memory than the machine has, which aborts the process. And arrays of small elements take many times
//! their size in the request. So a request is decoded twice. The first pass reads through a buffer that counts what is
//! read, fails beyond [`MAX_FIELDS`], and shows the decoder no number that is larger than what may still be read: an array
//! that is longer fails there, and the value of any other number does not matter in that pass. If the number turns out to
//! be the length of bytes, all of them are skipped. A varint beyond the limit fails at once: all varints of a request are
//! lengths, except the numbers of tagged fields (KIP-482), which are small.

use anyhow::{Result, ensure};
use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::Decodable;
use kafka_protocol::protocol::buf::{ByteBuf, NotEnoughBytesError};
use thiserror::Error;

/// Limits the numbers and lengths in a request, each of which takes at most about 100 bytes when decoded. A fetch of
/// 25,000 partitions has fewer.
const MAX_FIELDS: usize = 200_000;
/// Four bytes hold lengths up to 256 MiB, more than the largest request.
const LONGEST_VARINT: usize = 4;

/// Longest text in bytes. Versions that are not flexible cannot express longer ones, so a response of such a version could
/// not name a group with a longer id. Apache Kafka reads no longer text in any version.
pub const MAX_TEXT: usize = i16::MAX as usize;
/// Requests with bytes that may be longer than a text. When they are decoded, bytes and texts look the same.
const WITH_BYTES: [ApiKey; 3] = [ApiKey::Produce, ApiKey::JoinGroup, ApiKey::SyncGroup];

/// Reports a request that would take too much memory.
#[derive(Debug, Error)]
#[error("the request has more than {MAX_FIELDS} fields")]
pub struct TooManyFields;

/// Decodes a request body of this API and version. The handlers of requests with bytes must check their texts with
/// [`check_texts`].
///
/// # Errors
/// [`TooManyFields`], or another error when the body is not such a request, or has a text above [`MAX_TEXT`].
pub fn decode_request<R: Decodable>(body: &Bytes, api_key: i16, version: i16) -> Result<R> {
    let has_bytes = WITH_BYTES.iter().any(|key| *key as i16 == api_key);
    decode_within(body, version, if has_bytes { usize::MAX } else { MAX_TEXT })
}

/// Refuses texts above [`MAX_TEXT`].
pub fn check_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<()> {
    ensure!(texts.into_iter().all(|text| text.len() <= MAX_TEXT), "a text is longer than {MAX_TEXT} bytes");
    Ok(())
}

/// Decodes bytes of this version that a client chose.
///
/// # Errors
/// [`TooManyFields`], or another error when the bytes do not have this type.
pub fn decode<R: Decodable>(body: &Bytes, version: i16) -> Result<R> {
    decode_within(body, version, usize::MAX)
}

/// Decodes a body whose texts and bytes have at most this length.
fn decode_within<R: Decodable>(body: &Bytes, version: i16, longest: usize) -> Result<R> {
    let mut guarded = Guarded {
        bytes: body.clone(),
        left: MAX_FIELDS,
        longest,
        varint: 0,
        unread: 0,
        hidden: None,
        is_varint: false,
    };
    let checked = R::decode(&mut guarded, version);
    // An array that was shown shorter than it is has used up all that was left.
    ensure!(guarded.left > 0, TooManyFields);
    checked?;
    R::decode(&mut body.clone(), version)
}

struct Guarded {
    bytes: Bytes,
    /// Number of fields that may still be read.
    left: usize,
    /// Length of the longest text or bytes.
    longest: usize,
    /// What the decoder has yet to see of a varint.
    varint: usize,
    /// Number of bytes of that varint.
    unread: usize,
    /// The last number and what the decoder was shown of it, if that is smaller.
    hidden: Option<(usize, usize)>,
    /// Whether that number was a varint.
    is_varint: bool,
}

impl Guarded {
    fn too_large(&self) -> TryGetError {
        TryGetError { requested: usize::MAX, available: self.remaining() }
    }

    /// Counts a field. The number before it was no length of bytes.
    fn count(&mut self) -> Result<(), TryGetError> {
        self.unread = 0;
        // A varint that is no length of bytes is that of an array, and this one is too long. It may also be a boolean and the
        // length after it. From here on, the two passes would read different fields.
        if self.hidden.take().is_some() && self.is_varint {
            self.left = 0;
        }
        self.left = self.left.checked_sub(1).ok_or_else(|| self.too_large())?;
        Ok(())
    }

    /// Returns what the decoder is shown of a number: at most `most`.
    fn shown(&mut self, number: usize, most: usize, is_varint: bool) -> usize {
        if number > most {
            self.hidden = Some((number, most));
            self.is_varint = is_varint;
        }
        number.min(most)
    }

    /// Returns value and length of the varint that begins with this byte, which was read.
    fn varint(&self, first: u8) -> Result<(usize, usize), TryGetError> {
        let (mut value, mut byte, mut length) = (usize::from(first & 0x7f), first, 1);
        while byte & 0x80 != 0 {
            byte = *self.bytes.get(length - 1).ok_or_else(|| self.too_large())?;
            value |= usize::from(byte & 0x7f) << (7 * length);
            length += 1;
            if length > LONGEST_VARINT {
                return Err(self.too_large());
            }
        }
        let rest = self.remaining() + 1 - length;
        // A compact length is one more than the length, and 0 means null.
        if value > rest + 1 { Err(self.too_large()) } else { Ok((value, length)) }
    }
}

impl Buf for Guarded {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    /// Follows each read of another type than those below.
    fn advance(&mut self, count: usize) {
        // The next length fails when this was one field too many.
        let _ = self.count();
        self.bytes.advance(count);
    }

    /// Reads every length that is not a varint.
    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        self.count()?;
        let value = self.bytes.try_get_i32()?;
        let too_many = self.remaining().saturating_add(1);
        match usize::try_from(value) {
            Ok(number) => {
                Ok(i32::try_from(self.shown(number.min(too_many), self.left, false)).unwrap_or(i32::MAX))
            }
            Err(_) => Ok(value),
        }
    }

    /// Reads the bytes of varints, and booleans.
    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let byte = self.bytes.try_get_u8()?;
        if self.unread == 0 {
            self.count()?;
            let (value, length) = self.varint(byte)?;
            (self.varint, self.unread) = (self.shown(value, self.left + 1, true), length);
        }
        let low = (self.varint & 0x7f) as u8;
        self.varint >>= 7;
        self.unread -= 1;
        Ok(if self.unread > 0 { low | 0x80 } else { low })
    }
}

impl ByteBuf for Guarded {
    fn peek_bytes(&mut self, range: std::ops::Range<usize>) -> Bytes {
        self.bytes.peek_bytes(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.bytes.get_bytes(size)
    }

    fn try_get_bytes(&mut self, size: usize) -> Result<Bytes, NotEnoughBytesError> {
        self.unread = 0;
        let length = match self.hidden.take() {
            // A compact length is one less than its number.
            Some((number, shown)) if size + 1 >= shown => number - (shown - size),
            Some(_) => return Err(NotEnoughBytesError),
            None => size,
        };
        if length > self.longest.min(self.remaining()) {
            Err(NotEnoughBytesError)
        } else {
            Ok(self.bytes.split_to(length))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{
        DescribeGroupsRequest, FetchRequest, MetadataRequest, ProduceRequest, WriteTxnMarkersRequest,
    };
    use kafka_protocol::protocol::{Encodable, StrBytes};
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
    fn arrays_with_too_many_elements_are_refused_whether_they_hold_them_or_not() {
        let names = |count: usize| {
            let topic = MetadataRequestTopic::default().with_name(Some(Default::default()));
            let request = MetadataRequest::default().with_topics(Some(vec![topic; count]));
            [1, 4, 9].map(|version| {
                let mut body = BytesMut::new();
                request.encode(&mut body, version).unwrap();
                decode::<MetadataRequest>(&body.freeze(), version)
            })
        };
        for decoded in names(MAX_FIELDS / 2 - 10) {
            assert_eq!(decoded.unwrap().topics.unwrap().len(), MAX_FIELDS / 2 - 10);
        }
        for refused in names(MAX_FIELDS) {
            assert!(refused.unwrap_err().is::<TooManyFields>());
        }
        // As many topics as the request has bytes would take some gigabytes.
        let mut body = vec![0; 100 << 20];
        body[..12].copy_from_slice(&[0xff, 0xff, 0, 1, 0, 0, 0, 0, 6, 0x3f, 0xff, 0xf0]);
        assert!(decode::<ProduceRequest>(&body.into(), 3).unwrap_err().is::<TooManyFields>());
        // The same in a flexible version: an empty name, no partitions, no tagged fields.
        let mut body = vec![0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x30];
        body.extend([1, 1, 0].repeat((100 << 20) / 3 - 10));
        assert!(decode::<ProduceRequest>(&body.into(), 9).unwrap_err().is::<TooManyFields>());
    }

    #[test]
    fn a_boolean_that_joins_the_length_after_it_hides_no_element_from_the_check() {
        // One marker: producer id and epoch, a boolean that looks like the begin of a varint, and 1,599 topics.
        let mut body = vec![2; 1];
        body.extend([0; 10]);
        body.extend([0x81, 0xc0, 0x0c]);
        body.extend([1, 1, 0].repeat(1_599));
        body.resize(300_000, 0);
        let refused = decode::<WriteTxnMarkersRequest>(&body.into(), 1).unwrap_err();
        assert!(refused.is::<TooManyFields>(), "{refused}");
    }

    #[test]
    fn an_unknown_tagged_field_may_be_large() {
        let mut request = ProduceRequest::default();
        request.unknown_tagged_fields.insert(7, vec![1; 3_000_000].into());
        let mut body = BytesMut::new();
        request.encode(&mut body, 9).unwrap();
        assert_eq!(decode::<ProduceRequest>(&body.freeze(), 9).unwrap(), request);
    }

    #[test]
    fn a_text_is_at_most_as_long_as_versions_that_are_not_flexible_allow() {
        let of = |length: usize| {
            let id = StrBytes::from_string("x".repeat(length));
            let request = DescribeGroupsRequest::default().with_groups(vec![id.into()]);
            let mut body = BytesMut::new();
            request.encode(&mut body, 5).unwrap();
            decode_request::<DescribeGroupsRequest>(&body.freeze(), ApiKey::DescribeGroups as i16, 5)
        };
        assert!(of(MAX_TEXT).is_ok());
        assert!(of(MAX_TEXT + 1).is_err());
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
