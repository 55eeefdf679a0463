//! Tests that the faults of `dev --faults` disturb the platform, end by themselves, and lose nothing.

use std::time::{Duration, Instant};

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::console::{await_state, snapshot};
use crate::support::{Platform, assert_same, eventually, get, http_client, vehicle};

/// A platform with faults, and the vehicles that it has accepted.
pub struct Disturbed {
    pub platform: Platform,
    vins: Vec<String>,
    /// Whether events were repeated, which the audit reports.
    repeats: bool,
}

impl Disturbed {
    pub async fn start(processing: &str) -> Self {
        let arguments = ["--processing-time", processing, "--console-port", "0", "--faults"];
        let platform = Platform::start(&arguments).await;
        let console = platform.console();
        await_state(console, "the console to count and both estimators to be ready", |state| {
            state["counts"]["since"].as_i64()?;
            let is_ready = |role: &&Value| role["kind"] == "estimate" && role["readiness"] == "ready";
            (state["roles"].as_array()?.iter().filter(is_ready).count() == 2).then_some(())
        })
        .await;
        Self { platform, vins: Vec::new(), repeats: false }
    }

    pub async fn inject(&self, name: &str, body: Value) -> Response {
        inject(self.platform.console(), name, &body).await
    }

    /// Injects a fault that must be possible, and returns when it has ended.
    pub async fn inject_until_end(&self, name: &str, body: Value) {
        let answer = self.inject(name, body).await;
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, StatusCode::OK, "{name}: {text}");
        self.await_end(name).await;
    }

    pub async fn await_end(&self, name: &str) {
        eventually(&format!("the end of {name}"), async || {
            self.fault(name).await["running"].is_null().then_some(())
        })
        .await;
    }

    pub async fn fault(&self, name: &str) -> Value {
        let answer: Value =
            get(format!("{}/faults", self.platform.console())).await.unwrap().json().await.unwrap();
        answer["faults"].as_array().unwrap().iter().find(|fault| fault["name"] == name).unwrap().clone()
    }

    /// Posts vehicles, which stock accepts sooner or later.
    pub async fn post(&mut self, count: usize) {
        for number in 0..count {
            let vin = format!("vehicle-{}", self.vins.len());
            eventually(&format!("vehicle {number} to be accepted"), async || {
                match self.platform.post(&vehicle(&vin)).await.status() {
                    // The response to an earlier attempt was lost.
                    StatusCode::CREATED | StatusCode::CONFLICT => Some(()),
                    StatusCode::SERVICE_UNAVAILABLE => None,
                    status => panic!("stock answered {status}"),
                }
            })
            .await;
            self.vins.push(vin);
        }
    }

    /// Waits until all vehicles have an ad, and verifies that none has two and that the console and the audit agree.
    pub async fn reconcile(&self) {
        let count = self.vins.len();
        let ads = self.platform.await_ads(count).await;
        let vins = ads.iter().map(|ad| ad["vin"].as_str().unwrap().to_owned()).collect();
        assert_same(vins, self.vins.clone());
        let counts = await_state(self.platform.console(), "a reconciled console", |state| {
            let counts = &state["counts"];
            (counts["ads"] == count && counts["onTheirWay"] == 0).then(|| counts.clone())
        })
        .await;
        assert_eq!((&counts["lost"], &counts["doubled"]), (&json!(0), &json!(0)), "{counts}");
        let audit = self.platform.tool(&["audit", "--processing-time", "3s"]);
        let report = String::from_utf8_lossy(&audit.stdout).into_owned();
        let expected = Some(i32::from(self.repeats));
        assert_eq!(audit.status.code(), expected, "{report}{}", String::from_utf8_lossy(&audit.stderr));
        for finding in
            ["vehicles without an ad", "vehicles in a dead-letter topic", "vins with more than one ad"]
        {
            assert!(report.contains(&format!(" 0  {finding}")), "{report}");
        }
    }
}

pub async fn inject(console: &str, name: &str, body: &Value) -> Response {
    http_client().post(format!("{console}/faults/{name}")).json(body).send().await.unwrap()
}

