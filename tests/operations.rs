//! What operators have at hand: audit and dlq, on a running platform.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::Output;

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use rdkafka::Message as _;
use serde_json::{Value, json};
use support::kafka::{produce, read_all};
use support::{Platform, eventually};

const CREATED: &str = "stock.vehicle-created";

async fn platform() -> Platform {
    Platform::start(&["--processing-time", "0s"]).await
}

/// Changes a database behind the platform's back.
fn tamper(platform: &Platform, file: &str, statement: &str) {
    let path = platform.data_dir().join(file);
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    connection.batch_execute(&format!("PRAGMA busy_timeout = 5000; {statement}")).unwrap();
}

/// The audit's report, and whether it was clean.
fn audit(platform: &Platform, arguments: &[&str]) -> (Value, bool) {
    let output = platform.tool(&[&["audit", "--json"], arguments].concat());
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (report, output.status.success())
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The letters that are listed.
fn letters(platform: &Platform, arguments: &[&str]) -> Vec<Value> {
    let output = platform.tool(&[&["dlq", "list", "--json"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn await_letters(platform: &Platform, count: usize) -> Vec<Value> {
    eventually(&format!("{count} letters"), async || {
        let letters = letters(platform, &[]);
        (letters.len() == count).then_some(letters)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_is_clean_when_every_vehicle_has_its_ad() {
    let platform = platform().await;
    for number in 0..5 {
        platform.accept(&format!("vin-{number}")).await;
    }
    platform.await_ads(5).await;
    let (report, clean) = audit(&platform, &[]);
    assert!(clean, "{report:#}");
    assert_eq!((&report["vehicles"], &report["advertised"]), (&json!(5), &json!(5)));
    let table = platform.tool(&["audit"]);
    assert!(stdout(&table).contains("5  with an ad"), "{table:?}");
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vehicle_under_way_is_no_finding_and_is_left_alone_by_a_repair() {
    let platform = Platform::start(&["--processing-time", "1h"]).await;
    platform.accept("slow").await;
    for arguments in [&[][..], &["--repair"]] {
        let (report, clean) = audit(&platform, &[arguments, &["--processing-time", "1h"]].concat());
        assert!(clean, "{report:#}");
        assert_eq!((&report["onTheirWay"], &report["repaired"]), (&json!(1), &json!(0)));
    }
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_is_found_and_repaired_once() {
    let platform = platform().await;
    platform.accept("kept").await;
    platform.accept("without-ad").await;
    platform.await_ads(2).await;
    tamper(&platform, "ads.db", "DELETE FROM ads WHERE vin = 'without-ad'");
    tamper(
        &platform,
        "stock.db",
        "INSERT INTO vehicles (vin, model, manufacturer, year, odometer, odometer_unit, created_at)
         SELECT 'without-event', model, manufacturer, year, odometer, odometer_unit, created_at
         FROM vehicles WHERE vin = 'kept'",
    );
    // Until ads has committed, it may still write the ad.
    let report = eventually("the ad to count as lost", async || {
        let (report, clean) = audit(&platform, &[]);
        assert!(!clean);
        (report["findings"]["withoutAd"]["count"] == json!(1)).then_some(report)
    })
    .await;
    assert_eq!(report["findings"]["withoutAd"]["examples"], json!(["without-ad"]));
    assert_eq!(report["findings"]["withoutEvent"], json!({ "count": 1, "examples": ["without-event"] }));
    assert_eq!(audit(&platform, &["--repair"]).0["repaired"], json!(2));
    assert_eq!(
        audit(&platform, &["--repair"]).0["repaired"],
        json!(0),
        "what is under way again is left alone"
    );
    platform.await_ads(3).await;
    let (report, clean) = audit(&platform, &[]);
    assert!(clean, "{report:#}");
    assert_eq!(read_all(platform.kafka(), CREATED).await.len(), 2 + 2);
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doubles_and_ads_of_nobody_are_found() {
    let platform = platform().await;
    platform.accept("doubled").await;
    platform.await_ads(1).await;
    let record = read_all(platform.kafka(), CREATED).await.remove(0);
    produce(platform.kafka(), CREATED, Some("doubled"), record.payload().unwrap()).await;
    tamper(
        &platform,
        "ads.db",
        "INSERT INTO ads SELECT 'ffffffff-ffff-7fff-bfff-ffffffffffff', published_at, NULL, 'nobody', model,
         manufacturer, year, odometer, odometer_unit, price, price_unit FROM ads",
    );
    eventually("the second estimate", async || {
        (read_all(platform.kafka(), "stock.vehicle-processed").await.len() == 2).then_some(())
    })
    .await;
    let (report, clean) = audit(&platform, &[]);
    assert!(!clean);
    let examples = |finding: &str| report["findings"][finding]["examples"].clone();
    assert_eq!(examples("doubledCreated"), json!(["doubled"]), "{report:#}");
    assert_eq!(examples("doubledAds"), json!([]));
    assert_eq!(examples("adWithoutVehicle"), json!(["nobody"]));
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_of_a_vehicle_shows_every_place_where_it_was() {
    let platform = platform().await;
    platform.accept("traced").await;
    platform.await_ads(1).await;
    let output = platform.tool(&["audit", "--vin", "traced", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let steps: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let places: Vec<_> = steps.iter().map(|step| step["place"].as_str().unwrap()).collect();
    assert_eq!(places, ["vehicle", "created event", "processed event", "ad"]);
    assert_eq!(steps[1]["offset"], json!(0));
    assert!(steps.iter().all(|step| step["time"].is_string()), "{steps:#?}");
    let unknown = platform.tool(&["audit", "--vin", "nobody"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("no trace of the vin"), "{unknown:?}");
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_listed_shown_replayed_once_and_discarded() {
    let platform = platform().await;
    produce(platform.kafka(), CREATED, Some("key"), b"garbage").await;
    let letter = await_letters(&platform, 1).await.remove(0);
    assert!(letter["reason"].as_str().unwrap().contains("not framed"), "{letter}");
    assert_eq!(letter["origin"]["offset"], json!(0));
    let id = letter["letter"].as_str().unwrap();
    let shown = platform.tool(&["dlq", "show", id]);
    assert!(stdout(&shown).contains("garbage"), "{shown:?}");
    assert_eq!(platform.tool(&["dlq", "show", id, "--raw"]).stdout, b"garbage");
    let (report, clean) = audit(&platform, &[]);
    assert!(!clean);
    assert_eq!(report["deadLetters"], json!(1));

    // It is as unreadable as before, so it dies again: as another letter.
    let replayed = platform.tool(&["dlq", "replay", id]);
    assert_eq!(stdout(&replayed).trim(), format!("replayed {id}"), "{replayed:?}");
    let again = eventually("its second death", async || {
        letters(&platform, &[]).into_iter().find(|letter| letter["letter"] != json!(id))
    })
    .await;
    let refused = platform.tool(&["dlq", "replay", id]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("was settled before"), "{refused:?}");
    assert_eq!(read_all(platform.kafka(), CREATED).await.len(), 2);

    let again = again["letter"].as_str().unwrap();
    assert!(platform.tool(&["dlq", "discard", again]).status.success());
    assert_eq!(letters(&platform, &[]), Vec::<Value>::new());
    assert_eq!(letters(&platform, &["--all"]).len(), 2);
    assert!(audit(&platform, &[]).1);
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_record_that_can_be_read_by_now_becomes_an_ad() {
    let platform = platform().await;
    platform.accept("first").await;
    platform.await_ads(1).await;
    let record = read_all(platform.kafka(), CREATED).await.remove(0);
    let value =
        String::from_utf8(record.payload().unwrap()[5..].to_vec()).unwrap().replace("first", "second");
    let value = [&record.payload().unwrap()[..5], value.as_bytes()].concat();
    produce(platform.kafka(), &format!("{CREATED}.dlq"), Some("second"), &value).await;
    let replayed = platform.tool(&["dlq", "replay", "--all"]);
    assert!(replayed.status.success(), "{replayed:?}");
    platform.await_ads(2).await;
    let nothing = platform.tool(&["dlq", "replay", "--all"]);
    assert_eq!(stdout(&nothing).trim(), "no letter waits");
    platform.finish().await;
}

#[test]
fn a_letter_that_is_not_named_as_listed_is_wrong_usage() {
    for arguments in [&["dlq", "show", "x"][..], &["dlq", "replay"], &["dlq", "replay", "--all", "x"]] {
        let output = std::process::Command::new(support::BINARY).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
