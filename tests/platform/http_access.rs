//! Tests who may use the API: clients with a key, and web pages of other origins.

use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use crate::support::{Platform, http_client, vehicle};

const KEY: &str = "a-key-of-the-first-client";
const OTHER_KEY: &str = "a-key-of-another-client";

async fn post(platform: &Platform, vin: &str, authorization: &[&str]) -> Response {
    let request = http_client().post(format!("{}/stock", platform.stock())).json(&vehicle(vin));
    let with = |request: reqwest::RequestBuilder, value: &&str| request.header("authorization", *value);
    authorization.iter().fold(request, with).send().await.unwrap()
}

#[tokio::test]
async fn a_post_needs_one_of_the_keys_and_a_get_needs_none() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    std::fs::write(&file, format!("{KEY}\n{OTHER_KEY}\n")).unwrap();
    let file = file.to_str().unwrap();
    let platform = Platform::start(&["--roles", "stock,ads", "--api-key-file", file]).await;
    let (valid, other) = (format!("Bearer {KEY}"), format!("bearer {OTHER_KEY}"));
    for wrong in [
        &[][..],
        &["Bearer"],
        &["Bearer wrong-key-0123456789"],
        &[&format!("Basic {KEY}")],
        &[&format!("{valid}x")],
        &[&valid, &valid],
    ] {
        let refused = post(&platform, "refused", wrong).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{wrong:?}");
        assert_eq!(refused.headers()["www-authenticate"], "Bearer");
        let problem: Value = refused.json().await.unwrap();
        assert_eq!(problem["type"], "/problems/unauthorized");
    }
    for (vin, key) in [("first", &valid), ("second", &other)] {
        assert_eq!(post(&platform, vin, &[key]).await.status(), StatusCode::CREATED);
    }
    assert_eq!(platform.list(platform.stock(), "/stock").await.len(), 2);
    for (base, secured) in [(platform.stock(), true), (platform.ads_url(), false)] {
        let document: Value = platform.get(&format!("{base}/openapi.json")).await.json().await.unwrap();
        let schemes = &document["components"]["securitySchemes"];
        assert_eq!(schemes["apiKey"]["scheme"] == "bearer", secured, "{schemes}");
        let post = &document["paths"]["/stock"]["post"];
        assert_eq!(post["responses"].get("401").is_some(), secured);
        assert_eq!(post.get("security").is_some(), secured);
    }
    platform.finish().await;
}

#[tokio::test]
async fn without_keys_a_post_needs_none() {
    let platform = Platform::start(&["--roles", "stock"]).await;
    assert_eq!(post(&platform, "free", &[]).await.status(), StatusCode::CREATED);
    let document: Value =
        platform.get(&format!("{}/openapi.json", platform.stock())).await.json().await.unwrap();
    assert!(document["components"].get("securitySchemes").is_none());
    assert!(document["paths"]["/stock"]["post"]["responses"].get("401").is_none());
    platform.finish().await;
}

const PAGE: &str = "http://127.0.0.1:5173";

async fn ask(method: Method, url: &str, headers: &[(&'static str, &str)]) -> (StatusCode, HeaderMap, String) {
    let mut request = http_client().request(method, url);
    for (name, value) in headers {
        request = request.header(HeaderName::from_static(name), *value);
    }
    let answer = request.send().await.unwrap();
    (answer.status(), answer.headers().clone(), answer.text().await.unwrap())
}

#[tokio::test]
async fn only_pages_of_the_given_origins_may_use_the_api() {
    let platform = Platform::start(&["--roles", "stock,ads", "--cors-origin", PAGE]).await;
    let stock = format!("{}/stock", platform.stock());
    let preflight = async |origin: &str, method: &str, headers: &str| {
        let asked = [
            ("origin", origin),
            ("access-control-request-method", method),
            ("access-control-request-headers", headers),
        ];
        ask(Method::OPTIONS, &stock, &asked).await
    };
    let (status, headers, _) =
        preflight(PAGE, "POST", "content-type,idempotency-key,authorization,traceparent").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["access-control-allow-origin"], PAGE);
    assert!(headers["access-control-allow-methods"].to_str().unwrap().contains("POST"));
    for (origin, method, header) in [
        ("http://127.0.0.1:5174", "POST", "content-type"),
        (PAGE, "DELETE", "content-type"),
        (PAGE, "POST", "x-anything"),
    ] {
        let (status, headers, body) = preflight(origin, method, header).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{origin} {method} {header}");
        assert_eq!(headers["content-type"], "application/problem+json");
        assert!(body.contains("/problems/cross-origin-refused"), "{body}");
    }

    for url in [&stock, &format!("{}/ads", platform.ads_url())] {
        let (status, headers, _) = ask(Method::GET, url, &[("origin", PAGE)]).await;
        assert_eq!(
            (status, &headers["access-control-allow-origin"]),
            (StatusCode::OK, &PAGE.parse().unwrap())
        );
        let exposed = headers["access-control-expose-headers"].to_str().unwrap().to_lowercase();
        for name in ["link", "etag", "location", "retry-after"] {
            assert!(exposed.contains(name), "{exposed}");
        }
        assert!(headers["vary"].to_str().unwrap().to_lowercase().contains("origin"));
        let (status, headers, _) = ask(Method::GET, url, &[("origin", "http://127.0.0.1:5174")]).await;
        assert_eq!((status, headers.get("access-control-allow-origin")), (StatusCode::OK, None));
    }
    // Not a preflight request.
    let (status, headers, _) = ask(Method::OPTIONS, &stock, &[("origin", PAGE)]).await;
    assert_eq!(
        (status, &headers["allow"]),
        (StatusCode::METHOD_NOT_ALLOWED, &"GET, HEAD, POST".parse().unwrap())
    );
    platform.finish().await;
}

#[tokio::test]
async fn no_page_of_another_origin_may_use_the_api_by_default() {
    let platform = Platform::start(&["--roles", "stock"]).await;
    let stock = format!("{}/stock", platform.stock());
    let (status, headers, _) = ask(Method::GET, &stock, &[("origin", PAGE)]).await;
    assert_eq!((status, headers.get("access-control-allow-origin")), (StatusCode::OK, None));
    let preflight = [("origin", PAGE), ("access-control-request-method", "POST")];
    let (status, headers, _) = ask(Method::OPTIONS, &stock, &preflight).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(headers.get("access-control-allow-origin").is_none());
    platform.finish().await;
}

#[tokio::test]
async fn a_star_lets_pages_of_all_origins_use_the_api() {
    for origins in ["*", "*,https://shop.example", "https://shop.example,*"] {
        let platform = Platform::start(&["--roles", "stock", "--cors-origin", origins]).await;
        let stock = format!("{}/stock", platform.stock());
        let (_, headers, _) = ask(Method::GET, &stock, &[("origin", PAGE)]).await;
        assert_eq!(headers["access-control-allow-origin"], "*", "{origins}");
        platform.finish().await;
    }
}
