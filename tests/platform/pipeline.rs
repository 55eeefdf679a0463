//! Tests the pipeline from POST /stock to GET /ads, no matter what happens in between.

use crate::support;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::support::kafka::{header, produce, read_all};
use crate::support::{Platform, RoleProcess, assert_same, eventually, get, http_client, terminate, vehicle};
use rdkafka::message::Message;
use reqwest::StatusCode;
use serde_json::{Value, json};

const CREATED: &str = "stock.vehicle-created";
const PROCESSED: &str = "stock.vehicle-processed";

fn vins(ads: &[Value]) -> Vec<String> {
    ads.iter().map(|ad| ad["vin"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_posted_vehicle_becomes_one_ad_with_its_price() {
    let platform = Platform::start(&["--processing-time", "1s"]).await;
    let posted = Instant::now();
    let stocked = platform.accept("vin").await;

    let ads = platform.await_ads(1).await;
    assert!(posted.elapsed() >= Duration::from_secs(1), "the estimate takes the processing time");
    let ad = &ads[0];
    for (field, value) in vehicle("vin").as_object().unwrap() {
        assert_eq!(ad[field], *value, "{field}");
    }
    assert_eq!(ad["vehicleId"], stocked["id"]);
    assert_eq!(ad["priceUnit"], "USD");
    let price = ad["price"].as_f64().unwrap();
    assert!((1_000.0..=50_000.0).contains(&price), "{price}");
    assert!((price * 100.0 - (price * 100.0).round()).abs() < 1e-6, "{price} has more than two decimals");

    let url = format!("{}/ads/{}", platform.ads_url(), ad["id"].as_str().unwrap());
    let text = platform.get(&url).await.text().await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), *ad);
    assert!(text.contains(&format!("\"price\":{price:.2},")), "{text}");
    platform.finish().await;
}

#[tokio::test]
async fn records_are_framed_keyed_by_vin_and_carry_one_trace() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    platform.accept("traced").await;
    platform.await_ads(1).await;

    let mut traces = HashSet::new();
    for topic in [CREATED, PROCESSED] {
        let records = read_all(platform.kafka(), topic).await;
        assert_eq!(records.len(), 1, "{topic}");
        let record = &records[0];
        assert_eq!(record.key(), Some(b"traced".as_slice()));
        let value = record.payload().unwrap();
        assert_eq!(value[0], 0);
        let id = u32::from_be_bytes(value[1..5].try_into().unwrap());
        let latest = format!("{}/subjects/{topic}-value/versions/latest", platform.registry());
        let registered: Value = platform.get(&latest).await.json().await.unwrap();
        assert_eq!(registered["id"], id);
        let traceparent = header(record, "traceparent").unwrap();
        traces.insert(traceparent.split('-').nth(1).unwrap().to_owned());
    }
    assert_eq!(traces.len(), 1, "one vehicle has one trace");
    platform.finish().await;
}

#[tokio::test]
async fn a_kill_during_the_estimate_loses_and_duplicates_nothing() {
    let mut platform = Platform::start(&["--processing-time", "3s"]).await;
    let accepted: Vec<String> = (0..20).map(|number| format!("killed-{number}")).collect();
    for vin in &accepted {
        platform.accept(vin).await;
    }
    // Both are members of the group and have vehicles in flight.
    eventually("all events to be published", async || {
        (read_all(platform.kafka(), CREATED).await.len() == accepted.len()).then_some(())
    })
    .await;
    platform.kill_and_restart().await;

    let ads = platform.await_ads(accepted.len()).await;
    assert_same(vins(&ads), accepted.clone());
    assert_eq!(read_all(platform.kafka(), CREATED).await.len(), accepted.len());
    assert_eq!(read_all(platform.kafka(), PROCESSED).await.len(), accepted.len());
    platform.finish().await;
}

#[tokio::test]
async fn kills_at_any_moment_lose_and_duplicate_nothing() {
    let mut platform = Platform::start(&["--processing-time", "300ms"]).await;
    let mut accepted = Vec::new();
    for round in 0..5 {
        for number in 0..40 {
            let vin = format!("round-{round}-{number}");
            platform.accept(&vin).await;
            accepted.push(vin);
        }
        // Immediately, so that the relay, the estimators and ads are interrupted in their work.
        platform.kill_and_restart().await;
    }
    let ads = platform.await_ads(accepted.len()).await;
    assert_same(vins(&ads), accepted.clone());
    assert_eq!(read_all(platform.kafka(), CREATED).await.len(), accepted.len());
    assert_eq!(read_all(platform.kafka(), PROCESSED).await.len(), accepted.len());
    platform.finish().await;
}

