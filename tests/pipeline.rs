//! From POST /stock to GET /ads, whatever happens in between.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rdkafka::message::Message;
use reqwest::StatusCode;
use serde_json::Value;
use support::kafka::{header, produce, read_all};
use support::{Platform, RoleProcess, assert_same, eventually, terminate, vehicle};

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
    assert!(posted.elapsed() >= Duration::from_secs(1), "the estimate takes its time");
    let ad = &ads[0];
    for field in ["vin", "model", "manufacturer", "year", "odometer", "odometerUnit"] {
        assert_eq!(ad[field], vehicle("vin")[field], "{field}");
    }
    assert_eq!(ad["vehicleId"], stocked["id"]);
    assert_eq!(ad["priceUnit"], "USD");
    let price = ad["price"].as_f64().unwrap();
    assert!((1_000.0..=50_000.0).contains(&price), "{price}");
    assert!((price * 100.0 - (price * 100.0).round()).abs() < 1e-6, "{price} has more than two decimals");

    let url = format!("{}/ads/{}", platform.ads_url(), ad["id"].as_str().unwrap());
    assert_eq!(platform.get(&url).await.json::<Value>().await.unwrap(), *ad);
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
    assert_eq!(traces.len(), 1, "one vehicle, one trace");
    platform.finish().await;
}

#[tokio::test]
async fn a_kill_during_the_estimate_loses_and_doubles_nothing() {
    let mut platform = Platform::start(&["--processing-time", "3s"]).await;
    let accepted: Vec<String> = (0..20).map(|number| format!("killed-{number}")).collect();
    for vin in &accepted {
        platform.accept(vin).await;
    }
    // Both are members of the group and hold vehicles in flight.
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
async fn kills_at_any_moment_lose_and_double_nothing() {
    let mut platform = Platform::start(&["--processing-time", "300ms"]).await;
    let mut accepted = Vec::new();
    for round in 0..5 {
        for number in 0..40 {
            let vin = format!("round-{round}-{number}");
            platform.accept(&vin).await;
            accepted.push(vin);
        }
        // At once: the relay, the estimators and ads are each in the middle of something.
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
async fn a_record_that_can_never_succeed_goes_to_the_dead_letters_and_the_next_is_served() {
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
async fn an_estimator_joins_from_another_process_and_its_end_is_no_loss() {
    let platform = Platform::start(&["--processing-time", "2s", "--roles", "stock,estimate,ads"]).await;
    let metrics = "estimate_partitions_assigned";
    let port = support::free_port();
    let mut joined = RoleProcess::spawn(&[
        "estimate",
        "--processing-time",
        "2s",
        "--port",
        &port.to_string(),
        "--kafka-bootstrap-servers",
        platform.kafka(),
        "--schema-registry-url",
        platform.registry(),
    ]);
    let url = format!("http://127.0.0.1:{port}/metrics");
    eventually("the joined estimator to get a partition", async || {
        let text = reqwest::get(&url).await.ok()?.text().await.ok()?;
        let line = text.lines().find(|line| line.starts_with(metrics))?;
        (line != format!("{metrics} 0")).then_some(())
    })
    .await;

    let accepted: Vec<String> = (0..60).map(|number| format!("shared-{number}")).collect();
    for vin in &accepted {
        platform.accept(vin).await;
    }
    assert_eq!(terminate(&mut joined.child).await.code(), Some(0));
    let ads = platform.await_ads(accepted.len()).await;
    assert_same(vins(&ads), accepted.clone());
    assert_eq!(read_all(platform.kafka(), PROCESSED).await.len(), accepted.len());
    platform.finish().await;
}

#[tokio::test]
async fn a_full_estimator_stops_reading_and_goes_on_when_there_is_room() {
    let arguments = ["--processing-time", "200ms", "--max-in-flight", "5", "--roles", "stock,estimate,ads"];
    let platform = Platform::start(&arguments).await;
    let accepted: Vec<String> = (0..50).map(|number| format!("bounded-{number}")).collect();
    for vin in &accepted {
        platform.accept(vin).await;
    }
    let ads = platform.await_ads(accepted.len()).await;
    assert_same(vins(&ads), accepted);
    platform.finish().await;
}

#[tokio::test]
async fn what_the_original_services_wrote_becomes_an_ad_too() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    // An open schema, no key, no id.
    let schema = r#"{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","properties":{"vin":{"type":"string"}}}"#;
    let body = serde_json::json!({ "schemaType": "JSON", "schema": schema });
    let url = format!("{}/subjects/original-value/versions", platform.registry());
    let answer = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
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
