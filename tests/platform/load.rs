//! Tests `vehicle-platform load`: the schedule, the retries and the reconciliation.

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::{Value, json};
use uuid::{Builder, Uuid};

use vehicle_platform::https;

use crate::support::{BINARY, Platform, RoleProcess, eventually, free_port, signal};

/// The VIN of a vehicle that exists before a load.
const OTHER: &str = "of-somebody-else";

/// What a front changes on the way between `load` and a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Hides the first ad of the load that it sees, for this time.
    HideOneFor(Duration),
    /// Shows the first ad of the load that it sees twice.
    ShowOneTwice,
    /// The same, but not in the first two seconds.
    ShowOneTwiceLater,
    /// Shows it again where an instance whose clock is a minute behind would list it.
    ShowOneTwiceBefore,
    /// Forwards every third POST, but answers it with a 503.
    LoseAnswers,
    /// Forwards each POST after half a second.
    Delay,
}

/// A service in front of another one.
struct Front {
    url: String,
}

impl Front {
    fn start(service: &str, change: Change) -> Self {
        let service = service.to_owned();
        let victim = Arc::new(Mutex::new(None));
        let posts = Arc::new(AtomicUsize::new(0));
        let client = https::client().pool_idle_timeout(Duration::from_secs(2)).build().unwrap();
        let app = move || {
            let (service, victim, posts, client) =
                (service.clone(), Arc::clone(&victim), Arc::clone(&posts), client.clone());
            App::new().default_service(web::to(move |request: HttpRequest, body: web::Bytes| {
                let url = format!("{service}{}", request.uri());
                let (victim, client) = (Arc::clone(&victim), client.clone());
                let is_post = request.method() == "POST";
                let loses = is_post
                    && change == Change::LoseAnswers
                    && posts.fetch_add(1, Ordering::Relaxed) % 3 == 0;
                async move {
                    if is_post && change == Change::Delay {
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                    let mut forwarded = if is_post { client.post(url) } else { client.get(url) };
                    for (name, value) in request.headers() {
                        forwarded = forwarded.header(name.as_str(), value.as_bytes());
                    }
                    let answer = forwarded.body(body.to_vec()).send().await.unwrap();
                    if loses {
                        let unavailable = r#"{"type":"/problems/unavailable"}"#;
                        return HttpResponse::ServiceUnavailable()
                            .insert_header(("Retry-After", "0"))
                            .body(unavailable);
                    }
                    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
                    let mut response = HttpResponse::build(status);
                    for name in ["content-type", "link", "retry-after"] {
                        if let Some(value) = answer.headers().get(name) {
                            response.insert_header((name, value.as_bytes()));
                        }
                    }
                    let body = answer.bytes().await.unwrap();
                    match serde_json::from_slice(&body) {
                        Ok(Value::Array(ads)) if !is_post => {
                            let after = request.query_string().split("after=").nth(1);
                            response.body(changed(ads, after, change, &victim))
                        }
                        _ => response.body(body),
                    }
                }
            }))
        };
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap().run());
        Self { url }
    }
}

/// Changes the page of ads after a cursor.
fn changed(
    mut ads: Vec<Value>,
    after: Option<&str>,
    change: Change,
    victim: &Mutex<Option<(Value, Instant)>>,
) -> String {
    let mut victim = victim.lock().unwrap();
    if victim.is_none() {
        let of_load = ads.iter().find(|ad| ad["vin"] != OTHER);
        *victim = of_load.map(|ad| (ad.clone(), Instant::now()));
    }
    if let Some((victim, since)) = &*victim {
        let place = ads.iter().position(|ad| ad["vin"] == victim["vin"]);
        match (change, place) {
            (Change::HideOneFor(time), Some(place)) if since.elapsed() < time => drop(ads.remove(place)),
            (Change::ShowOneTwice, Some(place)) => ads.insert(place, victim.clone()),
            (Change::ShowOneTwiceLater, Some(place)) if since.elapsed() >= Duration::from_secs(2) => {
                ads.insert(place, victim.clone());
            }
            (Change::ShowOneTwiceBefore, _) => {
                let mut second = victim.clone();
                second["id"] = json!(minute_before(&victim["id"]));
                if after.is_none_or(|after| after < second["id"].as_str().unwrap()) {
                    ads.insert(0, second);
                }
            }
            _ => {}
        }
    }
    json!(ads).to_string()
}

/// Returns an id that an ad might have got a minute before this one.
fn minute_before(id: &Value) -> String {
    let (seconds, _) = Uuid::parse_str(id.as_str().unwrap()).unwrap().get_timestamp().unwrap().to_unix();
    Builder::from_unix_timestamp_millis((seconds - 60) * 1_000, &[0; 10]).into_uuid().to_string()
}

