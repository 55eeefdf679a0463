//! Tests `--auto-register-schemas=false`: events are written with the latest schema that others registered.

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use rdkafka::Message as _;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use vehicle_platform::event::{VEHICLE_CREATED, VEHICLE_PROCESSED};

use crate::support::kafka::{header, read_all};
use crate::support::proxy::{Line, Proxy};
use crate::support::registry::Api;
use crate::support::role::Role;
use crate::support::{Platform, RoleProcess, eventually, free_port, get, http_client, vehicle};

const CREATED: &str = "stock.vehicle-created";
const SUBJECT: &str = "stock.vehicle-created-value";
const PRICED: &str = "stock.vehicle-processed-value";

/// A stock next to a platform that has only infrastructure.
struct Stock {
    _process: RoleProcess,
    url: String,
    directory: TempDir,
}

impl Stock {
    fn start(platform: &Platform, registry: &str) -> Self {
        Self::start_with(platform.kafka(), registry)
    }

    fn start_with(kafka: &str, registry: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port().to_string();
        let database = format!("sqlite:{}", directory.path().join("stock.db").display());
        let arguments = [
            &["stock", "--port", &port, "--database-url", &database, "--auto-register-schemas=false"][..],
            &["--kafka-bootstrap-servers", kafka, "--schema-registry-url", registry],
            &["--topic-replication-factor", "1", "--topic-min-insync-replicas", "1"],
        ];
        let process = RoleProcess::spawn(&arguments.concat());
        Self { _process: process, url: format!("http://127.0.0.1:{port}"), directory }
    }

    /// Posts a vehicle. Returns `None` while stock does not listen.
    async fn post(&self, body: &Value) -> Option<(StatusCode, Value)> {
        let request = http_client().post(format!("{}/stock", self.url)).json(body);
        let response = request.send().await.ok()?;
        Some((response.status(), response.json().await.unwrap()))
    }

    /// Returns the readiness, with the reason for each missing entry.
    async fn readiness(&self, query: &str) -> Option<(StatusCode, Value)> {
        let response = get(format!("{}/readyz{query}", self.url)).await.ok()?;
        Some((response.status(), response.json().await.ok()?))
    }

    async fn await_ready(&self) {
        eventually("stock to be ready", async || {
            (self.readiness("").await?.0 == StatusCode::OK).then_some(())
        })
        .await;
    }
}

fn ours() -> Value {
    serde_json::from_str(include_str!("../../schemas/stock.vehicle-created.json")).unwrap()
}

/// Returns a schema like that of the original services: open, with a list of units.
fn original() -> Value {
    let mut schema = ours();
    schema.as_object_mut().unwrap().remove("additionalProperties");
    schema["properties"]["odometerUnit"] = json!({ "type": "string", "enum": ["km", "mi"] });
    schema["required"].as_array_mut().unwrap().retain(|name| name != "id");
    schema
}

fn in_unit(vin: &str, unit: &str) -> Value {
    let mut body = vehicle(vin);
    body["odometerUnit"] = json!(unit);
    body
}

/// Waits for the records of created vehicles and returns their schema ids and vins.
async fn published(platform: &Platform, count: usize) -> Vec<(u64, String)> {
    let records = eventually("events", async || {
        let records = read_all(platform.kafka(), CREATED).await;
        (records.len() >= count).then_some(records)
    })
    .await;
    let describe = |record: &rdkafka::message::OwnedMessage| {
        let (id, json) = record.payload().unwrap()[1..].split_first_chunk::<4>().unwrap();
        let value: Value = serde_json::from_slice(json).unwrap();
        (u64::from(u32::from_be_bytes(*id)), value["vin"].as_str().unwrap().to_owned())
    };
    records.iter().map(describe).collect()
}

