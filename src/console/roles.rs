//! Reads the readiness and the metrics of the roles.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use super::role_client::RoleClient;
use super::state::Console;
use crate::excerpt::excerpt;

const INTERVAL: Duration = Duration::from_secs(2);
/// The number of intervals that a quantile covers.
const HISTOGRAMS: usize = 5;
const MAX_REASON_CHARS: usize = 300;
/// The maximum number of reasons of a role that are shown.
const MAX_REASONS: usize = 10;

/// A role as the page shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleView {
    pub kind: &'static str,
    pub url: String,
    pub readiness: Readiness,
    /// What is missing, and why.
    pub reasons: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    Ready,
    Waiting,
    Unreachable,
    /// The address serves no readiness.
    Unknown,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    missing: BTreeMap<String, String>,
}

/// The roles to watch.
pub struct Roles {
    pub console: Arc<Console>,
    pub stock: RoleClient,
    pub estimators: Vec<RoleClient>,
    pub ads: RoleClient,
}

impl Roles {
    /// Watches the roles until the future is dropped.
    pub async fn watch(&self) {
        let mut recent = VecDeque::new();
        loop {
            let stock = [("stock", &self.stock)];
            let estimators = join_all(self.estimators.iter().map(RoleClient::instances)).await.concat();
            let estimators = estimators.iter().map(|role| ("estimate", role));
            let all = stock.into_iter().chain(estimators).chain([("ads", &self.ads)]);
            let views = join_all(all.map(|(kind, role)| probe(kind, role))).await;
            let quantile = match self.histogram().await {
                Some(now) => {
                    let before = recent.front();
                    let quantile = before.and_then(|before| now.quantile_since(before, 0.99));
                    recent.push_back(now);
                    if recent.len() > HISTOGRAMS {
                        recent.pop_front();
                    }
                    quantile.map(|seconds| seconds * 1_000.0)
                }
                None => {
                    recent.clear();
                    None
                }
            };
            {
                let mut state = self.console.lock();
                state.post_p99 = quantile;
                state.roles = views;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Returns the durations of the accepted POSTs of stock.
    async fn histogram(&self) -> Option<Histogram> {
        let (status, body) = self.stock.get("/metrics").await.ok()?;
        let text = String::from_utf8(body).ok().filter(|_| status == StatusCode::OK)?;
        let labels = ["method=\"POST\"", "route=\"/stock\"", "status=\"201\""];
        Some(Histogram::read(&text, "stock_http_request_duration_seconds_bucket", &labels))
    }
}

async fn probe(kind: &'static str, role: &RoleClient) -> RoleView {
    let (readiness, reasons) = match role.get("/readyz").await {
        Ok((StatusCode::OK, _)) => (Readiness::Ready, Vec::new()),
        Ok((StatusCode::SERVICE_UNAVAILABLE, body)) => match serde_json::from_slice::<Answer>(&body) {
            Ok(Answer { missing }) => (Readiness::Waiting, missing.into_iter().collect()),
            Err(_) => (Readiness::Waiting, vec![("readyz".to_owned(), "it is unavailable".to_owned())]),
        },
        Ok((status, _)) => {
            let reason = format!("/readyz answered {status}; health may have a port of its own");
            (Readiness::Unknown, vec![("readyz".to_owned(), reason)])
        }
        Err(error) => (Readiness::Unreachable, vec![("connection".to_owned(), error.to_string())]),
    };
    let shorten = |(name, reason): (String, String)| (excerpt(&name, 60), excerpt(&reason, MAX_REASON_CHARS));
    let reasons = reasons.into_iter().take(MAX_REASONS).map(shorten).collect();
    RoleView { kind, url: role.base().to_owned(), readiness, reasons }
}
