//! Tests the pipeline on real engines, with four role processes started as a user would start them.
//!
//! The engines are those in `KAFKA_BOOTSTRAP_SERVERS`, `SCHEMA_REGISTRY_URL`, `TEST_POSTGRES_URL` and
//! `TEST_MONGODB_URL`, and the individual registries, without their balancer, in `TEST_SCHEMA_REGISTRIES`.

use std::collections::BTreeMap;

use crate::support::cluster::Roles;
use crate::support::engines::address;
use crate::support::kafka::{produce_record, read_all};
use crate::support::{assert_same, eventually, http_client, vehicle};
use rand::Rng as _;
use rdkafka::Message as _;
use rdkafka::message::OwnedMessage;
use rdkafka::producer::FutureRecord;
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

const CREATED: &str = "stock.vehicle-created";

#[tokio::test(flavor = "multi_thread")]
async fn every_vehicle_becomes_one_ad_on_the_real_engines() {
    let Some(roles) = Roles::start("1s").await else { return };
    let accepted: Vec<String> = (0..500).map(|number| format!("real-{number}")).collect();
    for vin in &accepted {
        roles.platform.accept(vin).await;
    }
    let ads = roles.platform.await_ads(accepted.len()).await;
    assert_same(ads, accepted.clone());
    for event in ["stock.vehicle-created", "stock.vehicle-processed"] {
        let records = read_all(roles.platform.bootstrap(), &roles.platform.topic(event)).await;
        assert_eq!(records.len(), accepted.len(), "{event}");
    }
    roles.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_roles_lose_and_duplicate_nothing_on_the_real_engines() {
    let Some(mut roles) = Roles::start("1s").await else { return };
    let mut accepted = Vec::new();
    for round in 0..3 {
        for number in 0..50 {
            let vin = format!("round-{round}-{number}");
            roles.platform.accept(&vin).await;
            accepted.push(vin);
        }
        roles.kill_and_restart_all().await;
    }
    let ads = roles.platform.await_ads(accepted.len()).await;
    assert_same(ads, accepted.clone());
    for event in ["stock.vehicle-created", "stock.vehicle-processed"] {
        let records = read_all(roles.platform.bootstrap(), &roles.platform.topic(event)).await;
        assert_eq!(records.len(), accepted.len(), "{event}");
    }
    roles.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_the_brokers_refuse_affect_no_others_on_the_real_engines() {
    let Some(roles) = Roles::start("0s").await else { return };
    let platform = &roles.platform;
    let (created, letters) = (platform.topic(CREATED), platform.topic(&format!("{CREATED}.dlq")));
    platform.accept("first").await;
    platform.await_ads(1).await;
    let frame = read_all(platform.bootstrap(), &created).await[0].payload().unwrap()[..5].to_vec();
    for codec in ["zstd", "gzip"] {
        let garbage = vec![b'g'; 4_000_000];
        let record = FutureRecord::to(&created).key(codec).payload(&garbage[..]);
        produce_record(platform.bootstrap(), record, codec).await;
    }
    // Compressed, but still too large for the dead-letter topic.
    let mut noise = vec![0; 1_000_000];
    rand::rng().fill_bytes(&mut noise);
    let noise = noise.repeat(3);
    let record = FutureRecord::to(&created).key("noise").payload(&noise[..]);
    produce_record(platform.bootstrap(), record, "zstd").await;
    // The event also has a price, which makes it larger.
    let mut large = vehicle("large");
    large["id"] = json!(7);
    let rest = large.to_string().len() + frame.len();
    let model: String =
        noise.iter().map(|byte| char::from(byte % 90 + 35)).filter(|sign| *sign != '\\').collect();
    large["model"] = json!(model.get(..1_048_460 - rest).unwrap());
    let value = [&frame[..], large.to_string().as_bytes()].concat();
    produce_record(platform.bootstrap(), FutureRecord::to(&created).key("large").payload(&value[..]), "none")
        .await;
    let mut letter = vec![0; 1_500_000];
    rand::rng().fill_bytes(&mut letter);
    produce_record(
        platform.bootstrap(),
        FutureRecord::to(&letters).key("letter").payload(&letter[..]),
        "none",
    )
    .await;
    let accepted: Vec<String> = (0..200).map(|number| format!("behind-{number}")).collect();
    for vin in &accepted {
        platform.accept(vin).await;
    }
    // The large vehicle may also become an ad, before or after the others.
    eventually("the ads of what was accepted", async || {
        let ads = platform.ad_vins().await?;
        accepted.iter().all(|vin| ads.contains(vin)).then_some(())
    })
    .await;
    let lengths = eventually("the dead letters", async || {
        let letters = read_all(platform.bootstrap(), &letters).await;
        (letters.len() >= 4).then(|| {
            let length = |letter: &OwnedMessage| letter.payload().map(<[u8]>::len);
            let key = |letter: &OwnedMessage| String::from_utf8(letter.key().unwrap().to_vec()).unwrap();
            letters.iter().map(|letter| (key(letter), length(letter))).collect::<BTreeMap<_, _>>()
        })
    })
    .await;
    println!("{lengths:?}");
    for (key, length) in
        [("zstd", Some(4_000_000)), ("gzip", Some(4_000_000)), ("noise", None), ("letter", Some(1_500_000))]
    {
        assert_eq!(lengths.get(key), Some(&length), "{key}");
    }
    let replayed = platform.tool(&["dlq", "replay", "--all"]);
    assert_eq!(replayed.status.code(), Some(1), "{replayed:?}");
    let said = String::from_utf8(replayed.stderr).unwrap();
    assert!(said.contains("replayed 2 dead letters; 2 were skipped"), "{said}");
    roles.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_schema_has_one_id_on_every_registry() {
    let Some(registries) = address("each of the schema registries", "TEST_SCHEMA_REGISTRIES") else { return };
    let subject = format!("test-{}-value", Uuid::now_v7().simple());
    let title =
        format!("{{\"$schema\":\"http://json-schema.org/draft-07/schema#\",\"title\":\"{subject}\"}}");
    let schema = json!({ "schemaType": "JSON", "schema": title });
    let client = http_client();
    let mut ids = Vec::new();
    for registry in registries.split(',') {
        let url = format!("{registry}/subjects/{subject}/versions");
        // A registry learns of another's registration slightly later, and returns 409 for concurrent ones.
        let id = eventually(&url, async || {
            let answer = client.post(&url).json(&schema).send().await.ok()?;
            answer.json::<Value>().await.ok()?["id"].as_u64()
        })
        .await;
        let url = format!("{registry}/schemas/ids/{id}");
        let answer = client.get(&url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{url}");
        ids.push(id);
    }
    assert!(ids.len() > 1 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}
