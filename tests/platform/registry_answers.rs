//! Tests that events are written under no schema id that a registry, or what answers in its place, returns by mistake.

use std::sync::{Arc, Mutex};

use actix_web::http::StatusCode as Status;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use rdkafka::Message as _;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use vehicle_platform::event::VEHICLE_CREATED;

use crate::support::kafka::read_all;
use crate::support::registry::{Api, CONTENT_TYPE};
use crate::support::role::Role;
use crate::support::{Platform, eventually, free_port, http_client, vehicle};

const SUBJECT: &str = "stock.vehicle-created-value";

/// How a server in front of a registry answers.
#[derive(Clone, Copy, Debug)]
enum Answers {
    /// As the registry does.
    Faithful,
    /// By a redirection with this status.
    Redirect(u16),
    /// With a list in place of an object that contains an id.
    List,
    /// With this id in place of the right one.
    Id(i64),
}

struct Front {
    answers: Arc<Mutex<Answers>>,
    url: String,
}

impl Front {
    fn start(registry: &str, answers: Answers) -> Self {
        let answers = Arc::new(Mutex::new(answers));
        let (current, registry, client) = (Arc::clone(&answers), registry.to_owned(), http_client());
        let app = move || {
            let (current, registry, client) = (Arc::clone(&current), registry.clone(), client.clone());
            App::new().default_service(web::to(move |request: HttpRequest, body: web::Bytes| {
                let (answers, client) = (*current.lock().unwrap(), client.clone());
                let url = format!("{registry}{}", request.uri());
                let method = request.method().as_str().parse().unwrap();
                async move { answer(answers, &client, method, &url, body.to_vec()).await }
            }))
        };
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap().run());
        Self { answers, url }
    }

    fn set(&self, answers: Answers) {
        *self.answers.lock().unwrap() = answers;
    }
}

async fn answer(answers: Answers, client: &Client, method: Method, url: &str, body: Vec<u8>) -> HttpResponse {
    if let Answers::Redirect(status) = answers {
        let mut response = HttpResponse::build(Status::from_u16(status).unwrap());
        return response.insert_header(("location", url)).finish();
    }
    let request = client.request(method, url).header("content-type", CONTENT_TYPE).body(body);
    let Ok(response) = request.send().await else { return HttpResponse::BadGateway().finish() };
    let status = response.status().as_u16();
    let mut json: Value = response.json().await.unwrap();
    match answers {
        Answers::List if json.get("id").is_some() => json = json!([1]),
        Answers::Id(id) if json.get("id").is_some() => json["id"] = json!(id),
        _ => {}
    }
    HttpResponse::build(Status::from_u16(status).unwrap()).json(json)
}

/// Lets stock write with the answers of a server that makes all mistakes in turn, and then none.
async fn check(auto_register: bool, accepted_meanwhile: StatusCode) {
    let platform = Platform::start(&["--roles", "none"]).await;
    let api = Api::new(platform.registry());
    let other = api.register("other", &json!({ "type": "object" })).await;
    assert_eq!(other, 1);
    let ours = json!({ "schemaType": "JSON", "schema": VEHICLE_CREATED.schema });
    let (_, registered) = api.call(Method::POST, &format!("/subjects/{SUBJECT}/versions"), Some(&ours)).await;
    let id = registered["id"].as_u64().unwrap();
    assert_eq!(api.get(&format!("/subjects/{SUBJECT}/versions")).await, json!([1]));

    let front = Front::start(platform.registry(), Answers::Redirect(301));
    let directory: TempDir = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", directory.path().join("stock.db").display());
    let port = free_port().to_string();
    let auto_register = format!("--auto-register-schemas={auto_register}");
    let arguments = [
        &["--port", &port, "--database-url", &database, &auto_register][..],
        &["--kafka-bootstrap-servers", platform.kafka(), "--schema-registry-url", &front.url],
    ];
    let stock = Role::start("stock", &arguments.concat(), &[]);
    let post = async |vin: &str| {
        let request = http_client().post(format!("http://127.0.0.1:{port}/stock")).json(&vehicle(vin));
        request.send().await.unwrap().status()
    };
    let target = format!("redirects to {}/", platform.registry());
    for (answers, words) in [
        (Answers::Redirect(301), &*target),
        (Answers::Redirect(302), "responded 302"),
        (Answers::Redirect(303), "responded 303"),
        (Answers::Redirect(307), "responded 307"),
        (Answers::List, "unexpected body"),
        (Answers::Id(1), "schema 1, which is another schema"),
        (Answers::Id(4_000_000), "schema 4000000, which it does not have"),
        (Answers::Id(0), "schema 0, which is no id"),
        (Answers::Id(1 << 31), "schema 2147483648, which is no id"),
        (Answers::Id(-1), "unexpected body"),
    ] {
        front.set(answers);
        stock.await_reason("schema-registry", words).await;
    }
    assert_eq!(post("early").await, accepted_meanwhile);
    assert!(read_all(platform.kafka(), VEHICLE_CREATED.topic).await.is_empty());

    front.set(Answers::Faithful);
    stock.await_ready().await;
    assert_eq!(post("later").await, StatusCode::CREATED);
    let expected = if accepted_meanwhile == StatusCode::CREATED { 2 } else { 1 };
    let records = eventually("events", async || {
        let records = read_all(platform.kafka(), VEHICLE_CREATED.topic).await;
        (records.len() == expected).then_some(records)
    })
    .await;
    let prefix = [&[0][..], &u32::try_from(id).unwrap().to_be_bytes()].concat();
    assert!(records.iter().all(|record| record.payload().unwrap().starts_with(&prefix)));
}

#[tokio::test]
async fn a_wrong_answer_to_a_registration_is_reported_and_retried_and_nothing_is_written_under_it() {
    check(true, StatusCode::CREATED).await;
}

#[tokio::test]
async fn a_wrong_answer_about_the_latest_schema_is_reported_and_retried_and_nothing_is_written_under_it() {
    check(false, StatusCode::SERVICE_UNAVAILABLE).await;
}
