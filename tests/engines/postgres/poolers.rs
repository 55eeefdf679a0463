//! Tests `PgBouncer` between the process and the server.

use vehicle_platform::database::postgres::refuse_shared_sessions;

use super::{ask, execute, kind};
use crate::support::postgres::{Pooler, Server, address};

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_shares_sessions_is_refused() {
    let Some(server) = Server::start().await else { return };
    refuse_shared_sessions(&server.address("postgres")).await.unwrap();
    for mode in ["transaction", "statement"] {
        let pooler = Pooler::start(&server, mode, "postgres").await;
        let error = refuse_shared_sessions(&pooler.address("postgres")).await.unwrap_err();
        assert_eq!(kind(&error), "unavailable");
        assert!(error.to_string().contains("pool_mode = session"), "{mode}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_with_separate_sessions_is_accepted() {
    let Some(server) = Server::start().await else { return };
    let pooler = Pooler::start(&server, "session", "postgres").await;
    refuse_shared_sessions(&pooler.address("postgres")).await.unwrap();
    let mut connection = pooler.address("postgres").connect().await.unwrap();
    assert!(connection.is_pooled());
    let settings = "SELECT current_setting('statement_timeout') || current_setting('lock_timeout') AS answer";
    assert_eq!(ask(&mut connection, settings).await.unwrap(), "4500ms3s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_host_is_skipped() {
    let Some(server) = Server::start().await else { return };
    let mut operator = server.address("postgres").connect().await.unwrap();
    execute(&mut operator, "CREATE DATABASE standby").await.unwrap();
    execute(&mut operator, "ALTER DATABASE standby SET default_transaction_read_only = on").await.unwrap();
    let standby = Pooler::start(&server, "session", "standby").await;
    let hosts = format!("127.0.0.1:{},127.0.0.1", standby.port());
    for (attributes, database) in [("any", "standby"), ("read-write", "postgres")] {
        let url = server.url(&hosts, &format!("postgres?target_session_attrs={attributes}"));
        let mut connection = address(&url).connect().await.unwrap();
        let answer = ask(&mut connection, "SELECT current_database()::text AS answer").await.unwrap();
        assert_eq!(answer, database, "{attributes}");
    }
}
