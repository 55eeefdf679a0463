//! Tracks the dependencies of a role and reports which ones are unavailable.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use crate::backoff::Backoff;

/// The interval between checks of an available dependency.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The time after which a check has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(6);

/// What a dependency is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To serve requests, and for the rest of the work.
    Requests,
    /// Only for work that no request waits for.
    Background,
}

/// Why a dependency cannot be used.
#[derive(Clone, Debug)]
struct Reason {
    /// The reason in the platform's own words, without the texts of drivers, which may name hosts and users.
    summary: String,
    /// The reason with all its causes.
    whole: String,
}

impl Reason {
    fn new(text: &str) -> Self {
        Self { summary: text.to_owned(), whole: text.to_owned() }
    }
}

#[derive(Debug)]
struct Dependency {
    need: Need,
    /// `None` when the dependency is available.
    missing: Option<Reason>,
}

/// The state of each dependency of a role.
#[derive(Debug, Default)]
pub struct Health {
    dependencies: Mutex<BTreeMap<&'static str, Dependency>>,
}

impl Health {
    /// Adds a dependency that was not checked yet.
    pub fn expect(&self, name: &'static str, need: Need) {
        let missing = Some(Reason::new("not checked yet"));
        self.lock().insert(name, Dependency { need, missing });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Dependency>> {
        self.dependencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, name: &'static str, missing: Option<Reason>) {
        if let Some(dependency) = self.lock().get_mut(name) {
            dependency.missing = missing;
        }
    }

    /// Checks a dependency until shutdown and logs when it becomes available or unavailable.
    ///
    /// The check also prepares the dependency for use, for example by running migrations. The outermost message of its
    /// error must not contain the text of a driver, since it may become public.
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
                Ok(Err(error)) => Some(Reason { summary: error.to_string(), whole: format!("{error:#}") }),
                Err(_) => Some(Reason::new(&format!("no answer within {CHECK_TIMEOUT:?}"))),
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
                            reason = reason.whole,
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
        self.lock().values().all(|dependency| dependency.missing.is_none())
    }

    fn missing(&self, purpose: Purpose, show: fn(&Reason) -> &String) -> BTreeMap<&'static str, String> {
        let dependencies = self.lock();
        let needed = dependencies
            .iter()
            .filter(|(_, dependency)| purpose == Purpose::Work || dependency.need == Need::Requests);
        needed
            .filter_map(|(name, dependency)| Some((*name, show(dependency.missing.as_ref()?).clone())))
            .collect()
    }
}

/// What a role is to be ready for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Purpose {
    /// All its work.
    #[default]
    Work,
    /// Requests, as a load balancer asks.
    Http,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadinessQuery {
    /// What the role is to be ready for: all its work, or requests
    #[serde(default, rename = "for")]
    #[param(inline, required = false)]
    purpose: Purpose,
}

#[derive(Serialize, ToSchema)]
struct Alive {
    status: &'static str,
}

#[derive(Serialize, ToSchema)]
struct Readiness {
    /// Either ready or waiting
    status: &'static str,
    /// The reason for each dependency that is missing
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    missing: BTreeMap<&'static str, String>,
}

/// How much the readiness discloses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disclosure {
    Summary,
    Whole,
}

/// Show that the process is alive
#[utoipa::path(
    get, path = "/healthz", operation_id = "isAlive", tag = "health",
    responses((status = 200, description = "The process is alive", body = Alive))
)]
pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(Alive { status: "alive" })
}

/// Show whether the role makes progress, or with for=http, whether it can serve requests
#[utoipa::path(
    get, path = "/readyz", operation_id = "isReady", tag = "health",
    params(ReadinessQuery),
    responses(
        (status = 200, description = "The role is ready", body = Readiness),
        (status = 503, description = "The role waits for what is missing", body = Readiness)
    )
)]
pub(super) async fn readyz(
    health: web::Data<Health>,
    disclosure: web::Data<Disclosure>,
    query: web::Query<ReadinessQuery>,
) -> HttpResponse {
    let missing = health.missing(
        query.purpose,
        match **disclosure {
            Disclosure::Summary => |reason| &reason.summary,
            Disclosure::Whole => |reason| &reason.whole,
        },
    );
    if missing.is_empty() {
        HttpResponse::Ok().json(Readiness { status: "ready", missing })
    } else {
        HttpResponse::ServiceUnavailable().json(Readiness { status: "waiting", missing })
    }
}
