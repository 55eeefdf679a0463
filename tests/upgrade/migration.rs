//! Tests the migration of a database that older instances are using.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection as _;
use reqwest::StatusCode;

use crate::database::{Database, insertion};
use crate::engines::Engines;
use crate::older_release::published;
use crate::stock::Stock;
use crate::support::eventually;

const UNPUBLISHED: usize = 100_000;

/// Waits until a session is waiting for a lock on `table`.
async fn await_waiter(database: &Database, table: &str) {
    let waiters = format!(
        "SELECT count(*) AS number FROM pg_locks WHERE relation = '{table}'::regclass AND NOT granted"
    );
    eventually("a session that waits for a lock", async || {
        (database.number(&waiters).await > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_retried_until_open_transactions_of_older_instances_end() {
    let Some(database) = Database::private_postgres().await else { return };
    let engines = Engines::embedded().await;
    database.create_older_tables().await;
    database.insert("claimed", None).await;
    let (mut accepting, mut claiming) = (database.connect().await, database.connect().await);
    let insertions = insertion("accepted", None);
    let (vehicle, event) = insertions.split_once(';').unwrap();
    accepting.batch_execute(&format!("BEGIN; {vehicle}")).await.unwrap();
    claiming.batch_execute("BEGIN; UPDATE outbox SET batch = 0").await.unwrap();

    let mut stock = Stock::start_new(&engines, &database.url());
    eventually("an attempt to give up", async || {
        let (_, body) = stock.readiness().await?;
        body["missing"]["database"].as_str()?.contains("lock timeout").then_some(())
    })
    .await;
    assert_eq!(stock.post("early").await, Some(StatusCode::SERVICE_UNAVAILABLE));
    // The older instance acquires its second lock while the migration waits for the first.
    await_waiter(&database, "vehicles").await;
    accepting.batch_execute(&format!("{event}; COMMIT")).await.unwrap();
    // The migration now waits for the relay, and another vehicle waits for the migration.
    await_waiter(&database, "outbox").await;
    let mut waiting = database.connect().await;
    let further = tokio::spawn(async move {
        waiting.batch_execute(&format!("BEGIN; {}; COMMIT", insertion("further", None))).await
    });
    await_waiter(&database, "vehicles").await;
    claiming.batch_execute("COMMIT").await.unwrap();
    further.await.unwrap().unwrap();

    let expected = ["accepted", "claimed", "further"].map(|vin| (vin.to_owned(), false));
    eventually("all events", async || (published(&engines).await.len() >= expected.len()).then_some(()))
        .await;
    assert_eq!(stock.terminate().await.code(), Some(0));
    assert_eq!(published(&engines).await, expected);
    let deadlocks = "SELECT sum(deadlocks)::bigint AS number FROM pg_stat_database";
    assert_eq!(database.number(deadlocks).await, 0);
    engines.end().await;
}

/// Requests are refused until the migration completes, but none fails.
#[tokio::test(flavor = "multi_thread")]
async fn it_moves_many_unpublished_events_in_one_transaction() {
    let Some(database) = Database::private_postgres().await else { return };
    let engines = Engines::embedded().await;
    database.create_older_tables().await;
    let number = "v-' || number || '";
    let inserted = insertion(number, None).replace("\n", " ");
    let (vehicle, event) = inserted.split_once(';').unwrap();
    for statement in [vehicle, event.trim_end_matches(';')] {
        let (columns, values) = statement.split_once("VALUES (").unwrap();
        let values = values.trim_end().trim_end_matches(')').replace(", '2026", ", timestamptz '2026");
        let rows = format!("FROM generate_series(1, {UNPUBLISHED}) AS number");
        database.execute(&format!("{columns} SELECT {values} {rows}")).await;
    }
    let mut stock = Stock::start_new(&engines, &database.url());
    let mut answers = BTreeMap::new();
    let mut began = None;
    let took = loop {
        if let Some(status) = stock.post("posted meanwhile").await {
            let since = *began.get_or_insert_with(Instant::now);
            *answers.entry(status.as_u16()).or_insert(0) += 1;
            if status == StatusCode::CREATED {
                break since.elapsed();
            }
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(since.elapsed() < Duration::from_secs(120), "not migrated");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    println!(
        "{UNPUBLISHED} unpublished events: {took:.1?} from the first answer to the first 201; {answers:?}"
    );
    let moved = "SELECT count(*) AS number FROM event_log";
    assert_eq!(database.number(moved).await, i64::try_from(UNPUBLISHED).unwrap() + 1);
    assert_eq!(stock.terminate().await.code(), Some(0));

    let started = Instant::now();
    database.execute(&database.script("0002_event_log/down.sql")).await;
    println!(
        "{} events restored in {:.1?}",
        database.number("SELECT count(*) AS number FROM outbox").await,
        started.elapsed()
    );
    engines.end().await;
}
