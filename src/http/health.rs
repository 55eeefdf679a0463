//! Tracks the dependencies of a role and reports which ones are unavailable.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;

/// The interval between checks of an available dependency.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The time after which a check has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(6);

/// The state of each dependency of a role: `None` when it is available, otherwise the reason.
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

    /// Checks a dependency until shutdown and logs when it becomes available or unavailable.
    ///
    /// The check also prepares the dependency for use, for example by running migrations.
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
                        tracing::info!(dependency = name, "dependency is available");
                    }
                    backoff = Backoff::new();
                    CHECK_INTERVAL
                }
                Some(reason) => {
                    if available != Some(false) {
                        tracing::warn!(
                            dependency = name,
                            reason,
                            "dependency is unavailable, will check again"
                        );
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

    /// Returns whether every dependency is available.
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
