//! A single-node Kafka broker for the `dev` command and for tests: real clients, one file on disk.
//!
//! It serves what librdkafka uses (the APIs and versions in [`api`]): topics, produce with
//! idempotence, fetch with long polls and read_committed, classic consumer groups with static
//! members, and transactions with offsets. What it answers is meant to be what Apache Kafka 3.9
//! answers; `tests/conformance` runs against both.
//!
//! It leaves out: replication, retention and compaction (the journal only grows), consumer groups of
//! KIP-848, ACLs and authentication, quotas, fetch sessions, formats before record batch v2.
//!
//! # Durability
//!
//! Whatever was acknowledged survives the death of the process, `kill -9` included: it is written to
//! the journal before it is answered. There is no fsync before an answer: a power cut may take the last
//! seconds, or leave a journal that is refused at the next start. Group membership is in memory only: after a restart members see UNKNOWN_MEMBER_ID and
//! join again.
//!
//! # How it is built
//!
//! A request is decoded by [`connection`], translated by a file of [`api`], checked against the
//! state, and turned into a journal [`entry`]; [`core`] writes that and then applies it, by the same
//! function that replays the journal at start. One lock guards all state. It is held for checks, index updates
//! and writes into the page cache, never across an await.

#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes are bounded by the largest request, offsets are not negative, and clocks fit"
)]

mod api;
mod batch;
mod broker;
mod call;
mod clock;
mod connection;
mod core;
mod deadlines;
mod entry;
mod group_offsets;
mod groups;
mod guard;
mod ids;
mod journal;
mod partition;
mod producer_state;
mod shared;
mod state;
mod transaction;
mod transaction_coordinator;

pub use broker::Broker;
