//! Tests what any client can do to the HTTP servers: odd methods, media types and bodies.

use std::time::Duration;

use crate::support;
use crate::support::{Platform, RoleProcess, eventually, free_port, get, http_client, vehicle};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longer than the 10 s that the server waits for a body, with slack for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

async fn platform() -> Platform {
    Platform::start(&["--roles", "stock,ads"]).await
}

pub fn authority(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

pub async fn connect(url: &str, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(authority(url)).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream
}

/// Sends `request` as it is and returns all of the response, up to the end of the connection.
async fn exchange(url: &str, request: &[u8]) -> String {
    let mut stream = connect(url, request).await;
    let mut response = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut response)).await.unwrap().unwrap();
    String::from_utf8(response).unwrap()
}

pub fn post_head(headers: &str) -> String {
    format!("POST /stock HTTP/1.1\r\nHost: stock\r\nConnection: close\r\n{headers}\r\n")
}

#[tokio::test]
async fn invented_methods_do_not_become_labels_of_the_metrics() {
    let platform = platform().await;
    let requests: String =
        (0..200).map(|number| format!("M{number} /stock HTTP/1.1\r\nHost: stock\r\n\r\n")).collect();
    let requests = requests + "M /stock HTTP/1.1\r\nHost: stock\r\nConnection: close\r\n\r\n";
    let answers = exchange(platform.stock(), requests.as_bytes()).await;
    assert_eq!(answers.matches("HTTP/1.1 405 ").count(), 201, "{answers}");
    let metrics = platform.get(&format!("{}/metrics", platform.stock())).await.text().await.unwrap();
    assert!(metrics.contains("method=\"_OTHER\",route=\"/stock\",status=\"405\"} 201\n"), "{metrics}");
    assert!(!metrics.contains("method=\"M"), "{metrics}");
    platform.finish().await;
}

#[tokio::test]
async fn head_is_served_wherever_get_is_and_other_methods_are_answered_with_the_allowed_ones() {
    let platform = platform().await;
    let client = http_client();
    platform.accept("vin").await;
    let ad = &platform.ads_url().to_owned();
    for (base, path, allow) in [
        (platform.stock(), "/healthz", "GET, HEAD"),
        (platform.stock(), "/readyz", "GET, HEAD"),
        (platform.stock(), "/metrics", "GET, HEAD"),
        (platform.stock(), "/stock", "GET, HEAD, POST"),
        (platform.stock(), "/stock/1", "GET, HEAD"),
        (platform.stock(), "/openapi.json", "GET, HEAD"),
        (platform.stock(), "/asyncapi.json", "GET, HEAD"),
        (platform.stock(), "/docs/", "GET, HEAD"),
        (platform.stock(), "/problems/not-found", "GET, HEAD"),
        (ad, "/ads", "GET, HEAD"),
    ] {
        let url = format!("{base}{path}");
        let (get, head) = (client.get(&url).send().await.unwrap(), client.head(&url).send().await.unwrap());
        assert_eq!(get.status(), StatusCode::OK, "{url}");
        assert_eq!(head.status(), StatusCode::OK, "{url}");
        assert_eq!(head.headers().get("content-type"), get.headers().get("content-type"), "{url}");
        assert!(head.bytes().await.unwrap().is_empty(), "{url}");
        for method in ["OPTIONS", "TRACE", "PUT", "PATCH", "DELETE", "QUERY"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let refused = client.request(method.clone(), &url).send().await.unwrap();
            assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {url}");
            assert_eq!(refused.headers()["allow"], allow, "{method} {url}");
            let problem: Value = refused.json().await.unwrap();
            assert_eq!(problem["type"], "/problems/method-not-allowed", "{method} {url}");
        }
    }
    let unknown = client.post(format!("{}/nowhere", platform.stock())).send().await.unwrap();
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    platform.finish().await;
}

#[tokio::test]
async fn a_body_must_be_one_json_document_in_utf_8_without_a_coding() {
    let platform = platform().await;
    let body = vehicle("media").to_string();
    let length = format!("Content-Length: {}\r\n", body.len());
    let post = async |headers: &str, body: &str| {
        exchange(platform.stock(), format!("{}{body}", post_head(headers)).as_bytes()).await
    };
    for headers in [
        "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
        "Content-Type: application/json\r\nContent-Encoding: identity\r\nContent-Encoding: br\r\n",
        "Content-Type: application/json; charset=utf-16\r\n",
        "Content-Type: application/json\r\nContent-Type: application/json\r\n",
        "Content-Type: application/json\r\nContent-Type: text/plain\r\n",
        "Content-Type: application/xml\r\n",
        "Content-Type: json\r\n",
        "Content-Type: \r\n",
        "",
    ] {
        let answer = post(&format!("{headers}{length}"), &body).await;
        assert!(answer.starts_with("HTTP/1.1 415 "), "{headers}: {answer}");
        assert!(answer.contains("/problems/unsupported-media-type"), "{headers}: {answer}");
    }
    assert_eq!(platform.list(platform.stock(), "/stock").await, Vec::<Value>::new());

    let marked = format!("\u{feff}{body}");
    let headers = format!(
        "Content-Type: Application/JSON; Charset=\"UTF-8\"\r\nContent-Encoding: identity\r\nContent-Length: {}\r\n",
        marked.len()
    );
    let answer = post(&headers, &marked).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    platform.finish().await;
}

