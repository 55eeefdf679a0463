//! Tests records of malicious or broken clients: whatever their bytes are, no consumer and no tool stops.

use crate::support::kafka::{header, produce_compressed, read_all};
use crate::support::role::Role;
use crate::support::wire::produce_with_header;
use crate::support::{Platform, assert_same, eventually, vehicle};
use rdkafka::Message as _;
use serde_json::{Value, json};

const CREATED: &str = "stock.vehicle-created";
const PROCESSED: &str = "stock.vehicle-processed";
const NAMES: [&[u8]; 4] = [b"\xff", b"a\xc3(", b"\xed\xa0\x80", b"\0"];

/// Returns the frame of the events on a topic.
async fn frame(platform: &Platform, topic: &str) -> Vec<u8> {
    eventually("an event", async || {
        Some(read_all(platform.kafka(), topic).await.first()?.payload()?[..5].to_vec())
    })
    .await
}

fn framed(frame: &[u8], value: &Value) -> Vec<u8> {
    [frame, value.to_string().as_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_whose_name_is_not_utf8_stops_neither_a_role_nor_a_tool() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    platform.accept("first").await;
    let (created, processed) = (frame(&platform, CREATED).await, frame(&platform, PROCESSED).await);
    let mut expected = vec!["first".to_owned()];
    for (index, name) in NAMES.into_iter().enumerate() {
        let vin = format!("good-{index}");
        let mut event = vehicle(&vin);
        event["id"] = json!(1_000 + index);
        let value = framed(&created, &event);
        produce_with_header(platform.kafka(), CREATED, &vin, &value, (name, b"own")).await;
        let vin_of_ad = format!("ad-{index}");
        event["vin"] = json!(vin_of_ad);
        event["price"] = json!(1234.5);
        event["priceUnit"] = json!("USD");
        let value = framed(&processed, &event);
        produce_with_header(platform.kafka(), PROCESSED, &vin_of_ad, &value, (name, b"own")).await;
        produce_with_header(platform.kafka(), CREATED, "bad", b"not framed", (name, b"own")).await;
        expected.extend([vin, vin_of_ad]);
    }
    // Follows all of them.
    platform.accept("last").await;
    expected.push("last".to_owned());
    let ads = platform.await_ads(expected.len()).await;
    assert_same(ads.iter().map(|ad| ad["vin"].as_str().unwrap().to_owned()).collect(), expected);

    let letters = eventually("the dead letters", async || {
        let letters = read_all(platform.kafka(), &format!("{CREATED}.dlq")).await;
        (letters.len() == NAMES.len()).then_some(letters)
    })
    .await;
    for letter in &letters {
        assert_eq!(letter.payload(), Some(&b"not framed"[..]));
    }
    // A name that is valid UTF-8, however unusual, is retained.
    let unreadable = letters.iter().filter_map(|letter| header(letter, "dlq.headers.unreadable"));
    assert_eq!(unreadable.collect::<Vec<_>>(), ["1", "1", "1"]);

    let list = platform.tool(&["dlq", "list", "--json"]);
    assert!(list.status.success(), "{list:?}");
    assert_eq!(String::from_utf8(list.stdout).unwrap().lines().count(), NAMES.len());
    // Vehicles unknown to stock and unresolved dead letters are findings, so the exit code is 1.
    let audit = platform.tool(&["audit", "--json"]);
    assert_eq!(audit.status.code(), Some(1), "{audit:?}");
    serde_json::from_slice::<Value>(&audit.stdout).unwrap();
    let replay = platform.tool(&["dlq", "replay", "--all"]);
    assert!(replay.status.success(), "{replay:?}");
    platform.finish().await;
}

/// Lets a role read records of a megabyte that are a few hundred bytes each on the wire. Returns its peak resident
/// memory, in MiB.
async fn peak_memory(platform: &Platform, topic: &str, reader: &str, arguments: &[&str]) -> u64 {
    const RECORDS: usize = 120;
    const MEGABYTE: usize = 1_000_000;
    platform.accept("first").await;
    let frame = frame(platform, topic).await;
    let records = (0..RECORDS).map(|index| {
        let mut event = vehicle(&format!("large-{index}"));
        event["id"] = json!(1_000 + index);
        event["model"] = json!("m".repeat(MEGABYTE));
        if topic == PROCESSED {
            event["price"] = json!(1234.5);
            event["priceUnit"] = json!("USD");
        }
        framed(&frame, &event)
    });
    produce_compressed(platform.kafka(), topic, &records.collect::<Vec<_>>()).await;
    let role = Role::join(platform, reader, arguments);
    let committed = format!("{reader}_records_committed_total");
    eventually("all to be committed", async || {
        (role.metric(&committed).await? == i64::try_from(RECORDS).unwrap() + 1).then_some(())
    })
    .await;
    let peak = role.peak_memory_mib();
    println!("{reader}: at most {peak} MiB for {RECORDS} records of {MEGABYTE} bytes");
    peak
}

#[tokio::test(flavor = "multi_thread")]
async fn large_vehicles_wait_on_the_topic_rather_than_in_an_estimators_memory() {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    let peak = peak_memory(&platform, CREATED, "estimate", &["--processing-time", "2s"]).await;
    assert!(peak < 208, "the limit of compose/compose.yaml");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_vehicles_wait_on_the_topic_rather_than_in_the_memory_of_ads() {
    let platform = Platform::start(&["--roles", "stock,estimate", "--processing-time", "0s"]).await;
    let database = format!("sqlite:{}", platform.data_dir().join("ads.db").display());
    let peak = peak_memory(&platform, PROCESSED, "ads", &["--database-url", &database]).await;
    assert!(peak < 160, "the limit of compose/compose.yaml");
}
