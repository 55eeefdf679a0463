//! What clients may expect of a Kafka broker, checked with librdkafka and with bare requests.
//!
//! Runs against the embedded broker, or against the cluster at `KAFKA_BOOTSTRAP_SERVERS` (Apache Kafka
//! 3.9): whatever is asserted here holds for both. Only `durability` looks at the embedded broker
//! alone.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod admin;
mod durability;
mod fencing;
mod groups;
mod harness;
mod membership;
mod produce_fetch;
mod protocol;
mod raw;
mod transactions;
mod versions;
