//! The pipeline while nodes of the cluster die. Not beside other suites: they would feel it.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashSet;

use support::assert_same;
use support::cluster::{Killed, Roles};
use support::kafka::read_all;

const TOPICS: [&str; 2] = ["stock.vehicle-created", "stock.vehicle-processed"];

/// Posts vehicles before, during and after the death of `node`; each becomes an ad, once.
async fn survives_the_death_of(node: &'static str) {
    let Some(roles) = Roles::start("2s").await else { return };
    let mut accepted = Vec::new();
    for number in 0..100 {
        let vin = format!("before-{number}");
        roles.platform.accept(&vin).await;
        accepted.push(vin);
    }
    let Some(killed) = Killed::node(node) else { return };
    for number in 0..100 {
        let vin = format!("during-{number}");
        roles.platform.accept(&vin).await;
        accepted.push(vin);
    }
    roles.platform.await_ads(accepted.len()).await;
    drop(killed);
    for number in 0..100 {
        let vin = format!("after-{number}");
        roles.platform.accept(&vin).await;
        accepted.push(vin);
    }
    let ads = roles.platform.await_ads(accepted.len()).await;
    assert_same(ads, accepted.clone());
    for topic in TOPICS {
        let records = read_all(roles.platform.bootstrap(), &roles.platform.topic(topic)).await;
        let keys: HashSet<_> = records.iter().map(|record| rdkafka::Message::key(record).unwrap()).collect();
        assert_eq!((records.len(), keys.len()), (accepted.len(), accepted.len()), "{topic}");
    }
    roles.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_is_no_loss() {
    survives_the_death_of("kafka-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_zookeeper_is_no_loss() {
    survives_the_death_of("zookeeper-2").await;
}

/// New roles have to register their schemas and look them up while a registry is dead.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_registry_dead_schemas_are_registered_and_looked_up() {
    let Some(_killed) = Killed::node("registry-2") else { return };
    let Some(roles) = Roles::start("0s").await else { return };
    for number in 0..20 {
        roles.platform.accept(&format!("registered-{number}")).await;
    }
    roles.platform.await_ads(20).await;
    roles.finish().await;
}
