//! Tests what the brokers delete while consumers work.

use crate::consumers::{CREATED, PROCESSED, Values, vins};
use crate::support::kafka::read_all;
use crate::support::role::Role;
use crate::support::topics::{delete_records, fill};
use crate::support::{Platform, eventually, get};

/// Returns the age in seconds of the oldest record in flight.
async fn age(estimator: &Role) -> Option<f64> {
    let metrics = get(estimator.url("/metrics")).await.ok()?.text().await.ok()?;
    let line = metrics.lines().find(|line| line.starts_with("estimate_oldest_in_flight_seconds "))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

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
    let begun = age(&estimator).await.unwrap();
    eventually("a silence of a second", async || age(&estimator).await.filter(|age| *age >= begun + 1.0))
        .await;
    for partition in 0..3 {
        fill(platform.kafka(), CREATED, partition, &values.of(&vins(&format!("next-{partition}"), 1))).await;
    }
    platform.await_ads(10).await;
    assert_eq!(read_all(platform.kafka(), PROCESSED).await.len(), 10);
    assert!(estimator.log().contains("the log does not contain the next offset"), "{}", estimator.log());
    platform.end().await;
}
