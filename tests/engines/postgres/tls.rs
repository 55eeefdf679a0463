//! Tests each `sslmode` against servers with and without TLS.

use vehicle_platform::database::DatabaseError;
use vehicle_platform::database::postgres::PostgresAddress;

use super::{ask, code, kind};
use crate::support::postgres::{Certificate, Server, address};

const ENCRYPTED: &str =
    "SELECT CASE WHEN ssl THEN 'yes' ELSE 'no' END AS answer FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

/// Returns whether a connection to `url` is encrypted.
async fn encrypted(url: &str) -> Result<bool, DatabaseError> {
    let mut connection = address(url).connect().await?;
    assert!(!connection.is_pooled());
    Ok(ask(&mut connection, ENCRYPTED).await? == "yes")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mode_is_honoured() {
    let Some(server) = Server::start().await else { return };
    let (right, wrong) = (server.file("ca.crt"), server.file("other.crt"));
    for (host, options, expected) in [
        ("127.0.0.1", "sslmode=disable".to_owned(), false),
        ("127.0.0.1", "sslmode=allow".to_owned(), false),
        ("127.0.0.1", String::new(), true),
        ("127.0.0.1", "sslmode=prefer".to_owned(), true),
        ("127.0.0.1", "sslmode=require".to_owned(), true),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={right}"), true),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={right}"), true),
        ("localhost", format!("sslmode=verify-full&sslrootcert={right}"), true),
        // libpq falls back as well.
        ("127.0.0.1", format!("sslmode=prefer&sslrootcert={wrong}"), false),
    ] {
        let url = server.url(host, &format!("postgres?{options}"));
        assert_eq!(encrypted(&url).await.unwrap(), expected, "{host} {options}");
    }
    for (host, options, reason) in [
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={right}"), "not valid for name \"127.0.0.1\""),
        ("localhost", format!("sslmode=verify-full&sslrootcert={wrong}"), "UnknownIssuer"),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={wrong}"), "UnknownIssuer"),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={wrong}"), "UnknownIssuer"),
    ] {
        let error = encrypted(&server.url(host, &format!("postgres?{options}"))).await.unwrap_err();
        let text = error.to_string();
        assert_eq!(kind(&error), "unavailable");
        assert!(text.contains("certificate is not valid") && text.contains("sslrootcert"), "{text}");
        assert!(text.contains(reason), "{text}");
    }
    let unix = server.url(&server.file("").replace('/', "%2F"), "postgres?sslmode=require");
    assert!(!encrypted(&unix).await.unwrap());
    let verified = format!("{unix}&sslmode=verify-full&sslrootcert={right}").parse().unwrap();
    let refusal = PostgresAddress::parse(&verified).unwrap_err();
    assert!(format!("{refusal:#}").contains("Unix socket"), "{refusal:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_rules_decide_when_the_client_allows_both() {
    let Some(server) = Server::start().await else { return };
    let mut connection = server.address("postgres").connect().await.unwrap();
    for database in ["tls_only", "plain_only"] {
        super::execute(&mut connection, &format!("CREATE DATABASE {database}")).await.unwrap();
    }
    let url = |rest| server.url("127.0.0.1", rest);
    assert!(encrypted(&url("tls_only?sslmode=allow")).await.unwrap());
    assert!(!encrypted(&url("plain_only?sslmode=prefer")).await.unwrap());
    let error = encrypted(&url("tls_only?sslmode=disable")).await.unwrap_err();
    assert_eq!((kind(&error), code(&error).as_str()), ("unavailable", "28000"));
    assert!(error.to_string().contains("the server may require TLS"), "{error}");
    let error = encrypted(&url("plain_only?sslmode=require")).await.unwrap_err();
    assert_eq!((kind(&error), code(&error).as_str()), ("unavailable", "28000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_used_only_when_allowed() {
    let Some(server) = Server::start_with(Certificate::None).await else { return };
    for mode in ["disable", "allow", "prefer"] {
        let url = server.url("127.0.0.1", &format!("postgres?sslmode={mode}"));
        assert!(!encrypted(&url).await.unwrap(), "{mode}");
    }
    for options in
        ["sslmode=require".to_owned(), format!("sslmode=verify-ca&sslrootcert={}", server.file("ca.crt"))]
    {
        let error = encrypted(&server.url("127.0.0.1", &format!("postgres?{options}"))).await.unwrap_err();
        assert_eq!(kind(&error), "unavailable");
        assert!(error.to_string().contains("does not support TLS"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_can_be_its_own_authority() {
    let Some(server) = Server::start_with(Certificate::SelfSigned).await else { return };
    let own = server.file("server.crt");
    for (host, mode, works) in [
        ("127.0.0.1", "verify-ca", true),
        ("localhost", "verify-full", true),
        ("127.0.0.1", "verify-full", false),
    ] {
        let url = server.url(host, &format!("postgres?sslmode={mode}&sslrootcert={own}"));
        assert_eq!(encrypted(&url).await.is_ok(), works, "{host} {mode}");
    }
    let other = server.file("ca.crt");
    let url = server.url("localhost", &format!("postgres?sslmode=verify-ca&sslrootcert={other}"));
    assert!(encrypted(&url).await.is_err());
}
