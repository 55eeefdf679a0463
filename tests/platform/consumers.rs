//! Tests that no log and no peer can stop a consumer.

use std::collections::BTreeSet;

use crate::support::kafka::read_all;
use crate::support::peer::Peer;
use crate::support::role::Role;
use crate::support::topics::{create_topic, delete_topic, fill, fill_at, setting};
use crate::support::{DEADLINE, Platform, assert_same, eventually, signal, terminate, vehicle};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::json;

pub const CREATED: &str = "stock.vehicle-created";
pub const PROCESSED: &str = "stock.vehicle-processed";
pub const QUICK: [&str; 2] = ["--processing-time", "0s"];

/// Builds the values of a topic, one per vin, with the frame of its schema.
pub struct Values {
    frame: Vec<u8>,
    topic: &'static str,
}

impl Values {
    pub async fn like(platform: &Platform, topic: &'static str) -> Self {
        let frame = read_all(platform.kafka(), topic).await[0].payload().unwrap()[..5].to_vec();
        Self { frame, topic }
    }

    async fn fill(&self, platform: &Platform, vins: &[String]) {
        fill(platform.kafka(), self.topic, 0, &self.of(vins)).await;
    }

    pub fn of(&self, vins: &[String]) -> Vec<Vec<u8>> {
        let value = |vin: &String| {
            let mut value = vehicle(vin);
            value["id"] = 1.into();
            if self.topic == PROCESSED {
                value["price"] = json!(1234.5);
                value["priceUnit"] = "USD".into();
            }
            [self.frame.clone(), value.to_string().into_bytes()].concat()
        };
        vins.iter().map(value).collect()
    }
}

pub fn vins(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name}-{number}")).collect()
}

/// Waits until all of these vehicles have ads.
pub async fn await_vins(platform: &Platform, expected: &[String]) {
    eventually(&format!("the ads of {} vehicles", expected.len()), async || {
        let ads = platform.ads().await;
        let there: BTreeSet<_> = ads.iter().map(|ad| ad["vin"].as_str().unwrap().to_owned()).collect();
        expected.iter().all(|vin| there.contains(vin)).then_some(())
    })
    .await;
}

/// The committed offsets of a group, including metadata.
pub struct OffsetsOf {
    consumer: BaseConsumer,
    pub offsets: TopicPartitionList,
}

impl OffsetsOf {
    pub fn group(platform: &Platform, topic: &str) -> Self {
        let Self { consumer, offsets } = Self::beyond_the_end(platform, topic);
        let offsets = consumer.committed_offsets(offsets, DEADLINE).unwrap();
        assert!(matches!(offsets.elements()[0].offset(), Offset::Offset(20..)), "{offsets:?}");
        Self { consumer, offsets }
    }

    /// What a group would have committed in a log that was longer.
    fn beyond_the_end(platform: &Platform, topic: &str) -> Self {
        let group = if topic == CREATED { "ms-price-estimate" } else { "ms-vehicles-ads" };
        let consumer =
            ClientConfig::new().set("bootstrap.servers", platform.kafka()).set("group.id", group).create();
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, 0, Offset::Offset(1_000)).unwrap();
        Self { consumer: consumer.unwrap(), offsets }
    }

    pub fn restore(&self) {
        self.consumer.commit(&self.offsets, CommitMode::Sync).unwrap();
    }
}

/// Reads a topic and then replaces its log with one that has `count` records.
async fn replace_log(topic: &'static str, count: usize, restart: bool) {
    // The consumer of the topic is a separate process, so that it can be stopped.
    let roles = if topic == CREATED { "stock,ads" } else { "stock,estimate" };
    let mut platform_arguments = vec!["--roles", roles];
    platform_arguments.extend(QUICK);
    let platform = Platform::start(&platform_arguments).await;
    let database = format!("sqlite:{}", platform.data_dir().join("ads.db").display());
    let join = || match topic {
        CREATED => Role::join(&platform, "estimate", &QUICK),
        _ => Role::join(&platform, "ads", &["--database-url", &database]),
    };
    let mut reader = join();
    let done = async |role: &Role, expected: &[String]| match topic {
        CREATED => await_vins(&platform, expected).await,
        _ => {
            let sum = expected.len();
            eventually("all ads to be published", async || {
                role.metric("ads_ads_published_total")
                    .await
                    .filter(|count| usize::try_from(*count).unwrap() >= sum)
            })
            .await;
        }
    };
    platform.accept("frame").await;
    let values =
        eventually("a record", async || (!read_all(platform.kafka(), topic).await.is_empty()).then_some(()))
            .await;
    let () = values;
    let values = Values::like(&platform, topic).await;
    let before = vins("before", 20);
    values.fill(&platform, &before).await;
    done(&reader, &before).await;
    let lag = if topic == CREATED { "estimate_group_lag" } else { "ads_group_lag" };
    eventually("all to be committed", async || reader.metric(lag).await.filter(|lag| *lag <= 3)).await;
    if restart {
        assert_eq!(terminate(&mut reader.process.child).await.code(), Some(0));
    }
    let group = OffsetsOf::group(&platform, topic);
    delete_topic(platform.kafka(), topic).await;
    create_topic(platform.kafka(), topic, &[]).await;
    if restart {
        // The brokers remove the offsets of a deleted topic, but not those of a restored or truncated log.
        group.restore();
    }
    let after = vins("after", count);
    values.fill(&platform, &after).await;
    if restart {
        reader = join();
    }
    match topic {
        CREATED => await_vins(&platform, &after).await,
        _ if restart => done(&reader, &after).await,
        _ => done(&reader, &[before, after, vec!["frame".to_owned()]].concat()).await,
    }
    if restart {
        assert!(reader.log().contains("the log went back"), "{}", reader.log());
    }
    platform.end().await;
}