#[tokio::test]
async fn two_thousand_vehicles_become_two_thousand_ads() {
    let platform = Platform::start(&["--processing-time", "1s"]).await;
    let accepted: Vec<String> = (0..2_000).map(|number| format!("many-{number}")).collect();
    for vin in &accepted {
        platform.accept(vin).await;
    }
    let ads = platform.await_ads(accepted.len()).await;
    assert_same(vins(&ads), accepted);
    platform.finish().await;
}

#[tokio::test]
async fn a_record_that_can_never_succeed_becomes_a_dead_letter_and_the_next_is_processed() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    platform.accept("before").await;
    platform.await_ads(1).await;
    let mut breaks_its_schema = read_all(platform.kafka(), CREATED).await[0].payload().unwrap()[..5].to_vec();
    breaks_its_schema.extend_from_slice(br#"{"vin":"half"}"#);
    for garbage in [b"garbage".as_slice(), b"", &[0, 0, 0, 0], &breaks_its_schema] {
        produce(platform.kafka(), CREATED, None, garbage).await;
    }
    produce(platform.kafka(), PROCESSED, Some("key"), b"more garbage").await;
    let accepted: Vec<String> = (0..10).map(|number| format!("behind-{number}")).collect();
    for vin in &accepted {
        platform.accept(vin).await;
    }
    platform.await_ads(1 + accepted.len()).await;

    let letters = eventually("the dead letters", async || {
        let letters = read_all(platform.kafka(), "stock.vehicle-created.dlq").await;
        (letters.len() >= 4).then_some(letters)
    })
    .await;
    let values: Vec<_> = letters.iter().map(|letter| letter.payload().unwrap_or_default().to_vec()).collect();
    assert_same(values, vec![b"garbage".to_vec(), Vec::new(), vec![0, 0, 0, 0], breaks_its_schema]);
    for letter in &letters {
        assert_eq!(header(letter, "dlq.topic").as_deref(), Some(CREATED));
        assert!(!header(letter, "dlq.reason").unwrap().is_empty());
    }
    let letters = eventually("the dead letter of ads", async || {
        let letters = read_all(platform.kafka(), "stock.vehicle-processed.dlq").await;
        (!letters.is_empty()).then_some(letters)
    })
    .await;
    assert_eq!(letters[0].payload(), Some(b"more garbage".as_slice()));
    assert_eq!(letters[0].key(), Some(b"key".as_slice()));
    platform.finish().await;
}

#[tokio::test]
async fn an_estimator_joins_from_another_process_and_leaves_without_losses() {
    let platform = Platform::start(&["--processing-time", "2s", "--roles", "stock,estimate,ads"]).await;
    let mut joined = Estimator::join(&platform, &["--processing-time", "2s"]);
    joined.await_partitions(|count| count > 0).await;

    let accepted: Vec<String> = (0..60).map(|number| format!("shared-{number}")).collect();
    for vin in &accepted {
        platform.accept(vin).await;
    }
    assert_eq!(terminate(&mut joined.process.child).await.code(), Some(0));
    let ads = platform.await_ads(accepted.len()).await;
    assert_same(vins(&ads), accepted.clone());
    assert_eq!(read_all(platform.kafka(), PROCESSED).await.len(), accepted.len());
    platform.finish().await;
}

/// An estimator in a separate process that serves its metrics.
struct Estimator {
    process: RoleProcess,
    metrics: String,
}

impl Estimator {
    fn join(platform: &Platform, arguments: &[&str]) -> Self {
        let port = support::free_port().to_string();
        let mut all = vec!["estimate", "--port", &port];
        all.extend(["--kafka-bootstrap-servers", platform.kafka()]);
        all.extend(["--schema-registry-url", platform.registry()]);
        all.extend(arguments);
        Self { process: RoleProcess::spawn(&all), metrics: format!("http://127.0.0.1:{port}/metrics") }
    }

