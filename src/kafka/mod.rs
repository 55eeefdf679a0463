//! Connects the services to the Kafka brokers.
//!
//! A service writes everything to Kafka, both records and consumed offsets, through one [`TransactionalProducer`] and
//! reads everything through one [`Worker`]. Calls that block in librdkafka run on separate threads, outside the async
//! runtime.

mod args;
pub mod asyncapi;
mod client;
mod connection_watch;
mod consumed;
mod content;
mod dead_letter;
mod delivery;
mod failure;
mod follower;
mod group_view;
mod handler;
mod in_flight;
mod instance;
mod lag;
mod log_changes;
mod marker;
mod observer;
mod producer;
mod progress;
mod reach;
mod reader;
mod rebalance;
mod record;
mod repeats;
mod silence;
mod stall;
mod topic_settings;
mod topics;
mod transaction;
mod work_output;
mod worker;
mod worker_status;

pub use args::KafkaArgs;
pub use client::Naming;
pub use dead_letter::reading::{Resolutions, for_each_dead_letter};
pub use dead_letter::{DeadLetter, Position, Resolution, dead_letter_topic};
pub use delivery::Refusal;
pub use failure::Failure;
pub use follower::{Backlog, Sight, TopicFollower};
pub use group_view::{GroupObserver, GroupView};
pub use handler::Handler;
pub use instance::Instance;
pub use lag::GroupLag;
pub use marker::Marker;
pub use progress::{Mark, Progress};
pub use reader::{TopicReader, committed_offsets};
pub use record::{OutgoingRecord, Record, describe_sent};
pub use topics::ClusterCheck;
pub use transaction::{CommitError, TransactionalProducer};
pub use worker::Worker;
pub use worker_status::WorkerStatus;

/// The timeout of one call to the brokers, after which it is retried.
const CALL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