#[tokio::test]
async fn a_shorter_log_under_a_working_estimator_is_read_from_its_beginning() {
    replace_log(CREATED, 5, false).await;
}

#[tokio::test]
async fn a_log_as_long_as_before_under_a_working_estimator_is_read_from_its_beginning() {
    replace_log(CREATED, 20, false).await;
}

#[tokio::test]
async fn a_longer_log_under_a_working_estimator_is_read_from_its_beginning() {
    replace_log(CREATED, 60, false).await;
}

#[tokio::test]
async fn a_shorter_log_before_an_estimator_starts_is_read_from_its_beginning() {
    replace_log(CREATED, 5, true).await;
}

#[tokio::test]
async fn a_log_as_long_as_before_when_an_estimator_starts_is_read_from_its_beginning() {
    replace_log(CREATED, 20, true).await;
}

#[tokio::test]
async fn a_longer_log_before_an_estimator_starts_is_read_from_its_beginning() {
    replace_log(CREATED, 60, true).await;
}

#[tokio::test]
async fn another_log_under_ads_is_read_from_its_beginning() {
    replace_log(PROCESSED, 60, false).await;
}

#[tokio::test]
async fn another_log_before_ads_starts_is_read_from_its_beginning() {
    replace_log(PROCESSED, 60, true).await;
}

#[tokio::test]
async fn a_log_that_went_back_is_counted_once_however_often_it_is_assigned() {
    let platform = Platform::start(&["--roles", "ads"]).await;
    OffsetsOf::beyond_the_end(&platform, CREATED).restore();
    let estimator = Role::join(&platform, "estimate", &QUICK);
    let assigned = async || {
        let has_all =
            async || estimator.metric("estimate_partitions_assigned").await.filter(|count| *count == 3);
        eventually("all partitions", has_all).await;
    };
    assigned().await;
    signal(&estimator.process.child, "STOP");
    let peer = Peer::join(&platform, "cooperative-sticky").await;
    signal(&estimator.process.child, "CONT");
    eventually("the partitions to be lost", async || {
        estimator.metric("estimate_partitions_assigned").await.filter(|count| *count < 3)
    })
    .await;
    peer.leave();
    assigned().await;
    assert_eq!(estimator.metric("estimate_log_went_back_total").await, Some(1));
    assert_eq!(estimator.log().matches("the log went back").count(), 1, "{}", estimator.log());
    platform.end().await;
}

#[tokio::test]
async fn a_restart_on_the_same_log_repeats_nothing() {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    for round in 0..3 {
        let mut estimator = Role::join(&platform, "estimate", &QUICK);
        for number in 0..5 {
            platform.accept(&format!("round-{round}-{number}")).await;
        }
        platform.await_ads((round + 1) * 5).await;
        assert_eq!(estimator.metric("estimate_log_went_back_total").await, Some(0));
        assert_eq!(terminate(&mut estimator.process.child).await.code(), Some(0));
    }
    assert_eq!(read_all(platform.kafka(), PROCESSED).await.len(), 15);
    platform.finish().await;
}

#[tokio::test]
async fn an_offset_with_foreign_metadata_is_used_unchanged() {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    let mut estimator = Role::join(&platform, "estimate", &QUICK);
    platform.accept("frame").await;
    platform.await_ads(1).await;
    let values = Values::like(&platform, CREATED).await;
    values.fill(&platform, &vins("before", 20)).await;
    platform.await_ads(21).await;
    assert_eq!(terminate(&mut estimator.process.child).await.code(), Some(0));
    let group = OffsetsOf::group(&platform, CREATED);
    group.offsets.find_partition(CREATED, 0).unwrap().set_metadata("of another program");
    group.restore();
    let estimator = Role::join(&platform, "estimate", &QUICK);
    values.fill(&platform, &vins("after", 5)).await;
    platform.await_ads(26).await;
    assert_eq!(read_all(platform.kafka(), PROCESSED).await.len(), 26);
    assert_eq!(estimator.metric("estimate_log_went_back_total").await, Some(0));
    platform.end().await;
}

#[tokio::test]
async fn a_deleted_topic_is_reported_and_read_when_it_is_created_again() {
    let platform = Platform::start(&["--roles", "ads"]).await;
    let estimator = Role::join(&platform, "estimate", &QUICK);
    estimator.await_ready().await;
    delete_topic(platform.kafka(), CREATED).await;
    estimator.await_reason("kafka", "stock.vehicle-created was deleted").await;
    create_topic(platform.kafka(), CREATED, &[]).await;
    estimator.await_ready().await;
    platform.end().await;
}

