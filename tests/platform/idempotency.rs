//! Tests requests that a client repeats with an `Idempotency-Key`.

use futures::future::join_all;
use reqwest::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::support::{Platform, assert_same, http_client, vehicle};

const KEY: &str = "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"";

async fn platform() -> Platform {
    Platform::start(&["--processing-time", "0s"]).await
}

async fn post(platform: &Platform, keys: &[&str], body: String) -> Response {
    let request = http_client().post(format!("{}/stock", platform.stock()));
    let request = keys.iter().fold(request, |request, key| request.header("Idempotency-Key", *key));
    request.header(CONTENT_TYPE, "application/json").body(body).send().await.unwrap()
}

/// Posts a vehicle that must be accepted, and returns its location and the body of the answer.
async fn accept(platform: &Platform, key: &str, body: &Value) -> (String, String) {
    let response = post(platform, &[key], body.to_string()).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = response.headers()[LOCATION].to_str().unwrap().to_owned();
    (location, response.text().await.unwrap())
}

async fn refuse(platform: &Platform, keys: &[&str], body: &Value, status: StatusCode) -> Value {
    let response = post(platform, keys, body.to_string()).await;
    assert_eq!(response.status(), status, "{keys:?}");
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    response.json().await.unwrap()
}

/// Asserts that exactly these vehicles were stocked, each with one ad, and ends the platform.
async fn finish(platform: Platform, vins: &[&str]) {
    let vins: Vec<_> = vins.iter().map(|&vin| vin.to_owned()).collect();
    let vin = |entry: &Value| entry["vin"].as_str().unwrap().to_owned();
    let stocked = platform.list(platform.stock(), "/stock").await;
    assert_same(stocked.iter().map(vin).collect(), vins.clone());
    let ads = platform.await_ads(vins.len()).await;
    assert_same(ads.iter().map(vin).collect(), vins.clone());
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_gets_the_first_answer() {
    let platform = platform().await;
    let first = accept(&platform, KEY, &vehicle("a")).await;
    assert_eq!(accept(&platform, KEY, &vehicle("a")).await, first);
    // The same vehicle in another notation, and the same key as a token.
    let mut again = vehicle(" a ");
    again["year"] = serde_json::from_str("2022.0").unwrap();
    again["colour"] = json!("ignored");
    assert_eq!(accept(&platform, KEY.trim_matches('"'), &again).await, first);

    let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
    refuse(&platform, &[KEY], &vehicle("b"), unprocessable).await;
    let mut other = vehicle("a");
    other["odometer"] = json!(1001);
    refuse(&platform, &[KEY], &other, unprocessable).await;
    for keys in [&[][..], &["\"another\""]] {
        let problem = refuse(&platform, keys, &vehicle("a"), StatusCode::CONFLICT).await;
        assert_eq!(problem["conflict"], first.0.as_str());
    }
    finish(platform, &["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_request_leaves_no_key() {
    let platform = platform().await;
    let mut invalid = vehicle("a");
    invalid["year"] = json!(1);
    refuse(&platform, &[KEY], &invalid, StatusCode::BAD_REQUEST).await;
    accept(&platform, "taken", &vehicle("a")).await;
    refuse(&platform, &[KEY], &vehicle("a"), StatusCode::CONFLICT).await;
    accept(&platform, KEY, &vehicle("b")).await;
    finish(platform, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_key_is_refused_and_nothing_is_written() {
    let platform = platform().await;
    let long = "k".repeat(256);
    for keys in [
        &[""][..],
        &["\"\""],
        &["\"a b\""],
        &["a b"],
        &["\"a"],
        &["\"a\";p"],
        &["a, b"],
        &[&long],
        &[KEY, KEY],
    ] {
        let problem = refuse(&platform, keys, &vehicle("vin"), StatusCode::BAD_REQUEST).await;
        assert!(problem["detail"].as_str().unwrap().contains("Idempotency-Key"), "{problem}");
    }
    accept(&platform, &"k".repeat(255), &vehicle("a")).await;
    finish(platform, &["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_with_one_key_bring_one_vehicle() {
    let platform = platform().await;
    let body = vehicle("a").to_string();
    let answers = join_all((0..32).map(|_| post(&platform, &[KEY], body.clone()))).await;
    let mut accepted = Vec::new();
    for answer in answers {
        if answer.status() == StatusCode::CREATED {
            accepted.push(answer.text().await.unwrap());
            continue;
        }
        assert_eq!(answer.status(), StatusCode::CONFLICT);
        assert!(answer.headers().contains_key(RETRY_AFTER), "still under way");
        assert_eq!(answer.json::<Value>().await.unwrap()["conflict"], Value::Null);
    }
    let first = accept(&platform, KEY, &vehicle("a")).await.1;
    assert!(!accepted.is_empty() && accepted.iter().all(|body| *body == first), "{accepted:?}");

    // One key for different vehicles.
    let bodies: Vec<_> = (0..32).map(|number| vehicle(&format!("race-{number}"))).collect();
    let answers = join_all(bodies.iter().map(|body| post(&platform, &["race"], body.to_string()))).await;
    let mut winners = Vec::new();
    for (body, answer) in bodies.iter().zip(answers) {
        match answer.status() {
            StatusCode::CREATED => winners.push(body["vin"].as_str().unwrap()),
            StatusCode::CONFLICT => assert!(answer.headers().contains_key(RETRY_AFTER)),
            status => assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY),
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    finish(platform, &["a", winners[0]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_outlives_the_process() {
    let mut platform = platform().await;
    let first = accept(&platform, KEY, &vehicle("a")).await;
    platform.kill_and_restart().await;
    assert_eq!(accept(&platform, KEY, &vehicle("a")).await, first);
    refuse(&platform, &[KEY], &vehicle("b"), StatusCode::UNPROCESSABLE_ENTITY).await;
    finish(platform, &["a"]).await;
}
