//! Tests the stock role on databases that were copied, restored or rolled back, and with events that cannot be
//! encoded.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::engines::PostgresDatabase;
use crate::support::kafka::{header, read_all};
use crate::support::{BINARY, Platform, eventually, free_port, get, http_client, signal, terminate, vehicle};
use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};
use rdkafka::Message as _;
use reqwest::StatusCode;
use tempfile::TempDir;

const CREATED: &str = "stock.vehicle-created";

/// Starts a Kafka and a registry.
async fn infrastructure() -> Platform {
    Platform::start(&["--roles", "none"]).await
}

/// A stock role in a separate process, with its log in a file.
struct Stock {
    child: Child,
    url: String,
    log: TempDir,
}

impl Stock {
    async fn start(kafka: &Platform, database: &str) -> Self {
        let port = free_port();
        let log = tempfile::tempdir().unwrap();
        let output = std::fs::File::create(log.path().join("log")).unwrap();
        let child = Command::new(BINARY)
            .args(["stock", "--port", &port.to_string(), "--database-url", database])
            .args(["--kafka-bootstrap-servers", kafka.kafka(), "--schema-registry-url", kafka.registry()])
            .args(["--topic-replication-factor", "1", "--topic-min-insync-replicas", "1"])
            .stdout(output.try_clone().unwrap())
            .stderr(Stdio::from(output))
            .spawn()
            .unwrap();
        let stock = Self { child, url: format!("http://127.0.0.1:{port}"), log };
        stock.await_ready().await;
        stock
    }

