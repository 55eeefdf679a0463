//! Tests how answers of a registry affect a record when the registry is broken, empty, or of another environment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use clap::Parser;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use vehicle_platform::event::{VEHICLE_CREATED, VEHICLE_PROCESSED, VehicleCreated};
use vehicle_platform::registry::{Codec, CodecError, RegistryArgs};

use crate::support::{eventually, vehicle};

const CREATED: &str = VEHICLE_CREATED.topic;

/// The content of a fake registry.
#[derive(Default)]
struct Content {
    /// Subject and schema by id.
    schemas: BTreeMap<u32, (String, String)>,
    /// The status and text of every answer, if set.
    page: Option<(u16, String)>,
    /// The ids that it was asked for.
    asked: Vec<u32>,
    /// Ids from here on are answered only once this is closed.
    held: Option<(u32, CancellationToken)>,
}

impl Content {
    fn of(schemas: &[(u32, &str, &str)]) -> Self {
        let schemas =
            schemas.iter().map(|(id, subject, schema)| (*id, ((*subject).to_owned(), (*schema).to_owned())));
        Self { schemas: schemas.collect(), ..Self::default() }
    }

    fn ours() -> Self {
        Self::of(&[(7, "stock.vehicle-created-value", VEHICLE_CREATED.schema)])
    }

    fn page(status: u16, text: &str) -> Self {
        Self { page: Some((status, text.to_owned())), ..Self::default() }
    }

    fn under<'a>(&'a self, subject: &'a str) -> impl Iterator<Item = (&'a u32, &'a String)> {
        self.schemas.iter().filter(move |(_, (of, _))| of == subject).map(|(id, (_, schema))| (id, schema))
    }

    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        if let Some(page) = &self.page {
            return page.clone();
        }
        let missing = |code: u32| (404, json!({ "error_code": code, "message": "not found" }).to_string());
        let describe = |id: &u32, schema: &String| {
            let reference = json!({ "name": "year.json", "subject": "year", "version": 1 });
            let references: Vec<_> = schema.contains("year.json").then_some(reference).into_iter().collect();
            (
                200,
                json!({ "id": id, "schema": schema, "schemaType": "JSON", "references": references })
                    .to_string(),
            )
        };
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        match (method, parts[..].as_ref()) {
            ("GET", ["subjects"]) => (
                200,
                json!(self.schemas.values().map(|(subject, _)| subject).collect::<Vec<_>>()).to_string(),
            ),
            ("GET", ["schemas", "ids", id]) => {
                let id = id.parse().unwrap();
                self.asked.push(id);
                self.schemas.get(&id).map_or(missing(40403), |(_, schema)| describe(&id, schema))
            }
            ("GET", ["subjects", subject, "versions", _]) => {
                let last = self.under(subject).last();
                last.map_or(missing(40401), |(id, schema)| describe(id, schema))
            }
            ("POST", ["subjects", subject]) => {
                let wanted: Value = serde_json::from_slice(body).unwrap();
                let found = self.under(subject).find(|(_, schema)| wanted["schema"] == json!(schema));
                found.map_or(missing(40403), |(id, schema)| describe(id, schema))
            }
            _ => (405, "<html>".to_owned()),
        }
    }
}

#[derive(Clone)]
struct Fake {
    content: Arc<Mutex<Content>>,
    address: SocketAddr,
}

impl Fake {
    fn start(content: Content) -> Self {
        let content = Arc::new(Mutex::new(content));
        let answers = Arc::clone(&content);
        let app = move || {
            let answers = Arc::clone(&answers);
            App::new().default_service(web::to(move |request: HttpRequest, body: web::Bytes| {
                let path = percent_decode(request.path());
                let mut content = answers.lock().unwrap();
                let (status, text) = content.answer(request.method().as_str(), &path, &body);
                let id = path.strip_prefix("/schemas/ids/").and_then(|id| id.parse::<u32>().ok());
                let held = content.held.clone().filter(|(from, _)| id.is_some_and(|id| id >= *from));
                async move {
                    if let Some((_, release)) = held {
                        release.cancelled().await;
                    }
                    HttpResponse::build(status.try_into().unwrap()).body(text)
                }
            }))
        };
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap().run());
        Self { content, address }
    }

    fn becomes(&self, content: Content) {
        *self.content.lock().unwrap() = content;
    }
}

