//! The embedded schema registry of `dev`: the part of Confluent's API that clients use, for JSON Schema.
//!
//! The registry registers schemas, looks them up by text, id, subject and version, and stores them in a file. It does
//! not support schema references, deletion, and compatibility levels other than `NONE`.
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

/// Serves the schemas stored in `file` until `shutdown`.
///
/// # Errors
/// Fails when the file cannot be read.
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
