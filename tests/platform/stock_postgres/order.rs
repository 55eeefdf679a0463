//! Tests that ids of vehicles and events become visible in ascending order, whatever kind of transaction writes them.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::SinkExt as _;
use serde_json::Value;

use super::load;
use super::stock::Stock;
use super::world::{Sql, World};
use crate::support::assert_same;

/// The number of transactions of each foreign writer.
const ROUNDS: usize = 12;

/// Returns statements that insert `foreign-<name>` into both tables.
fn insert(name: &str) -> String {
    let vehicle = "(vin, model, manufacturer, year, odometer, odometer_unit, created_at)
        VALUES ('foreign-$', 'm', 'm', 2022, 1, 'km', now())";
    let event = r#"(vin, event, traceparent) VALUES ('foreign-$', '{"id":1,"vin":"foreign-$","model":"m",
        "manufacturer":"m","year":2022,"odometer":1,"odometerUnit":"km"}', '')"#;
    format!("INSERT INTO vehicles {vehicle}; INSERT INTO event_log {event};").replace('$', name)
}

/// Returns the transactions of a writer. Each delays its commit, so that others draw ids meanwhile.
fn transactions(writer: &str, round: usize) -> Vec<String> {
    let row = |number: usize| insert(&format!("{writer}-{round}-{number}"));
    let pause = "SELECT pg_sleep(0.03)";
    match writer {
        "open" => vec![format!("BEGIN; {}", row(0)), format!("{pause}; {}", row(1)), "COMMIT".to_owned()],
        "savepoints" => vec![
            format!("BEGIN; SAVEPOINT a; {} {pause}; ROLLBACK TO a", row(0)),
            pause.to_owned(),
            format!("SAVEPOINT b; {} {pause}; RELEASE b; {}", row(1), row(2)),
            format!("SAVEPOINT c; {} ROLLBACK TO c; {pause}; COMMIT", row(3)),
        ],
        "prepared" => {
            vec![format!("BEGIN; {} PREPARE TRANSACTION '@-{round}'", row(0)), pause.to_owned(), format!("COMMIT PREPARED '@-{round}'")]
        }
        "repeatable" => vec![
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM vehicles".to_owned(),
            pause.to_owned(),
            format!("{} {pause}", row(0)),
            "COMMIT".to_owned(),
        ],
        "rollback" => vec![format!("BEGIN; {} {pause}; ROLLBACK", row(0)), row(1)],
        "merge" => vec![format!(
            "BEGIN; MERGE INTO vehicles USING (VALUES ('foreign-merge-{round}')) AS new (name) ON vin = name
             WHEN NOT MATCHED THEN INSERT (vin, model, manufacturer, year, odometer, odometer_unit, created_at)
                VALUES (name, 'm', 'm', 2022, 1, 'km', now());
             {pause}; {} COMMIT",
            row(1)
        )],
        other => panic!("{other}"),
    }
}

async fn write(world: &World, writer: &str) {
    let sql = world.operator().await;
    if writer == "merge" && sql.ask("SHOW server_version_num").await.as_str() < "150000" {
        return;
    }
    for round in 0..ROUNDS {
        for statement in transactions(writer, round) {
            sql.run(&statement.replace('@', &world.database)).await;
        }
    }
}

async fn copy(world: &World) {
    let sql = world.operator().await;
    for round in 0..ROUNDS {
        let copy =
            "COPY vehicles (vin, model, manufacturer, year, odometer, odometer_unit, created_at) FROM STDIN";
        let sink = sql.0.copy_in::<_, bytes::Bytes>(copy).await.unwrap();
        let mut sink = std::pin::pin!(sink);
        for row in 0..5 {
            let line = format!("foreign-copy-{round}-{row}\tm\tm\t2022\t1\tkm\tnow\n");
            sink.send(line.into()).await.unwrap();
        }
        sink.finish().await.unwrap();
    }
}

/// Reads `id > last` repeatedly until `done`, and returns every id in the order in which it was seen.
async fn follow_table(sql: &Sql, table: &str, done: &AtomicBool) -> Vec<i64> {
    let mut seen = Vec::new();
    loop {
        let last_look = done.load(Ordering::Relaxed);
        let last = seen.last().copied().unwrap_or(0);
        let page =
            sql.column(&format!("SELECT id FROM {table} WHERE id > {last} ORDER BY id LIMIT 20")).await;
        if page.is_empty() && last_look {
            return seen;
        }
        seen.extend(page.iter().map(|id| id.parse::<i64>().unwrap()));
        tokio::task::yield_now().await;
    }
}

/// Follows the list as [`follow_table`] does, with `GET /stock?after=`.
async fn follow_http(stock: &Stock, done: &AtomicBool) -> Vec<i64> {
    let mut seen = Vec::new();
    loop {
        let last_look = done.load(Ordering::Relaxed);
        let last: i64 = seen.last().copied().unwrap_or(0);
        let page: Vec<Value> =
            stock.get(&format!("/stock?limit=20&after={last}")).await.json().await.unwrap();
        if page.is_empty() && last_look {
            return seen;
        }
        seen.extend(page.iter().map(|vehicle| vehicle["id"].as_i64().unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_follower_sees_every_row_once_regardless_of_the_writer() {
    let Some(world) = World::shared().await else { return };
    let (one, other) = tokio::join!(world.stock(), world.stock());
    tokio::join!(one.await_ready(), other.await_ready());
    let (events, vehicles) = (world.operator().await, world.operator().await);
    let done = AtomicBool::new(false);
    let writers = ["open", "savepoints", "prepared", "repeatable", "rollback", "merge"];
    let foreign = async {
        let write = futures::future::join_all(writers.map(|writer| write(&world, writer)));
        tokio::join!(write, copy(&world));
    };
    let other_clients = async {
        for number in 0..100 {
            world.accept_eventually(&other, &format!("other-{number}")).await;
        }
    };
    let writing = async {
        let answers = load::during(&world, &one, 4, async {
            tokio::join!(foreign, other_clients);
        })
        .await;
        done.store(true, Ordering::Relaxed);
        answers
    };
    let (answers, events_seen, vehicles_seen, one_seen, other_seen) = tokio::join!(
        writing,
        follow_table(&events, "event_log", &done),
        follow_table(&vehicles, "vehicles", &done),
        follow_http(&one, &done),
        follow_http(&other, &done),
    );
    println!("answers: {answers:?}, {} events", events_seen.len());
    let ids = async |table: &str| -> Vec<i64> {
        let ids = events.column(&format!("SELECT id FROM {table} ORDER BY id")).await;
        ids.iter().map(|id| id.parse().unwrap()).collect()
    };
    assert_same(events_seen, ids("event_log").await);
    let all = ids("vehicles").await;
    for seen in [vehicles_seen, one_seen, other_seen] {
        assert_same(seen, all.clone());
    }
    world.audit().await;
}