    async fn metric(&self, name: &str) -> Option<i64> {
        let text = get(&self.metrics).await.ok()?.text().await.ok()?;
        // The lag is a float so that it can be NaN while it is unknown.
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().trim_end_matches(".0").parse().ok())
    }

    async fn await_partitions(&self, expected: impl Fn(i64) -> bool) {
        eventually("the estimator's partitions", async || {
            self.metric("estimate_partitions_assigned").await.filter(|count| expected(*count))
        })
        .await;
    }
}

#[tokio::test]
async fn a_full_estimator_stops_reading_and_continues_when_there_is_room() {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    let estimator = Estimator::join(&platform, &["--processing-time", "300ms", "--max-in-flight", "5"]);
    estimator.await_partitions(|count| count == 3).await;
    let accepted: Vec<String> = (0..50).map(|number| format!("bounded-{number}")).collect();
    for vin in &accepted {
        platform.accept(vin).await;
    }
    let mut most = 0;
    let ads = eventually("all ads", async || {
        most = most.max(estimator.metric("estimate_records_in_flight").await?);
        let ads = platform.ads().await;
        (ads.len() >= accepted.len()).then_some(ads)
    })
    .await;
    assert!((1..=5).contains(&most), "{most} in flight");
    assert_same(vins(&ads), accepted);
    platform.finish().await;
}

#[tokio::test]
async fn the_lag_counts_waiting_records_and_those_in_flight() {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    let slow = Estimator::join(&platform, &["--processing-time", "1h", "--max-in-flight", "20"]);
    slow.await_partitions(|count| count == 3).await;
    for number in 0..30 {
        platform.accept(&format!("lagging-{number}")).await;
    }
    let await_lag = async |estimator: &Estimator, expected: RangeInclusive<i64>| {
        eventually(&format!("a lag of {expected:?}"), async || {
            estimator.metric("estimate_group_lag").await.filter(|lag| expected.contains(lag))
        })
        .await
    };
    let in_flight = async || slow.metric("estimate_records_in_flight").await;
    eventually("a full estimator", async || in_flight().await.filter(|held| *held == 20)).await;
    // Each record was published in a transaction, which adds at most one marker.
    await_lag(&slow, 30..=60).await;
    drop(slow);
    let quick = Estimator::join(&platform, &["--processing-time", "0s"]);
    platform.await_ads(30).await;
    // Only the marker after the last record of each partition remains.
    await_lag(&quick, 0..=3).await;
    platform.finish().await;
}

#[tokio::test]
async fn a_partition_that_was_lost_while_paused_is_read_when_it_is_assigned_again() {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    let arguments = ["--processing-time", "2s", "--max-in-flight", "6"];
    let first = Estimator::join(&platform, &arguments);
    first.await_partitions(|count| count == 3).await;
    let mut accepted: Vec<String> = (0..20).map(|number| format!("paused-{number}")).collect();
    for vin in &accepted {
        platform.accept(vin).await;
    }
    eventually("the first estimator to be full", async || {
        first.metric("estimate_records_in_flight").await.filter(|count| *count >= 6)
    })
    .await;
    let mut second = Estimator::join(&platform, &arguments);
    second.await_partitions(|count| count > 0).await;
    platform.await_ads(accepted.len()).await;
    assert_eq!(terminate(&mut second.process.child).await.code(), Some(0));
    first.await_partitions(|count| count == 3).await;
    for number in 0..5 {
        let vin = format!("afterwards-{number}");
        platform.accept(&vin).await;
        accepted.push(vin);
    }
    let ads = platform.await_ads(accepted.len()).await;
    assert_same(vins(&ads), accepted);
    platform.finish().await;
}

#[tokio::test]
async fn a_rebalance_drops_the_work_on_lost_partitions_only() {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    let arguments = ["--processing-time", "1h"];
    let first = Estimator::join(&platform, &arguments);
    first.await_partitions(|count| count == 3).await;
    for number in 0..60 {
        platform.accept(&format!("kept-{number}")).await;
    }
    let held = async |estimator: &Estimator| estimator.metric("estimate_records_in_flight").await;
    eventually("the first to hold all", async || held(&first).await.filter(|held| *held == 60)).await;
    let second = Estimator::join(&platform, &arguments);
    let moved = eventually("some to move to the second", async || {
        let (kept, moved) = (held(&first).await?, held(&second).await?);
        (moved > 0 && kept + moved == 60).then_some(moved)
    })
    .await;
    assert!(moved < 60, "the first estimator retained nothing");
    // Work on the retained partitions was not restarted.
    assert_eq!(first.metric("estimate_records_read_total").await, Some(60));
    assert_eq!(second.metric("estimate_records_read_total").await, Some(moved));
    platform.finish().await;
}