#[tokio::test]
async fn two_estimators_with_the_same_name_both_work_without_losses_or_duplicates() {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    let arguments = [&QUICK[..], &["--instance-id", "twin"]].concat();
    let twins =
        [Role::join(&platform, "estimate", &arguments), Role::join(&platform, "estimate", &arguments)];
    for twin in &twins {
        eventually("partitions of each", async || {
            twin.metric("estimate_partitions_assigned").await.filter(|count| *count > 0)
        })
        .await;
    }
    let accepted = vins("twin", 60);
    for vin in &accepted {
        platform.accept(vin).await;
    }
    let ads = platform.await_ads(accepted.len()).await;
    assert_same(ads.iter().map(|ad| ad["vin"].as_str().unwrap().to_owned()).collect(), accepted.clone());
    assert_eq!(read_all(platform.kafka(), PROCESSED).await.len(), accepted.len());
    let logs: String = twins.iter().map(Role::log).collect();
    assert_eq!(logs.matches("another process uses the name").count(), 1, "{logs}");
    for twin in &twins {
        twin.await_ready().await;
    }
    platform.finish().await;
}

#[tokio::test]
async fn an_estimator_with_an_incompatible_peer_is_not_ready_and_reports_the_reason() {
    let platform = Platform::start(&["--roles", "ads"]).await;
    let peer = Peer::join(&platform, "range").await;
    let estimator = Role::join(&platform, "estimate", &QUICK);
    estimator.await_reason("worker", "nconsistent").await;
    let log = estimator.log();
    assert!(log.matches("librdkafka will retry").count() <= 3, "{log}");
    peer.leave();
    estimator.await_ready().await;
    platform.end().await;
}

#[tokio::test]
async fn a_member_without_a_partition_is_not_ready_while_records_wait_and_the_others_commit_nothing() {
    let platform = Platform::start(&["--roles", "stock"]).await;
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(Peer::join(&platform, "cooperative-sticky").await);
    }
    let estimator = Role::join(&platform, "estimate", &QUICK);
    estimator.await_ready().await;
    platform.accept("waiting").await;
    estimator.await_reason("worker", "the group commits nothing").await;
    for peer in peers {
        peer.leave();
    }
    estimator.await_ready().await;
    platform.finish().await;
}

#[tokio::test]
async fn a_member_without_a_partition_is_ready_while_the_others_work() {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    let members: Vec<_> = (0..4).map(|_| Role::join(&platform, "estimate", &QUICK)).collect();
    eventually("each partition to have a member", async || {
        let mut counts = Vec::new();
        for member in &members {
            counts.push(member.metric("estimate_partitions_assigned").await?);
        }
        counts.sort_unstable();
        (counts == [0, 1, 1, 1]).then_some(())
    })
    .await;
    platform.accept("standby").await;
    platform.await_ads(1).await;
    for member in &members {
        member.await_ready().await;
    }
    platform.finish().await;
}

#[tokio::test]
async fn topics_are_created_with_unlimited_retention_and_broker_timestamps() {
    let platform = Platform::start(&["--roles", "ads"]).await;
    for topic in [CREATED, PROCESSED, "stock.vehicle-created.dlq", "stock.vehicle-processed.dlq"] {
        for (name, value) in [
            ("cleanup.policy", "delete"),
            ("message.timestamp.type", "LogAppendTime"),
            ("retention.bytes", "-1"),
            ("retention.ms", "-1"),
        ] {
            assert_eq!(setting(platform.kafka(), topic, name).await, value, "{topic} {name}");
        }
    }
    platform.end().await;
}

#[tokio::test]
async fn a_producers_wrong_clock_does_not_affect_a_records_timestamp() {
    let platform = Platform::start(&["--roles", "stock"]).await;
    platform.accept("frame").await;
    eventually("a record", async || (!read_all(platform.kafka(), CREATED).await.is_empty()).then_some(()))
        .await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    fill_at(platform.kafka(), CREATED, 0, &[b"old".to_vec()], 1_000).await;
    let records = read_all(platform.kafka(), CREATED).await;
    let old = records.iter().find(|record| record.payload() == Some(b"old")).unwrap();
    assert!(u128::try_from(old.timestamp().to_millis().unwrap()).unwrap() >= now, "{:?}", old.timestamp());
    platform.finish().await;
}

#[tokio::test]
async fn a_topic_that_may_lose_unread_records_is_reported_and_not_changed() {
    let platform = Platform::start(&["--roles", "ads"]).await;
    delete_topic(platform.kafka(), CREATED).await;
    create_topic(platform.kafka(), CREATED, &[("retention.ms", "604800000")]).await;
    let estimator = Role::join(&platform, "estimate", &QUICK);
    estimator.await_ready().await;
    let log = estimator.log();
    assert!(log.contains("--entity-name stock.vehicle-created --add-config"), "{log}");
    assert!(log.contains("retention.ms=604800000"), "{log}");
    assert_eq!(setting(platform.kafka(), CREATED, "retention.ms").await, "604800000");
    platform.end().await;
}
