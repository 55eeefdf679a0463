//! Tests how dead letters are selected, counted and held back.

use rdkafka::Message as _;
use rdkafka::message::{Header, Headers as _, OwnedHeaders};
use rdkafka::producer::FutureRecord;
use serde_json::{Value, json};

use crate::support::kafka::{produce, produce_record, read_all};
use crate::support::{Platform, eventually};

const CREATED: &str = "stock.vehicle-created";
const LETTERS: &str = "stock.vehicle-created.dlq";

fn lines(output: &std::process::Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn list(platform: &Platform, arguments: &[&str]) -> Vec<Value> {
    lines(&platform.tool(&[&["dlq", "list", "--json"], arguments].concat()))
}

async fn await_waiting(platform: &Platform, count: usize) -> Vec<Value> {
    eventually(&format!("{count} dead letters"), async || {
        let letters = list(platform, &[]);
        (letters.len() == count).then_some(letters)
    })
    .await
}

/// Writes a dead letter with a reason, as an estimator would.
async fn write(platform: &Platform, reason: &str) {
    let headers = OwnedHeaders::new().insert(Header { key: "dlq.reason", value: Some(reason) });
    let record = FutureRecord::to(LETTERS).key("key").payload(&b"garbage"[..]).headers(headers);
    produce_record(platform.kafka(), record, "none").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_selected_by_reason_and_age_and_counted_by_reason() {
    let platform = Platform::start(&["--roles", "none"]).await;
    eventually("the topics", async || platform.tool(&["dlq", "list"]).status.success().then_some(())).await;
    for reason in ["unknown schema: id 7", "unknown schema: id 12", "not framed", "Unknown schema: id 7"] {
        write(&platform, reason).await;
    }
    let reasons = |letters: &[Value]| {
        let mut reasons: Vec<_> =
            letters.iter().map(|letter| letter["reason"].as_str().unwrap().to_owned()).collect();
        reasons.sort();
        reasons
    };
    assert_eq!(list(&platform, &[]).len(), 4);
    let unknown = list(&platform, &["--reason", "UNKNOWN", "--since", "1h"]);
    assert_eq!(reasons(&unknown), ["Unknown schema: id 7", "unknown schema: id 12", "unknown schema: id 7"]);
    assert_eq!(list(&platform, &["--reason", "unknown", "--max", "2"]).len(), 2);
    assert_eq!(list(&platform, &["--since", "2999-01-01T00:00:00Z"]), Vec::<Value>::new());
    let table = platform.tool(&["dlq", "list", "--max", "1"]);
    assert!(String::from_utf8(table.stdout).unwrap().contains("there are more than 1 (--max)"));

    let summary = list(&platform, &["--summary"]);
    let counts: Vec<_> = summary.iter().map(|group| (&group["count"], &group["reason"])).collect();
    assert_eq!(
        counts,
        [
            (&json!(2), &json!("unknown schema: id #")),
            (&json!(1), &json!("Unknown schema: id #")),
            (&json!(1), &json!("not framed"))
        ]
    );
    assert!(summary[0]["example"].as_str().unwrap().starts_with(CREATED), "{summary:#?}");
    assert!(summary[0]["first"].as_str() <= summary[0]["last"].as_str());

    // A selection of what to resolve, first as a rehearsal.
    let discard = ["dlq", "discard", "--all", "--reason", "unknown schema"];
    let rehearsed = platform.tool(&[&discard[..], &["--dry-run"]].concat());
    let text = String::from_utf8(rehearsed.stdout.clone()).unwrap();
    assert!(rehearsed.status.success() && text.lines().count() == 3, "{rehearsed:?}");
    assert!(text.lines().all(|line| line.starts_with("would be discarded ")), "{text}");
    assert_eq!(list(&platform, &[]).len(), 4);
    assert!(platform.tool(&[&discard[..], &["--max", "2"]].concat()).status.success());
    assert_eq!(list(&platform, &["--reason", "unknown schema"]).len(), 1);
    assert!(platform.tool(&discard).status.success());
    assert_eq!(reasons(&list(&platform, &[])), ["not framed"]);
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_comes_back_again_and_again_is_held_back_until_an_operator_insists() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    produce(platform.kafka(), CREATED, Some("key"), b"garbage").await;
    for replays in 0..3 {
        let letter = await_waiting(&platform, 1).await.remove(0);
        assert_eq!(letter["replays"], json!(replays));
        assert!(platform.tool(&["dlq", "replay", "--all"]).status.success());
        eventually("the record to come back", async || {
            (list(&platform, &["--all"]).len() == replays + 2).then_some(())
        })
        .await;
    }
    let letter = await_waiting(&platform, 1).await.remove(0);
    let id = letter["letter"].as_str().unwrap();
    for arguments in [&["--all"][..], &[id], &[id, "--dry-run"]] {
        let held_back = platform.tool(&[&["dlq", "replay"], arguments].concat());
        assert_eq!(held_back.status.code(), Some(1), "{held_back:?}");
        let said = String::from_utf8(held_back.stderr).unwrap();
        assert!(said.contains(&format!("skipped {id}: it was replayed 3 times and came back")), "{said}");
        assert!(said.contains("--max-replays"), "{said}");
    }
    let shown = platform.tool(&["dlq", "show", id]);
    assert!(String::from_utf8(shown.stdout).unwrap().contains("3, after which it came back"));
    let insisted = platform.tool(&["dlq", "replay", id, "--max-replays", "4"]);
    assert!(insisted.status.success(), "{insisted:?}");
    let letters = eventually("the record to come back", async || {
        let letters = list(&platform, &[]);
        (letters.len() == 1 && letters[0]["replays"] == 4).then_some(letters)
    })
    .await;
    // A record that is held back can be given up.
    assert!(platform.tool(&["dlq", "discard", letters[0]["letter"].as_str().unwrap()]).status.success());
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_for_spring_kafka_find_the_origin_of_a_dead_letter() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    produce(platform.kafka(), CREATED, Some("key"), b"garbage").await;
    let letter = await_waiting(&platform, 1).await.remove(0);
    let record = read_all(platform.kafka(), LETTERS).await.remove(0);
    let headers = record.headers().unwrap();
    let value = |name: &str| {
        let header = headers.iter().find(|header| header.key == name).unwrap();
        header.value.unwrap().to_vec()
    };
    let partition = i32::try_from(letter["origin"]["partition"].as_i64().unwrap()).unwrap();
    assert_eq!(value("kafka_dlt-original-topic"), CREATED.as_bytes());
    assert_eq!(value("kafka_dlt-original-partition"), partition.to_be_bytes());
    assert_eq!(value("kafka_dlt-original-offset"), 0_i64.to_be_bytes());
    platform.finish().await;
}
