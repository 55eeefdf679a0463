//! The embedded schema registry of `dev`: Confluent's API, for JSON Schema.
//!
//! The registry registers schemas with references, checks their compatibility, looks them up by text, id, subject and
//! version, deletes them, and stores everything in a file. It supports neither other types of schemas, nor the mode
//! `IMPORT`, nor the data contracts of Confluent Platform (metadata, tags and rules).
//! <https://docs.confluent.io/platform/7.9/schema-registry/develop/api.html>.

mod api;
mod api_error;
mod candidate;
mod deletion;
mod state;
mod stored;

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
