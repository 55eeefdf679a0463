//! Tests what the brokers delete while consumers work.

use std::time::Duration;

use crate::consumers::{CREATED, PROCESSED, Values, vins};
use crate::support::kafka::read_all;
use crate::support::role::Role;
use crate::support::topics::{delete_records, fill};
use crate::support::{Platform, eventually};

#[tokio::test]
async fn records_that_are_deleted_while_they_are_estimated_are_not_lost() {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    let estimator = Role::join(&platform, "estimate", &["--processing-time", "15s"]);
    platform.accept("frame").await;
    platform.await_ads(1).await;
    let values = Values::like(&platform, CREATED).await;
    let in_flight = async |count| {
        eventually("records in flight", async || {
            estimator.metric("estimate_records_in_flight").await.filter(|found| *found == count)
        })
        .await;
    };
    for partition in 0..3 {
        fill(platform.kafka(), CREATED, partition, &values.of(&vins(&format!("deleted-{partition}"), 2)))
            .await;
    }
    in_flight(6).await;
    for partition in 0..3 {
        delete_records(platform.kafka(), CREATED, partition).await;
    }
    // After a silence, the estimator compares the log with what it has read.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for partition in 0..3 {
        fill(platform.kafka(), CREATED, partition, &values.of(&vins(&format!("next-{partition}"), 1))).await;
    }
    platform.await_ads(10).await;
    assert_eq!(read_all(platform.kafka(), PROCESSED).await.len(), 10);
    assert!(estimator.log().contains("the log does not contain the next offset"), "{}", estimator.log());
    platform.end().await;
}
