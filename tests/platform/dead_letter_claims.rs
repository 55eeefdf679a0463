//! Tests that no dead letter is resolved twice by instances that run at the same time.

use std::collections::HashSet;
use std::process::Command;

use clap::Parser as _;
use rand::Rng as _;
use rdkafka::Message as _;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::FutureRecord;
use tokio::runtime::Handle;
use vehicle_platform::dlq::{Outcome, Plan, Selection, Step, Which, resolve};
use vehicle_platform::kafka::{KafkaArgs, Resolution};

use crate::support::kafka::{produce_all, produce_record, read_all};
use crate::support::{BINARY, Platform, eventually};

const CREATED: &str = "stock.vehicle-created";
const LETTERS: &str = "stock.vehicle-created.dlq";

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// Starts a platform without roles, whose topics exist.
async fn broker() -> Platform {
    let platform = Platform::start(&["--roles", "none"]).await;
    eventually("the topics", async || platform.tool(&["dlq", "list"]).status.success().then_some(())).await;
    platform
}

/// Writes a dead letter that has been replayed this often.
async fn write(bootstrap: &str, value: &[u8], replays: &str) {
    let headers = [("dlq.reason", "a reason"), ("dlq.replays", replays)];
    let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(*value) })
    });
    let record = FutureRecord::to(LETTERS).partition(0).key("key").payload(value).headers(headers);
    produce_record(bootstrap, record, "none").await;
}

/// Writes what another instance writes to discard a dead letter.
async fn discard(bootstrap: &str, partition: &str, offset: &str) {
    let headers =
        [("dlq.settled", "discarded"), ("dlq.settled.partition", partition), ("dlq.settled.offset", offset)];
    let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(*value) })
    });
    let record: FutureRecord<'_, str, [u8]> = FutureRecord::to(LETTERS).headers(headers);
    produce_record(bootstrap, record, "none").await;
}

/// Replays all dead letters and calls `report` for each, on a thread that may block.
async fn replay_all(
    platform: &Platform,
    report: impl FnMut(Step) + Send + 'static,
) -> anyhow::Result<Outcome> {
    let arguments = ["test", "--kafka-bootstrap-servers", platform.kafka()];
    let Arguments { kafka } = Arguments::parse_from(arguments);
    let plan = Plan {
        which: Which::All(Selection::default()),
        how: Resolution::Replayed,
        max_replays: 3,
        dry_run: false,
    };
    tokio::task::spawn_blocking(move || resolve(&kafka, &plan, report)).await.unwrap()
}

/// A value that exceeds the largest size of a record on the data topic, but not that on the dead-letter topic.
fn large() -> Vec<u8> {
    let mut bytes = vec![0; 1_500_000];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_was_replaced_resolves_nothing_more_after_a_refusal() {
    let platform = broker().await;
    let values = [large()].into_iter().chain((0..600).map(|number| format!("garbage {number}").into_bytes()));
    let letters: Vec<_> = values.map(|value| ("key".to_owned(), value)).collect();
    produce_all(platform.kafka(), LETTERS, &letters, "none").await;
    let mut other = Command::new(BINARY);
    other.args(["dlq", "replay", "--all"]).env("KAFKA_BOOTSTRAP_SERVERS", platform.kafka());
    let mut other = Some(other);
    let outcome = replay_all(&platform, move |step| {
        if matches!(step, Step::Resolved(_))
            && let Some(mut other) = other.take()
        {
            let output = other.output().unwrap();
            assert_eq!(output.status.code(), Some(1), "the large one was skipped: {output:?}");
        }
    })
    .await;
    assert_eq!(outcome.unwrap(), Outcome { resolved: 499, skipped: 102 });
    let replayed = read_all(platform.kafka(), CREATED).await;
    let distinct: HashSet<_> = replayed.iter().map(|record| record.payload().unwrap().to_vec()).collect();
    assert_eq!((replayed.len(), distinct.len()), (600, 600));
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_was_resolved_before_a_refusal_is_not_resolved_again() {
    let platform = broker().await;
    let bootstrap = platform.kafka().to_owned();
    write(&bootstrap, b"was replayed too often", "3").await;
    write(&bootstrap, b"is discarded meanwhile", "0").await;
    write(&bootstrap, &large(), "0").await;
    let (sender, receiver) = std::sync::mpsc::channel();
    let outcome = replay_all(&platform, move |step| {
        // The first report comes before anything is published.
        if matches!(&step, Step::Skipped(_, reason) if reason.contains("--max-replays")) {
            Handle::current().block_on(discard(&bootstrap, "0", "1"));
        }
        sender.send(step).unwrap();
    })
    .await
    .unwrap();
    assert_eq!(outcome, Outcome { resolved: 0, skipped: 3 });
    let steps: Vec<_> = receiver.iter().map(|step| format!("{step:?}")).collect();
    assert!(steps[1].contains("resolved or deleted meanwhile"), "{steps:?}");
    assert!(steps[2].contains("the brokers refuse it"), "{steps:?}");
    assert!(read_all(platform.kafka(), CREATED).await.is_empty());
    platform.end().await;
}
