//! Tests commits with an unknown outcome: the estimator determines it and repeats no work.

use crate::support::end_txn::{EndTxnProxy, Fault};
use crate::support::kafka::read_all;
use crate::support::{Platform, RoleProcess, assert_same, eventually, free_port, get};

/// Runs an estimator behind a proxy and expects it to process every vehicle exactly once.
async fn every_vehicle_is_estimated_once(fault: Fault, count: usize) {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    let proxy = EndTxnProxy::start(platform.kafka().parse().unwrap(), fault, count).await;
    let (port, kafka) = (free_port().to_string(), proxy.address());
    let mut arguments = vec!["estimate", "--processing-time", "2s", "--port", &port];
    arguments.extend(["--kafka-bootstrap-servers", &kafka, "--schema-registry-url", platform.registry()]);
    let _estimator = RoleProcess::spawn(&arguments);
    let metric = async |name: &str| -> Option<usize> {
        let text = get(format!("http://127.0.0.1:{port}/metrics")).await.ok()?.text().await.ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    eventually("the estimator's partitions", async || {
        (metric("estimate_partitions_assigned").await? == 3).then_some(())
    })
    .await;
    let accepted: Vec<String> = (0..40).map(|number| format!("vin-{number}")).collect();
    for vin in &accepted {
        platform.accept(vin).await;
    }
    let ads = platform.await_ads(accepted.len()).await;
    assert!(proxy.is_exhausted());
    assert_same(ads.iter().map(|ad| ad["vin"].as_str().unwrap().to_owned()).collect(), accepted.clone());
    let processed = read_all(platform.kafka(), "stock.vehicle-processed").await;
    assert_eq!(processed.len(), accepted.len(), "something was written twice");
    eventually("everything to be committed", async || {
        (metric("estimate_records_committed_total").await? == accepted.len()).then_some(())
    })
    .await;
    assert_eq!(metric("estimate_records_read_total").await, Some(accepted.len()), "work began again");
    platform.finish().await;
}

#[tokio::test]
async fn a_commit_that_succeeded_and_is_reported_as_failed_is_not_repeated() {
    every_vehicle_is_estimated_once(Fault::DeniedThoughDone, 1).await;
}

#[tokio::test]
async fn a_failed_commit_is_repeated_without_repeating_its_work() {
    every_vehicle_is_estimated_once(Fault::Denied, 2).await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_not_repeated() {
    // librdkafka asks a second time by itself, and not a third time within the time that a commit may take.
    every_vehicle_is_estimated_once(Fault::Unanswered, 2).await;
}