#[tokio::test]
async fn a_large_record_that_violates_its_schema_becomes_a_dead_letter() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    platform.accept("before").await;
    platform.await_ads(1).await;
    let mut large = read_all(platform.kafka(), CREATED).await[0].payload().unwrap()[..5].to_vec();
    large.extend_from_slice(format!(r#"{{"vin":"{}"}}"#, "x".repeat(900_000)).as_bytes());
    produce(platform.kafka(), CREATED, None, &large).await;
    platform.accept("behind").await;
    platform.await_ads(2).await;
    let letters = eventually("the dead letter", async || {
        let letters = read_all(platform.kafka(), "stock.vehicle-created.dlq").await;
        (!letters.is_empty()).then_some(letters)
    })
    .await;
    assert_eq!(letters[0].payload(), Some(large.as_slice()));
    platform.finish().await;
}

#[tokio::test]
async fn a_role_with_unresponsive_brokers_ends_within_its_deadline() {
    let platform = Platform::start(&["--roles", "none"]).await;
    let mut estimator = Estimator::join(&platform, &["--processing-time", "1h"]);
    estimator.await_partitions(|count| count == 3).await;
    let signal = |signal: &str| {
        let sent = std::process::Command::new("kill").args([signal, &platform.pid().to_string()]).status();
        assert!(sent.unwrap().success());
    };
    signal("-STOP");
    let began = Instant::now();
    let status = terminate(&mut estimator.process.child).await;
    let took = began.elapsed();
    signal("-CONT");
    assert_eq!(status.code(), Some(0));
    // The deadline is 10 s; a busy machine may take slightly longer.
    assert!(took < Duration::from_secs(12), "{took:?}");
    platform.finish().await;
}

#[tokio::test]
async fn a_record_of_the_original_services_becomes_an_ad() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    // The original services use an open schema, no key and no id.
    let schema = r#"{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","properties":{"vin":{"type":"string"}}}"#;
    let body = serde_json::json!({ "schemaType": "JSON", "schema": schema });
    let url = format!("{}/subjects/original-value/versions", platform.registry());
    let answer = http_client().post(url).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let id = u32::try_from(answer.json::<Value>().await.unwrap()["id"].as_u64().unwrap()).unwrap();
    let mut processed = vehicle("original");
    processed["price"] = 4321.5.into();
    processed["priceUnit"] = "USD".into();
    let mut value = vec![0];
    value.extend_from_slice(&id.to_be_bytes());
    value.extend_from_slice(processed.to_string().as_bytes());
    produce(platform.kafka(), PROCESSED, None, &value).await;

    let ads = platform.await_ads(1).await;
    assert_eq!((&ads[0]["vin"], &ads[0]["price"]), (&"original".into(), &4321.5.into()));
    assert_eq!(ads[0]["vehicleId"], Value::Null);
    platform.finish().await;
}

#[tokio::test]
async fn integers_with_a_fraction_of_zero_are_integers_in_a_body_and_in_a_record() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    let mut body = vehicle("posted");
    body["year"] = serde_json::from_str("2.022e3").unwrap();
    assert_eq!(platform.post(&body).await.status(), StatusCode::CREATED);
    platform.await_ads(1).await;
    let mut value = read_all(platform.kafka(), CREATED).await[0].payload().unwrap()[..5].to_vec();
    let mut recorded = vehicle("recorded");
    recorded["id"] = json!(100.0);
    recorded["year"] = json!(2022.0);
    value.extend_from_slice(recorded.to_string().as_bytes());
    produce(platform.kafka(), CREATED, None, &value).await;
    for ad in platform.await_ads(2).await {
        assert_eq!(ad["year"].as_i64(), Some(2022), "{ad}");
    }
    platform.finish().await;
}
