//! Drives the executable from outside, on the embedded broker and registry: HTTP, Kafka, processes, signals.

#![cfg(feature = "embedded")]
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod ad_stores;
mod audits;
mod command_line;
mod commits;
mod compaction;
mod console;
mod console_access;
mod console_faults;
mod consumers;
mod dead_letter_claims;
mod dead_letters;
mod faults;
mod faults_access;
mod hidden_brokers;
mod http;
mod http_access;
mod http_edge;
mod http_estimator;
mod http_slow;
mod idempotency;
mod latest_schema;
mod load;
mod metrics;
mod operations;
mod pipeline;
mod refusals;
mod registry;
mod registry_answers;
mod registry_api;
mod registry_compatibility;
mod resources;
mod retention;
mod role_settings;
mod schemas;
mod settings;
mod stock_postgres;
#[path = "../support/mod.rs"]
mod support;
mod tools;
mod traces;
mod wire;
