//! The pipeline on real engines: four role processes, started as a user would start them.
//!
//! The engines are those that `KAFKA_BOOTSTRAP_SERVERS`, `SCHEMA_REGISTRY_URL`, `TEST_POSTGRES_URL` and
//! `TEST_MONGODB_URL` name, and each of the registries, past their balancer, in `TEST_SCHEMA_REGISTRIES`.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use reqwest::StatusCode;
use serde_json::{Value, json};
use support::cluster::Roles;
use support::engines::address;
use support::kafka::read_all;
use support::{assert_same, eventually};
use uuid::Uuid;

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
async fn killed_roles_lose_and_double_nothing_on_the_real_engines() {
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
async fn one_schema_has_one_id_on_every_registry() {
    let Some(registries) = address("each of the schema registries", "TEST_SCHEMA_REGISTRIES") else { return };
    let subject = format!("test-{}-value", Uuid::now_v7().simple());
    let title =
        format!("{{\"$schema\":\"http://json-schema.org/draft-07/schema#\",\"title\":\"{subject}\"}}");
    let schema = json!({ "schemaType": "JSON", "schema": title });
    let client = reqwest::Client::new();
    let mut ids = Vec::new();
    for registry in registries.split(',') {
        let url = format!("{registry}/subjects/{subject}/versions");
        // A registry learns what another registered a moment later, and answers 409 when both happen at once.
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
