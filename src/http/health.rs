//! What a role needs before it can do its job, and what of it is missing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;

/// How often a dependency that is there is looked at again.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// A check that takes longer has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(6);

/// The state of each dependency of a role: `None` when it is there, otherwise what is wrong.
#[derive(Debug, Default)]
pub struct Health {
    dependencies: Mutex<BTreeMap<&'static str, Option<String>>>,
}

impl Health {
    /// Adds a dependency that was not checked yet.
    pub fn expect(&self, name: &'static str) {
        self.set(name, Some("not checked yet".to_owned()));
    }

    fn set(&self, name: &'static str, state: Option<String>) {
        self.dependencies.lock().unwrap_or_else(PoisonError::into_inner).insert(name, state);
    }

    /// Checks a dependency until the shutdown, and tells the log when it comes and when it goes.
    ///
    /// The check does what is needed before the dependency can be used, such as migrations.
    pub async fn watch(
        &self,
        name: &'static str,
        shutdown: &CancellationToken,
        check: impl AsyncFn() -> anyhow::Result<()>,
    ) {
        let mut backoff = Backoff::new();
        let mut available = None;
        loop {
            let checked = tokio::select! {
                () = shutdown.cancelled() => return,
                checked = tokio::time::timeout(CHECK_TIMEOUT, check()) => checked,
            };
            let outcome = match checked {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{error:#}")),
                Err(_) => Some(format!("no answer within {CHECK_TIMEOUT:?}")),
            };
            let pause = match &outcome {
                None => {
                    if available != Some(true) {
                        tracing::info!(dependency = name, "dependency available");
                    }
                    backoff = Backoff::new();
                    CHECK_INTERVAL
                }
                Some(reason) => {
                    if available != Some(false) {
                        tracing::warn!(dependency = name, reason, "waiting for a dependency");
                    }
                    backoff.next_pause()
                }
            };
            available = Some(outcome.is_none());
            self.set(name, outcome);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Whether nothing is missing.
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    fn missing(&self) -> BTreeMap<&'static str, String> {
        let dependencies = self.dependencies.lock().unwrap_or_else(PoisonError::into_inner);
        dependencies.iter().filter_map(|(name, state)| Some((*name, state.clone()?))).collect()
    }
}

pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "alive" }))
}

pub(super) async fn readyz(health: web::Data<Health>) -> HttpResponse {
    let missing = health.missing();
    if missing.is_empty() {
        HttpResponse::Ok().json(json!({ "status": "ready" }))
    } else {
        HttpResponse::ServiceUnavailable().json(json!({ "status": "waiting", "missing": missing }))
    }
}
