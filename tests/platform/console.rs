//! Tests the console from outside: what it shows, and how its events reach a page.

use std::collections::BTreeMap;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::support::kafka::produce;
use crate::support::{Platform, RoleProcess, eventually, free_port, http_client, terminate, vehicle};

/// The stream of a page.
pub struct Events {
    response: Response,
    buffer: Vec<u8>,
}

/// An event: its id, its kind and its data.
pub struct Event {
    pub id: String,
    pub kind: String,
    pub data: Value,
}

impl Event {
    pub fn number(&self) -> u64 {
        self.id.split_once('-').unwrap().1.parse().unwrap()
    }
}

impl Events {
    pub async fn open(console: &str, last_event_id: Option<&str>) -> Self {
        let mut request = http_client().get(format!("{console}/events"));
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, buffer: Vec::new() }
    }

    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let event = self.buffer.drain(..end + 2).collect();
                let event = String::from_utf8(event).unwrap();
                let fields: BTreeMap<_, _> = event.lines().filter_map(|line| line.split_once(": ")).collect();
                let parsed = fields.contains_key("data").then(|| Event {
                    id: fields["id"].to_owned(),
                    kind: fields["event"].to_owned(),
                    data: serde_json::from_str(fields["data"]).unwrap(),
                });
                if let Some(event) = parsed {
                    return event;
                }
                continue;
            }
            let chunk = tokio::time::timeout(crate::support::DEADLINE, self.response.chunk()).await;
            self.buffer.extend_from_slice(&chunk.unwrap().unwrap().unwrap());
        }
    }
}

/// Returns the whole state of the console.
pub async fn snapshot(console: &str) -> Value {
    let event = Events::open(console, None).await.next().await;
    assert_eq!(event.kind, "snapshot");
    event.data
}

/// Waits until the state of the console satisfies `condition`.
pub async fn await_state<T>(console: &str, what: &str, condition: impl Fn(&Value) -> Option<T>) -> T {
    eventually(what, async || condition(&snapshot(console).await)).await
}

pub async fn post(url: &str, body: &Value) -> Response {
    http_client().post(url).json(body).send().await.unwrap()
}

async fn platform() -> Platform {
    Platform::start(&["--processing-time", "0s", "--console-port", "0"]).await
}

