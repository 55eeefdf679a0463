//! Tests that every connection can be encrypted, verified and authenticated, with engines that accept nothing else, and
//! that a role reports and outlives what is wrong: `make test-tls`.

#![cfg(all(feature = "embedded", feature = "tls"))]
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;
#[path = "../support/mod.rs"]
mod support;

use diesel_async::SimpleAsyncConnection as _;
use engine::{Broker, Certificates, Gateway, Mongo, PASSWORD};
use support::postgres::Server;
use support::role::Role;
use support::{Platform, eventually, free_port, get, http_client, vehicle};

/// The arguments of a role for a broker that requires TLS and SASL/SCRAM.
fn kafka(host: &str, port: u16, user: &str, authority: &str) -> Vec<String> {
    let mut arguments = vec!["--kafka-bootstrap-servers".to_owned(), format!("{host}:{port}")];
    for property in [
        "security.protocol=SASL_SSL",
        "sasl.mechanisms=SCRAM-SHA-512",
        &format!("sasl.username={user}"),
        &format!("sasl.password={PASSWORD}"),
        &format!("ssl.ca.location={authority}"),
        // The engines listen on the address of IPv4 only.
        "broker.address.family=v4",
    ] {
        arguments.extend(["--kafka-property".to_owned(), property.to_owned()]);
    }
    arguments
}

/// Starts a role that trusts `authority` for https.
fn start(role: &str, arguments: &[String], authority: &str) -> Role {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    Role::start(role, &arguments, &[("SSL_CERT_FILE", authority)])
}