#[tokio::test]
async fn nothing_is_accepted_until_the_schema_is_known_and_then_only_what_fits() {
    let platform = Platform::start(&["--roles", "none"]).await;
    let stock = Stock::start(&platform, platform.registry());
    let (_, readiness) = eventually("a readiness", async || {
        stock.readiness("").await.filter(|(_, body)| body.to_string().contains("event-schema"))
    })
    .await;
    assert!(readiness.to_string().contains("schema-registry"), "{readiness}");
    assert_eq!(stock.readiness("?for=http").await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
    let (status, problem) = stock.post(&in_unit("early", "km")).await.unwrap();
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("/problems/unavailable"))
    );

    let api = Api::new(platform.registry());
    let id = api.register(SUBJECT, &original()).await;
    stock.await_ready().await;
    let (status, problem) = stock.post(&in_unit("wrong", "parsec")).await.unwrap();
    assert_eq!((status, &problem["type"]), (StatusCode::BAD_REQUEST, &json!("/problems/refused-values")));
    assert!(problem["detail"].as_str().unwrap().contains("/odometerUnit"), "{problem}");
    let (status, _) = stock.post(&in_unit("right", "km")).await.unwrap();
    assert_eq!(status, StatusCode::CREATED);
    // A vehicle that is in stock is never refused for its event.
    let (status, problem) = stock.post(&in_unit("right", "parsec")).await.unwrap();
    assert_eq!((status, &problem["type"]), (StatusCode::CONFLICT, &json!("/problems/vehicle-exists")));
    assert_eq!(published(&platform, 1).await, [(id, "right".to_owned())]);
    // Nothing else was registered.
    assert_eq!(api.get(&format!("/subjects/{SUBJECT}/versions")).await, json!([1]));
    let list: Value = get(format!("{}/stock", stock.url)).await.unwrap().json().await.unwrap();
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
}

#[tokio::test]
async fn a_newer_version_is_used_without_a_restart() {
    let platform = Platform::start(&["--roles", "none"]).await;
    let api = Api::new(platform.registry());
    api.register(SUBJECT, &original()).await;
    let stock = Stock::start(&platform, platform.registry());
    stock.await_ready().await;
    let mut wider = original();
    wider["properties"]["odometerUnit"]["enum"] = json!(["km", "mi", "parsec"]);
    let id = api.register(SUBJECT, &wider).await;
    eventually("the newer version", async || {
        (stock.post(&in_unit("far", "parsec")).await?.0 == StatusCode::CREATED).then_some(())
    })
    .await;
    assert_eq!(published(&platform, 1).await, [(id, "far".to_owned())]);
}

#[tokio::test]
async fn a_refused_vehicle_whose_row_in_stock_cannot_be_read_still_exists() {
    let platform = Platform::start(&["--roles", "none"]).await;
    Api::new(platform.registry()).register(SUBJECT, &original()).await;
    let stock = Stock::start(&platform, platform.registry());
    stock.await_ready().await;
    assert_eq!(stock.post(&in_unit("spoiled", "km")).await.unwrap().0, StatusCode::CREATED);
    assert_eq!(published(&platform, 1).await.len(), 1);
    let path = stock.directory.path().join("stock.db");
    let mut database = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    database.batch_execute("PRAGMA busy_timeout = 5000; UPDATE vehicles SET odometer = -1").unwrap();
    assert_eq!(get(format!("{}/stock/1", stock.url)).await.unwrap().status(), StatusCode::NOT_FOUND);
    let (status, problem) = stock.post(&in_unit("spoiled", "parsec")).await.unwrap();
    assert_eq!((status, &problem["conflict"]), (StatusCode::CONFLICT, &json!("/stock/1")), "{problem}");
}

#[tokio::test]
async fn vehicles_are_accepted_with_the_known_schema_while_the_registry_is_unavailable() {
    let platform = Platform::start(&["--roles", "none"]).await;
    Api::new(platform.registry()).register(SUBJECT, &original()).await;
    let registry = platform.registry().strip_prefix("http://").unwrap().parse().unwrap();
    let (proxy, port) = Proxy::start(0, registry).await;
    let stock = Stock::start(&platform, &format!("http://127.0.0.1:{port}"));
    stock.await_ready().await;
    proxy.set(Line::Severed);
    eventually("the outage to be noticed", async || {
        stock.readiness("").await?.1.to_string().contains("schema-registry").then_some(())
    })
    .await;
    assert_eq!(stock.readiness("?for=http").await.unwrap().0, StatusCode::OK);
    assert_eq!(stock.post(&in_unit("during", "km")).await.unwrap().0, StatusCode::CREATED);
    assert_eq!(stock.post(&in_unit("wrong", "parsec")).await.unwrap().0, StatusCode::BAD_REQUEST);
    assert_eq!(published(&platform, 1).await[0].1, "during");
}

