//! The schema registry of `dev`: the part of Confluent's API that clients use, for JSON Schema.
//!
//! It registers, looks up by schema, id, subject and version, and keeps its ids in a file. It leaves out schema
//! references, deletion, and every compatibility level but `NONE`.
//! <https://docs.confluent.io/platform/current/schema-registry/develop/api.html>

mod api;
mod state;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::web;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::http::{Health, HttpServer};
use state::State;

/// Serves the schemas that are kept in `file` until `shutdown`.
///
/// # Errors
/// When the file cannot be read.
pub(super) async fn run(
    server: HttpServer,
    file: &Path,
    shutdown: CancellationToken,
    grace: Duration,
) -> anyhow::Result<()> {
    let state = web::Data::new(Mutex::new(State::open(file)?));
    let routes = move |config: &mut web::ServiceConfig| {
        config.app_data(state.clone());
        api::routes(config);
    };
    server.serve(Arc::new(Health::default()), Registry::default(), routes, shutdown, grace).await
}
