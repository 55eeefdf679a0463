//! Tests a custom pricing model: the one of `examples/http_estimator.rs`, with a service that fails in many ways.

#[path = "../../examples/http_estimator.rs"]
#[allow(dead_code, reason = "its main function")]
mod example;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::kafka::{header, read_all};
use crate::support::{DEADLINE, Platform, assert_same, eventually, free_port, get};
use actix_web::{App, HttpResponse, HttpServer, web};
use clap::Parser as _;
use example::Cli;
use futures::stream;
use rdkafka::message::OwnedMessage;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

const CREATED: &str = "stock.vehicle-created";
const PROCESSED: &str = "stock.vehicle-processed";

/// The response of the service to one request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Price(f64),
    Status(u16, &'static str),
    Body(&'static str),
    RetryAfter(&'static str),
    /// No response.
    Silence,
    /// A body that does not end.
    Endless,
    /// A price, sent when the test allows it.
    Held,
}

/// The requests that the service received.
#[derive(Default)]
struct Seen {
    /// The times of the requests by vin.
    requests: BTreeMap<String, Vec<Instant>>,
    running: usize,
    most_running: usize,
}

/// A pricing service.
#[derive(Clone)]
struct Service {
    /// The responses to the first requests for a vin, after which it returns [`Service::PRICE`].
    script: Arc<BTreeMap<&'static str, Vec<Answer>>>,
    /// The response to requests without a script.
    usual: Answer,
    seen: Arc<Mutex<Seen>>,
    release: CancellationToken,
    healthy: CancellationToken,
    address: SocketAddr,
}

impl Service {
    const PRICE: f64 = 12345.67;

    fn start(script: &[(&'static str, &[Answer])], usual: Answer) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let script = script.iter().map(|(vin, answers)| (*vin, answers.to_vec())).collect();
        let service = Self {
            script: Arc::new(script),
            usual,
            seen: Arc::default(),
            release: CancellationToken::new(),
            healthy: CancellationToken::new(),
            address: listener.local_addr().unwrap(),
        };
        let served = service.clone();
        let app = move || {
            let (prices, health) = (served.clone(), served.clone());
            let healthz = move || {
                let status = if health.healthy.is_cancelled() { 200 } else { 503 };
                async move { HttpResponse::build(status.try_into().unwrap()).finish() }
            };
            App::new().route("/healthz", web::get().to(healthz)).default_service(web::post().to(
                move |vehicle: web::Json<Value>| {
                    let service = prices.clone();
                    async move { service.answer(vehicle["vin"].as_str().unwrap()).await }
                },
            ))
        };
        tokio::spawn(HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap().run());
        service
    }

    async fn answer(&self, vin: &str) -> HttpResponse {
        let number = {
            let mut seen = self.seen.lock().unwrap();
            seen.running += 1;
            seen.most_running = seen.most_running.max(seen.running);
            let requests = seen.requests.entry(vin.to_owned()).or_default();
            requests.push(Instant::now());
            requests.len()
        };
        let answer = self.script.get(vin).map_or(self.usual, |answers| {
            answers.get(number - 1).copied().unwrap_or(Answer::Price(Self::PRICE))
        });
        let response = self.respond(answer).await;
        self.seen.lock().unwrap().running -= 1;
        response
    }

    async fn respond(&self, answer: Answer) -> HttpResponse {
        match answer {
            Answer::Price(price) => HttpResponse::Ok().json(json!({ "price": price })),
            Answer::Status(status, text) => HttpResponse::build(status.try_into().unwrap()).body(text),
            Answer::Body(text) => HttpResponse::Ok().body(text),
            Answer::RetryAfter(seconds) => {
                HttpResponse::TooManyRequests().insert_header(("retry-after", seconds)).finish()
            }
            Answer::Silence => std::future::pending().await,
            Answer::Endless => HttpResponse::Ok()
                .streaming(stream::repeat_with(|| Ok::<_, std::io::Error>(web::Bytes::from_static(b" ")))),
            Answer::Held => {
                self.release.cancelled().await;
                HttpResponse::Ok().json(json!({ "price": Self::PRICE }))
            }
        }
    }

    fn requests(&self, vin: &str) -> Vec<Instant> {
        self.seen.lock().unwrap().requests.get(vin).cloned().unwrap_or_default()
    }
}

/// The role of the example, running in this process.
struct Role {
    url: String,
    running: JoinHandle<anyhow::Result<()>>,
    /// Also ends the role when a test fails.
    shutdown: DropGuard,
}

impl Role {
    fn start(platform: &Platform, service: &Service, arguments: &[&str]) -> Self {
        let port = free_port().to_string();
        let (prices, health) =
            (format!("http://{}/prices", service.address), format!("http://{}/healthz", service.address));
        let mut all = vec!["http_estimator", "--admin-port", &port, "--instance-id", &port];
        all.extend(["--model-url", &prices, "--model-health-url", &health]);
        all.extend(["--kafka-bootstrap-servers", platform.kafka()]);
        all.extend(["--schema-registry-url", platform.registry()]);
        all.extend(["--topic-replication-factor", "1", "--topic-min-insync-replicas", "1"]);
        all.extend(arguments);
        let shutdown = CancellationToken::new();
        let (cli, ending) = (Cli::parse_from(all), shutdown.clone());
        let role = move || Handle::current().block_on(example::run(cli, ending));
        Self {
            url: format!("http://127.0.0.1:{port}"),
            running: tokio::task::spawn_blocking(role),
            shutdown: shutdown.drop_guard(),
        }
    }

    async fn metric(&self, name: &str) -> Option<i64> {
        let text = get(format!("{}/metrics", self.url)).await.ok()?.text().await.ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    async fn missing(&self) -> Option<Value> {
        let answer: Value = get(format!("{}/readyz", self.url)).await.ok()?.json().await.ok()?;
        Some(answer["missing"].clone())
    }

    async fn end(self) {
        drop(self.shutdown);
        tokio::time::timeout(DEADLINE, self.running).await.unwrap().unwrap().unwrap();
    }
}

async fn platform() -> Platform {
    Platform::start(&["--roles", "stock,ads"]).await
}

/// Waits for `count` ads and returns their prices by vin.
async fn await_prices(platform: &Platform, count: usize) -> BTreeMap<String, f64> {
    let ads = platform.await_ads(count).await;
    ads.iter().map(|ad| (ad["vin"].as_str().unwrap().to_owned(), ad["price"].as_f64().unwrap())).collect()
}

fn vin_of(record: &OwnedMessage) -> String {
    use rdkafka::Message as _;
    String::from_utf8(record.key().unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn a_failure_that_the_vehicle_did_not_cause_is_retried() {
    let script: &[(&'static str, &[Answer])] = &[
        ("busy", &[Answer::Status(503, "busy"), Answer::Status(500, "broken")]),
        ("throttled", &[Answer::RetryAfter("1"), Answer::RetryAfter("soon"), Answer::Status(408, "")]),
        ("garbage", &[Answer::Body("<html>"), Answer::Body("{}"), Answer::Body("")]),
        ("text", &[Answer::Body(r#"{"price":"1.00"}"#)]),
        ("silent", &[Answer::Silence]),
        ("endless", &[Answer::Endless]),
        ("elsewhere", &[Answer::Status(404, ""), Answer::Status(401, ""), Answer::Status(302, "")]),
    ];
    let (platform, service) = (platform().await, Service::start(script, Answer::Price(1000.0)));
    let role = Role::start(&platform, &service, &["--model-timeout", "5s"]);
    platform.accept("fine").await;
    for (vin, _) in script {
        platform.accept(vin).await;
    }
    let mut expected: BTreeMap<_, _> =
        script.iter().map(|(vin, _)| ((*vin).to_owned(), Service::PRICE)).collect();
    expected.insert("fine".to_owned(), 1000.0);
    assert_eq!(await_prices(&platform, expected.len()).await, expected);
    for (vin, answers) in script {
        assert_eq!(service.requests(vin).len(), answers.len() + 1, "{vin}");
    }
    let throttled = service.requests("throttled");
    assert!(throttled[1] - throttled[0] >= Duration::from_secs(1), "{throttled:?}");
    let failures: usize = script.iter().map(|(_, answers)| answers.len()).sum();
    assert_eq!(role.metric("estimate_retries_total").await, Some(failures.try_into().unwrap()));
    assert_eq!(role.metric("estimate_dead_letters_total").await, Some(0));
    assert_eq!(role.metric("estimate_running").await, Some(0));
    assert_same(
        read_all(platform.kafka(), PROCESSED).await.iter().map(vin_of).collect(),
        expected.into_keys().collect(),
    );
    role.end().await;
    platform.finish().await;
}

#[tokio::test]
async fn a_rejected_vehicle_becomes_a_dead_letter_with_the_models_reason() {
    const LONG: &str = match std::str::from_utf8(&[b'x'; 20_000]) {
        Ok(text) => text,
        Err(_) => "",
    };
    let script: &[(&'static str, &[Answer], &str)] = &[
        ("refused", &[Answer::Status(422, "no such model")], "422 Unprocessable Entity: no such model"),
        ("bad", &[Answer::Status(400, "odometer")], "400 Bad Request: odometer"),
        ("free", &[Answer::Price(0.0)], "0.0 is not from 0.01"),
        ("negative", &[Answer::Price(-5.0)], "-5.0 is not from 0.01"),
        ("chatty", &[Answer::Status(413, LONG)], "413 Payload Too Large: xxx"),
        ("late", &[Answer::Status(503, ""), Answer::Status(422, "after all")], "after all"),
    ];
    let answers: Vec<_> = script.iter().map(|(vin, answers, _)| (*vin, *answers)).collect();
    let (platform, service) = (platform().await, Service::start(&answers, Answer::Price(Service::PRICE)));
    let role = Role::start(&platform, &service, &[]);
    for (vin, ..) in script {
        platform.accept(vin).await;
        platform.accept(&format!("behind-{vin}")).await;
    }
    let prices = await_prices(&platform, script.len()).await;
    assert!(prices.keys().all(|vin| vin.starts_with("behind-")), "{prices:?}");
    let letters = eventually("the dead letters", async || {
        let letters = read_all(platform.kafka(), &format!("{CREATED}.dlq")).await;
        (letters.len() >= script.len()).then_some(letters)
    })
    .await;
    let reasons: BTreeMap<_, _> =
        letters.iter().map(|letter| (vin_of(letter), header(letter, "dlq.reason").unwrap())).collect();
    assert_eq!(letters.len(), script.len());
    for (vin, _, expected) in script {
        let reason = &reasons[*vin];
        assert!(reason.contains(expected) && reason.chars().count() <= 1_000, "{vin}: {reason}");
    }
    role.end().await;
    platform.finish().await;
}

#[tokio::test]
async fn the_number_of_concurrent_estimates_is_limited_and_all_vehicles_get_a_price() {
    let (platform, service) = (platform().await, Service::start(&[], Answer::Held));
    let role =
        Role::start(&platform, &service, &["--max-concurrent-estimates", "3", "--model-timeout", "1h"]);
    let accepted: BTreeSet<String> = (0..20).map(|number| format!("turn-{number}")).collect();
    for vin in &accepted {
        platform.accept(vin).await;
    }
    eventually("all to be in flight", async || {
        (role.metric("estimate_records_in_flight").await? == 20).then_some(())
    })
    .await;
    eventually("three to run", async || (service.seen.lock().unwrap().running == 3).then_some(())).await;
    assert_eq!(role.metric("estimate_running").await, Some(3));
    service.release.cancel();
    assert_eq!(await_prices(&platform, accepted.len()).await.into_keys().collect::<BTreeSet<_>>(), accepted);
    assert_eq!(service.seen.lock().unwrap().most_running, 3);
    role.end().await;
    platform.finish().await;
}

#[tokio::test]
async fn vehicles_that_wait_for_a_permit_move_with_their_partition() {
    let (platform, busy) = (platform().await, Service::start(&[], Answer::Held));
    let one = ["--max-concurrent-estimates", "1", "--model-timeout", "1h"];
    let first = Role::start(&platform, &busy, &one);
    let accepted: BTreeSet<String> = (0..30).map(|number| format!("moved-{number}")).collect();
    for vin in &accepted {
        platform.accept(vin).await;
    }
    let held = async |role: &Role| role.metric("estimate_records_in_flight").await;
    eventually("the first to hold all", async || held(&first).await.filter(|held| *held == 30)).await;
    let quick = Service::start(&[], Answer::Price(1000.0));
    let second = Role::start(&platform, &quick, &one);
    let kept = eventually("the second to finish its part", async || {
        let (kept, ads) = (usize::try_from(held(&first).await?).unwrap(), platform.ads().await.len());
        (kept < 30 && kept + ads == 30).then_some(kept)
    })
    .await;
    busy.release.cancel();
    let prices = await_prices(&platform, accepted.len()).await;
    assert_eq!(prices.values().filter(|price| **price == Service::PRICE).count(), kept);
    assert_same(
        read_all(platform.kafka(), PROCESSED).await.iter().map(vin_of).collect(),
        accepted.into_iter().collect(),
    );
    first.end().await;
    second.end().await;
    platform.finish().await;
}

#[tokio::test]
async fn readiness_names_a_model_that_cannot_work() {
    let (platform, service) = (platform().await, Service::start(&[], Answer::Price(Service::PRICE)));
    let role = Role::start(&platform, &service, &[]);
    eventually("the model to be missing alone", async || {
        let missing = role.missing().await?;
        let is_alone = missing.as_object()?.len() == 1;
        (is_alone && missing["model"].as_str()?.ends_with("the model answered 503 Service Unavailable"))
            .then_some(())
    })
    .await;
    service.healthy.cancel();
    eventually("readiness", async || role.missing().await?.is_null().then_some(())).await;
    role.end().await;
    platform.finish().await;
}

#[tokio::test]
async fn the_shutdown_does_not_wait_for_a_model_that_does_not_respond() {
    let (platform, service) = (platform().await, Service::start(&[], Answer::Silence));
    let role = Role::start(&platform, &service, &["--model-timeout", "1h"]);
    platform.accept("unanswered").await;
    eventually("the request", async || (service.requests("unanswered").len() == 1).then_some(())).await;
    tokio::time::timeout(Duration::from_secs(20), role.end()).await.unwrap();
    let (service, quick) = (Service::start(&[], Answer::Price(Service::PRICE)), ["--model-timeout", "5s"]);
    let role = Role::start(&platform, &service, &quick);
    await_prices(&platform, 1).await;
    assert_eq!(service.requests("unanswered").len(), 1);
    role.end().await;
    platform.finish().await;
}
