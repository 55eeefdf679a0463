//! The pipeline on real engines: four role processes, started as a user would start them.
//!
//! The engines are those that `KAFKA_BOOTSTRAP_SERVERS`, `SCHEMA_REGISTRY_URL`, `TEST_POSTGRES_URL` and
//! `TEST_MONGODB_URL` name; `TEST_CLUSTER` is the script that can kill a node of theirs.

mod support;

use support::cluster::Roles;
use support::kafka::read_all;
use support::{assert_same, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn every_vehicle_becomes_one_ad_on_the_real_engines() {
    let Some(roles) = Roles::start("1s").await else { return };
    let accepted: Vec<String> = (0..500).map(|number| format!("real-{number}")).collect();
    for vin in &accepted {
        roles.accept(vin).await;
    }
    let ads = roles.await_ads(accepted.len()).await;
    assert_same(ads, accepted.clone());
    for event in ["stock.vehicle-created", "stock.vehicle-processed"] {
        let records = read_all(roles.bootstrap(), &roles.topic(event)).await;
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
            roles.accept(&vin).await;
            accepted.push(vin);
        }
        roles.kill_and_restart_all().await;
    }
    let ads = roles.await_ads(accepted.len()).await;
    assert_same(ads, accepted.clone());
    for event in ["stock.vehicle-created", "stock.vehicle-processed"] {
        let records = read_all(roles.bootstrap(), &roles.topic(event)).await;
        assert_eq!(records.len(), accepted.len(), "{event}");
    }
    roles.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_schema_has_one_id_on_every_registry() {
    let Some(roles) = Roles::start("0s").await else { return };
    roles.accept("schema").await;
    roles.await_ads(1).await;
    let records = read_all(roles.bootstrap(), &roles.topic("stock.vehicle-created")).await;
    let value = rdkafka::Message::payload(&records[0]).unwrap();
    let id = u32::from_be_bytes(value[1..5].try_into().unwrap());
    let url = format!("{}/schemas/ids/{id}", roles.registry());
    // Three times, so that the balancer asks each of them.
    for _ in 0..3 {
        eventually("the schema", async || {
            let answer = reqwest::get(&url).await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }
    roles.finish().await;
}
