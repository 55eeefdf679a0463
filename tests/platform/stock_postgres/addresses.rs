//! Tests database URLs: TLS, and addresses that are unusable.

use std::process::Command;

use super::world::World;
use crate::support::BINARY;
use crate::support::postgres::Certificate;

#[tokio::test(flavor = "multi_thread")]
async fn the_role_verifies_the_server_against_a_private_authority() {
    let Some(world) = World::shared().await else { return };
    let sql = world.operator().await;
    let authority = format!("localhost:{}", world.server.port());
    let options = |file: &str| format!("?sslmode=verify-full&sslrootcert={}", world.server.file(file));

    let wrong = world.stock_at(&world.url_at(&authority, &options("other.crt"))).await;
    wrong.await_unready("database", &["certificate"]).await;
    world.post(&wrong, "refused").await.assert_unavailable();
    // The certificate is valid for localhost, not for the IP address.
    let other_name = format!("127.0.0.1:{}", world.server.port());
    let other_name = world.stock_at(&world.url_at(&other_name, &options("ca.crt"))).await;
    other_name.await_unready("database", &["certificate"]).await;

    let right = world.stock_at(&world.url_at(&authority, &options("ca.crt"))).await;
    right.await_ready().await;
    for number in 0..5 {
        world.accept(&right, &format!("encrypted-{number}")).await;
    }
    let plain = format!(
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = '{}' AND NOT ssl",
        world.database
    );
    assert_eq!(sql.ask(&plain).await, "0", "connections without TLS");
    let encrypted = plain.replace("NOT ssl", "ssl");
    assert_ne!(sql.ask(&encrypted).await, "0");
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_by_a_role_that_requires_it() {
    let options = crate::support::postgres::Options { certificate: Certificate::None, ..Default::default() };
    let Some(world) = World::alone(options).await else { return };
    let authority = format!("127.0.0.1:{}", world.server.port());
    let stock = world.stock_at(&world.url_at(&authority, "?sslmode=require")).await;
    stock.await_unready("database", &["does not support TLS", "sslmode"]).await;
    world.post(&stock, "refused").await.assert_unavailable();
    let stock = world.stock_at(&world.url_at(&authority, "?sslmode=prefer")).await;
    stock.await_ready().await;
    world.accept(&stock, "plain").await;
    world.audit().await;
}

#[test]
fn an_unusable_address_ends_the_process_immediately() {
    for (url, named) in [
        ("postgres://localhost:99999/x", "port"),
        ("postgres://me:hunter2@localhost:0/x", "port"),
        ("postgres://me:hunter2@localhost/x?sslmode=safe", "sslmode"),
        ("postgres://me:hunter2@localhost/x?sslmod=require", "sslmod"),
        ("postgres://me:hunter2@localhost/x?connect_timeout=soon", "connect_timeout"),
        ("postgres://me:hunter2@localhost/x?sslmode=verify-full&sslrootcert=/none/ca.crt", "/none/ca.crt"),
        (
            "postgres://me:hunter2@localhost/x?password=hunter2&target_session_attrs=standby",
            "target_session_attrs",
        ),
        ("postgres://me:hunter2@/x", "host"),
        ("mongodb://me:hunter2@localhost/x", "mongodb"),
    ] {
        let output = Command::new("timeout")
            .args(["20", BINARY, "stock", "--port", "0", "--database-url", url])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{url}: {:?} {text}", output.status);
        assert!(text.contains(named), "{url}: {text}");
        assert!(!text.contains("hunter2"), "{url}: {text}");
        assert!(text.contains("database"), "{url}: {text}");
    }
}
