//! Uses the page of the console in a browser. `tests/console/check` installs what it needs and runs it.

#![cfg(feature = "embedded")]
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;

use support::Platform;
use support::kafka::produce;

/// Runs one of the visits on the page of a platform, unless there is no browser.
async fn visit(script: &str, arguments: &[&str], prepare: impl AsyncFnOnce(&Platform)) {
    let (Ok(browser), Ok(libraries)) = (std::env::var("BROWSER"), std::env::var("BROWSER_LIBRARIES")) else {
        eprintln!("skipped: run tests/console/check");
        return;
    };
    let platform = Platform::start(&[&["--console-port", "0"], arguments].concat()).await;
    prepare(&platform).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pictures = root.join("target/console");
    std::fs::create_dir_all(&pictures).unwrap();
    let status = Command::new("node")
        .arg(root.join("tests/console").join(script))
        .args([platform.console(), pictures.to_str().unwrap(), &browser, &libraries])
        .status()
        .unwrap();
    assert!(status.success(), "the visit failed");
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_posts_vehicles_follows_one_to_its_ad_and_replays_a_dead_letter() {
    let poison = Some("<img src=x onerror=alert(1)>");
    visit("visit.mjs", &["--processing-time", "6s"], async |platform| {
        produce(platform.kafka(), "stock.vehicle-created", poison, b"garbage").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_kills_an_estimator_with_200_vehicles_in_flight_and_nothing_is_lost() {
    visit("faults.mjs", &["--processing-time", "30s", "--faults"], async |_| {}).await;
}
