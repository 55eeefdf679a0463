//! Checks what clients expect of a Kafka broker, with librdkafka and with bare requests.
//!
//! Runs against the embedded broker, or against the cluster at `KAFKA_BOOTSTRAP_SERVERS` (Apache Kafka 3.9 or 4).
//! Assertions hold for all of them; where Kafka 4 differs from 3.9, which the embedded broker follows, they name both
//! answers. Only `durability`, `group_restarts` and `limits` always test the embedded broker.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod admin;
mod cluster_admin;
mod configs;
mod delete_records;
mod durability;
mod fencing;
mod group_admin;
mod group_restarts;
mod groups;
mod harness;
mod limits;
mod list_offsets;
mod membership;
mod produce_fetch;
mod protocol;
mod raw;
mod records;
mod topic_ids;
mod topic_rules;
mod transaction_admin;
mod transactions;
mod versions;
