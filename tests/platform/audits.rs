//! Tests how an audit handles records of other producers and what remains of an old log.

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::FutureRecord;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use serde_json::Value;

use crate::support::Platform;
use crate::support::kafka::{produce, produce_record, read_all};

const CREATED: &str = "stock.vehicle-created";
const LETTERS: &str = "stock.vehicle-created.dlq";

fn audit(platform: &Platform) -> Value {
    let output = platform.tool(&["audit", "--json", "--processing-time", "1h"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_key_of_another_producer_is_shortened_and_stays_distinct() {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    platform.accept("vin").await;
    let (doubled, other) = ("x".repeat(900_000), format!("{}y{0}", "x".repeat(400_000)));
    for key in [&doubled, &doubled, &other] {
        produce(platform.kafka(), CREATED, Some(key), b"garbage").await;
    }
    let report = audit(&platform);
    let found = &report["findings"]["doubledCreated"];
    assert_eq!(found["count"], 1, "{found:.1000}");
    let example = found["examples"][0].as_str().unwrap();
    assert!(example.len() < 512 && example.starts_with("xxx"), "{example:.1000}");
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_of_a_vehicle_shows_an_excerpt_of_a_long_header() {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    let long = "x".repeat(500_000);
    let headers = OwnedHeaders::new().insert(Header { key: "traceparent", value: Some(&long) });
    let record = FutureRecord::to(CREATED).key("vin").payload(&b"garbage"[..]).headers(headers);
    produce_record(platform.kafka(), record, "none").await;
    let path = platform.tool(&["audit", "--vin", "vin"]);
    let text = String::from_utf8(path.stdout).unwrap();
    assert!(text.contains("traceparent xxx") && text.len() < 2_000, "{text:.1000}");
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_an_old_log_hides_no_record_of_the_current_one() {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    platform.accept("vin").await;
    platform.await_empty_outbox().await;
    let event = read_all(platform.kafka(), CREATED).await.remove(0);
    let written = event.timestamp().to_millis().unwrap();
    // A log that was there a day before had an unreadable record at the position of the event.
    for (age, without_event) in [(86_400_000, 0), (0, 1)] {
        let position =
            [event.partition().to_string(), event.offset().to_string(), (written - age).to_string()];
        let names = ["dlq.partition", "dlq.offset", "dlq.timestamp"].iter().zip(&position);
        let reason = OwnedHeaders::new().insert(Header { key: "dlq.reason", value: Some("not framed") });
        let headers = names.fold(reason, |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_str()) })
        });
        let letter = FutureRecord::to(LETTERS).key("other").payload(&b"garbage"[..]).headers(headers);
        produce_record(platform.kafka(), letter, "none").await;
        let report = audit(&platform);
        assert_eq!(report["findings"]["withoutEvent"]["count"], without_event, "{age}: {report:#}");
        assert_eq!(report["onTheirWay"], 1 - without_event, "{age}: {report:#}");
    }
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_was_committed_in_an_old_log_hides_no_record_of_the_current_one() {
    let platform = Platform::start(&["--roles", "stock,ads"]).await;
    platform.accept("vin").await;
    platform.await_empty_outbox().await;
    let event = read_all(platform.kafka(), CREATED).await.remove(0);
    let estimators: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", platform.kafka())
        .set("group.id", "ms-price-estimate")
        .create()
        .unwrap();
    // An old log was longer; the current one ends after its transaction marker.
    for (offset, without_ad) in [(1_000, 0), (event.offset() + 1, 1)] {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(CREATED, event.partition(), Offset::Offset(offset)).unwrap();
        estimators.commit(&offsets, CommitMode::Sync).unwrap();
        let report = audit(&platform);
        assert_eq!(report["findings"]["withoutAd"]["count"], without_ad, "{offset}: {report:#}");
        assert_eq!(report["onTheirWay"], 1 - without_ad, "{offset}: {report:#}");
    }
    platform.finish().await;
}