/// Waits until the console counts vehicles.
pub async fn await_counting(console: &str) {
    await_state(console, "the console to count", |state| state["counts"]["since"].as_i64()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vehicle_is_followed_from_its_post_to_its_ad() {
    let platform = platform().await;
    let console = platform.console();
    await_counting(console).await;
    let answer = post(&format!("{console}/vehicles"), &vehicle("followed")).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let id = answer.json::<Value>().await.unwrap()["id"].as_i64().unwrap();
    platform.accept("elsewhere").await;

    let state = await_state(console, "both vehicles to have an ad", |state| {
        let counts = &state["counts"];
        (counts["ads"] == 2 && counts["onTheirWay"] == 0).then(|| state.clone())
    })
    .await;
    let counts = &state["counts"];
    assert_eq!((&counts["accepted"], &counts["lost"], &counts["doubled"]), (&json!(2), &json!(0), &json!(0)));
    assert_eq!(state["ads"].as_array().unwrap().len(), 2, "{state}");
    let way = await_state(console, "the way of the vehicle", |state| {
        let way = &state["vehicles"][0];
        (way["published"].is_i64() && way["processed"].is_object()).then(|| way.clone())
    })
    .await;
    assert_eq!(
        (&way["vin"], &way["status"], way["id"].as_i64()),
        (&json!("followed"), &json!(201), Some(id))
    );
    assert!(way["created"]["offset"].is_i64() && way["price"].is_f64(), "{way}");
    assert_eq!(way["trace"].as_str().unwrap().len(), 32);
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_that_starts_later_shows_earlier_ads_and_counts_from_then_on() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    for vin in ["one", "two", "three"] {
        platform.accept(vin).await;
    }
    platform.await_ads(3).await;
    let port = free_port().to_string();
    let mut console = RoleProcess::spawn(&[
        "console",
        "--port",
        &port,
        "--stock-url",
        platform.stock(),
        "--ads-url",
        platform.ads_url(),
        "--kafka-bootstrap-servers",
        platform.kafka(),
        "--processing-time",
        "0s",
    ]);
    let page = format!("http://127.0.0.1:{port}");
    eventually("the page", async || http_client().get(&page).send().await.ok()).await;
    await_counting(&page).await;
    await_state(&page, "earlier ads", |state| (state["ads"].as_array()?.len() == 3).then_some(())).await;
    assert_eq!(snapshot(&page).await["counts"]["accepted"], 0);
    platform.accept("four").await;
    let counts = await_state(&page, "a new ad", |state| {
        (state["counts"]["ads"] == 1).then(|| state["counts"].clone())
    })
    .await;
    assert_eq!((&counts["accepted"], &counts["lost"], &counts["doubled"]), (&json!(1), &json!(0), &json!(0)));
    assert_eq!(terminate(&mut console.child).await.code(), Some(0));
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_and_the_groups_are_shown() {
    let platform = platform().await;
    let state = await_state(platform.console(), "all roles to be ready", |state| {
        let roles = state["roles"].as_array()?;
        let ready = roles.iter().filter(|role| role["readiness"] == "ready").count();
        let members = state["groups"]["estimate"]["members"].as_array()?;
        let partitions: usize =
            members.iter().map(|member| member["partitions"].as_array().unwrap().len()).sum();
        (ready == 4 && members.len() == 2 && partitions == 3).then(|| state.clone())
    })
    .await;
    assert_eq!(state["kafka"]["error"], Value::Null);
    assert_eq!(state["groups"]["ads"]["members"].as_array().unwrap().len(), 1);
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_reconnects_misses_nothing() {
    let platform = platform().await;
    let console = platform.console();
    let mut events = Events::open(console, None).await;
    let first = events.next().await;
    assert_eq!(first.kind, "snapshot");
    let mut numbers = vec![first.number()];
    let mut last = first.id;
    for _ in 0..3 {
        let event = events.next().await;
        numbers.push(event.number());
        last = event.id;
    }
    drop(events);
    let later = numbers[3] + 3;
    eventually("further events", async || {
        let latest = Events::open(console, None).await.next().await;
        (latest.number() >= later).then_some(())
    })
    .await;
    let mut again = Events::open(console, Some(&last)).await;
    for _ in 0..3 {
        let event = again.next().await;
        assert_eq!(event.kind, "delta");
        numbers.push(event.number());
    }
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    for stranger in ["00000000-1", "x", &format!("{last}0000000")] {
        assert_eq!(Events::open(console, Some(stranger)).await.next().await.kind, "snapshot", "{stranger}");
    }
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_shown_with_its_reason_and_replayed_once() {
    let platform = platform().await;
    let console = platform.console();
    await_counting(console).await;
    produce(platform.kafka(), "stock.vehicle-created", Some("<b>key</b>"), b"garbage").await;
    produce(platform.kafka(), "stock.vehicle-created", None, b"rubbish").await;
    let letters = await_state(console, "two dead letters", |state| {
        (state["letters"]["waiting"] == 2).then(|| state["letters"]["shown"].as_array().unwrap().clone())
    })
    .await;
    let letter = letters.iter().find(|letter| letter["key"] == "<b>key</b>").unwrap();
    assert!(!letter["reason"].as_str().unwrap().is_empty(), "{letter}");
    assert_eq!(
        (&letter["topic"], &letter["group"]),
        (&json!("stock.vehicle-created"), &json!("ms-price-estimate"))
    );
    let body = json!({ "letters": [letter["id"]] });
    let discarded = post(&format!("{console}/letters/discard"), &body).await;
    assert_eq!(discarded.status(), StatusCode::OK);
    assert_eq!(
        discarded.json::<Value>().await.unwrap(),
        json!({ "resolved": [letter["id"]], "skipped": [] })
    );
    let again = post(&format!("{console}/letters/replay"), &body).await;
    assert_eq!(again.status(), StatusCode::CONFLICT);
    let problem = again.json::<Value>().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("already resolved"), "{problem}");

    let other = letters.iter().find(|letter| letter["key"] != "<b>key</b>").unwrap();
    let replayed = post(&format!("{console}/letters/replay"), &json!({ "letters": [other["id"]] })).await;
    assert_eq!(replayed.status(), StatusCode::OK);
    // The cause is not fixed, so the record becomes a dead letter again.
    await_state(console, "a further dead letter", |state| {
        let shown = state["letters"]["shown"].as_array()?;
        (shown.len() == 1 && shown[0]["id"] != other["id"] && shown[0]["replays"] == 1).then_some(())
    })
    .await;
    for wrong in [json!({}), json!({ "letters": [] }), json!({ "letters": ["x"] }), json!({ "letters": [1] })]
    {
        let refused = post(&format!("{console}/letters/replay"), &wrong).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
    platform.finish().await;
}
