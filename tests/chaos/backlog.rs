//! Restarts Kafka node by node while a large number of vehicles waits in the estimators.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::load::{self, Ledger, Target};
use crate::support::cluster::{ESTIMATES, NAMES, Platform, Roles, Setup};
use crate::support::engines::address;
use crate::support::node::Node;
use crate::support::{BINARY, DEADLINE, eventually};
use crate::verdict::{History, Verdict};
use crate::world::{TOPICS, resident_mib};

const CLIENTS: u32 = 32;
/// The memory of an estimator without vehicles, in MiB.
const MEMORY_LIMIT: usize = 30;
/// The memory of each vehicle that an estimator holds, in bytes.
const VEHICLE_MEMORY_LIMIT: usize = 1_700;

/// Runs in `make backlog`. Posts `BACKLOG_VEHICLES` vehicles with a processing time of `BACKLOG_PROCESSING_TIME`,
/// which must be longer than posting them and restarting the brokers takes.
#[tokio::test(flavor = "multi_thread")]
async fn vehicles_that_wait_in_the_estimators_survive_a_restart_of_kafka_node_by_node() {
    let Some(count) = address("the number of vehicles", "BACKLOG_VEHICLES") else { return };
    let count: usize = count.parse().unwrap();
    let Some(processing_time) = address("the processing time", "BACKLOG_PROCESSING_TIME") else { return };
    let binary = std::env::var("CHAOS_BINARY").unwrap_or_else(|_| BINARY.to_owned());
    let logs = Some(crate::logs("backlog"));
    let setup = Setup { processing_time: &processing_time, binary: &binary, logs, ..Setup::default() };
    let Some(mut roles) = Roles::prepare(&setup).await else { return };
    roles.start_all().await;
    let estimators = ESTIMATES.map(|index| roles.roles[index].pid());
    let platform = Arc::new(roles.platform);
    let ledger = Arc::new(Ledger::default());
    let began = Instant::now();
    let say = |what: &str| {
        let memory = estimators.map(resident_mib);
        println!(
            "{:6.1} s  {what}; the estimators have {memory:?} MiB resident",
            began.elapsed().as_secs_f64()
        );
    };

    say("ready");
    let posted = Arc::new(AtomicU64::new(0));
    let next = move || Some(posted.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < count as u64);
    let url = platform.stock_url().to_owned();
    let targets = move || vec![Target { url: url.clone(), is_twin: false }];
    let pace = Duration::from_millis(1);
    load::drive(Arc::clone(&platform), Arc::clone(&ledger), CLIENTS, pace, next, targets).await;
    say(&format!("{} vehicles accepted", ledger.len()));
    await_all_waiting(&platform, count).await;
    for name in ["kafka-1", "kafka-2", "kafka-3"] {
        let Some(node) = Node::named(name) else { return };
        say(&format!("{:?} vehicles are waiting, restarting {name}", platform.in_flight().await));
        node.run("stop");
        node.run("start");
        await_replicas(&platform).await;
    }
    // Records that a rebalance dropped are read again.
    await_all_waiting(&platform, count).await;
    say(&format!("{:?} vehicles are waiting, all brokers are running", platform.in_flight().await));
    let (memory, held) = (estimators.map(resident_mib), platform.in_flight().await.unwrap());
    for (mib, held) in memory.into_iter().zip(held) {
        let limit = MEMORY_LIMIT + held * VEHICLE_MEMORY_LIMIT / (1 << 20);
        assert!(mib < limit as u64, "{mib} MiB resident for {held} vehicles");
    }

    let mut seen = 0;
    let mut progress = Instant::now();
    while seen < count && progress.elapsed() < 10 * DEADLINE {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let ads = platform.ad_vins().await.map_or(seen, |vins| vins.len());
        if ads > seen {
            (seen, progress) = (ads, Instant::now());
            say(&format!("{seen} ads"));
        }
    }
    let verdict = Verdict::reach(&platform, &ledger, &History::default()).await;
    say(&format!("{} lost", verdict.lost.len()));
    assert_eq!(ledger.len(), count);
    assert_eq!(verdict, Verdict::default());
    for (role, name) in roles.roles.iter_mut().zip(NAMES) {
        assert_eq!(role.terminate().await.0.code(), Some(0), "{name}");
    }
    platform.remove().await;
}

async fn await_all_waiting(platform: &Platform, count: usize) {
    eventually("all vehicles to wait in the estimators", async || {
        (platform.in_flight().await?.iter().sum::<usize>() == count).then_some(())
    })
    .await;
}

/// Waits until all replicas of every partition are in sync, as required before the next restart.
async fn await_replicas(platform: &Platform) {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", platform.bootstrap()).create().unwrap();
    let consumer = Arc::new(consumer);
    let topics = TOPICS.map(|topic| platform.topic(topic));
    eventually("all replicas to be in sync", async || {
        let (consumer, topics) = (Arc::clone(&consumer), topics.clone());
        let in_sync = move || {
            topics.iter().all(|topic| {
                let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(5));
                metadata.is_ok_and(|metadata| {
                    let found = &metadata.topics()[0];
                    let mut partitions = found.partitions().iter();
                    found.error().is_none()
                        && partitions.all(|partition| partition.isr().len() == partition.replicas().len())
                })
            })
        };
        tokio::task::spawn_blocking(in_sync).await.unwrap().then_some(())
    })
    .await;
}
