//! Reads and fills the events table of a stock database, in its old or its new schema.

use std::time::{Duration, Instant};

use crate::sql::Sql;
use crate::stats::say;
use crate::support::eventually;

/// Number of rows that one statement inserts.
const CHUNK: u64 = 250_000;

/// How a database stores the events that its relay publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// Table `outbox`: publishing an event deletes its row.
    Outbox,
    /// Table `event_log`: rows stay, and `relay_position` holds the id of the last published one.
    Log,
}

impl Events {
    /// Detects which tables stock has created.
    pub async fn detect(sql: &mut Sql) -> Self {
        let query = "SELECT count(*) AS value FROM pg_tables WHERE tablename = 'event_log'";
        if sql.number(query).await == 1 { Self::Log } else { Self::Outbox }
    }

    /// Returns the number of unpublished events.
    pub async fn depth(self, sql: &mut Sql) -> i64 {
        sql.number(match self {
            Self::Outbox => "SELECT count(*) AS value FROM outbox",
            Self::Log => {
                "SELECT count(*) AS value FROM event_log \
                 WHERE id > (SELECT coalesce(min(last_id), 0) FROM relay_position)"
            }
        })
        .await
    }

    /// Waits until all events are published and returns the elapsed time, or `None` after `patience`.
    pub async fn await_published(self, sql: &mut Sql, patience: Duration) -> Option<Duration> {
        let started = Instant::now();
        while self.depth(sql).await > 0 {
            if started.elapsed() > patience {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Some(started.elapsed())
    }

    /// Appends one event and waits until the relay has stored its position; before that there is no row to update.
    pub async fn await_position(self, url: &str) {
        if self == Self::Log {
            let mut sql = Sql::connect(url).await;
            sql.run(&format!(
                "INSERT INTO event_log (vin, event, traceparent) SELECT vin, {EVENT}, {TRACEPARENT} \
                 FROM (SELECT 1 AS id, 'first' AS vin) first"
            ))
            .await;
            eventually("the relay to have a position", async || {
                (sql.number("SELECT count(*) AS value FROM relay_position").await > 0).then_some(())
            })
            .await;
        }
    }

    /// Inserts vehicles with unpublished events.
    pub async fn add_waiting(self, sql: &mut Sql, count: u64) {
        let table = self.table();
        in_chunks("unpublished", count, async |first, last| {
            sql.run(&format!(
                "WITH stocked AS ({}) \
                 INSERT INTO {table} (vin, event, traceparent) SELECT vin, {EVENT}, {TRACEPARENT} FROM stocked",
                vehicles(first, last)
            ))
            .await;
        })
        .await;
        sql.vacuum(&["vehicles", table]).await;
    }

    /// Inserts events and moves the relay's position past them.
    pub async fn add_published(self, sql: &mut Sql, count: u64) {
        assert_eq!(self, Self::Log, "the outbox does not retain published events");
        in_chunks("published", count, async |first, last| {
            sql.run(&format!(
                "INSERT INTO event_log (vin, event, traceparent) SELECT vin, {EVENT}, {TRACEPARENT} \
                 FROM (SELECT n AS id, 'H' || lpad(n::text, 16, '0') AS vin FROM generate_series({first}, {last}) n) h"
            ))
            .await;
        })
        .await;
        sql.run("UPDATE relay_position SET last_id = (SELECT max(id) FROM event_log)").await;
        // The mark on the cluster overrides the position. A new identity has no mark.
        sql.run("UPDATE relay_lease SET identity = gen_random_uuid()::text").await;
        sql.vacuum(&["event_log"]).await;
        assert_eq!(self.depth(sql).await, 0, "the relay's position did not move past all events");
    }

    fn table(self) -> &'static str {
        match self {
            Self::Outbox => "outbox",
            Self::Log => "event_log",
        }
    }
}

/// Inserts vehicles without events.
pub async fn add_vehicles(sql: &mut Sql, count: u64) {
    in_chunks("stocked", count, async |first, last| sql.run(&vehicles(first, last)).await).await;
    sql.vacuum(&["vehicles"]).await;
}

/// SQL expressions over the columns id and vin.
const EVENT: &str = r#"format('{"id":%s,"vin":"%s","model":"model","manufacturer":"manufacturer","year":2022,"odometer":1000,"odometerUnit":"km"}', id, vin)"#;
const TRACEPARENT: &str = "'00-' || md5(vin) || '-' || left(md5(vin), 16) || '-01'";

/// Builds a statement that inserts vehicles. Hashing the time keeps VINs unique across calls.
fn vehicles(first: u64, last: u64) -> String {
    format!(
        "INSERT INTO vehicles (vin, model, manufacturer, year, odometer, odometer_unit, created_at) \
         SELECT 'V' || left(md5(n::text || clock_timestamp()::text), 16), 'model', 'manufacturer', 2022, 1000, 'km', now() \
         FROM generate_series({first}, {last}) n RETURNING id, vin"
    )
}

async fn in_chunks(what: &str, count: u64, mut insert: impl AsyncFnMut(u64, u64)) {
    let mut done = 0;
    while done < count {
        let last = count.min(done + CHUNK);
        insert(done + 1, last).await;
        done = last;
        if done % (4 * CHUNK) == 0 || done == count {
            say(&format!("  inserted {done} {what} rows"));
        }
    }
}
