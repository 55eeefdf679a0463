//! Tests the HTTP APIs of stock and ads.

use crate::support;
use crate::support::{Platform, assert_same, eventually, http_client, next_page, vehicle};
use futures::stream::{self, StreamExt as _};
use reqwest::StatusCode;
use reqwest::header::{ALLOW, CONTENT_TYPE, LOCATION};
use serde_json::{Value, json};

async fn platform() -> Platform {
    Platform::start(&["--roles", "stock,ads"]).await
}

async fn problem(response: reqwest::Response, status: StatusCode) -> Value {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["status"], status.as_u16());
    assert!(problem["type"].as_str().unwrap().starts_with("/problems/"), "{problem}");
    assert!(!problem["title"].as_str().unwrap().is_empty(), "{problem}");
    problem
}

#[tokio::test]
async fn the_documented_body_is_stocked_and_can_be_read_back() {
    let platform = platform().await;
    let response = platform.post(&vehicle("vin")).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = response.headers()[LOCATION].to_str().unwrap().to_owned();
    let stocked: Value = response.json().await.unwrap();
    assert_eq!(location, format!("/stock/{}", stocked["id"]));
    for (field, value) in vehicle("vin").as_object().unwrap() {
        assert_eq!(&stocked[field], value, "{field}");
    }
    let created_at = stocked["createdAt"].as_str().unwrap();
    assert!(chrono::DateTime::parse_from_rfc3339(created_at).is_ok() && created_at.ends_with('Z'));

    let read = platform.get(&format!("{}{location}", platform.stock())).await;
    assert_eq!(read.status(), StatusCode::OK);
    assert_eq!(read.json::<Value>().await.unwrap(), stocked);
    platform.finish().await;
}

#[tokio::test]
async fn every_invalid_field_is_reported_and_nothing_is_written() {
    let platform = platform().await;
    let body =
        json!({ "vin": "", "model": "m".repeat(256), "year": 1885, "odometer": -0.1, "odometerUnit": 1 });
    let problem = problem(platform.post(&body).await, StatusCode::BAD_REQUEST).await;
    let errors = problem["errors"].as_array().unwrap();
    let pointers: Vec<_> = errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    assert_eq!(pointers, ["/vin", "/model", "/manufacturer", "/year", "/odometer", "/odometerUnit"]);
    assert!(errors.iter().all(|error| !error["detail"].as_str().unwrap().is_empty()));
    assert!(platform.list(platform.stock(), "/stock").await.is_empty());
    platform.finish().await;
}

#[tokio::test]
async fn a_vin_is_stocked_once_even_when_posted_at_the_same_time() {
    let platform = platform().await;
    let body = vehicle("twice");
    let answers = futures::future::join_all((0..8).map(|_| platform.post(&body))).await;
    let (created, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status() == StatusCode::CREATED);
    assert_eq!((created.len(), refused.len()), (1, 7));
    let id = created.into_iter().next().unwrap().json::<Value>().await.unwrap()["id"].clone();
    for answer in refused {
        let problem = problem(answer, StatusCode::CONFLICT).await;
        assert_eq!(problem["conflict"], format!("/stock/{id}"));
    }
    // The trimmed vin is the same.
    problem(platform.post(&vehicle("  twice ")).await, StatusCode::CONFLICT).await;
    assert_eq!(platform.list(platform.stock(), "/stock").await.len(), 1);
    platform.finish().await;
}

#[tokio::test]
async fn unreadable_bodies_are_distinguished() {
    let platform = platform().await;
    let client = http_client();
    let url = format!("{}/stock", platform.stock());
    let post = |content_type: &'static str, body: String| {
        client.post(&url).header(CONTENT_TYPE, content_type).body(body).send()
    };
    let json = vehicle("body").to_string();
    problem(post("text/plain", json.clone()).await.unwrap(), StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    problem(post("application/json", "{".to_owned()).await.unwrap(), StatusCode::BAD_REQUEST).await;
    problem(post("application/json", String::new()).await.unwrap(), StatusCode::BAD_REQUEST).await;
    problem(post("application/json", "[]".to_owned()).await.unwrap(), StatusCode::BAD_REQUEST).await;
    let large = format!("{}{}", " ".repeat(64 * 1024), json);
    problem(post("application/json", large).await.unwrap(), StatusCode::PAYLOAD_TOO_LARGE).await;
    assert!(platform.list(platform.stock(), "/stock").await.is_empty());

    let exact = format!("{}{}", " ".repeat(64 * 1024 - json.len()), json);
    let accepted = post("application/json; charset=utf-8", exact).await.unwrap();
    assert_eq!(accepted.status(), StatusCode::CREATED);
    platform.finish().await;
}