fn percent_decode(path: &str) -> String {
    percent_encoding::percent_decode_str(path).decode_utf8().unwrap().into_owned()
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    registry: RegistryArgs,
}

pub fn codec(urls: &str) -> Codec {
    let arguments = Arguments::parse_from(["test", "--schema-registry-url", urls]);
    Codec::new(&arguments.registry).unwrap()
}

fn codec_of(fake: &Fake) -> Codec {
    codec(&format!("http://user:hidden@{}", fake.address))
}

fn framed(id: u32, value: &Value) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend(id.to_be_bytes());
    framed.extend(value.to_string().as_bytes());
    framed
}

fn good() -> Value {
    let mut event = vehicle("vin");
    event["id"] = json!(1);
    event
}

async fn decode(codec: &Codec, id: u32, value: &Value) -> Result<VehicleCreated, CodecError> {
    codec.decode(CREATED, Some(&framed(id, value))).await
}

fn assert_unavailable(result: Result<VehicleCreated, CodecError>) {
    assert!(matches!(result, Err(CodecError::Unavailable(_))), "{result:?}");
}

#[tokio::test]
async fn an_invalid_answer_of_a_registry_is_an_outage_that_names_the_address() {
    let fake = Fake::start(Content::ours());
    for (status, text) in [
        (200, "<html>sign in</html>"),
        (200, r#"{"status":"ok"}"#),
        (200, r#"["a","b"]"#),
        (200, ""),
        (404, "<html>not found</html>"),
        (404, r#"{"message":"no route matched"}"#),
        (404, r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#),
        (401, r#"{"error_code":40101,"message":"Unauthorized"}"#),
        (500, r#"{"error_code":50001,"message":"store"}"#),
    ] {
        fake.becomes(Content::page(status, text));
        let codec = codec_of(&fake);
        assert_unavailable(decode(&codec, 7, &good()).await);
        if text != r#"["a","b"]"# {
            let reason = format!("{:#}", codec.check(&[]).await.unwrap_err());
            assert!(reason.contains(&fake.address.to_string()) && !reason.contains("hidden"), "{reason}");
        }
        fake.becomes(Content::ours());
        assert!(decode(&codec, 7, &good()).await.is_ok(), "it recovers");
    }
}

#[tokio::test]
async fn an_unknown_id_is_the_records_fault_only_if_the_registry_knows_its_topic() {
    let fake = Fake::start(Content::ours());
    let codec = codec_of(&fake);
    let unknown = decode(&codec, 8, &json!({})).await;
    assert!(matches!(unknown, Err(CodecError::UnknownSchema(_))), "{unknown:?}");
    fake.becomes(Content::default());
    assert_unavailable(decode(&codec, 9, &json!({})).await);
}

#[tokio::test]
async fn an_unknown_id_of_an_event_is_its_fault_only_after_another_record_was_read() {
    let fake = Fake::start(Content::ours());
    let codec = codec_of(&fake);
    let reason = decode(&codec, 1, &good()).await.unwrap_err().to_string();
    assert!(reason.contains("may be another registry") && reason.contains("id 1"), "{reason}");
    assert_unavailable(decode(&codec, 1, &good()).await);
    assert!(decode(&codec, 7, &good()).await.is_ok());
    let unknown = decode(&codec, 1, &good()).await;
    assert!(matches!(unknown, Err(CodecError::UnknownSchema(_))), "{unknown:?}");
}

#[tokio::test]
async fn records_with_unknown_ids_that_are_answered_late_hold_up_no_other() {
    let fake = Fake::start(Content::ours());
    let release = CancellationToken::new();
    fake.becomes(Content { held: Some((1_000, release.clone())), ..Content::ours() });
    let codec = Arc::new(codec_of(&fake));
    let flood: Vec<_> = (1_000..1_010)
        .map(|id| {
            let codec = Arc::clone(&codec);
            tokio::spawn(async move { decode(&codec, id, &json!({})).await })
        })
        .collect();
    eventually("all to be asked for", async || {
        (fake.content.lock().unwrap().asked.len() == flood.len()).then_some(())
    })
    .await;
    assert!(decode(&codec, 7, &good()).await.is_ok(), "neither new");
    assert!(decode(&codec, 7, &good()).await.is_ok(), "nor known");
    assert!(flood.iter().all(|waiting| !waiting.is_finished()));
    release.cancel();
    for waiting in flood {
        let unknown = waiting.await.unwrap();
        assert!(matches!(unknown, Err(CodecError::UnknownSchema(_))), "{unknown:?}");
    }
}

#[tokio::test]
async fn an_id_that_the_registry_does_not_have_is_not_asked_for_again_at_once() {
    let fake = Fake::start(Content::ours());
    let codec = codec_of(&fake);
    for _ in 0..5 {
        let unknown = decode(&codec, 8, &json!({})).await;
        assert!(matches!(unknown, Err(CodecError::UnknownSchema(_))), "{unknown:?}");
    }
    assert_eq!(fake.content.lock().unwrap().asked, [8]);
}

#[tokio::test]
async fn a_registry_that_lost_its_schemas_gives_no_verdict_and_is_not_ready() {
    let fake = Fake::start(Content::ours());
    let codec = codec_of(&fake);
    assert!(decode(&codec, 7, &good()).await.is_ok());
    assert!(codec.check(&[]).await.is_ok());
    // The registry was restored empty, and the schema was registered again.
    fake.becomes(Content::of(&[(1, "stock.vehicle-created-value", VEHICLE_CREATED.schema)]));
    assert_unavailable(decode(&codec, 8, &good()).await);
    let reason = format!("{:#}", codec.check(&[]).await.unwrap_err());
    assert!(reason.contains("no longer has schema 7"), "{reason}");
    assert!(decode(&codec, 7, &good()).await.is_ok(), "a fetched schema remains cached");
}

#[tokio::test]
async fn the_registry_of_another_environment_does_not_turn_records_into_dead_letters() {
    let other = Content::of(&[
        (7, "stock.vehicle-processed-value", VEHICLE_PROCESSED.schema),
        (9, "stock.vehicle-created-value", VEHICLE_CREATED.schema),
    ]);
    let fake = Fake::start(other);
    let codec = codec_of(&fake);
    assert_unavailable(decode(&codec, 7, &good()).await);
    // Once records are readable, a record with another topic's schema is the exception.
    assert!(decode(&codec, 9, &good()).await.is_ok());
    let strange = decode(&codec, 7, &good()).await;
    assert!(matches!(strange, Err(CodecError::UnknownSchema(_))), "{strange:?}");
}

#[tokio::test]
async fn a_registry_with_another_schema_under_a_known_id_gives_no_verdict_and_is_not_ready() {
    let fake = Fake::start(Content::ours());
    let codec = codec_of(&fake);
    assert!(decode(&codec, 7, &good()).await.is_ok());
    assert!(codec.check(&[]).await.is_ok());
    fake.becomes(Content::of(&[
        (7, "stock.vehicle-processed-value", VEHICLE_PROCESSED.schema),
        (8, "stock.vehicle-created-value", VEHICLE_CREATED.schema),
    ]));
    assert_unavailable(decode(&codec, 9, &good()).await);
    let reason = format!("{:#}", codec.check(&[]).await.unwrap_err());
    assert!(reason.contains("no longer has schema 7"), "{reason}");
}

#[tokio::test]
async fn a_broken_address_does_not_hide_the_others() {
    let broken = Fake::start(Content::page(200, "<html>"));
    let (empty, good_one) = (Fake::start(Content::default()), Fake::start(Content::ours()));
    let addresses =
        [broken.address, empty.address, good_one.address].map(|address| format!("http://{address}"));
    let codec = codec(&addresses.join(","));
    assert!(decode(&codec, 7, &good()).await.is_ok());
    assert!(codec.check(&[]).await.is_ok());
}

#[tokio::test]
async fn a_value_that_violates_its_schema_is_rejected_with_the_cause_but_without_the_value() {
    let fake = Fake::start(Content::ours());
    let codec = codec_of(&fake);
    let mut value = good();
    value["model"] = json!("x".repeat(3_000));
    value["year"] = json!("y");
    let Err(CodecError::Rejected(reason)) = decode(&codec, 7, &value).await else { panic!("accepted") };
    assert!(reason.contains("/year") && reason.len() < 200, "{reason}");
    // The decision does not need the registry any more.
    fake.becomes(Content::page(200, "<html>"));
    assert!(matches!(decode(&codec, 7, &value).await, Err(CodecError::Rejected(_))));
    for (value, named) in
        [(None, "null"), (Some(&b"garbage"[..]), "not framed"), (Some(&[0, 0, 0, 0][..]), "not framed")]
    {
        let result: Result<VehicleCreated, _> = codec.decode(CREATED, value).await;
        assert!(matches!(&result, Err(CodecError::Rejected(reason)) if reason.contains(named)), "{result:?}");
    }
    let mut huge = good();
    huge["id"] = json!(1e300);
    let Err(CodecError::Rejected(reason)) = decode(&codec, 7, &huge).await else { panic!("accepted") };
    assert!(reason.contains("64 bits"), "{reason}");
}

#[tokio::test]
async fn a_schema_is_compiled_with_its_references() {
    let root = json!({ "type": "object", "properties": { "year": { "$ref": "year.json" } } }).to_string();
    let alone = (7, "stock.vehicle-created-value", root.as_str());
    let fake = Fake::start(Content::of(&[alone]));
    let codec = codec_of(&fake);
    let unknown = decode(&codec, 7, &json!({})).await;
    assert!(matches!(unknown, Err(CodecError::UnknownSchema(_))), "{unknown:?}");
    fake.becomes(Content::of(&[alone, (8, "year", r#"{"maximum":2000}"#)]));
    let codec = codec_of(&fake);
    let Err(CodecError::Rejected(reason)) = decode(&codec, 7, &good()).await else { panic!("accepted") };
    assert!(reason.contains("2000"), "{reason}");
}

#[tokio::test]
async fn a_schema_that_is_too_large_together_with_its_references_is_not_loaded() {
    let root = json!({ "type": "object", "properties": { "year": { "$ref": "year.json" } } }).to_string();
    let year = json!({ "maximum": 3000, "description": "x".repeat(3 << 20) }).to_string();
    let fake = Fake::start(Content::of(&[
        (7, "stock.vehicle-created-value", root.as_str()),
        (8, "year", year.as_str()),
    ]));
    let codec = codec_of(&fake);
    for id in [7, 8] {
        let Err(CodecError::UnknownSchema(reason)) = decode(&codec, id, &json!({})).await else {
            panic!("{id} was loaded")
        };
        assert!(reason.contains("has more than 2097152 bytes"), "{reason}");
    }
}

#[tokio::test]
async fn the_cache_of_schemas_is_bounded_and_those_that_proved_the_registry_are_still_compared() {
    let schemas = |title: &str| {
        let large = json!({ "title": title, "$comment": "x".repeat(1_500_000) }).to_string();
        let schemas = (10..20).map(|id| (id, ("stock.vehicle-created-value".to_owned(), large.clone())));
        Content { schemas: schemas.collect(), ..Content::default() }
    };
    let fake = Fake::start(schemas("one"));
    let codec = codec_of(&fake);
    let asked = || std::mem::take(&mut fake.content.lock().unwrap().asked);
    for id in 10..20 {
        assert!(decode(&codec, id, &good()).await.is_ok(), "{id}");
    }
    assert_eq!(asked(), (10..20).collect::<Vec<_>>());
    assert!(decode(&codec, 19, &good()).await.is_ok());
    assert_eq!(asked(), [0; 0], "the newest is cached");
    assert!(decode(&codec, 10, &good()).await.is_ok());
    assert_eq!(asked(), [10], "the oldest is not");
    assert!(codec.check(&[]).await.is_ok());
    fake.becomes(schemas("another"));
    let reason = format!("{:#}", codec.check(&[]).await.unwrap_err());
    assert!(reason.contains("no longer has schema"), "{reason}");
}
