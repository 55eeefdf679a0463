//! Tests that a consumer distinguishes a compacted log from another one.
//!
//! The embedded broker does not compact. In these tests, a transaction marker is at the offset of the missing record.

use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::Offset;

use crate::consumers::{CREATED, OffsetsOf, QUICK, Values, await_vins, vins};
use crate::support::kafka::read_all;
use crate::support::role::Role;
use crate::support::topics::{create_topic, delete_topic, fill_in_transactions};
use crate::support::{Platform, terminate};

const COMPACTED: [(&str, &str); 2] =
    [("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")];
/// The number of vehicles before a log is replaced, which have the offsets from 0. A transaction marker follows.
const BEFORE: usize = 20;

/// A platform with a compacted topic. Its estimator has read [`BEFORE`] vehicles and ended.
struct Ended {
    platform: Platform,
    values: Values,
    group: OffsetsOf,
}

impl Ended {
    async fn start() -> Self {
        let platform = Platform::start(&["--roles", "stock,ads"]).await;
        let mut estimator = Role::join(&platform, "estimate", &QUICK);
        platform.accept("frame").await;
        platform.await_ads(1).await;
        assert_eq!(terminate(&mut estimator.process.child).await.code(), Some(0));
        let values = Values::like(&platform, CREATED).await;
        delete_topic(platform.kafka(), CREATED).await;
        create_topic(platform.kafka(), CREATED, &COMPACTED).await;
        let before = values.of(&vins("before", BEFORE));
        fill_in_transactions(platform.kafka(), CREATED, 0, &[&before]).await;
        let mut estimator = Role::join(&platform, "estimate", &QUICK);
        platform.await_ads(1 + BEFORE).await;
        assert_eq!(terminate(&mut estimator.process.child).await.code(), Some(0));
        let group = OffsetsOf::group(&platform, CREATED);
        assert_eq!(group.offsets.elements()[0].offset(), Offset::Offset(20));
        Self { platform, values, group }
    }
}

#[tokio::test]
async fn another_compacted_log_without_a_record_at_the_last_offset_is_read_from_its_beginning() {
    let Ended { platform, values, group } = Ended::start().await;
    delete_topic(platform.kafka(), CREATED).await;
    create_topic(platform.kafka(), CREATED, &COMPACTED).await;
    // The brokers remove the offsets of a deleted topic, but not those of a restored one.
    group.restore();
    let (first, second) = (vins("first", BEFORE - 1), vins("second", BEFORE));
    let lists = [values.of(&first), values.of(&second)];
    fill_in_transactions(platform.kafka(), CREATED, 0, &[&lists[0], &lists[1]]).await;
    let estimator = Role::join(&platform, "estimate", &QUICK);
    await_vins(&platform, &second).await;
    await_vins(&platform, &first).await;
    assert_eq!(estimator.metric("estimate_log_went_back_total").await, Some(1));
    assert!(estimator.log().contains("the log went back"), "{}", estimator.log());
    platform.end().await;
}

#[tokio::test]
async fn another_compacted_log_under_a_working_estimator_is_read_from_its_beginning() {
    let Ended { platform, values, .. } = Ended::start().await;
    let _estimator = Role::join(&platform, "estimate", &QUICK);
    fill_in_transactions(platform.kafka(), CREATED, 0, &[&values.of(&vins("last", 1))]).await;
    platform.await_ads(1 + BEFORE + 1).await;
    delete_topic(platform.kafka(), CREATED).await;
    create_topic(platform.kafka(), CREATED, &COMPACTED).await;
    // The last record was at the offset after the first marker.
    let (first, second) = (vins("first", BEFORE + 1), vins("second", BEFORE));
    let lists = [values.of(&first), values.of(&second)];
    fill_in_transactions(platform.kafka(), CREATED, 0, &[&lists[0], &lists[1]]).await;
    await_vins(&platform, &second).await;
    await_vins(&platform, &first).await;
    platform.end().await;
}

#[tokio::test]
async fn a_log_from_which_the_last_record_was_compacted_is_continued() {
    let Ended { platform, values, group } = Ended::start().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let fingerprint = u64::try_from(now).unwrap() << 32;
    let mut committed = group.offsets.find_partition(CREATED, 0).unwrap();
    committed.set_offset(Offset::Offset(21)).unwrap();
    committed.set_metadata(format!("last-consumed-v1 20 {fingerprint:016x}"));
    group.restore();
    let (first, second) = (vins("first", 1), vins("second", BEFORE));
    let lists = [values.of(&first), values.of(&second)];
    fill_in_transactions(platform.kafka(), CREATED, 0, &[&lists[0], &lists[1]]).await;
    let estimator = Role::join(&platform, "estimate", &QUICK);
    platform.await_ads(1 + BEFORE + 1 + BEFORE).await;
    assert_eq!(estimator.metric("estimate_log_went_back_total").await, Some(0));
    assert_eq!(read_all(platform.kafka(), "stock.vehicle-processed").await.len(), 1 + BEFORE + 1 + BEFORE);
    platform.end().await;
}