#[tokio::test]
async fn a_large_body_is_refused_when_it_is_announced_and_when_it_is_not() {
    let platform = platform().await;
    let json = "Content-Type: application/json\r\n";
    let announced = post_head(&format!("{json}Content-Length: 65537\r\n"));
    let answer = exchange(platform.stock(), announced.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("/problems/body-too-large"), "{answer}");

    let chunk = format!("8000\r\n{}\r\n", " ".repeat(0x8000));
    let chunked =
        post_head(&format!("{json}Transfer-Encoding: chunked\r\n")) + &chunk.repeat(3) + "0\r\n\r\n";
    let answer = exchange(platform.stock(), chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    platform.finish().await;
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_answered_with_a_problem() {
    let platform = platform().await;
    let long = format!("GET /stock HTTP/1.1\r\nHost: stock\r\nLong: {}\r\n\r\n", "x".repeat(200_000));
    let many = format!("GET /stock HTTP/1.1\r\n{}\r\n", "Many: x\r\n".repeat(200));
    // The first bytes of a TLS handshake.
    let handshake = "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\r\n\r\n";
    for (request, status, kind) in [
        (&*long, 431, "head-too-large"),
        (&*many, 431, "head-too-large"),
        (handshake, 400, "malformed-request"),
        ("nonsense\r\n\r\n", 400, "malformed-request"),
        ("GET /stock HTTP/1.1\r\nNo colon\r\n\r\n", 400, "malformed-request"),
        ("POST /stock HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400, "malformed-request"),
        ("GET /stock HTTP/1.1\r\nHost: ", 408, "head-timeout"),
    ] {
        let mut stream = connect(platform.stock(), b"").await;
        // The server may answer and close before it has read all of it.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{kind}: the connection is still open");
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{kind}: {head}");
        assert!(head.contains("\r\ncontent-type: application/problem+json"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{answer}");
        let problem: Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&problem["type"], &problem["status"]),
            (&format!("/problems/{kind}").into(), &status.into())
        );
    }
    let after_a_good_one =
        exchange(platform.stock(), b"GET /healthz HTTP/1.1\r\nHost: stock\r\n\r\nnonsense\r\n\r\n");
    let answers = after_a_good_one.await;
    assert!(answers.starts_with("HTTP/1.1 200 ") && answers.contains("HTTP/1.1 400 "), "{answers}");
    assert!(answers.ends_with('}'), "{answers}");
    platform.finish().await;
}

#[tokio::test]
async fn a_request_for_another_protocol_is_refused_before_its_body_and_ends_the_connection() {
    let platform = platform().await;
    let body = vehicle("upgraded").to_string();
    let post = |connection: &str, protocol: &str| {
        format!(
            "POST /stock HTTP/1.1\r\nHost: stock\r\nConnection: {connection}\r\nUpgrade: {protocol}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let get = |path: &str, headers: &str| format!("GET {path} HTTP/1.1\r\nHost: stock\r\n{headers}\r\n");
    let websocket = "Connection: Upgrade\r\nUpgrade: WebSocket\r\n";
    for (base, request) in [
        (platform.stock(), post("upgrade", "websocket")),
        (platform.stock(), post("keep-alive", "websocket")),
        (platform.stock(), get("/stock", websocket)),
        (platform.stock(), get("/healthz", websocket)),
        (platform.ads_url(), get("/ads", websocket)),
        (platform.registry(), get("/subjects", websocket)),
    ] {
        let answers = exchange(base, (request.clone() + &get("/healthz", "")).as_bytes()).await;
        assert!(answers.starts_with("HTTP/1.1 400 "), "{request}: {answers}");
        assert!(answers.contains("\r\nconnection: close\r\n"), "{request}: {answers}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{request}: {answers}");
        assert!(answers.contains("/problems/malformed-request"), "{request}: {answers}");
    }
    // Others are ignored (RFC 9110, section 7.8): some clients offer HTTP/2 with each request.
    let answer = exchange(platform.stock(), post("Upgrade, HTTP2-Settings, close", "h2c").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(platform.list(platform.stock(), "/stock").await.len(), 1);
    platform.finish().await;
}

/// Starts a stock without engines.
pub fn lonely_stock(directory: &std::path::Path, arguments: &[&str]) -> (RoleProcess, String) {
    let (port, nowhere) = (free_port().to_string(), free_port());
    let database = format!("sqlite:{}", directory.join("stock.db").display());
    let brokers = format!("127.0.0.1:{nowhere}");
    let registry = format!("http://user:hidden@127.0.0.1:{nowhere}");
    let mut all = vec!["stock", "--port", &port, "--database-url", &database];
    all.extend(["--kafka-bootstrap-servers", &brokers, "--schema-registry-url", &registry]);
    all.extend(arguments);
    (RoleProcess::spawn(&all), format!("http://127.0.0.1:{port}"))
}

pub async fn await_alive(url: &str) {
    eventually("the role to respond", async || {
        let answer = get(format!("{url}/healthz")).await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
}

#[tokio::test]
async fn readiness_shows_causes_on_the_admin_port_only_and_can_be_asked_for_requests_alone() {
    let directory = tempfile::tempdir().unwrap();
    let admin_port = free_port().to_string();
    let admin = format!("http://127.0.0.1:{admin_port}");
    let (mut role, url) = lonely_stock(directory.path(), &["--admin-port", &admin_port]);
    await_alive(&admin).await;
    let readiness = async |url: &str| -> (StatusCode, Value) {
        let answer = get(url).await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    };
    let missing = eventually("the reasons", async || {
        let (status, answer) = readiness(&format!("{admin}/readyz")).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let missing = answer["missing"].clone();
        let checked = !missing.to_string().contains("not checked yet");
        (checked && missing.get("database").is_none()).then_some(missing)
    })
    .await;
    assert!(missing["kafka"].as_str().unwrap().contains("127.0.0.1:"), "{missing}");
    assert!(missing["schema-registry"].as_str().unwrap().contains("127.0.0.1:"), "{missing}");
    assert!(!missing.to_string().contains("hidden"), "{missing}");
    let (status, answer) = readiness(&format!("{admin}/readyz?for=http")).await;
    assert_eq!((status, &answer["status"]), (StatusCode::OK, &Value::from("ready")));
    let (status, _) = readiness(&format!("{admin}/readyz?for=everything")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    for path in ["/healthz", "/readyz", "/metrics"] {
        let moved = get(format!("{url}{path}")).await.unwrap();
        assert_eq!(moved.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let document: Value = get(format!("{url}/openapi.json")).await.unwrap().json().await.unwrap();
    assert!(document["paths"].get("/readyz").is_none(), "{document:#}");
    assert_eq!(support::terminate(&mut role.child).await.code(), Some(0));
}

#[tokio::test]
async fn readiness_on_the_port_of_the_role_names_no_host() {
    let directory = tempfile::tempdir().unwrap();
    let (mut role, url) = lonely_stock(directory.path(), &[]);
    await_alive(&url).await;
    eventually("the reasons", async || {
        let answer: Value = get(format!("{url}/readyz")).await.ok()?.json().await.ok()?;
        let missing = answer["missing"].to_string();
        assert!(!missing.contains("127.0.0.1"), "{missing}");
        let reasons = ["no broker answers", "the schema registry cannot be used"];
        reasons.iter().all(|reason| missing.contains(reason)).then_some(())
    })
    .await;
    let document: Value = get(format!("{url}/openapi.json")).await.unwrap().json().await.unwrap();
    assert!(document["paths"].get("/readyz").is_some(), "{document:#}");
    assert_eq!(support::terminate(&mut role.child).await.code(), Some(0));
}

#[tokio::test]
async fn each_documented_problem_has_a_page() {
    let platform = platform().await;
    for base in [platform.stock(), platform.ads_url()] {
        let document: Value = platform.get(&format!("{base}/openapi.json")).await.json().await.unwrap();
        let mut types = Vec::new();
        collect(&document, "type", &mut types);
        types.retain(|kind| kind.starts_with('/'));
        types.sort();
        types.dedup();
        assert!(types.len() > 4, "{document:#}");
        for kind in types {
            let page = platform.get(&format!("{base}{kind}")).await;
            assert_eq!(page.status(), StatusCode::OK, "{kind}");
            assert_eq!(page.headers()["x-content-type-options"], "nosniff");
            assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("'self'"));
            assert!(page.text().await.unwrap().contains("<h1>"), "{kind}");
        }
        let redirect = platform.get(&format!("{base}/docs")).await;
        assert!(redirect.status().is_redirection(), "{redirect:?}");
        let location = redirect.headers()["location"].to_str().unwrap();
        let page = platform.get(redirect.url().join(location).unwrap().as_str()).await;
        assert_eq!((page.status(), page.url().path()), (StatusCode::OK, "/docs/"));
        assert!(page.text().await.unwrap().contains("swagger"));
    }
    platform.finish().await;
}

/// Collects the strings that are members called `name`, anywhere in `value`.
fn collect(value: &Value, name: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match member {
                    Value::String(text) if key == name => found.push(text.clone()),
                    _ => collect(member, name, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, name, found)),
        _ => {}
    }
}
