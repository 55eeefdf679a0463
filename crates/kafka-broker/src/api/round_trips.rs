//! Checks that requests and responses of every version that is served are encoded and decoded without a change.
//!
//! The values are found by decoding: a buffer without an end invents the numbers that the decoder reads. A number that
//! the decoder refuses, such as the length of a null where null is not allowed, is replaced by the next candidate.

use std::fmt::Debug;

use bytes::{Buf, Bytes, BytesMut, TryGetError};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::buf::ByteBuf;
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request};
use proptest::prelude::*;

use super::{APIS, Api};
use crate::{call, guard};

/// Invents what the decoder reads.
struct Inventor<'a> {
    seed: &'a [u8],
    /// The candidates that were chosen so far.
    choices: Vec<Choice>,
    /// Number of choices that this attempt has repeated.
    repeated: usize,
}

struct Choice {
    first: usize,
    refused: usize,
    candidates: usize,
}

impl Inventor<'_> {
    fn choose<T: Copy>(&mut self, candidates: &[T]) -> T {
        if self.repeated == self.choices.len() {
            let first = usize::from(self.seed[self.repeated % self.seed.len()]);
            self.choices.push(Choice { first, refused: 0, candidates: candidates.len() });
        }
        let choice = &self.choices[self.repeated];
        self.repeated += 1;
        candidates[(choice.first + choice.refused) % candidates.len()]
    }

    /// Replaces the last choice, or the one before it when it has no candidate left.
    fn reconsider(&mut self) {
        self.repeated = 0;
        while let Some(last) = self.choices.last_mut() {
            last.refused += 1;
            if last.refused < last.candidates {
                return;
            }
            self.choices.pop();
        }
        panic!("no value is accepted");
    }
}

fn invented<T: Decodable>(seed: &[u8], version: i16) -> T {
    let mut inventor = Inventor { seed, choices: Vec::new(), repeated: 0 };
    loop {
        match T::decode(&mut inventor, version) {
            Ok(value) => return value,
            Err(_) => inventor.reconsider(),
        }
    }
}

impl Buf for Inventor<'_> {
    fn remaining(&self) -> usize {
        usize::MAX
    }

    fn chunk(&self) -> &[u8] {
        panic!("numbers are invented one by one")
    }

    fn advance(&mut self, _: usize) {}

    fn try_copy_to_slice(&mut self, target: &mut [u8]) -> Result<(), TryGetError> {
        target.fill(self.choose(&[0, 7, 255]));
        Ok(())
    }

    /// Reads bytes of varints, and booleans.
    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        Ok(self.choose(&[0, 1, 2]))
    }

    fn try_get_i8(&mut self) -> Result<i8, TryGetError> {
        Ok(self.choose(&[-1, 0, 1]))
    }

    fn try_get_i16(&mut self) -> Result<i16, TryGetError> {
        Ok(self.choose(&[-1, 0, 1, 2]))
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        Ok(self.choose(&[-1, 0, 1, 2]))
    }

    fn try_get_i64(&mut self) -> Result<i64, TryGetError> {
        Ok(self.choose(&[i64::MIN, -1, 0, 1, i64::MAX]))
    }

    fn try_get_f64(&mut self) -> Result<f64, TryGetError> {
        Ok(self.choose(&[-1.5, 0.0, 1.0]))
    }
}

impl ByteBuf for Inventor<'_> {
    fn peek_bytes(&mut self, range: std::ops::Range<usize>) -> Bytes {
        vec![b'x'; range.len()].into()
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        vec![self.choose(b"xyz"); size].into()
    }
}

fn check<R>(seed: &[u8])
where
    R: Request + PartialEq + Debug,
    R::Response: PartialEq + Debug,
{
    for version in served::<R>().versions.clone() {
        let request: R = invented(seed, version);
        let mut body = BytesMut::new();
        request.encode(&mut body, version).unwrap();
        assert_eq!(guard::decode::<R>(&body.freeze(), version).unwrap(), request, "version {version}");

        let response: R::Response = invented(seed, version);
        let mut frame = call::encode(7, version, &response).unwrap();
        assert_eq!(usize::try_from(frame.get_i32()).unwrap(), frame.len());
        let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, 7);
        assert_eq!(R::Response::decode(&mut frame, version).unwrap(), response, "version {version}");
        assert!(frame.is_empty());
    }
}

fn served<R: Request>() -> &'static Api {
    APIS.iter().find(|api| api.key as i16 == R::KEY).unwrap()
}

/// Names an API by its request, and checks it for a seed.
type Check = (i16, fn(&[u8]));

fn of<R>() -> Check
where
    R: Request + PartialEq + Debug,
    R::Response: PartialEq + Debug,
{
    (R::KEY, check::<R>)
}

fn checks() -> Vec<Check> {
    vec![
        of::<AddOffsetsToTxnRequest>(),
        of::<AddPartitionsToTxnRequest>(),
        of::<AlterConfigsRequest>(),
        of::<AlterPartitionReassignmentsRequest>(),
        of::<ApiVersionsRequest>(),
        of::<CreateAclsRequest>(),
        of::<CreatePartitionsRequest>(),
        of::<CreateTopicsRequest>(),
        of::<DeleteAclsRequest>(),
        of::<DeleteGroupsRequest>(),
        of::<DeleteRecordsRequest>(),
        of::<DeleteTopicsRequest>(),
        of::<DescribeAclsRequest>(),
        of::<DescribeClientQuotasRequest>(),
        of::<DescribeClusterRequest>(),
        of::<DescribeConfigsRequest>(),
        of::<DescribeGroupsRequest>(),
        of::<DescribeLogDirsRequest>(),
        of::<DescribeProducersRequest>(),
        of::<DescribeTransactionsRequest>(),
        of::<DescribeUserScramCredentialsRequest>(),
        of::<ElectLeadersRequest>(),
        of::<EndTxnRequest>(),
        of::<FetchRequest>(),
        of::<FindCoordinatorRequest>(),
        of::<HeartbeatRequest>(),
        of::<IncrementalAlterConfigsRequest>(),
        of::<InitProducerIdRequest>(),
        of::<JoinGroupRequest>(),
        of::<LeaveGroupRequest>(),
        of::<ListGroupsRequest>(),
        of::<ListOffsetsRequest>(),
        of::<ListPartitionReassignmentsRequest>(),
        of::<ListTransactionsRequest>(),
        of::<MetadataRequest>(),
        of::<OffsetCommitRequest>(),
        of::<OffsetDeleteRequest>(),
        of::<OffsetFetchRequest>(),
        of::<OffsetForLeaderEpochRequest>(),
        of::<ProduceRequest>(),
        of::<SyncGroupRequest>(),
        of::<TxnOffsetCommitRequest>(),
        of::<WriteTxnMarkersRequest>(),
    ]
}

#[test]
fn every_api_is_checked() {
    let mut checked: Vec<i16> = checks().into_iter().map(|(key, _)| key).collect();
    checked.sort();
    let mut served: Vec<i16> = APIS.iter().map(|api| api.key as i16).collect();
    served.sort();
    assert_eq!(checked, served);
}

proptest! {
    #[test]
    fn requests_and_responses_are_the_same_after_a_round_trip(
        seed in prop::collection::vec(any::<u8>(), 1..64)
    ) {
        for (_, check) in checks() {
            check(&seed);
        }
    }
}
