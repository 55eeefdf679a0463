//! Defines what several APIs need to read requests and to write responses.

use std::io;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::BrokerId;

use crate::batch::LEADER_EPOCH;

/// Id of the only broker.
pub const BROKER: BrokerId = BrokerId(1);

/// Returns the error code on the wire, 0 for success.
pub fn code<T>(result: &Result<T, ResponseError>) -> i16 {
    result.as_ref().err().map_or(0, ResponseError::code)
}

/// Refuses a client whose leader epoch is ahead of the broker's (KIP-320). A client that knows none sends -1.
pub fn check_leader_epoch(current: i32) -> Result<(), ResponseError> {
    if current > LEADER_EPOCH { Err(ResponseError::UnknownLeaderEpoch) } else { Ok(()) }
}

/// Logs that the journal cannot be read, and returns the error of the request.
pub fn unreadable(error: io::Error) -> ResponseError {
    tracing::error!(%error, "cannot read the journal, refusing the request");
    ResponseError::KafkaStorageError
}

/// Operations that every client may do on topics, on groups and on the cluster, as the bits of `AclOperation`. All that
/// exist, as there are no ACLs (`AclEntry.supportedOperations`).
pub const TOPIC_OPERATIONS: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
pub const GROUP_OPERATIONS: i32 = bits(&[3, 6, 8]);
pub const CLUSTER_OPERATIONS: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);

const fn bits(operations: &[i32]) -> i32 {
    match operations {
        [first, rest @ ..] => 1 << *first | bits(rest),
        [] => 0,
    }
}
