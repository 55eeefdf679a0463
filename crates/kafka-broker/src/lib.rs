#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes are bounded by the largest request, offsets are not negative, and clocks fit"
)]

mod api;
mod batch;
mod broker;
mod call;
mod checkpoint;
mod client;
mod clock;
mod connection;
mod core;
mod deadlines;
mod entry;
#[cfg(test)]
mod fuzz;
mod group_offsets;
mod groups;
mod guard;
mod ids;
mod journal;
mod limits;
mod memory;
mod partition;
mod partition_index;
mod producer_state;
mod retention;
mod shared;
mod start_error;
mod state;
mod topic_configs;
mod transaction;
mod transaction_coordinator;
mod unserved;

pub use broker::{Broker, Builder};
pub use journal::JournalError;
pub use limits::Limits;
pub use start_error::StartError;
