//! Tests upgrades from the release with the table `outbox`, and the downgrade (docs/UPGRADING.md).
//!
//! Most tests write the older release's state with SQL and a Kafka client, and do not need a build of it. `make
//! upgrade` also runs that release itself, in parallel with this one and under load: [`rolling`].

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod database;
mod downgrade;
mod engines;
mod load;
mod migration;
mod older_release;
mod rolling;

mod stock;
#[path = "../support/mod.rs"]
mod support;
mod takeover;