/// Returns the readiness of the roles of this kind, as the console shows it.
async fn readiness(console: &str, kind: &str) -> Vec<String> {
    let state = snapshot(console).await;
    let roles = state["roles"].as_array().unwrap().iter().filter(|role| role["kind"] == kind);
    roles.map(|role| role["readiness"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn estimators_that_are_killed_paused_or_slow_lose_no_vehicle() {
    let mut disturbed = Disturbed::start("2s").await;
    for (name, body) in [
        ("kill-estimator", json!({ "target": "1", "for": "10s" })),
        ("pause-estimator", json!({ "target": "2", "for": "9s" })),
        ("slow-estimates", json!({ "for": "3s" })),
    ] {
        disturbed.post(60).await;
        let began = Instant::now();
        assert_eq!(disturbed.inject(name, body).await.status(), StatusCode::OK);
        if name == "kill-estimator" {
            eventually("the console to show the end of the estimator", async || {
                let estimators = readiness(disturbed.platform.console(), "estimate").await;
                (estimators == ["unreachable", "ready"]).then_some(())
            })
            .await;
        }
        disturbed.post(10).await;
        disturbed.await_end(name).await;
        assert!(began.elapsed() >= Duration::from_secs(3), "{name} ended early");
        disturbed.reconcile().await;
    }
    eventually("both estimators to be ready", async || {
        let estimators = readiness(disturbed.platform.console(), "estimate").await;
        (estimators == ["ready", "ready"]).then_some(())
    })
    .await;
    disturbed.platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_estimator_that_is_killed_while_it_is_paused_is_no_longer_paused() {
    let mut disturbed = Disturbed::start("1s").await;
    let paused = disturbed.inject("pause-estimator", json!({ "target": "1", "for": "5m" })).await;
    assert_eq!(paused.status(), StatusCode::OK);
    disturbed.post(20).await;
    disturbed.inject_until_end("kill-estimator", json!({ "target": "1", "for": "1s" })).await;
    disturbed.await_end("pause-estimator").await;
    disturbed.reconcile().await;
    disturbed.inject_until_end("pause-estimator", json!({ "target": "1", "for": "1s" })).await;
    disturbed.platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unavailable_registry_broker_or_database_loses_no_vehicle() {
    let mut disturbed = Disturbed::start("1s").await;
    for (name, body) in [
        ("registry-unavailable", json!({ "for": "3s" })),
        ("broker-stalled", json!({ "for": "8s" })),
        ("database-unavailable", json!({ "target": "stock", "for": "12s" })),
        ("database-unavailable", json!({ "target": "ads", "for": "7s" })),
    ] {
        disturbed.post(50).await;
        let target = body["target"].clone();
        assert_eq!(disturbed.inject(name, body).await.status(), StatusCode::OK, "{name}");
        if target == "stock" {
            let answer = disturbed.platform.post(&vehicle("refused")).await;
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
        if name == "registry-unavailable" {
            assert!(get(format!("{}/subjects", disturbed.platform.registry())).await.is_err());
        }
        disturbed.post(10).await;
        disturbed.await_end(name).await;
        disturbed.reconcile().await;
    }
    assert!(get(format!("{}/subjects", disturbed.platform.registry())).await.is_ok());
    for url in [disturbed.platform.stock(), disturbed.platform.ads_url()] {
        eventually("the role to be ready", async || {
            get(format!("{url}/readyz")).await.ok()?.status().is_success().then_some(())
        })
        .await;
    }
    disturbed.platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_becomes_dead_letters_and_duplicates_change_nothing() {
    let mut disturbed = Disturbed::start("1s").await;
    let topics = ["stock.vehicle-created", "stock.vehicle-processed"];
    disturbed.post(50).await;
    disturbed.reconcile().await;
    for topic in topics {
        disturbed.post(50).await;
        disturbed.inject_until_end("duplicates", json!({ "target": topic })).await;
        disturbed.inject_until_end("poison", json!({ "target": topic })).await;
        disturbed.repeats = true;
        disturbed.reconcile().await;
    }
    let letters = await_state(disturbed.platform.console(), "the dead letters", |state| {
        (state["letters"]["waiting"].as_i64()? >= 10).then(|| state["letters"].clone())
    })
    .await;
    assert_eq!(letters["waiting"], 10, "one for each kind of poison and topic: {letters}");
    let counts = snapshot(disturbed.platform.console()).await["counts"].clone();
    assert!(counts["repeated"].as_i64().unwrap() > 0, "{counts}");
    disturbed.platform.finish().await;
}