/// Some features of `serde_json` give meaning to names of fields: an object becomes the value that a text in it describes.
#[tokio::test]
async fn no_name_of_a_field_changes_how_a_body_is_read() {
    let platform = platform().await;
    for feature in ["RawValue", "Number"] {
        let name = format!("$serde_json::private::{feature}");
        let disguised = platform.post(&json!({ &name: vehicle("disguised").to_string() })).await;
        let problem = problem(disguised, StatusCode::BAD_REQUEST).await;
        assert_eq!(problem["errors"].as_array().unwrap().len(), 6, "{problem}");

        let mut ignored = vehicle(feature);
        ignored["x"] = json!({ &name: "not a value" });
        assert_eq!(platform.post(&ignored).await.status(), StatusCode::CREATED, "{name}");

        // Deeper than the limit of recursion if each text becomes a value.
        let (open, close) = ("[".repeat(120), "]".repeat(120));
        let nested =
            (0..12).fold("1".to_owned(), |text, _| format!("{open}{{\"{name}\":{}}}{close}", json!(text)));
        let deep =
            vehicle(&format!("deep-{feature}")).to_string().replacen('{', &format!("{{\"x\":{nested},"), 1);
        let request = http_client().post(format!("{}/stock", platform.stock()));
        let request = request.header(CONTENT_TYPE, "application/json").body(deep);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::CREATED, "{name}");
    }
    assert_eq!(platform.list(platform.stock(), "/stock").await.len(), 4);
    platform.finish().await;
}

#[tokio::test]
async fn pages_are_linked_and_sorted_oldest_first() {
    let platform = platform().await;
    for number in 0..7 {
        platform.accept(&format!("page-{number}")).await;
    }
    let mut seen = Vec::new();
    let mut sizes = Vec::new();
    let mut next = Some(format!("{}/stock?limit=3", platform.stock()));
    while let Some(url) = next {
        let response = platform.get(&url).await;
        next = next_page(platform.stock(), &response);
        let page: Vec<Value> = response.json().await.unwrap();
        sizes.push(page.len());
        seen.extend(page.into_iter().map(|vehicle| vehicle["vin"].as_str().unwrap().to_owned()));
    }
    assert_eq!(sizes, [3, 3, 1]);
    assert_eq!(seen, (0..7).map(|number| format!("page-{number}")).collect::<Vec<_>>());

    for query in ["limit=0", "limit=1001", "limit=x", "after=x", "limit=1&limit=2"] {
        for list in [format!("{}/stock", platform.stock()), format!("{}/ads", platform.ads_url())] {
            problem(platform.get(&format!("{list}?{query}")).await, StatusCode::BAD_REQUEST).await;
        }
    }
    platform.finish().await;
}

#[tokio::test]
async fn a_missing_resource_is_a_problem_document() {
    let platform = platform().await;
    for path in ["/stock/1", "/stock/x", "/stock/-1", "/stock/99999999999999999999", "/nowhere"] {
        problem(platform.get(&format!("{}{path}", platform.stock())).await, StatusCode::NOT_FOUND).await;
    }
    for path in ["/ads/1", "/ads/00000000-0000-7000-8000-000000000000", "/nowhere"] {
        problem(platform.get(&format!("{}{path}", platform.ads_url())).await, StatusCode::NOT_FOUND).await;
    }
    let deleted = http_client().delete(format!("{}/stock", platform.stock())).send().await.unwrap();
    assert_eq!(deleted.headers()[ALLOW], "GET, HEAD, POST");
    problem(deleted, StatusCode::METHOD_NOT_ALLOWED).await;
    platform.finish().await;
}

