//! Tests the operators' tools, audit and dlq, on a running platform.

use crate::support;
use std::process::Output;

use crate::support::kafka::{produce, read_all};
use crate::support::{Platform, eventually};
use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use rdkafka::Message as _;
use serde_json::{Value, json};
use vehicle_platform::output::is_unprintable;

const CREATED: &str = "stock.vehicle-created";

async fn platform() -> Platform {
    Platform::start(&["--processing-time", "0s"]).await
}

/// Changes a database without the platform.
fn tamper(platform: &Platform, file: &str, statement: &str) {
    let path = platform.data_dir().join(file);
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    connection.batch_execute(&format!("PRAGMA busy_timeout = 5000; {statement}")).unwrap();
}

/// Returns the audit's report and whether it was clean.
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

/// Returns the listed dead letters.
fn letters(platform: &Platform, arguments: &[&str]) -> Vec<Value> {
    let output = platform.tool(&[&["dlq", "list", "--json"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn await_letters(platform: &Platform, count: usize) -> Vec<Value> {
    eventually(&format!("{count} dead letters"), async || {
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
async fn a_vehicle_being_processed_is_no_finding_and_not_repaired() {
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
async fn a_lost_vehicle_is_found_and_repaired_once() {
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
    // Until ads has committed the offset, it may still write the ad.
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
        "vehicles that are being processed again are skipped"
    );
    platform.await_ads(3).await;
    let (report, clean) = audit(&platform, &[]);
    assert!(clean, "{report:#}");
    assert_eq!(read_all(platform.kafka(), CREATED).await.len(), 2 + 2);
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_and_ads_without_a_vehicle_are_found() {
    let platform = platform().await;
    platform.accept("doubled").await;
    platform.await_ads(1).await;
    let record = read_all(platform.kafka(), CREATED).await.remove(0);
    produce(platform.kafka(), CREATED, Some("doubled"), record.payload().unwrap()).await;
    tamper(
        &platform,
        "ads.db",
        "CREATE TEMP TABLE foreign_ad AS SELECT * FROM ads;
         UPDATE foreign_ad SET id = 'ffffffff-ffff-7fff-bfff-ffffffffffff', vehicle_id = NULL, vin = 'foreign';
         INSERT INTO ads SELECT * FROM foreign_ad",
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
    assert_eq!(examples("adWithoutVehicle"), json!(["foreign"]));
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_of_a_vehicle_shows_every_place_where_it_was() {
    let platform = platform().await;
    platform.accept("traced").await;
    platform.await_ads(1).await;
    // The relay may note that it has published the event only after the ad is there.
    platform.await_empty_outbox().await;
    let output = platform.tool(&["audit", "--vin", "traced", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let steps: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let places: Vec<_> = steps.iter().map(|step| step["place"].as_str().unwrap()).collect();
    assert_eq!(places, ["vehicle", "created event", "processed event", "ad"]);
    assert_eq!(steps[1]["offset"], json!(0));
    assert!(steps.iter().all(|step| step["time"].is_string()), "{steps:#?}");
    let unknown = platform.tool(&["audit", "--vin", "unknown"]);
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

    // It is still unreadable, so it becomes another dead letter.
    let replayed = platform.tool(&["dlq", "replay", id]);
    assert_eq!(stdout(&replayed).trim(), format!("replayed {id}"), "{replayed:?}");
    let again = eventually("the second dead letter", async || {
        letters(&platform, &[]).into_iter().find(|letter| letter["letter"] != json!(id))
    })
    .await;
    let refused = platform.tool(&["dlq", "replay", id]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("is already resolved"), "{refused:?}");
    assert_eq!(read_all(platform.kafka(), CREATED).await.len(), 2);

    let again = again["letter"].as_str().unwrap();
    assert!(platform.tool(&["dlq", "discard", again]).status.success());
    assert_eq!(letters(&platform, &[]), Vec::<Value>::new());
    assert_eq!(letters(&platform, &["--all"]).len(), 2);
    assert!(audit(&platform, &[]).1);
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_record_that_is_readable_becomes_an_ad() {
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
    assert_eq!(stdout(&nothing).trim(), "no dead letters are waiting");
    produce(platform.kafka(), &format!("{CREATED}.dlq"), Some("second"), b"waits").await;
    for arguments in [&["list"][..], &["list", "--summary"], &["replay", "--all"], &["discard", "--all"]] {
        let none = platform.tool(&[&["dlq"], arguments, &["--reason", "of another"]].concat());
        assert_eq!(stdout(&none).trim(), "no waiting dead letter matches", "{arguments:?}");
    }
    platform.finish().await;
}

#[test]
fn a_malformed_dead_letter_id_is_wrong_usage() {
    for arguments in [&["dlq", "show", "x"][..], &["dlq", "replay"], &["dlq", "replay", "--all", "x"]] {
        let output = std::process::Command::new(support::BINARY).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_another_program_corrupted_are_skipped_and_listed_by_an_audit() {
    let platform = platform().await;
    let mut ads = Vec::new();
    for vin in ["first", "second", "third"] {
        platform.accept(vin).await;
        ads = platform.await_ads(ads.len() + 1).await;
    }
    tamper(&platform, "ads.db", "UPDATE ads SET price = 'cheap' WHERE vin = 'second'");
    tamper(&platform, "stock.db", "UPDATE vehicles SET created_at = 'yesterday' WHERE vin = 'third'");
    tamper(&platform, "stock.db", "UPDATE vehicles SET model = 'a' || char(27) || 'b' WHERE vin = 'first'");
    let vins = |rows: Vec<Value>| rows.iter().map(|row| row["vin"].as_str().unwrap().to_owned()).collect();
    let shown: Vec<String> = vins(platform.ads().await);
    assert_eq!(shown, ["first", "third"]);
    let shown: Vec<String> = vins(platform.list(platform.stock(), "/stock").await);
    assert_eq!(shown, ["first", "second"]);

    // A page of unreadable rows only links to the next page.
    let spoiled = ads[1]["id"].as_str().unwrap();
    let first = platform.get(&format!("{}/ads?limit=1", platform.ads_url())).await;
    let second = platform.get(&support::next_page(platform.ads_url(), &first).unwrap()).await;
    let third = support::next_page(platform.ads_url(), &second).unwrap();
    assert_eq!(second.json::<Value>().await.unwrap(), json!([]));
    let third: Vec<Value> = platform.get(&third).await.json().await.unwrap();
    assert_eq!(third[0]["vin"], "third");
    assert_eq!(platform.get(&format!("{}/ads/{spoiled}", platform.ads_url())).await.status(), 404);
    let metrics = platform.get(&format!("{}/metrics", platform.ads_url())).await.text().await.unwrap();
    assert!(metrics.contains("ads_unreadable_rows_skipped_total"), "{metrics}");

    let (report, clean) = audit(&platform, &[]);
    assert!(!clean);
    let unreadable = &report["findings"]["unreadable"];
    assert_eq!(unreadable["count"], 2, "{report:#}");
    let examples = unreadable["examples"].to_string();
    assert!(examples.contains(spoiled) && examples.contains("vehicle 3"), "{examples}");
    let path = stdout(&platform.tool(&["audit", "--vin", "second"]));
    assert!(path.contains("price"), "{path}");
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_external_text_forges_a_line_or_controls_the_terminal() {
    let platform = platform().await;
    platform.accept("vin").await;
    platform.await_ads(1).await;
    let nasty = "n\u{1b}[31m\u{7}\n\u{9b}0m\u{202e}\u{2028}x";
    let record = read_all(platform.kafka(), CREATED).await.remove(0);
    let mut value = record.payload().unwrap()[..5].to_vec();
    value.extend_from_slice(json!({ "vin": nasty, "model": nasty, "year": nasty }).to_string().as_bytes());
    produce(platform.kafka(), CREATED, Some(nasty), &value).await;
    let letter = await_letters(&platform, 1).await[0]["letter"].as_str().unwrap().to_owned();
    tamper(
        &platform,
        "stock.db",
        &format!("UPDATE vehicles SET vin = 'a' || char(27) || char(10) || char(155) || 'b{}'", '\u{202e}'),
    );
    for (arguments, lines) in [
        (vec!["audit"], None),
        (vec!["audit", "--json"], None),
        (vec!["audit", "--vin", nasty], Some(2)),
        (vec!["audit", "--vin", nasty, "--json"], None),
        (vec!["dlq", "list"], Some(2)),
        (vec!["dlq", "list", "--json"], Some(1)),
        (vec!["dlq", "show", &letter], None),
        (vec!["audit", "--vin", "un\u{1b}known\u{9b}"], Some(0)),
    ] {
        let output = platform.tool(&arguments);
        for text in [stdout(&output), stderr(&output)] {
            let nasty = |character: char| is_unprintable(character) && character != '\n';
            assert!(!text.contains(nasty), "{arguments:?}: {text:?}");
        }
        if let Some(lines) = lines {
            assert_eq!(stdout(&output).lines().count(), lines, "{arguments:?}: {}", stdout(&output));
        }
    }
    platform.end().await;
}
