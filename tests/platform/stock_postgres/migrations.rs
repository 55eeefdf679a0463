//! Tests instances that migrate the schema at the same time.

use super::world::World;
use crate::support::eventually;

/// Returns how often the logs of the instances report that a migration ran.
fn runs(logs: &[String], version: &str) -> usize {
    let line = format!("migrated the schema version=\"{version}\"");
    logs.iter().map(|log| log.matches(&line).count()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_waits_is_retried_and_runs_once() {
    let Some(world) = World::shared().await else { return };
    let sql = world.operator().await;
    // The migrations wait for a table that another session has created but not committed.
    sql.run("BEGIN; CREATE TABLE vehicles ()").await;
    let (one, other) = tokio::join!(world.stock(), world.stock());
    for stock in [&one, &other] {
        stock.await_unready("database", &["55P03"]).await;
        world.post(stock, "refused").await.assert_unavailable();
    }
    assert_eq!(world.open_transactions(&sql).await, "0");
    let connections = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", world.database);
    assert!(sql.ask(&connections).await.parse::<u32>().unwrap() <= 4);
    sql.run("ROLLBACK").await;
    tokio::join!(one.await_ready(), other.await_ready());
    let logs = [one.log(), other.log()];
    for version in ["0001", "0002", "0003", "0004"] {
        assert_eq!(runs(&logs, version), 1, "{version} in {logs:?}");
    }
    let versions = sql.column("SELECT version FROM __diesel_schema_migrations ORDER BY version").await;
    assert_eq!(versions, ["0001", "0002", "0003", "0004"]);
    world.accept(&one, "one").await;
    world.accept(&other, "other").await;
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_waits_for_the_tables_that_it_changes() {
    let Some(world) = World::shared().await else { return };
    let sql = world.operator().await;
    let first = world.stock().await;
    first.await_ready().await;
    world.accept(&first, "before").await;
    drop(first);
    // Restores the state of an older release.
    sql.run(include_str!("../../../src/stock/migrations/postgres/0004_tracestate/down.sql")).await;
    sql.run(include_str!("../../../src/stock/migrations/postgres/0003_idempotency_key/down.sql")).await;
    sql.run(include_str!("../../../src/stock/migrations/postgres/0002_event_log/down.sql")).await;
    sql.run("BEGIN; LOCK TABLE vehicles IN SHARE MODE").await;
    let (one, other) = tokio::join!(world.stock(), world.stock());
    for stock in [&one, &other] {
        stock.await_unready("database", &["55P03"]).await;
    }
    sql.run("COMMIT").await;
    eventually("both to be ready", async || {
        tokio::join!(one.await_ready(), other.await_ready());
        Some(())
    })
    .await;
    for version in ["0002", "0003", "0004"] {
        assert_eq!(runs(&[one.log(), other.log()], version), 1);
    }
    world.accept(&other, "after").await;
    eventually("the vehicle to be published", async || {
        let left = "SELECT count(*) FROM event_log WHERE id > (SELECT COALESCE(max(last_id), 0) FROM relay_position)";
        (sql.ask(left).await == "0").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_backup_that_is_restored_under_a_running_instance_is_migrated() {
    let Some(world) = World::shared().await else { return };
    let sql = world.operator().await;
    let stock = world.stock().await;
    stock.await_ready().await;
    world.accept(&stock, "before").await;
    for script in [
        include_str!("../../../src/stock/migrations/postgres/0004_tracestate/down.sql"),
        include_str!("../../../src/stock/migrations/postgres/0003_idempotency_key/down.sql"),
    ] {
        // A write of the instance may hold a lock.
        eventually("the older schema", async || {
            let ran = sql.try_run(script).await;
            if ran.is_err() {
                sql.run("ROLLBACK").await;
            }
            ran.ok()
        })
        .await;
    }
    eventually("the schema to be migrated", async || {
        let versions = "SELECT count(*) FROM __diesel_schema_migrations";
        (sql.ask(versions).await == "4").then_some(())
    })
    .await;
    stock.await_ready().await;
    world.accept(&stock, "after").await;
    eventually("all to be published", async || {
        let left = "SELECT count(*) FROM event_log WHERE id > (SELECT COALESCE(max(last_id), 0) FROM relay_position)";
        (sql.ask(left).await == "0").then_some(())
    })
    .await;
    world.audit().await;
}