#[tokio::test]
async fn a_role_reports_its_health_its_missing_dependencies_and_its_metrics() {
    // No engine is running, but the role starts, accepts vehicles, and reports the missing ones.
    let directory = tempfile::tempdir().unwrap();
    let (port, nowhere) = (support::free_port(), support::free_port());
    let base = format!("http://127.0.0.1:{port}");
    let mut role = support::RoleProcess::spawn(&[
        "stock",
        "--port",
        &port.to_string(),
        "--database-url",
        &format!("sqlite:{}", directory.path().join("stock.db").display()),
        "--kafka-bootstrap-servers",
        &format!("127.0.0.1:{nowhere}"),
        "--schema-registry-url",
        &format!("http://127.0.0.1:{nowhere}"),
    ]);
    let client = http_client();
    support::eventually("the role to respond", async || {
        client
            .get(format!("{base}/healthz"))
            .send()
            .await
            .ok()
            .filter(|answer| answer.status() == StatusCode::OK)
    })
    .await;
    let waiting = support::eventually("the role to have checked its database", async || {
        let answer = client.get(format!("{base}/readyz")).send().await.ok()?;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let missing = answer.json::<Value>().await.ok()?["missing"].clone();
        missing.get("database").is_none().then_some(missing)
    })
    .await;
    assert!(waiting["kafka"].is_string() && waiting["schema-registry"].is_string(), "{waiting}");

    let accepted = client.post(format!("{base}/stock")).json(&vehicle("alone")).send().await.unwrap();
    assert_eq!(accepted.status(), StatusCode::CREATED);
    let metrics = client.get(format!("{base}/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("stock_vehicles_accepted_total 1\n"), "{metrics}");
    assert!(metrics.contains("http_request_duration_seconds_bucket"), "{metrics}");
    assert_eq!(support::terminate(&mut role.child).await.code(), Some(0));
}

#[tokio::test]
async fn control_characters_in_a_vehicle_are_refused() {
    let platform = platform().await;
    for control in ['\u{1b}', '\u{7}', '\n', '\u{9b}', '\u{202e}', '\u{2028}'] {
        let mut body = vehicle("vin");
        for field in ["vin", "model", "manufacturer", "odometerUnit"] {
            body[field] = format!("a{control}b").into();
        }
        let refused: Value = platform.post(&body).await.json().await.unwrap();
        assert_eq!(refused["errors"].as_array().map(Vec::len), Some(4), "{control:?}: {refused}");
    }
    platform.finish().await;
}

/// Follows a list by its cursor until `count` entries were read.
async fn follow(platform: &Platform, base: &str, path: &str, count: usize) -> Vec<String> {
    let mut vins = Vec::new();
    let mut last = None;
    eventually(&format!("{count} entries of {path}"), async || {
        let after = last.as_ref().map(|id| format!("&after={id}")).unwrap_or_default();
        let page = platform.get(&format!("{base}{path}?limit=1000{after}")).await;
        let entries: Vec<Value> = page.json().await.unwrap();
        if let Some(entry) = entries.last() {
            last = Some(entry["id"].to_string().trim_matches('"').to_owned());
        }
        vins.extend(entries.iter().map(|entry| entry["vin"].as_str().unwrap().to_owned()));
        (vins.len() >= count).then_some(())
    })
    .await;
    vins
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_of_a_list_sees_each_entry_once_while_others_write() {
    const COUNT: usize = 1_500;
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    let vins: Vec<String> = (0..COUNT).map(|number| format!("vin-{number}")).collect();
    let post = stream::iter(&vins).for_each_concurrent(16, async |vin| {
        platform.accept(vin).await;
    });
    let (stock, ads, ()) = tokio::join!(
        follow(&platform, platform.stock(), "/stock", COUNT),
        follow(&platform, platform.ads_url(), "/ads", COUNT),
        post
    );
    assert_same(stock, vins.clone());
    assert_same(ads, vins);
    platform.finish().await;
}
