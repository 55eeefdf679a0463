//! Tests the classification of errors that the server reports.

use async_trait::async_trait;
use diesel_async::AsyncConnection as _;
use futures::future::join;
use vehicle_platform::database::DatabaseError;
use vehicle_platform::database::postgres::PostgresPool;

use super::{ask, code, execute, first, kind};
use crate::support::eventually;
use crate::support::postgres::{Server, address};

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_classified_by_its_sqlstate() {
    let Some(server) = Server::start().await else { return };
    let mut other = server.address("postgres").connect().await.unwrap();
    let tables = "CREATE TABLE t (id int PRIMARY KEY CHECK (id > 0)); INSERT INTO t VALUES (1)";
    execute(&mut other, tables).await.unwrap();
    let mut connection = server.address("postgres").connect().await.unwrap();
    for (statement, expected, keeps) in [
        ("SELECT 1 / 0", ("refused", "22012"), true),
        ("INSERT INTO t VALUES (1)", ("refused", "23505"), true),
        ("INSERT INTO t VALUES (-1)", ("refused", "23514"), true),
        ("INSERT INTO t VALUES ('x')", ("refused", "22P02"), true),
        ("SET LOCAL statement_timeout = 50; SELECT pg_sleep(30)", ("unavailable", "57014"), true),
        ("SET LOCAL lock_timeout = 50; BEGIN; LOCK TABLE locked", ("internal", "42P01"), false),
        ("SELEC 1", ("internal", "42601"), false),
        ("SET TRANSACTION READ ONLY; INSERT INTO t VALUES (2)", ("read-only", "25006"), false),
        (
            "DO $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$",
            ("unavailable", "53100"),
            true,
        ),
        (
            "DO $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '26000'; END $$",
            ("unavailable", "26000"),
            false,
        ),
    ] {
        let error = execute(&mut connection, statement).await.unwrap_err();
        assert_eq!((kind(&error), code(&error).as_str()), expected, "{statement}: {error}");
        assert!(error.to_string().contains(&format!("SQLSTATE {}: ", expected.1)), "{error}");
        assert_eq!(connection.is_broken(), !keeps, "{statement}");
        if !keeps {
            assert_eq!(kind(&ask(&mut connection, "SELECT '' AS answer").await.unwrap_err()), "unavailable");
            connection = server.address("postgres").connect().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_between_transactions_are_classified() {
    let Some(server) = Server::start().await else { return };
    let mut one = server.address("postgres").connect().await.unwrap();
    let mut two = server.address("postgres").connect().await.unwrap();
    execute(&mut one, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0), (2, 0)")
        .await
        .unwrap();

    execute(&mut one, "BEGIN; LOCK TABLE t").await.unwrap();
    let error = execute(&mut two, "SET lock_timeout = 50; SELECT * FROM t").await.unwrap_err();
    assert_eq!((kind(&error), code(&error).as_str()), ("unavailable", "55P03"));
    assert!(!two.is_broken());
    execute(&mut one, "COMMIT").await.unwrap();
    execute(&mut two, "SET lock_timeout = 0").await.unwrap();

    let serializable = "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT n FROM t";
    execute(&mut one, serializable).await.unwrap();
    execute(&mut two, serializable).await.unwrap();
    execute(&mut one, "UPDATE t SET n = n + 1; COMMIT").await.unwrap();
    let error = execute(&mut two, "UPDATE t SET n = n + 1").await.unwrap_err();
    assert_eq!((kind(&error), code(&error).as_str()), ("conflict", "40001"));
    execute(&mut two, "ROLLBACK").await.unwrap();

    execute(&mut one, "BEGIN; UPDATE t SET n = 0 WHERE id = 1").await.unwrap();
    execute(&mut two, "BEGIN; UPDATE t SET n = 0 WHERE id = 2").await.unwrap();
    let (first, second) = join(
        execute(&mut one, "UPDATE t SET n = 0 WHERE id = 2"),
        execute(&mut two, "UPDATE t SET n = 0 WHERE id = 1"),
    )
    .await;
    let error = first.and(second).unwrap_err();
    assert_eq!((kind(&error), code(&error).as_str()), ("conflict", "40P01"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_reports_the_reason() {
    let Some(server) = Server::start().await else { return };
    let mut connection = server.address("postgres").connect().await.unwrap();
    execute(&mut connection, "CREATE ROLE single LOGIN CONNECTION LIMIT 1 PASSWORD 'single'").await.unwrap();
    let port = server.port();
    let single = address(&format!("postgres://single:single@127.0.0.1:{port}/postgres"));
    let _first = single.connect().await.unwrap();
    for (address, expected) in [
        (single, "53300"),
        (address(&format!("postgres://single:other@127.0.0.1:{port}/postgres")), "28P01"),
        (server.address("missing"), "3D000"),
    ] {
        let error = address.connect().await.err().unwrap();
        assert_eq!((kind(&error), code(&error).as_str()), ("unavailable", expected), "{error}");
        assert!(error.to_string().contains(&format!("PostgreSQL at 127.0.0.1:{port}: ")), "{error}");
    }
    let read_only = "options=-c%20default_transaction_read_only%3Don";
    let mut reader = server.address(&format!("postgres?{read_only}")).connect().await.unwrap();
    let error = execute(&mut reader, "CREATE TABLE t ()").await.unwrap_err();
    assert_eq!((kind(&error), code(&error).as_str()), ("read-only", "25006"));
    let writer = server.address(&format!("postgres?{read_only}&target_session_attrs=read-write"));
    assert_eq!(kind(&writer.connect().await.err().unwrap()), "read-only");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_last_error_is_reported() {
    let Some(server) = Server::start().await else { return };
    let mut operator = server.address("postgres").connect().await.unwrap();
    let terminate = |application: &str| {
        format!(
            "SELECT pg_terminate_backend(pid)::text AS answer FROM pg_stat_activity WHERE application_name = '{application}'"
        )
    };

    let mut idle = server.address("postgres?application_name=idle").connect().await.unwrap();
    ask(&mut operator, &terminate("idle")).await.unwrap();
    eventually("the connection to end", async || idle.is_broken().then_some(())).await;
    let error = ask(&mut idle, "SELECT '' AS answer").await.unwrap_err();
    assert_eq!((kind(&error), code(&error).as_str()), ("unavailable", "57P01"), "{error}");

    let mut busy = server.address("postgres?application_name=busy").connect().await.unwrap();
    let sleeps = tokio::spawn(async move {
        let error = execute(&mut busy, "SELECT pg_sleep(4)").await.unwrap_err();
        (kind(&error), code(&error), busy.is_broken())
    });
    eventually("the statement to run", async || {
        let active = "SELECT count(*)::text AS answer FROM pg_stat_activity WHERE application_name = 'busy' AND state = 'active'";
        (ask(&mut operator, active).await.unwrap() == "1").then_some(())
    })
    .await;
    ask(&mut operator, &terminate("busy")).await.unwrap();
    assert_eq!(sleeps.await.unwrap(), ("unavailable", "57P01".to_owned(), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_rolls_back_and_reports_the_first_error() {
    let Some(server) = Server::start().await else { return };
    let mut connection = server.address("postgres").connect().await.unwrap();
    // Runs in another task on another thread.
    let done = tokio::spawn(async move {
        let error = connection
            .call(async |connection| {
                connection
                    .transaction(async |connection| first(connection, "SELECT (1 / 0)::text AS answer").await)
                    .await
            })
            .await
            .err()
            .unwrap();
        (
            kind(&error),
            code(&error),
            connection.is_broken(),
            ask(&mut connection, "SELECT 'x' AS answer").await.unwrap(),
        )
    });
    assert_eq!(done.await.unwrap(), ("refused", "22012".to_owned(), false, "x".to_owned()));
}

/// Mimics the trait of a store: its futures must be `Send`, with borrowed arguments.
#[async_trait]
trait Names: Send + Sync {
    async fn rename(&self, name: &str) -> Result<String, DatabaseError>;
}

#[async_trait]
impl Names for PostgresPool {
    async fn rename(&self, name: &str) -> Result<String, DatabaseError> {
        let sql = format!("SELECT set_config('application_name', '{name}', true) AS answer");
        self.call(async |connection| {
            connection.transaction(async |connection| Ok(first(connection, &sql).await?.answer)).await
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_can_be_built_on_the_calls() {
    let Some(server) = Server::start().await else { return };
    let names: Box<dyn Names> = Box::new(PostgresPool::new(server.address("postgres"), 2));
    let done = tokio::spawn(async move { names.rename("new").await.unwrap() });
    assert_eq!(done.await.unwrap(), "new");
}
