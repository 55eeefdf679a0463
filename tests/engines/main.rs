//! Tests that run on the real engines where there are any: `tests/cluster/test`.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod on_cluster;
mod postgres;
#[cfg(feature = "embedded")]
mod relay;
mod relay_model;
mod stores;
#[path = "../support/mod.rs"]
mod support;
