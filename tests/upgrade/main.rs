//! Upgrades from the release that publishes the table `outbox`, and the way back (docs/UPGRADING.md).
//!
//! Most tests write what the older release leaves behind with SQL and a Kafka client, and need no build of it. `make
//! upgrade` also runs that release itself, next to this one and under load: [`rolling`].

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