fn command(stock: &str, ads: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["load", "--json", "--stock-url", stock, "--ads-url", ads]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a load without blocking the fronts, which run in the same runtime.
async fn load(stock: &str, ads: &str, arguments: &[&str]) -> Output {
    let mut command = command(stock, ads, arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn counts(report: &Value) -> [u64; 3] {
    ["/accepted", "/lost/count", "/doubled/count"].map(|path| report.pointer(path).unwrap().as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_ends_with_nothing_lost_or_doubled_and_can_be_repeated() {
    let platform = Platform::start(&["--processing-time", "1s"]).await;
    platform.accept(OTHER).await;
    let (stock, ads) = (platform.stock(), platform.ads_url());
    let common = ["--processing-time", "1s", "--seed", "7"];
    let output = load(stock, ads, &[&common[..], &["--rate", "100", "--for", "2s"]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let first = report(&output);
    assert_eq!(counts(&first), [200, 0, 0], "{first:#}");
    assert_eq!((&first["clean"], &first["complete"]), (&json!(true), &json!(true)));
    for (latency, least) in [("postMs", 0.0), ("pathMs", 0.0)] {
        let quantiles =
            ["p50", "p90", "p99", "p99.9", "max"].map(|name| first[latency][name].as_f64().unwrap());
        assert!(quantiles.is_sorted() && quantiles[0] > least, "{first:#}");
    }
    // Another run with the same seed has other VINs; the same run again has the same ones and stores nothing.
    let output = load(stock, ads, &[&common[..], &["--connections", "4", "--count", "50"]].concat()).await;
    assert_eq!(counts(&report(&output)), [50, 0, 0], "{output:?}");
    let run = first["run"].to_string();
    let output = load(stock, ads, &[&common[..], &["--count", "200", "--run", &run]].concat()).await;
    assert_eq!(counts(&report(&output)), [200, 0, 0], "{output:?}");
    let listed = platform.ads().await;
    assert_eq!(listed.len(), 251);
    assert!(listed.iter().all(|ad| ad["vin"].as_str().unwrap().len() == 17 || ad["vin"] == OTHER));
    platform.finish().await;
}

/// Runs a load through a front that changes the ads, and checks what it finds.
async fn find(change: Change, expected: [u64; 3], reason: &str) {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    platform.accept(OTHER).await;
    platform.await_ads(1).await;
    let ads = Front::start(platform.ads_url(), change).url;
    let arguments = ["--processing-time", "0s", "--wait", "2s", "--rate", "50", "--count", "20"];
    let output = load(platform.stock(), &ads, &arguments).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report = report(&output);
    assert_eq!(counts(&report), expected, "{report:#}");
    assert_eq!(report["clean"], json!(false));
    let found = if expected[1] > 0 { &report["lost"] } else { &report["doubled"] };
    assert_eq!(found["examples"].as_array().unwrap().len(), 1);
    assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_reports_an_ad_that_is_missing() {
    find(Change::HideOneFor(Duration::MAX), [20, 1, 0], "1 accepted vehicles have no ad").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_reports_an_ad_that_is_shown_twice() {
    find(Change::ShowOneTwice, [20, 0, 1], "1 vehicles have more than one ad").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_reports_a_second_ad_that_is_listed_before_the_start() {
    find(Change::ShowOneTwiceBefore, [20, 0, 1], "1 vehicles have more than one ad").await;
}

/// Runs a load through a front that hides an ad for some time, and returns the maximum latency.
async fn find_late(hidden: Duration, arguments: &[&str]) -> f64 {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    let ads = Front::start(platform.ads_url(), Change::HideOneFor(hidden)).url;
    let all = [&["--processing-time", "0s", "--wait", "30s"], arguments].concat();
    let output = load(platform.stock(), &ads, &all).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = report(&output);
    assert_eq!(report["complete"], json!(true), "{report:#}");
    platform.finish().await;
    report["pathMs"]["max"].as_f64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ad_that_appears_late_between_others_is_seen_soon_while_the_load_goes_on() {
    let latency = find_late(Duration::from_millis(1_500), &["--rate", "20", "--for", "12s"]).await;
    assert!((1_500.0..9_000.0).contains(&latency), "{latency}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ad_that_appears_late_between_others_is_seen_when_no_other_one_comes() {
    let latency = find_late(Duration::from_secs(8), &["--rate", "50", "--count", "20"]).await;
    assert!(latency >= 8_000.0, "{latency}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ad_that_appears_while_the_load_watches_is_seen() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    let ads = Front::start(platform.ads_url(), Change::ShowOneTwiceLater).url;
    let arguments = ["--processing-time", "0s", "--rate", "100", "--count", "20", "--settle", "4s"];
    let output = load(platform.stock(), &ads, &arguments).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(counts(&report(&output)), [20, 0, 1], "{output:?}");
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_whose_answer_is_lost_is_repeated_and_stored_once() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    let stock = Front::start(platform.stock(), Change::LoseAnswers).url;
    let arguments = ["--processing-time", "0s", "--rate", "100", "--count", "60"];
    let output = load(&stock, platform.ads_url(), &arguments).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = report(&output);
    assert_eq!(counts(&report), [60, 0, 0], "{report:#}");
    assert!(report["retried"]["503 unavailable"].as_u64().unwrap() >= 20, "{report:#}");
    assert_eq!(platform.ads().await.len(), 60);
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_stock_delays_no_other_vehicle_and_what_exceeds_the_bound_is_dropped() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    let stock = Front::start(platform.stock(), Change::Delay).url;
    let arguments = ["--processing-time", "0s", "--rate", "100", "--for", "2s", "--max-outstanding", "10"];
    let output = load(&stock, platform.ads_url(), &arguments).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = report(&output);
    assert_eq!(report["offered"], json!(200), "{report:#}");
    let [accepted, ..] = counts(&report);
    assert_eq!(accepted + report["dropped"].as_u64().unwrap(), 200, "{report:#}");
    assert!((10..=60).contains(&accepted), "{report:#}");
    assert!(report["postMs"]["p50"].as_f64().unwrap() >= 500.0, "{report:#}");
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_presents_its_key_and_reports_refusals_by_kind() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    std::fs::write(&file, "a-key-of-the-first-client\n").unwrap();
    let key = ["--api-key-file", file.to_str().unwrap()];
    let platform = Platform::start(&[&key[..], &["--processing-time", "0s"]].concat()).await;
    let arguments = ["--processing-time", "0s", "--rate", "100", "--count", "10"];
    let refused = load(platform.stock(), platform.ads_url(), &arguments).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(report(&refused)["refused"], json!({ "401 unauthorized": 10 }));
    assert!(stderr(&refused).contains("stock accepted no vehicle"), "{refused:?}");
    let accepted = load(platform.stock(), platform.ads_url(), &[&key[..], &arguments].concat()).await;
    assert_eq!(counts(&report(&accepted)), [10, 0, 0], "{accepted:?}");
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_interrupt_ends_the_offer_and_the_second_one_the_load() {
    let platform = Platform::start(&["--processing-time", "2s"]).await;
    for interrupts in [1, 2] {
        let known = platform.list(platform.stock(), "/stock").await.len();
        let arguments = ["--processing-time", "2s", "--rate", "50", "--for", "1h"];
        let child = command(platform.stock(), platform.ads_url(), &arguments).spawn().unwrap();
        let mut load = RoleProcess { child };
        eventually("accepted vehicles", async || {
            (platform.list(platform.stock(), "/stock").await.len() > known).then_some(())
        })
        .await;
        signal(&load.child, "INT");
        if interrupts == 2 {
            // Its vehicles have no ads yet, so the load waits for them.
            signal(&load.child, "INT");
            let started = Instant::now();
            let status = eventually("the end", async || {
                if started.elapsed() > Duration::from_millis(200) && load.child.try_wait().unwrap().is_none()
                {
                    // Signals that arrive at the same time are one.
                    signal(&load.child, "INT");
                }
                load.child.try_wait().unwrap()
            })
            .await;
            assert_eq!(status.code(), Some(1));
        } else {
            let status = eventually("the end", async || load.child.try_wait().unwrap()).await;
            assert_eq!(status.code(), Some(0));
            let report: Value = serde_json::from_reader(load.child.stdout.take().unwrap()).unwrap();
            let [accepted, lost, doubled] = counts(&report);
            assert!(accepted > 0 && accepted < 5_000 && lost + doubled == 0, "{report:#}");
        }
    }
    platform.finish().await;
}

#[test]
fn a_load_that_cannot_work_fails_at_once_and_names_the_reason() {
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let output = command(&nowhere, &nowhere, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("stock does not answer on http://127.0.0.1"), "{output:?}");
    for (arguments, reason) in [
        (&["--rate", "5", "--connections", "2"][..], "cannot be used with"),
        (&["--rate", "0"], "must be a number from 0.001"),
        (&["--rate", "NaN"], "must be a number from 0.001"),
        (&["--connections", "0"], "1..=10000"),
        (&["--count", "10000001"], "1..=10000000"),
        (&["--for", "soon"], "such as 30s"),
        (&["--ads-url", "ftp://host"], "http or https"),
        (&["--api-key", "short"], "16 to 256"),
    ] {
        let output = Command::new(BINARY).arg("load").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(stderr(&output).contains(reason), "{arguments:?}: {output:?}");
    }
}
