//! Tests that records which the brokers refuse permanently affect no other records.

use std::collections::HashSet;

use crate::support::kafka::{create_topic, header, produce, produce_all, produce_record, read_all};
use crate::support::{Platform, RoleProcess, assert_same, eventually, free_port, http_client, vehicle};
use rand::Rng as _;
use rdkafka::Message as _;
use rdkafka::message::{Header, Headers as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::FutureRecord;
use serde_json::{Value, json};
use tempfile::TempDir;

const CREATED: &str = "stock.vehicle-created";
const PROCESSED: &str = "stock.vehicle-processed";
const CREATED_LETTERS: &str = "stock.vehicle-created.dlq";
/// The prefix of the topics that a test creates itself.
const OWN: &str = "own.";

/// Returns bytes that no codec can compress.
fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// Starts an estimator that reads records of others from the platform's Kafka.
fn estimator(platform: &Platform, arguments: &[&str]) -> RoleProcess {
    let mut all = vec!["estimate", "--processing-time", "0s"];
    all.extend(["--kafka-bootstrap-servers", platform.kafka()]);
    all.extend(["--schema-registry-url", platform.registry()]);
    all.extend(["--topic-replication-factor", "1", "--topic-min-insync-replicas", "1"]);
    all.extend(arguments);
    RoleProcess::spawn(&all)
}

async fn letters(platform: &Platform, topic: &str, count: usize) -> Vec<OwnedMessage> {
    eventually(&format!("{count} dead letters"), async || {
        let letters = read_all(platform.kafka(), topic).await;
        assert!(letters.len() <= count, "{letters:?}");
        (letters.len() == count).then_some(letters)
    })
    .await
}

/// Registers the platform's schema and returns the frame of its events.
async fn frame(platform: &Platform) -> Vec<u8> {
    let schema = include_str!("../../schemas/stock.vehicle-created.json");
    let body = json!({ "schemaType": "JSON", "schema": schema });
    let url = format!("{}/subjects/{CREATED}-value/versions", platform.registry());
    let answer = http_client().post(url).json(&body).send().await.unwrap();
    let id = u32::try_from(answer.json::<Value>().await.unwrap()["id"].as_u64().unwrap()).unwrap();
    [&[0][..], &id.to_be_bytes()].concat()
}

/// Returns an event with `frame`, which identifies the schema.
fn event(frame: &[u8], vin: &str, model: &str) -> Vec<u8> {
    let mut event = vehicle(vin);
    event["id"] = json!(1);
    event["model"] = json!(model);
    [frame, event.to_string().as_bytes()].concat()
}

/// Returns the topics of created vehicles, of processed vehicles, and of dead letters of the first.
fn own_topics() -> (String, String, String) {
    (format!("{OWN}{CREATED}"), format!("{OWN}{PROCESSED}"), format!("{OWN}{CREATED_LETTERS}"))
}

fn keys(records: &[OwnedMessage]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8(record.key().unwrap().to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn a_record_that_was_small_when_compressed_becomes_a_complete_dead_letter() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    for (codec, length) in [("zstd", 3_000_000), ("gzip", 5_000_000)] {
        let garbage = vec![b'g'; length];
        produce_record(platform.kafka(), FutureRecord::to(CREATED).payload(&garbage[..]), codec).await;
    }
    let accepted: Vec<String> = (0..20).map(|number| format!("behind-{number}")).collect();
    for vin in &accepted {
        platform.accept(vin).await;
    }
    let ads = platform.await_ads(accepted.len()).await;
    assert_same(ads.iter().map(|ad| ad["vin"].as_str().unwrap().to_owned()).collect(), accepted);
    let lengths = letters(&platform, CREATED_LETTERS, 2)
        .await
        .iter()
        .map(|letter| letter.payload().unwrap().len())
        .collect();
    assert_same(lengths, vec![3_000_000, 5_000_000]);
    platform.finish().await;
}

#[tokio::test]
async fn a_refused_dead_letter_is_written_without_its_value_and_does_not_affect_others() {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    let garbage = vec![b'g'; 3_000_000];
    produce_record(platform.kafka(), FutureRecord::to(CREATED).key("bomb").payload(&garbage[..]), "zstd")
        .await;
    produce(platform.kafka(), CREATED, Some("small"), b"small garbage").await;
    let accepted: Vec<String> = (0..50).map(|number| format!("behind-{number}")).collect();
    for vin in &accepted {
        platform.accept(vin).await;
    }
    let _estimator = estimator(&platform, &["--kafka-property", "compression.type=none"]);
    platform.await_ads(accepted.len()).await;
    let letters = letters(&platform, CREATED_LETTERS, 2).await;
    let find = |key: &[u8]| letters.iter().find(|letter| letter.key() == Some(key)).unwrap();
    assert_eq!(find(b"small").payload(), Some(&b"small garbage"[..]));
    let bomb = find(b"bomb");
    assert_eq!(bomb.payload(), None);
    assert_eq!(header(bomb, "dlq.value.bytes").as_deref(), Some("3000000"));
    assert_eq!(header(bomb, "dlq.value.sha256").unwrap().len(), 64);
    assert!(header(bomb, "dlq.reason").unwrap().contains("not framed"));
    assert_eq!(header(bomb, "dlq.topic").as_deref(), Some(CREATED));
    assert_eq!(read_all(platform.kafka(), PROCESSED).await.len(), accepted.len(), "nothing is duplicated");

    // A replay continues past the incomplete dead letter and reports it.
    let listed = platform.tool(&["dlq", "list", "--json"]);
    let listed: Vec<Value> = String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let id = |partial: bool| {
        let letter = listed.iter().find(|letter| letter["leftOut"].is_string() == partial).unwrap();
        letter["letter"].as_str().unwrap().to_owned()
    };
    let shown = platform.tool(&["dlq", "show", &id(true)]);
    assert!(String::from_utf8(shown.stdout).unwrap().contains("3000000 bytes"), "omitted");
    assert_eq!(platform.tool(&["dlq", "show", &id(true), "--raw"]).status.code(), Some(1));
    let replayed = platform.tool(&["dlq", "replay", "--all"]);
    assert_eq!(replayed.status.code(), Some(1));
    assert_eq!(String::from_utf8(replayed.stdout).unwrap().trim(), format!("replayed {}", id(false)));
    let said = String::from_utf8(replayed.stderr).unwrap();
    assert!(said.contains(&format!("skipped {}: the value", id(true))), "{said}");
    assert!(said.contains("1 were skipped"), "{said}");
    assert!(platform.tool(&["dlq", "discard", &id(true)]).status.success());
    platform.finish().await;
}

#[tokio::test]
async fn a_valid_vehicle_whose_event_is_too_large_becomes_a_dead_letter_and_the_others_become_ads() {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    platform.accept("before").await;
    platform.await_empty_outbox().await;
    let frame = frame(&platform).await;
    let rest = event(&frame, "large", "").len();
    let large = event(&frame, "large", &"m".repeat(1_048_468 - rest));
    produce_record(platform.kafka(), FutureRecord::to(CREATED).key("large").payload(&large[..]), "none")
        .await;
    platform.accept("behind").await;
    platform.await_empty_outbox().await;
    let _estimator = estimator(&platform, &["--kafka-property", "compression.type=none"]);
    platform.await_ads(2).await;
    let letter = letters(&platform, CREATED_LETTERS, 1).await.remove(0);
    assert_eq!(letter.payload(), Some(&large[..]));
    let reason = header(&letter, "dlq.reason").unwrap();
    assert!(reason.contains(PROCESSED) && reason.contains("Message size too large"), "{reason}");
    platform.finish().await;
}

#[tokio::test]
async fn records_that_are_too_large_together_are_written_separately() {
    let platform = Platform::start(&["--roles", "none"]).await;
    let (created, processed, dead) = own_topics();
    create_topic(platform.kafka(), &processed, "700").await;
    create_topic(platform.kafka(), &created, "1048588").await;
    let frame = frame(&platform).await;
    let vins = |name: &str, count| (0..count).map(|number| format!("{name}-{number}")).collect::<Vec<_>>();
    let (fitting, refused) = (vins("vin", 300), vins("large", 20));
    let record = |vin: &String, model: &str| (vin.clone(), event(&frame, vin, model));
    let mut records: Vec<_> = fitting.iter().map(|vin| record(vin, "m")).collect();
    records.extend(refused.iter().map(|vin| record(vin, &"m".repeat(700))));
    produce_all(platform.kafka(), &created, &records, "none").await;
    let _estimator =
        estimator(&platform, &["--kafka-prefix", OWN, "--kafka-property", "compression.type=none"]);
    assert_same(keys(&letters(&platform, &dead, refused.len()).await), refused);
    let processed = eventually("all events", async || {
        let records = read_all(platform.kafka(), &processed).await;
        (records.len() >= fitting.len()).then_some(records)
    })
    .await;
    assert_same(keys(&processed), fitting);
    platform.end().await;
}

#[tokio::test]
async fn a_dead_letter_whose_headers_are_refused_is_written_without_them() {
    let platform = Platform::start(&["--roles", "none"]).await;
    let (created, _, dead) = own_topics();
    create_topic(platform.kafka(), &dead, "3000").await;
    create_topic(platform.kafka(), &created, "1048588").await;
    let (value, noise, key) = (random(5_000), random(5_000), "k".repeat(2_000));
    let headers = OwnedHeaders::new()
        .insert(Header { key: "noise", value: Some(&noise) })
        .insert(Header { key: "dlq.reason", value: Some("forged") });
    let record = FutureRecord::to(&created).key(key.as_str()).payload(&value[..]).headers(headers);
    produce_record(platform.kafka(), record, "none").await;
    produce(platform.kafka(), &created, Some("small"), b"small garbage").await;
    let _estimator = estimator(&platform, &["--kafka-prefix", OWN]);
    let letters = letters(&platform, &dead, 2).await;
    let bare = letters.iter().find(|letter| letter.payload().is_none()).unwrap();
    assert_eq!(bare.key(), None);
    for (name, expected) in [
        ("dlq.headers.count", "2"),
        ("dlq.headers.bytes", "5021"),
        ("dlq.key.bytes", "2000"),
        ("dlq.value.bytes", "5000"),
        ("dlq.topic", &created),
    ] {
        assert_eq!(header(bare, name).as_deref(), Some(expected), "{name}");
    }
    assert!(header(bare, "dlq.reason").unwrap().contains("not framed"));
    let names: HashSet<_> = bare.headers().unwrap().iter().map(|header| header.key.to_owned()).collect();
    assert!(!names.contains("noise"), "{names:?}");
    platform.end().await;
}

#[tokio::test]
async fn a_dead_letter_whose_replay_is_refused_is_reported_and_the_others_are_replayed() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    platform.accept("first").await;
    platform.await_ads(1).await;
    let record = read_all(platform.kafka(), CREATED).await.remove(0);
    let frame = record.payload().unwrap()[..5].to_vec();
    let large = random(1_500_000);
    let letter = FutureRecord::to(CREATED_LETTERS).key("large").payload(&large[..]);
    produce_record(platform.kafka(), letter, "none").await;
    for vin in ["second", "third"] {
        produce(platform.kafka(), CREATED_LETTERS, Some(vin), &event(&frame, vin, "model")).await;
    }
    let replayed = platform.tool(&["dlq", "replay", "--all"]);
    assert_eq!(replayed.status.code(), Some(1), "{replayed:?}");
    assert_eq!(String::from_utf8(replayed.stdout).unwrap().lines().count(), 2);
    let said = String::from_utf8(replayed.stderr).unwrap();
    assert!(said.contains("the brokers refuse it: ") && said.contains("Message size too large"), "{said}");
    assert!(said.contains("max.message.bytes") && said.contains("1 were skipped"), "{said}");
    platform.await_ads(3).await;
    let listed = platform.tool(&["dlq", "list", "--json"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    let waiting: Value = serde_json::from_str(listed.trim()).unwrap();
    let id = waiting["letter"].as_str().unwrap();
    assert!(said.contains(&format!("skipped {id}: ")), "{said}");
    assert!(platform.tool(&["dlq", "discard", "--all"]).status.success());
    platform.finish().await;
}

#[tokio::test]
async fn the_reason_of_a_dead_letter_is_its_cause_regardless_of_the_values_length() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    platform.accept("first").await;
    platform.await_ads(1).await;
    let frame = read_all(platform.kafka(), CREATED).await[0].payload().unwrap()[..5].to_vec();
    let mut wrong = vehicle("wrong");
    wrong["id"] = json!(1);
    wrong["model"] = json!("m".repeat(3_000));
    wrong["year"] = json!("x");
    let value = [&frame[..], wrong.to_string().as_bytes()].concat();
    produce(platform.kafka(), CREATED, None, &value).await;
    let reason = header(&letters(&platform, CREATED_LETTERS, 1).await[0], "dlq.reason").unwrap();
    assert!(reason.starts_with("/year: value is not of type \"integer\""), "{reason}");
    platform.finish().await;
}

#[tokio::test]
async fn an_event_that_the_brokers_refuse_is_skipped_by_the_relay_and_the_next_are_published() {
    let platform = Platform::start(&["--roles", "none"]).await;
    let (created, _, _) = own_topics();
    create_topic(platform.kafka(), &created, "700").await;
    let (directory, port) = (TempDir::new().unwrap(), free_port().to_string());
    let database = format!("sqlite:{}", directory.path().join("stock.db").display());
    let mut arguments = vec!["stock", "--port", &port, "--database-url", &database];
    arguments.extend(["--kafka-bootstrap-servers", platform.kafka()]);
    arguments.extend(["--schema-registry-url", platform.registry()]);
    arguments.extend([
        "--topic-replication-factor",
        "1",
        "--topic-min-insync-replicas",
        "1",
        "--kafka-prefix",
        OWN,
    ]);
    let _stock = RoleProcess::spawn(&arguments);
    let url = format!("http://127.0.0.1:{port}");
    let client = http_client();
    let mut fitting = Vec::new();
    for number in 0..50 {
        let vin = format!("vin-{number}");
        let mut body = vehicle(&vin);
        if number % 20 == 7 {
            // Characters that no codec compresses well.
            let sign = |pair: &[u8]| {
                char::from_u32(0x4E00 + u32::from(pair[0]) * 64 + u32::from(pair[1] % 64)).unwrap()
            };
            body["model"] = json!(random(510).chunks(2).map(sign).collect::<String>());
            body["manufacturer"] = json!(random(510).chunks(2).map(sign).collect::<String>());
        } else {
            fitting.push(vin);
        }
        eventually("a vehicle to be accepted", async || {
            let answer = client.post(format!("{url}/stock")).json(&body).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }
    let published = eventually("the others to be published", async || {
        let records = read_all(platform.kafka(), &created).await;
        (records.len() >= fitting.len()).then_some(records)
    })
    .await;
    assert_same(keys(&published), fitting);
    eventually("the failures", async || {
        let metrics = client.get(format!("{url}/metrics")).send().await.ok()?.text().await.ok()?;
        metrics.contains("stock_events_failed 3\n").then_some(())
    })
    .await;
    platform.end().await;
}
