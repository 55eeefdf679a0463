//! Tests the addresses and the filters of vehicles and ads, and conditional requests for them.

use reqwest::header::{ETAG, IF_NONE_MATCH};
use reqwest::{Response, StatusCode};
use serde_json::Value;

use crate::support::{Platform, http_client, vehicle};

async fn get_if(url: &str, conditions: &[&str]) -> Response {
    let request = http_client().get(url);
    let request = conditions.iter().fold(request, |request, tag| request.header(IF_NONE_MATCH, *tag));
    request.send().await.unwrap()
}

/// Starts the platform with ads of the vehicles `0`, `1`, `2`, and returns the URLs of both lists.
async fn platform() -> (Platform, [String; 2]) {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    for number in 0..3 {
        platform.accept(&number.to_string()).await;
    }
    platform.await_ads(3).await;
    let lists = [format!("{}/stock", platform.stock()), format!("{}/ads", platform.ads_url())];
    (platform, lists)
}

async fn entries(platform: &Platform, url: &str) -> Vec<Value> {
    let response = platform.get(url).await;
    assert_eq!(response.status(), StatusCode::OK, "{url}");
    assert!(!response.headers().contains_key("link"), "{url}");
    response.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_a_resource_gets_304() {
    let (platform, lists) = platform().await;
    for list in &lists {
        let entry = entries(&platform, list).await.remove(1);
        let url = format!("{list}/{}", entry["id"].to_string().trim_matches('"'));
        let response = platform.get(&url).await;
        let tag = response.headers()[ETAG].to_str().unwrap().to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"'), "a strong tag: {tag}");
        assert_eq!(response.json::<Value>().await.unwrap(), entry);
        let known = [&[tag.as_str()][..], &["*"], &[&format!("W/{tag}")], &[&format!("\"other\", {tag}")]];
        for conditions in known.into_iter().chain([&["\"other\"", &tag][..]]) {
            let response = get_if(&url, conditions).await;
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{conditions:?}");
            assert_eq!(response.headers()[ETAG], tag.as_str());
            assert!(response.bytes().await.unwrap().is_empty());
        }
        for (condition, status) in [(&*tag, StatusCode::NOT_MODIFIED), ("\"other\"", StatusCode::OK)] {
            let response = http_client().head(&url).header(IF_NONE_MATCH, condition).send().await.unwrap();
            assert_eq!((response.status(), response.headers()[ETAG].to_str().unwrap()), (status, &*tag));
        }
        let response = get_if(&url, &["\"other\""]).await;
        assert_eq!((response.status(), response.headers()[ETAG].to_str().unwrap()), (StatusCode::OK, &*tag));
        // Another representation has another tag, and a missing resource has none.
        let first = entries(&platform, list).await.remove(0);
        let other = get_if(&format!("{list}/{}", first["id"].to_string().trim_matches('"')), &[&tag]).await;
        assert_eq!(other.status(), StatusCode::OK);
        assert_eq!(get_if(&format!("{list}/0"), &["*"]).await.status(), StatusCode::NOT_FOUND);
    }
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vin_filters_a_list() {
    let (platform, lists) = platform().await;
    for list in &lists {
        let all = entries(&platform, list).await;
        for (number, entry) in all.iter().enumerate() {
            let vin = entry["vin"].as_str().unwrap();
            let found = entries(&platform, &format!("{list}?vin=%20{vin}%20&limit=1")).await;
            assert_eq!(found, std::slice::from_ref(entry), "exactly the trimmed vin");
            let after = all[0]["id"].to_string();
            let query = format!("vin={vin}&after={}", after.trim_matches('"'));
            let found = entries(&platform, &format!("{list}?{query}")).await;
            assert_eq!(found.len(), usize::from(number > 0), "{query}");
        }
        assert_eq!(entries(&platform, &format!("{list}?vin=other")).await, [Value::Null; 0]);
        let long = "x".repeat(65);
        for vin in ["", "%20", "%E2%80%8B", "a%00b", &long] {
            let response = platform.get(&format!("{list}?vin={vin}&limit=0")).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{vin}");
            let problem: Value = response.json().await.unwrap();
            let named = |index: usize| problem["errors"][index]["parameter"].as_str().unwrap();
            assert_eq!((named(0), named(1)), ("limit", "vin"), "{problem}");
        }
    }
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_has_one_address() {
    let (platform, [stock, ads]) = platform().await;
    let id = entries(&platform, &stock).await[0]["id"].to_string();
    assert_eq!(platform.get(&format!("{stock}/{id}")).await.status(), StatusCode::OK);
    for other in [format!("+{id}"), format!("0{id}"), format!("%20{id}"), format!("{id}%20"), "-0".to_owned()]
    {
        let answer = platform.get(&format!("{stock}/{other}")).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{other}");
    }
    let id = entries(&platform, &ads).await[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(platform.get(&format!("{ads}/{id}")).await.status(), StatusCode::OK);
    for other in [id.to_uppercase(), id.replace('-', ""), format!("%7B{id}%7D"), format!("urn:uuid:{id}")] {
        let answer = platform.get(&format!("{ads}/{other}")).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{other}");
        let answer = platform.get(&format!("{ads}?after={other}")).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{other}");
    }
    for list in [&stock, &ads] {
        for query in ["limit=%2B5", "limit=05", "limit=%205", "after=%2B5", "after=05", "after=-0", "after="]
        {
            let answer = platform.get(&format!("{list}?{query}")).await;
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{query}");
        }
    }
    platform.finish().await;
}

#[tokio::test]
async fn text_that_shows_nothing_is_refused() {
    let platform = Platform::start(&["--roles", "stock"]).await;
    for invisible in ["\u{200b}", "\u{feff}", "\u{ad}\u{3164}", "\u{2800} \u{e0041}", "\u{fe0f}"] {
        let mut body = vehicle("vin");
        for field in ["vin", "model", "manufacturer", "odometerUnit"] {
            body[field] = invisible.into();
        }
        let refused: Value = platform.post(&body).await.json().await.unwrap();
        assert_eq!(refused["errors"].as_array().map(Vec::len), Some(4), "{invisible:?}: {refused}");
    }
    platform.finish().await;
}
