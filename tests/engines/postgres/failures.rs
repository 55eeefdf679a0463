//! Tests servers that do not answer and calls that take too long.

use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;
use vehicle_platform::database::postgres::{PostgresConnection, PostgresPool};

use super::{ask, code, first, kind};
use crate::support::postgres::{Server, address};
use crate::support::{DEADLINE, eventually};

const SHORT: Duration = Duration::from_millis(300);

/// Waits until no statement of `application` runs on the server.
async fn stops(operator: &mut PostgresConnection, application: &str) {
    let running = format!(
        "SELECT count(*)::text AS answer FROM pg_stat_activity WHERE application_name = '{application}'"
    );
    eventually("the statement to be cancelled", async || {
        (ask(operator, &running).await.unwrap() == "0").then_some(())
    })
    .await;
}

/// Runs for an hour unless it is cancelled.
const ENDLESS: &str = "SET statement_timeout = 0; SELECT pg_sleep(3600)";

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_too_long_is_cancelled_on_the_server() {
    let Some(server) = Server::start().await else { return };
    let mut operator = server.address("postgres").connect().await.unwrap();
    for mode in ["disable", "require"] {
        let address = server.address(&format!("postgres?application_name=slow&sslmode={mode}"));
        let mut connection = address.connect().await.unwrap();
        let error =
            connection.call_within(SHORT, async |connection| connection.batch_execute(ENDLESS).await).await;
        let error = error.unwrap_err();
        assert_eq!(kind(&error), "unavailable");
        assert!(error.to_string().contains("did not answer within 300ms"), "{error}");
        assert!(connection.is_broken());
        stops(&mut operator, "slow").await;
        assert_eq!(kind(&ask(&mut connection, "SELECT '' AS answer").await.unwrap_err()), "unavailable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_drops_broken_connections_and_reuses_the_others() {
    let Some(server) = Server::start().await else { return };
    let mut operator = server.address("postgres").connect().await.unwrap();
    let pool = PostgresPool::new(server.address("postgres?application_name=pool"), 1);
    let process = || {
        pool.call(async |connection| {
            Ok(first(connection, "SELECT pg_backend_pid()::text AS answer").await?.answer)
        })
    };
    let before = process().await.unwrap();
    assert_eq!(process().await.unwrap(), before);
    assert!(
        timeout(SHORT, pool.call(async |connection| connection.batch_execute(ENDLESS).await)).await.is_err()
    );
    let after = process().await.unwrap();
    assert_ne!(after, before);
    let others = format!(
        "SELECT count(*)::text AS answer FROM pg_stat_activity WHERE application_name = 'pool' AND pid <> {after}"
    );
    eventually("the broken connection to end", async || {
        (ask(&mut operator, &others).await.unwrap() == "0").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_bounds_how_long_calls_wait_for_a_connection() {
    let Some(server) = Server::start().await else { return };
    let pool = PostgresPool::new(server.address("postgres"), 1);
    let hold = || {
        pool.call(async |_| {
            std::future::pending::<()>().await;
            Ok(())
        })
    };
    let outcomes = futures::future::join3(
        timeout(Duration::from_secs(7), hold()),
        timeout(Duration::from_secs(7), hold()),
        hold(),
    );
    let (_, _, last) = outcomes.await;
    assert!(last.unwrap_err().to_string().contains("all 1 connections are in use"));
    // Its broken connections leave room for new ones.
    pool.call(async |connection| connection.batch_execute("SELECT 1").await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_outlive_the_runtime_that_first_used_them() {
    let Some(server) = Server::start().await else { return };
    let pool = PostgresPool::new(server.address("postgres"), 1);
    let process = async |pool: PostgresPool| {
        let call =
            pool.call(async |connection| first(connection, "SELECT pg_backend_pid()::text AS answer").await);
        call.await.unwrap().answer
    };
    let elsewhere = pool.clone();
    let before = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(process(elsewhere))
    });
    assert_eq!(before.await.unwrap(), process(pool).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for mode in ["disable", "require"] {
        let address = address(&format!("postgres://me:secret@127.0.0.1:{port}/db?sslmode={mode}"));
        assert!(timeout(SHORT, address.connect()).await.is_err());
        // The dropped attempt closes its socket, so its data is followed by the end of the stream.
        let (mut stream, _) = listener.accept().await.unwrap();
        let read = timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await;
        assert!(read.is_ok(), "{mode}: the attempt still holds its socket");
    }
    let address = address(&format!("postgres://me:secret@127.0.0.1:{port}/db"));
    let started = Instant::now();
    let error = address.connect().await.err().unwrap();
    assert_eq!(kind(&error), "unavailable");
    assert!(error.to_string().contains("no answer within 5.0s"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(7));
    let (mut stream, _) = listener.accept().await.unwrap();
    assert!(timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_is_tried_when_one_does_not_answer() {
    let Some(server) = Server::start().await else { return };
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let hosts = format!("127.0.0.1:{closed},127.0.0.1:{},127.0.0.1", silent.local_addr().unwrap().port());
    let mut connection = address(&server.url(&hosts, "postgres?connect_timeout=1")).connect().await.unwrap();
    let name = "SELECT current_setting('application_name') AS answer";
    assert_eq!(ask(&mut connection, name).await.unwrap(), "vehicle-platform");
    let error = address(&format!("postgres://127.0.0.1:{closed}/db")).connect().await.err().unwrap();
    assert!(error.to_string().contains("Connection refused"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_other_than_postgresql_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = address(&format!(
        "postgres://127.0.0.1:{}/db?sslmode=require",
        listener.local_addr().unwrap().port()
    ));
    let answer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    };
    let (error, ()) = futures::future::join(address.connect(), answer).await;
    let error = error.err().unwrap();
    assert!(error.to_string().contains("not a PostgreSQL server"), "{error}");
}

/// Accepts a connection, reads the first message of the client, and sends `answer`.
async fn answer(listener: &TcpListener, answer: &[u8]) -> [u8; 8] {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut first = [0; 8];
    stream.read_exact(&mut first).await.unwrap();
    stream.write_all(answer).await.unwrap();
    _ = timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await;
    first
}

/// An `ErrorResponse` that refuses a connection.
const REFUSAL: &[u8] = b"E\0\0\0\x1dSFATAL\0C53300\0Mtoo many\0\0";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_to_answer_the_request_for_tls_is_retried_without() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://me@127.0.0.1:{}/db", listener.local_addr().unwrap().port());
    let request = [0, 0, 0, 8, 4, 210, 22, 47];
    let prefer = address(&url);
    let answers = async {
        assert_eq!(answer(&listener, REFUSAL).await, request);
        assert_ne!(answer(&listener, REFUSAL).await, request);
    };
    let (error, ()) = futures::future::join(prefer.connect(), answers).await;
    assert_eq!(code(&error.err().unwrap()), "53300");
    let require = address(&format!("{url}?sslmode=require"));
    let (error, _) = futures::future::join(require.connect(), answer(&listener, REFUSAL)).await;
    let error = error.err().unwrap();
    // The text of an unencrypted server is not reported.
    assert!(!error.to_string().contains("too many"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_injected_before_the_handshake_make_it_fail() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let require = address(&format!("postgres://me@127.0.0.1:{port}/db?sslmode=require"));
    let smuggled = [b"S", REFUSAL].concat();
    let (error, _) = futures::future::join(require.connect(), answer(&listener, &smuggled)).await;
    let error = error.err().unwrap();
    assert!(error.to_string().contains("the TLS handshake failed"), "{error}");
}