fn strings<const N: usize>(arguments: [&str; N]) -> Vec<String> {
    arguments.map(str::to_owned).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vehicle_becomes_an_ad_over_connections_that_are_all_encrypted_and_verified() {
    let certificates = Certificates::make();
    let Some(broker) = Broker::start(&certificates).await else { return };
    let Some(mongo) = Mongo::start(&certificates).await else { return };
    let Some(postgres) = Server::start().await else { return };
    let registry = Platform::start(&["--roles", "none"]).await;
    let gateway = Gateway::start(&certificates, registry.registry()).await;
    let authority = certificates.path("ca.crt");
    let mut engines = kafka("localhost", broker.port(), "platform", &authority);
    engines.extend(strings(["--schema-registry-url", &gateway.url("platform", "localhost")]));
    let role = |name, port: &str, arguments: &[&str]| {
        let mut all = strings(["--port", port]);
        all.extend(engines.iter().cloned().chain(arguments.iter().copied().map(str::to_owned)));
        start(name, &all, &authority)
    };
    let [stock, ads] = [free_port(), free_port()].map(|port| port.to_string());
    let options = format!("postgres?sslmode=verify-full&sslrootcert={}", postgres.file("ca.crt"));
    let roles = [
        role("stock", &stock, &["--database-url", &postgres.url("localhost", &options)]),
        role("estimate", "0", &["--processing-time", "0s"]),
        role("ads", &ads, &["--database-url", &mongo.url("platform", "localhost", &authority)]),
    ];
    for role in &roles {
        role.await_ready().await;
    }
    let posted = http_client().post(format!("http://127.0.0.1:{stock}/stock")).json(&vehicle("tls"));
    assert_eq!(posted.send().await.unwrap().status(), 201);
    eventually("the ad", async || {
        let page: serde_json::Value =
            get(format!("http://127.0.0.1:{ads}/ads?vin=tls")).await.ok()?.json().await.ok()?;
        (page.as_array()?.len() == 1).then_some(())
    })
    .await;
    registry.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_be_verified_is_refused_and_a_wrong_password_is_retried() {
    let certificates = Certificates::make();
    let Some(broker) = Broker::start(&certificates).await else { return };
    let registry = Platform::start(&["--roles", "none"]).await;
    let (right, wrong) = (certificates.path("ca.crt"), certificates.path("other.crt"));
    let estimate = |host: &str, user: &str, authority: &str| {
        let mut arguments = strings(["--port", "0", "--schema-registry-url", registry.registry()]);
        arguments.extend(kafka(host, broker.port(), user, authority));
        start("estimate", &arguments, authority)
    };
    for (host, user, authority, reasons) in [
        (
            "localhost",
            "platform",
            &wrong,
            ["the TLS handshake with a broker failed", "broker certificate could not be verified"],
        ),
        (
            "127.0.0.1",
            "platform",
            &right,
            ["the TLS handshake with a broker failed", "certificate verify failed"],
        ),
        (
            "localhost",
            "stranger",
            &right,
            ["the brokers refuse the user or the password", "invalid credentials"],
        ),
    ] {
        let role = estimate(host, user, authority);
        for reason in reasons {
            role.await_reason("kafka", reason).await;
        }
    }
    let role = estimate("localhost", "late", &right);
    role.await_reason("kafka", "the brokers refuse the user or the password").await;
    broker.add_user("late");
    role.await_ready().await;
    registry.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_cannot_be_verified_is_refused_and_a_wrong_password_is_retried() {
    let certificates = Certificates::make();
    let platform = Platform::start(&["--roles", "none"]).await;
    let gateway = Gateway::start(&certificates, platform.registry()).await;
    let (right, wrong) = (certificates.path("ca.crt"), certificates.path("other.crt"));
    let estimate = |host: &str, user: &str, authority: &str| {
        let registry = gateway.url(user, host);
        let arguments = ["--kafka-bootstrap-servers", platform.kafka(), "--schema-registry-url", &registry];
        start("estimate", &[strings(["--port", "0"]), strings(arguments)].concat(), authority)
    };
    for (host, user, authority, reason) in [
        ("localhost", "platform", &wrong, "UnknownIssuer"),
        ("127.0.0.1", "platform", &right, "not valid for name \"127.0.0.1\""),
        ("localhost", "stranger", &right, "401 Unauthorized"),
    ] {
        let role = estimate(host, user, authority);
        role.await_reason("schema-registry", reason).await;
    }
    let role = estimate("localhost", "late", &right);
    role.await_reason("schema-registry", "401 Unauthorized").await;
    gateway.add_user("late");
    role.await_ready().await;
    drop(role);
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mongodb_that_cannot_be_verified_is_refused_and_a_wrong_password_is_retried() {
    let certificates = Certificates::make();
    let Some(mongo) = Mongo::start(&certificates).await else { return };
    let platform = Platform::start(&["--roles", "none"]).await;
    let (right, wrong) = (certificates.path("ca.crt"), certificates.path("other.crt"));
    let ads = |host: &str, user: &str, authority: &str| {
        let database = mongo.url(user, host, authority);
        let engines =
            ["--kafka-bootstrap-servers", platform.kafka(), "--schema-registry-url", platform.registry()];
        let arguments = [strings(["--port", "0", "--database-url", &database]), strings(engines)].concat();
        start("ads", &arguments, authority)
    };
    for (host, user, authority, reason) in [
        ("localhost", "platform", &wrong, "UnknownIssuer"),
        ("127.0.0.1", "platform", &right, "not valid for name"),
        ("localhost", "stranger", &right, "Authentication failed"),
    ] {
        let role = ads(host, user, authority);
        role.await_reason("database", reason).await;
    }
    let role = ads("localhost", "late", &right);
    role.await_reason("database", "Authentication failed").await;
    mongo.add_user("late").await;
    role.await_ready().await;
    drop(role);
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_cannot_be_verified_is_refused_and_a_wrong_password_is_retried() {
    let Some(postgres) = Server::start().await else { return };
    let platform = Platform::start(&["--roles", "none"]).await;
    let (right, wrong) = (postgres.file("ca.crt"), postgres.file("other.crt"));
    let stock = |host: &str, user: &str, authority: &str| {
        let database = postgres.url(host, &format!("postgres?sslmode=verify-full&sslrootcert={authority}"));
        let database = database.replace("postgres://postgres:", &format!("postgres://{user}:"));
        let engines =
            ["--kafka-bootstrap-servers", platform.kafka(), "--schema-registry-url", platform.registry()];
        let arguments = [strings(["--port", "0", "--database-url", &database]), strings(engines)].concat();
        start("stock", &arguments, authority)
    };
    for (host, user, authority, reason) in [
        ("localhost", "postgres", &wrong, "UnknownIssuer"),
        ("127.0.0.1", "postgres", &right, "not valid for name \"127.0.0.1\""),
        ("localhost", "stranger", &right, "password authentication failed"),
    ] {
        let role = stock(host, user, authority);
        role.await_reason("database", reason).await;
    }
    let role = stock("localhost", "late", &right);
    role.await_reason("database", "password authentication failed").await;
    let mut connection = postgres.address("postgres").connect().await.unwrap();
    let statement = format!("CREATE ROLE late SUPERUSER LOGIN PASSWORD '{PASSWORD}'");
    connection.call(async |connection| connection.batch_execute(&statement).await).await.unwrap();
    role.await_ready().await;
    drop(role);
    platform.end().await;
}