    async fn await_ready(&self) {
        eventually("stock to be ready", async || {
            let answer = get(format!("{}/readyz", self.url)).await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    async fn accept(&self, name: &str, count: usize) -> Vec<String> {
        let client = http_client();
        let mut vins = Vec::new();
        for number in 0..count {
            let vin = format!("{name}-{number}");
            let answer =
                client.post(format!("{}/stock", self.url)).json(&vehicle(&vin)).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::CREATED, "{vin}");
            vins.push(vin);
        }
        vins
    }

    async fn metric(&self, name: &str) -> Option<f64> {
        let metrics = get(format!("{}/metrics", self.url)).await.ok()?.text().await.ok()?;
        metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    async fn await_metric(&self, name: &str, value: f64) {
        eventually(&format!("{name} to be {value}"), async || {
            (self.metric(&format!("{name} ")).await? == value).then_some(())
        })
        .await;
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path().join("log")).unwrap()
    }

    async fn stop(mut self) {
        let status = terminate(&mut self.child).await;
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Returns how often each vin is in the topic.
async fn published(kafka: &Platform) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for record in read_all(kafka.kafka(), CREATED).await {
        *counts.entry(String::from_utf8(record.key().unwrap().to_vec()).unwrap()).or_default() += 1;
    }
    counts
}

async fn await_published(kafka: &Platform, vins: &[String]) -> HashMap<String, usize> {
    eventually(&format!("{} events", vins.len()), async || {
        let counts = published(kafka).await;
        vins.iter().all(|vin| counts.contains_key(vin)).then_some(counts)
    })
    .await
}

fn copy_sqlite(from: &Path, to: &Path) {
    let mut connection = SqliteConnection::establish(from.to_str().unwrap()).unwrap();
    connection.batch_execute(&format!("VACUUM INTO '{}'", to.display())).unwrap();
}

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

async fn execute(url: &str, statements: &str) {
    let mut connection = AsyncPgConnection::establish(url).await.unwrap();
    connection.batch_execute(statements).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_and_its_copy_both_publish_everything_they_accept() {
    let kafka = infrastructure().await;
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a.db"), directory.path().join("b.db"));
    let original = Stock::start(&kafka, &url(&a)).await;
    let mut accepted = original.accept("before", 5).await;
    await_published(&kafka, &accepted).await;
    original.stop().await;
    copy_sqlite(&a, &b);

    let (original, copy) = (Stock::start(&kafka, &url(&a)).await, Stock::start(&kafka, &url(&b)).await);
    let mut part = 0;
    // Until one of them has acquired another identity.
    eventually("an identity to be replaced", async || {
        part += 1;
        accepted.extend(original.accept(&format!("original-{part}"), 50).await);
        accepted.extend(copy.accept(&format!("copy-{part}"), 50).await);
        [&original, &copy].iter().any(|stock| stock.log().contains("it was replaced")).then_some(())
    })
    .await;
    accepted.extend(original.accept("original-last", 200).await);
    accepted.extend(copy.accept("copy-last", 200).await);
    await_published(&kafka, &accepted).await;
    for stock in [&original, &copy] {
        stock.await_metric("stock_outbox_depth", 0.0).await;
    }
    original.stop().await;
    copy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_restored_from_a_backup_publishes_everything_it_accepts_afterwards() {
    let kafka = infrastructure().await;
    let directory = tempfile::tempdir().unwrap();
    let (database, backup) = (directory.path().join("stock.db"), directory.path().join("backup.db"));
    let stock = Stock::start(&kafka, &url(&database)).await;
    let mut accepted = stock.accept("kept", 10).await;
    await_published(&kafka, &accepted).await;
    stock.await_metric("stock_outbox_depth", 0.0).await;
    copy_sqlite(&database, &backup);
    let lost = stock.accept("lost", 10).await;
    await_published(&kafka, &lost).await;
    stock.stop().await;

    for ending in ["", "-wal", "-shm"] {
        std::fs::remove_file(directory.path().join(format!("stock.db{ending}"))).ok();
    }
    std::fs::rename(&backup, &database).unwrap();
    let stock = Stock::start(&kafka, &url(&database)).await;
    // Their ids were published with other vehicles before.
    accepted.extend(stock.accept("after", 10).await);
    let counts = await_published(&kafka, &accepted).await;
    assert!(counts.values().all(|&count| count == 1), "{counts:?}");
    stock.await_metric("stock_history_parted_total", 1.0).await;
    stock.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_loses_the_newest_rows_loses_nothing_that_is_accepted_afterwards() {
    let Some(database) = PostgresDatabase::create().await else { return };
    let kafka = infrastructure().await;
    let stock = Stock::start(&kafka, database.url().as_str()).await;
    let kept = stock.accept("kept", 10).await;
    let lost = stock.accept("lost", 10).await;
    await_published(&kafka, &[kept.clone(), lost].concat()).await;
    // The server that took over lacks them, while connections continue, as behind a proxy.
    execute(
        database.url().as_str(),
        "DELETE FROM event_log WHERE vin LIKE 'lost-%'; DELETE FROM vehicles WHERE vin LIKE 'lost-%';
         UPDATE relay_position SET last_id = 10;
         SELECT setval('event_log_id_seq', 10), setval('vehicles_id_seq', 10)",
    )
    .await;
    let accepted = stock.accept("after", 20).await;
    let counts = await_published(&kafka, &accepted).await;
    assert!(accepted.iter().all(|vin| counts[vin] == 1), "{counts:?}");
    stock.stop().await;
    database.clear().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_minutes_on_a_wrong_cluster_lose_nothing_on_the_right_one() {
    let (right, wrong) = (infrastructure().await, infrastructure().await);
    let directory = tempfile::tempdir().unwrap();
    let database = url(&directory.path().join("stock.db"));
    let mut accepted = Vec::new();
    for (number, kafka) in [&right, &wrong, &right].into_iter().enumerate() {
        let stock = Stock::start(kafka, &database).await;
        let here = stock.accept(&format!("at-{number}"), 20).await;
        await_published(kafka, &here).await;
        accepted.extend(here);
        stock.stop().await;
    }
    let counts = await_published(&right, &accepted).await;
    assert!(counts.values().all(|&count| count == 1), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_encoded_is_skipped_reported_and_retried() {
    let kafka = infrastructure().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stock.db");
    let stock = Stock::start(&kafka, &url(&path)).await;
    let mut accepted = stock.accept("before", 3).await;
    await_published(&kafka, &accepted).await;
    stock.stop().await;
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    // An event of a release with another field, and an event that violates its schema.
    connection
        .batch_execute(
            "INSERT INTO event_log (vin, event, traceparent) VALUES ('odd', '{\"vin\":\"odd\"}', '');
             INSERT INTO event_log (vin, event, traceparent)
             SELECT 'before-0', replace(event, '2022', '-5.5'), '' FROM event_log WHERE vin = 'before-0';",
        )
        .unwrap();
    let stock = Stock::start(&kafka, &url(&path)).await;
    accepted.extend(stock.accept("after", 20).await);
    await_published(&kafka, &accepted).await;
    stock.await_metric("stock_events_failed", 2.0).await;
    stock.await_metric("stock_outbox_depth", 0.0).await;
    stock.await_ready().await;

    let event = "{\"id\":99,\"vin\":\"odd\",\"model\":\"m\",\"manufacturer\":\"m\",\"year\":2022,\"odometer\":1,\"odometerUnit\":\"km\"}";
    connection.batch_execute("PRAGMA busy_timeout = 5000").unwrap();
    connection.batch_execute(&format!("UPDATE event_log SET event = '{event}' WHERE vin = 'odd'")).unwrap();
    stock.stop().await;
    let stock = Stock::start(&kafka, &url(&path)).await;
    accepted.push("odd".to_owned());
    let counts = await_published(&kafka, &accepted).await;
    assert!(counts.values().all(|&count| count == 1), "{counts:?}");
    stock.await_metric("stock_events_failed", 1.0).await;
    stock.stop().await;
}

/// Kills the relay many times at any moment, on a single history.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_killed_at_any_moment_duplicates_nothing() {
    let kafka = infrastructure().await;
    let directory = tempfile::tempdir().unwrap();
    let database = url(&directory.path().join("stock.db"));
    let mut accepted = Vec::new();
    for round in 0..5 {
        let mut stock = Stock::start(&kafka, &database).await;
        accepted.extend(stock.accept(&format!("round-{round}"), 30 + 7 * round).await);
        signal(&stock.child, "KILL");
        stock.child.wait().unwrap();
    }
    let stock = Stock::start(&kafka, &database).await;
    let counts = await_published(&kafka, &accepted).await;
    assert_eq!(counts.len(), accepted.len());
    assert!(counts.values().all(|&count| count == 1), "{counts:?}");
    let record = &read_all(kafka.kafka(), CREATED).await[0];
    assert!(header(record, "traceparent").is_some());
    stock.stop().await;
}
