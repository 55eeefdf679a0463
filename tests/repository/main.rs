//! Checks the repository: its layers, its clusters, its scripts and workflows.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod architecture;
mod checkout;
mod clients;
mod compose;
mod compose_model;
mod compose_wiring;
mod devcontainer;
mod kubernetes;
mod kubernetes_tools;
mod make_down;
mod make_up;
mod make_up_kafka;
mod make_up_settings;
mod make_up_start;
mod native_cluster;
mod portability;
mod release;
