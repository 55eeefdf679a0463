//! The APIs: each file turns requests of the wire into checks and changes of the state, and back.

pub mod admin;
pub mod configs;
pub mod fetch;
pub mod groups;
pub mod metadata;
pub mod offsets;
pub mod produce;
pub mod transactions;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::BrokerId;

use super::batch::LEADER_EPOCH;

/// The one broker there is.
const BROKER: BrokerId = BrokerId(1);

/// On the wire: 0 for success.
fn code<T>(result: &Result<T, ResponseError>) -> i16 {
    result.as_ref().err().map_or(0, ResponseError::code)
}

/// A client that knows a leader epoch may not be ahead of the broker (KIP-320). -1: it knows none.
fn check_leader_epoch(current: i32) -> Result<(), ResponseError> {
    match current > LEADER_EPOCH {
        true => Err(ResponseError::UnknownLeaderEpoch),
        false => Ok(()),
    }
}