#[tokio::test]
async fn a_schema_that_refuses_every_event_makes_roles_wait_instead_of_refusing_each() {
    let platform = Platform::start(&["--roles", "none"]).await;
    let api = Api::new(platform.registry());
    api.put("/config", json!({ "compatibility": "NONE" })).await;
    let with_colour = |schema: &str| {
        let mut schema: Value = serde_json::from_str(schema).unwrap();
        schema["properties"]["colour"] = json!({ "type": "string" });
        schema["required"].as_array_mut().unwrap().push(json!("colour"));
        schema
    };
    api.register(SUBJECT, &with_colour(VEHICLE_CREATED.schema)).await;
    api.register(PRICED, &with_colour(VEHICLE_PROCESSED.schema)).await;
    let stock = Stock::start(&platform, platform.registry());
    eventually("a status", async || {
        (stock.post(&in_unit("early", "km")).await?.0 == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    let arguments = &["--processing-time", "0s", "--auto-register-schemas=false"];
    let estimate = Role::join(&platform, "estimate", arguments);
    estimate.await_reason("schema-registry", "\"colour\" is a required property").await;

    api.register(SUBJECT, &ours()).await;
    stock.await_ready().await;
    assert_eq!(stock.post(&in_unit("later", "km")).await.unwrap().0, StatusCode::CREATED);
    assert_eq!(published(&platform, 1).await[0].1, "later");
    // A later version that refuses everything is reported, but not used.
    let mut closed = ours();
    closed["properties"].as_object_mut().unwrap().remove("model");
    api.register(SUBJECT, &closed).await;
    eventually("the report", async || {
        stock.readiness("").await?.1.to_string().contains("schema-registry").then_some(())
    })
    .await;
    assert_eq!(stock.post(&in_unit("last", "km")).await.unwrap().0, StatusCode::CREATED);
    assert_eq!(published(&platform, 2).await.len(), 2);

    // The estimator still holds both vehicles.
    api.register(PRICED, &serde_json::from_str(VEHICLE_PROCESSED.schema).unwrap()).await;
    eventually("the estimates", async || {
        let records = read_all(platform.kafka(), VEHICLE_PROCESSED.topic).await;
        (records.len() == 2).then_some(())
    })
    .await;
    assert!(read_all(platform.kafka(), "stock.vehicle-created.dlq").await.is_empty());
}

#[tokio::test]
async fn a_schema_that_refuses_ids_which_vehicles_will_have_is_reported_and_not_used() {
    let platform = Platform::start(&["--roles", "none"]).await;
    let api = Api::new(platform.registry());
    let with_ids_up_to = |most: i32| {
        let mut schema = ours();
        schema["properties"]["id"] = json!({ "type": "integer", "maximum": most });
        schema
    };
    // The first vehicle would get the id 1.
    api.register(SUBJECT, &with_ids_up_to(1000)).await;
    let stock = Stock::start(&platform, platform.registry());
    eventually("the report", async || {
        let (_, body) = stock.readiness("").await?;
        body.to_string().contains("the schema registry cannot be used").then_some(())
    })
    .await;
    assert_eq!(stock.post(&in_unit("early", "km")).await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
    let id = api.register(SUBJECT, &with_ids_up_to(i32::MAX)).await;
    stock.await_ready().await;
    assert_eq!(stock.post(&in_unit("later", "km")).await.unwrap().0, StatusCode::CREATED);
    assert_eq!(published(&platform, 1).await, [(id, "later".to_owned())]);
}

#[tokio::test]
async fn an_accepted_vehicle_that_a_later_version_refuses_holds_up_no_other_and_is_published_once_one_accepts_it()
 {
    let platform = Platform::start(&["--roles", "none"]).await;
    let api = Api::new(platform.registry());
    api.put("/config", json!({ "compatibility": "NONE" })).await;
    let units = |units: &[&str]| {
        let mut schema = original();
        schema["properties"]["odometerUnit"]["enum"] = json!(units);
        schema
    };
    api.register(SUBJECT, &units(&["km", "parsec"])).await;
    // Kafka is unavailable at first, so the vehicle waits.
    let (proxy, port) = Proxy::start(0, platform.kafka().parse().unwrap()).await;
    proxy.set(Line::Severed);
    let registry = platform.registry().strip_prefix("http://").unwrap().parse().unwrap();
    let (registry, registry_port) = Proxy::start(0, registry).await;
    let stock = Stock::start_with(&format!("127.0.0.1:{port}"), &format!("http://127.0.0.1:{registry_port}"));
    eventually("the schema to be known", async || {
        (stock.post(&in_unit("far", "parsec")).await?.0 == StatusCode::CREATED).then_some(())
    })
    .await;
    api.register(SUBJECT, &units(&["km"])).await;
    eventually("the newer version", async || {
        // Both versions refuse this unit, and the reason lists those that they accept.
        let (status, problem) = stock.post(&in_unit("probe", "mi")).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        (!problem["detail"].as_str().unwrap().contains("parsec")).then_some(())
    })
    .await;
    assert_eq!(stock.post(&in_unit("near", "km")).await.unwrap().0, StatusCode::CREATED);
    // Brokers return before the registry, which depends on them.
    registry.set(Line::Severed);
    proxy.set(Line::Open);
    assert_eq!(published(&platform, 1).await[0].1, "near");
    eventually("the failed event to be counted", async || {
        let metrics = get(format!("{}/metrics", stock.url)).await.ok()?.text().await.ok()?;
        metrics.contains("stock_events_failed 1").then_some(())
    })
    .await;

    registry.set(Line::Open);
    let id = api.register(SUBJECT, &units(&["km", "parsec", "mi"])).await;
    let mut vehicles = published(&platform, 2).await;
    vehicles.sort();
    assert_eq!(vehicles[1], (id, "far".to_owned()));
}

#[tokio::test]
async fn an_estimate_that_does_not_fit_the_schema_becomes_a_dead_letter_with_the_reason() {
    let platform = Platform::start(&["--roles", "stock"]).await;
    let api = Api::new(platform.registry());
    let mut cheap: Value =
        serde_json::from_str(include_str!("../../schemas/stock.vehicle-processed.json")).unwrap();
    cheap["properties"]["price"] = json!({ "type": "number", "maximum": 1 });
    let estimate =
        Role::join(&platform, "estimate", &["--processing-time", "0s", "--auto-register-schemas=false"]);
    estimate.await_reason("schema-registry", "schema").await;
    api.register("stock.vehicle-processed-value", &cheap).await;
    estimate.await_ready().await;
    // A later version that cannot be used changes nothing.
    api.put("/config/stock.vehicle-processed-value", json!({ "compatibility": "NONE" })).await;
    let mut unusable = cheap.clone();
    unusable["required"].as_array_mut().unwrap().push(json!("colour"));
    unusable["properties"]["colour"] = json!({ "type": "string" });
    api.register("stock.vehicle-processed-value", &unusable).await;
    estimate.await_reason("schema-registry", "cannot be used").await;
    platform.accept("dear").await;
    let letters = eventually("a dead letter", async || {
        let letters = read_all(platform.kafka(), "stock.vehicle-created.dlq").await;
        (!letters.is_empty()).then_some(letters)
    })
    .await;
    let reason = header(&letters[0], "dlq.reason").unwrap();
    assert!(reason.contains("/price"), "{reason}");
    // Once a version that fits is registered, the replay of the dead letter succeeds.
    cheap["properties"]["price"] = json!({ "type": "number" });
    api.register("stock.vehicle-processed-value", &cheap).await;
    let replayed = platform.tool(&["dlq", "replay", "--all"]);
    assert!(replayed.status.success(), "{replayed:?}");
    eventually("the estimate", async || {
        let records = read_all(platform.kafka(), "stock.vehicle-processed").await;
        (records.len() == 1).then_some(())
    })
    .await;
}
