//! Tests the pipeline while nodes of the cluster are killed and roles end or are suspended. Must run without other
//! suites, which it would affect.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use support::cluster::{ADS, ESTIMATES, NAMES, Role, Roles, STOCK};
use support::kafka::read_all;
use support::node::{self, Killed};
use support::topics::replace_topic;
use support::{assert_same, eventually, get};

const TOPICS: [&str; 2] = ["stock.vehicle-created", "stock.vehicle-processed"];
const BROKERS: [&str; 3] = ["kafka-1", "kafka-2", "kafka-3"];

/// Posts `count` vehicles and returns their vins.
async fn accept(roles: &Roles, name: &str, count: usize) -> Vec<String> {
    let mut accepted = Vec::new();
    for number in 0..count {
        let vin = format!("{name}-{number}");
        roles.platform.accept(&vin).await;
        accepted.push(vin);
    }
    accepted
}

/// Checks that each vehicle has one ad and one record in each topic, that no role has ended, and that all terminate
/// gracefully.
async fn expect_one_ad_each(mut roles: Roles, accepted: Vec<String>) {
    let ads = roles.platform.await_ads(accepted.len()).await;
    assert_same(ads, accepted.clone());
    for topic in TOPICS {
        let records = read_all(roles.platform.bootstrap(), &roles.platform.topic(topic)).await;
        let keys: HashSet<_> = records.iter().map(|record| rdkafka::Message::key(record).unwrap()).collect();
        assert_eq!((records.len(), keys.len()), (accepted.len(), accepted.len()), "{topic}");
    }
    for (role, name) in roles.roles.iter_mut().zip(NAMES) {
        assert_eq!(role.ended(), None, "{name} ended unexpectedly");
    }
    roles.finish().await;
}

/// Posts vehicles before, during and after the failure, and expects each to become one ad.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_nothing() {
    let Some(roles) = Roles::start("2s").await else { return };
    let mut accepted = accept(&roles, "before", 100).await;
    let Some(killed) = Killed::node("kafka-1") else { return };
    accepted.extend(accept(&roles, "during", 100).await);
    roles.platform.await_ads(accepted.len()).await;
    drop(killed);
    accepted.extend(accept(&roles, "after", 100).await);
    expect_one_ad_each(roles, accepted).await;
}

/// Kills the nodes of `ZooKeeper` one after the other, or the brokers of a cluster without it, one of which is the active
/// controller.
#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_each_node_that_keeps_the_metadata_loses_nothing() {
    let Some(names) = node::names() else { return };
    let Some(roles) = Roles::start("1s").await else { return };
    let of = |kind: &str| names.iter().copied().filter(|name| name.starts_with(kind)).collect::<Vec<_>>();
    let keepers = if of("zookeeper-").is_empty() { of("kafka-") } else { of("zookeeper-") };
    assert_eq!(keepers.len(), 3);
    let mut accepted = accept(&roles, "before", 20).await;
    for keeper in keepers {
        let Some(killed) = Killed::node(keeper) else { return };
        accepted.extend(accept(&roles, keeper, 50).await);
        roles.platform.await_ads(accepted.len()).await;
        drop(killed);
    }
    accepted.extend(accept(&roles, "after", 20).await);
    expect_one_ad_each(roles, accepted).await;
}

