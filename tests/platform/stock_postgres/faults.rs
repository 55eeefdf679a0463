//! Tests a server that is read-only, crashes or is suspended, with messages in another language.

use super::load;
use super::world::{Sql, World};
use crate::support::eventually;
use crate::support::postgres::Options;

/// Selects German messages if the server's translations are installed.
const GERMAN: Options = Options {
    certificate: crate::support::postgres::Certificate::None,
    settings: &["lc_messages=C.UTF-8"],
    environment: &[("LANGUAGE", "de")],
};

/// Reports when the server uses English despite the setting.
async fn check_language(sql: &Sql) {
    let error = sql.try_run("SELECT 1 / 0").await.unwrap_err();
    let message = error.as_db_error().unwrap().message();
    if message != "Division durch Null" {
        use std::io::Write as _;
        let mut stderr = std::io::stderr();
        writeln!(stderr, "not tested with translated messages: the server returned {message}").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_accepts_no_writes_is_read_only_until_it_accepts_them_again() {
    let Some(world) = World::alone(GERMAN).await else { return };
    let sql = world.operator().await;
    check_language(&sql).await;
    let stock = world.stock().await;
    stock.await_ready().await;
    world.accept(&stock, "before").await;
    sql.run("ALTER SYSTEM SET default_transaction_read_only = on").await;
    sql.run("SELECT pg_reload_conf()").await;
    world.await_refusal(&stock, "until").await;
    stock.await_unready("database", &["read-only"]).await;
    world.post(&stock, "refused").await.assert_unavailable();
    assert_eq!(stock.get("/stock?limit=1").await.status(), 200, "reads are served");
    sql.run("ALTER SYSTEM RESET default_transaction_read_only").await;
    sql.run("SELECT pg_reload_conf()").await;
    world.accept_eventually(&stock, "after").await;
    stock.await_ready().await;
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_sessions_that_the_server_ended_fail_no_request() {
    let Some(world) = World::shared().await else { return };
    let sql = world.operator().await;
    let stock = world.stock().await;
    stock.await_ready().await;
    for round in 0..3 {
        world.accept(&stock, &format!("idle-{round}")).await;
        let sessions = format!("SELECT pid FROM pg_stat_activity WHERE usename = '{}'", world.database);
        let ended = sql.column(&sessions).await.join(", ");
        sql.run(&format!("SELECT pg_terminate_backend(pid) FROM unnest(ARRAY[{ended}]) AS pid")).await;
        // Once the relay has opened a new session, the process has noticed the end of all.
        eventually("the sessions to be replaced", async || {
            let old = sql.column(&format!("{sessions} AND pid IN ({ended})")).await;
            (old.is_empty() && !sql.column(&sessions).await.is_empty()).then_some(())
        })
        .await;
    }
    world.accept(&stock, "after").await;
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashes_and_sessions_that_are_terminated_lose_nothing() {
    let Some(world) = World::alone(GERMAN).await else { return };
    let stock = world.stock().await;
    stock.await_ready().await;
    let terminate = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'",
        world.database
    );
    let accepted = async |count: f64| {
        let before = stock.metric("stock_vehicles_accepted_total").await;
        eventually("more vehicles", async || {
            (stock.metric("stock_vehicles_accepted_total").await >= before + count).then_some(())
        })
        .await;
    };
    let answers = load::during(&world, &stock, 8, async {
        let sql = world.operator().await;
        for _ in 0..5 {
            accepted(20.0).await;
            sql.run(&terminate).await;
        }
        for _ in 0..2 {
            accepted(20.0).await;
            world.server.crash_and_restart().await;
        }
        accepted(20.0).await;
    })
    .await;
    println!("answers: {answers:?}");
    stock.await_ready().await;
    world.audit().await;
}