/// New roles must register and look up their schemas while a registry is down.
#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_registered_and_looked_up_while_a_registry_is_down() {
    let Some(_killed) = Killed::node("registry-2") else { return };
    let Some(roles) = Roles::start("0s").await else { return };
    let accepted = accept(&roles, "registered", 20).await;
    expect_one_ad_each(roles, accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vehicles_are_accepted_without_brokers_and_published_when_they_return() {
    let Some(roles) = Roles::start("1s").await else { return };
    let mut accepted = accept(&roles, "before", 20).await;
    let Some(killed) = Killed::nodes(&BROKERS) else { return };
    for number in 0..50 {
        let vin = format!("without-{number}");
        let answer = roles.platform.post(&vin).await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        accepted.push(vin);
    }
    drop(killed);
    expect_one_ad_each(roles, accepted).await;
}

/// The publishing stock loses the lease in the middle of a batch and then reaches the brokers again.
#[tokio::test(flavor = "multi_thread")]
async fn two_stocks_duplicate_and_lose_nothing_when_the_lease_moves() {
    let Some(roles) = Roles::start("1s").await else { return };
    let mut second = roles.roles[STOCK].twin();
    second.start();
    let mut accepted = accept(&roles, "before", 20).await;
    roles.platform.await_ads(accepted.len()).await;
    let Some(killed) = Killed::nodes(&BROKERS) else { return };
    accepted.extend(accept(&roles, "claimed", 30).await);
    // Its restart ends the connection of the lease holder.
    drop(Killed::node("postgres"));
    accepted.extend(accept(&roles, "not-claimed", 30).await);
    drop(killed);
    roles.platform.await_ads(accepted.len()).await;
    assert_eq!(second.terminate().await.0.code(), Some(0));
    expect_one_ad_each(roles, accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_without_postgresql_is_answered_with_retry_after() {
    let Some(roles) = Roles::start("1s").await else { return };
    let mut accepted = accept(&roles, "before", 20).await;
    let Some(killed) = Killed::node("postgres") else { return };
    let refused = eventually("a 503", async || {
        roles.platform.post("refused").await.filter(|answer| answer.status() != StatusCode::CREATED)
    })
    .await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    drop(killed);
    accepted.extend(accept(&roles, "after", 20).await);
    expect_one_ad_each(roles, accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_mongodb_ads_keeps_its_partitions_and_skips_nothing() {
    let Some(roles) = Roles::start("0s").await else { return };
    let mut accepted = accept(&roles, "before", 20).await;
    roles.platform.await_ads(accepted.len()).await;
    let Some(killed) = Killed::node("mongodb") else { return };
    accepted.extend(accept(&roles, "during", 50).await);
    eventually("the records to wait", async || {
        (roles.platform.metric(ADS, "ads_records_in_flight ").await? == 50).then_some(())
    })
    .await;
    assert_eq!(roles.platform.metric(ADS, "ads_partitions_assigned ").await, Some(3));
    drop(killed);
    expect_one_ad_each(roles, accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_wait_for_the_registry_and_later_work_without_it() {
    let Some(killed) = Killed::node("nginx") else { return };
    let Some(mut roles) = Roles::prepare(&support::cluster::Setup::default()).await else { return };
    roles.roles.iter_mut().for_each(Role::start);
    let url = format!("{}/readyz", roles.platform.stock_url());
    eventually("stock to report the missing registry", async || {
        let answer = get(&url).await.ok()?;
        let missing: serde_json::Value = answer.json().await.ok()?;
        let missing = missing["missing"].as_object()?;
        (missing.len() == 1 && missing.contains_key("schema-registry")).then_some(())
    })
    .await;
    let waits = roles.platform.post("waits").await.unwrap();
    assert_eq!(waits.status(), StatusCode::CREATED);
    drop(killed);
    roles.start_all().await;
    // Enough for both estimators to have read some and thus cached all schemas.
    let mut accepted = accept(&roles, "with", 60).await;
    accepted.push("waits".to_owned());
    roles.platform.await_ads(accepted.len()).await;

    let Some(_killed) = Killed::node("nginx") else { return };
    accepted.extend(accept(&roles, "without", 20).await);
    expect_one_ad_each(roles, accepted).await;
}

/// The estimator publishes nothing for the partitions that it lost, although it has finished the work on them.
#[tokio::test(flavor = "multi_thread")]
async fn an_estimator_that_was_suspended_beyond_its_session_duplicates_nothing() {
    let Some(roles) = Roles::start("2s").await else { return };
    let mut accepted = accept(&roles, "warm-up", 20).await;
    roles.platform.await_ads(accepted.len()).await;
    let zombie = &roles.roles[ESTIMATES[0]];
    accepted.extend(accept(&roles, "taken-over", 200).await);
    let held = eventually("it to hold vehicles", async || {
        let held = roles.platform.in_flight().await?[0];
        (held > 0).then_some(held)
    })
    .await;
    zombie.pause();
    // The other estimator has processed everything, so it owns the partitions by now.
    roles.platform.await_ads(accepted.len()).await;
    zombie.resume();
    let processed = roles.platform.topic(TOPICS[1]);
    eventually("it to notice its loss", async || (roles.platform.in_flight().await?[0] == 0).then_some(()))
        .await;
    accepted.extend(accept(&roles, "afterwards", 50).await);
    roles.platform.await_ads(accepted.len()).await;
    let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
    for record in read_all(roles.platform.bootstrap(), &processed).await {
        *counts.entry(rdkafka::Message::key(&record).unwrap().to_vec()).or_default() += 1;
    }
    assert!(counts.values().all(|&count| count == 1), "held {held}: {counts:?}");
    expect_one_ad_each(roles, accepted).await;
}

/// A request that reached the vehicles' table is answered, no matter what happens to the process.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_terminated_under_load_answers_every_accepted_request() {
    let Some(Roles { mut roles, platform }) = Roles::start("1s").await else { return };
    let platform = Arc::new(platform);
    let over = Arc::new(AtomicBool::new(false));
    let clients = (0..8).map(|client| {
        let (platform, over) = (Arc::clone(&platform), Arc::clone(&over));
        tokio::spawn(async move {
            let (mut answered, mut refused) = (Vec::new(), Vec::new());
            for number in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let vin = format!("{client}-{number}");
                match platform.post(&vin).await {
                    Some(answer) if answer.status() == StatusCode::CREATED => answered.push(vin),
                    Some(answer) => {
                        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{vin}");
                        refused.push(vin);
                    }
                    None => {
                        refused.push(vin);
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
            (answered, refused)
        })
    });
    let clients: Vec<_> = clients.collect();
    for _ in 0..2 {
        for index in [STOCK, ESTIMATES[0], ADS] {
            let before = platform.ad_vins().await.map_or(0, |vins| vins.len());
            eventually("ads to come", async || (platform.ad_vins().await?.len() > before).then_some(()))
                .await;
            let (status, took) = roles[index].terminate().await;
            assert_eq!(status.code(), Some(0), "{} after {took:?}", NAMES[index]);
            assert!(took < Duration::from_secs(10), "{} took {took:?}", NAMES[index]);
            roles[index].start();
        }
    }
    over.store(true, Ordering::Relaxed);
    let mut accepted = Vec::new();
    for client in clients {
        let (answered, refused) = client.await.unwrap();
        accepted.extend(answered);
        for vin in refused {
            // A conflict would mean that it had been accepted.
            let again = eventually(&vin, async || platform.post(&vin).await).await;
            assert_eq!(again.status(), StatusCode::CREATED, "{vin} was accepted without an answer");
            accepted.push(vin);
        }
    }
    let platform = Arc::into_inner(platform).unwrap();
    expect_one_ad_each(Roles { roles, platform }, accepted).await;
}

/// librdkafka ignores the leaders of a recreated log, whose epochs are lower than those that it remembers.
#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_created_again_after_their_leaders_moved_are_read() {
    let Some(roles) = Roles::start("0s").await else { return };
    let mut accepted = accept(&roles, "before", 60).await;
    for broker in BROKERS {
        let Some(killed) = Killed::node(broker) else { return };
        accepted.extend(accept(&roles, broker, 20).await);
        roles.platform.await_ads(accepted.len()).await;
        drop(killed);
    }
    for topic in TOPICS {
        replace_topic(roles.platform.bootstrap(), &roles.platform.topic(topic)).await;
    }
    accepted.extend(accept(&roles, "after", 60).await);
    // Each member notices after 20 s, and the one that takes over from it may not read the records either.
    let limit = Duration::from_secs(180);
    assert_same(roles.platform.await_ads_within(limit, accepted.len()).await, accepted);
    roles.finish().await;
}
