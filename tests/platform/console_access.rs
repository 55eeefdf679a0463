//! Tests who may use the console, and what it serves to a browser.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::console::{Events, await_state, post, snapshot};
use crate::support::{Platform, RoleProcess, eventually, free_port, http_client, terminate, vehicle};

const KEY: &str = "a-key-0123456789";

/// Starts a console without anything to look at.
async fn lonely_console(arguments: &[&str]) -> (RoleProcess, String) {
    let port = free_port().to_string();
    let closed = "http://127.0.0.1:9";
    let base = [
        "console",
        "--port",
        &port,
        "--stock-url",
        closed,
        "--ads-url",
        closed,
        "--kafka-bootstrap-servers",
        "127.0.0.1:9",
    ];
    let console = RoleProcess::spawn(&[&base[..], arguments].concat());
    let page = format!("http://127.0.0.1:{port}");
    eventually("the page", async || http_client().get(&page).send().await.ok()).await;
    (console, page)
}

async fn status(request: reqwest::RequestBuilder) -> (StatusCode, String) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let problem = response.json::<Value>().await.unwrap_or_default();
    (status, problem["type"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let (mut console, page) = lonely_console(&["--allowed-host", "console.example"]).await;
    let client = http_client();
    for path in ["vehicles", "letters/replay", "letters/discard"] {
        let url = format!("{page}/{path}");
        let request = || client.post(&url).json(&json!({}));
        for (name, value, kind) in [
            ("origin", "http://evil.example", "/problems/foreign-page"),
            ("origin", "null", "/problems/foreign-page"),
            ("sec-fetch-site", "cross-site", "/problems/foreign-page"),
            ("sec-fetch-site", "same-site", "/problems/foreign-page"),
            ("host", "rebound.example", "/problems/foreign-host"),
        ] {
            let refused = status(request().header(name, value)).await;
            assert_eq!(refused, (StatusCode::FORBIDDEN, kind.to_owned()), "{path} {name}");
        }
        // A form cannot send JSON.
        let form = status(client.post(&url).header("content-type", "text/plain").body("{}")).await;
        assert_eq!(form.0, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path}");
        let own = request().header("origin", &page).header("sec-fetch-site", "same-origin");
        assert_ne!(status(own).await.0, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(status(client.get(&url)).await.0, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    // Under a name that is not allowed, the page itself states the reason.
    for path in ["", "app.js", "events"] {
        let rebound = client.get(format!("{page}/{path}")).header("host", "rebound.example");
        let foreign_host = (StatusCode::FORBIDDEN, "/problems/foreign-host".to_owned());
        assert_eq!(status(rebound).await, foreign_host, "{path}");
    }
    let linked = status(client.get(&page).header("sec-fetch-site", "cross-site")).await;
    assert_eq!(linked.0, StatusCode::OK);
    let events = format!("{page}/events");
    let foreign = status(client.get(&events).header("sec-fetch-site", "cross-site")).await;
    assert_eq!(foreign.0, StatusCode::FORBIDDEN);
    let proxied = client.get(&events).header("host", "console.example").send().await.unwrap();
    assert_eq!(proxied.status(), StatusCode::OK);
    drop(proxied);
    assert_eq!(terminate(&mut console.child).await.code(), Some(0));
}

#[tokio::test]
async fn a_read_only_console_changes_nothing() {
    let (mut console, page) = lonely_console(&["--read-only"]).await;
    for path in ["vehicles", "letters/replay", "letters/discard"] {
        let refused = status(http_client().post(format!("{page}/{path}")).json(&vehicle("vin"))).await;
        assert_eq!(refused, (StatusCode::FORBIDDEN, "/problems/read-only".to_owned()), "{path}");
    }
    let state = snapshot(&page).await;
    assert_eq!((&state["settings"]["readOnly"], &state["vehicles"]), (&json!(true), &json!([])));
    assert_eq!(terminate(&mut console.child).await.code(), Some(0));
}

#[tokio::test]
async fn a_browser_loads_the_page_from_one_origin_under_a_strict_policy() {
    let (mut console, page) = lonely_console(&[]).await;
    let client = http_client();
    let html = client.get(&page).send().await.unwrap();
    let policy = html.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"), "{policy}");
    let html = html.text().await.unwrap();
    let named = html.split(['"', '\'']).filter(|part| part.ends_with(".js") || part.ends_with(".css"));
    for file in named.chain(["icon.svg", "elements.js", "plots.js"]) {
        let served = client.get(format!("{page}/{file}")).send().await.unwrap();
        assert_eq!(served.status(), StatusCode::OK, "{file}");
        assert_eq!(served.headers()["x-content-type-options"], "nosniff");
        let text = served.text().await.unwrap();
        for banned in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!text.contains(banned), "{file} contains {banned}");
        }
        let foreign = text.split("http").skip(1).any(|rest| {
            rest.starts_with("://") && !rest.starts_with("://www.w3.org/2000/svg") || rest.starts_with("s://")
        });
        assert!(!foreign, "{file} names another host");
    }
    assert!(!html.contains("<style") && !html.contains(" style=") && !html.contains(" onclick="), "{html}");
    assert_eq!(terminate(&mut console.child).await.code(), Some(0));
}

#[tokio::test]
async fn the_console_of_dev_may_be_used_under_the_name_of_a_proxy() {
    let arguments = ["--roles", "stock", "--console-port", "0", "--allowed-host", "console.example"];
    let platform = Platform::start(&arguments).await;
    let under = async |host: &str| {
        let request = http_client().get(platform.console()).header("host", host);
        request.send().await.unwrap().status()
    };
    assert_eq!(under("console.example").await, StatusCode::OK);
    assert_eq!(under("rebound.example").await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_number_of_open_pages_is_bounded() {
    let (mut console, page) = lonely_console(&[]).await;
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(Events::open(&page, None).await);
    }
    let refused = status(http_client().get(format!("{page}/events"))).await;
    assert_eq!(refused, (StatusCode::SERVICE_UNAVAILABLE, "/problems/overloaded".to_owned()));
    drop(open.pop());
    eventually("room for another page", async || {
        let response = http_client().get(format!("{page}/events")).send().await.unwrap();
        (response.status() == StatusCode::OK).then_some(())
    })
    .await;
    drop(open);
    assert_eq!(terminate(&mut console.child).await.code(), Some(0));
}

#[tokio::test]
async fn a_page_is_not_open_after_a_look_at_the_headers_of_its_events() {
    let (mut console, page) = lonely_console(&[]).await;
    let events = format!("{page}/events");
    for _ in 0..65 {
        let headers = http_client().head(&events).send().await.unwrap();
        assert_eq!(
            (headers.status(), headers.headers()["content-type"].to_str().unwrap()),
            (StatusCode::OK, "text/event-stream")
        );
    }
    assert_eq!(http_client().get(&events).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(terminate(&mut console.child).await.code(), Some(0));
}

#[tokio::test]
async fn dead_letters_do_not_wait_behind_others_while_the_brokers_do_not_answer() {
    let (mut console, page) = lonely_console(&[]).await;
    let discard = async || {
        let letters = json!({ "letters": ["stock.vehicle-created/0/0"] });
        post(&format!("{page}/letters/discard"), &letters).await
    };
    // One of them is tried for a minute.
    let refused = tokio::select! {
        refused = discard() => refused,
        refused = discard() => refused,
    };
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(refused.json::<Value>().await.unwrap()["type"], "/problems/overloaded");
    console.child.kill().unwrap();
    console.child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_need_the_key_which_is_passed_on_to_stock() {
    let platform =
        Platform::start(&["--processing-time", "0s", "--console-port", "0", "--api-key", KEY]).await;
    let console = platform.console();
    for path in ["vehicles", "letters/replay", "letters/discard"] {
        let refused = post(&format!("{console}/{path}"), &vehicle("vin")).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    let accepted = http_client()
        .post(format!("{console}/vehicles"))
        .bearer_auth(KEY)
        .json(&vehicle("vin"))
        .send()
        .await
        .unwrap();
    assert_eq!(accepted.status(), StatusCode::CREATED);
    await_state(console, "its ad", |state| state["vehicles"][0]["ad"].as_str().map(|_| ())).await;
    let invalid = http_client()
        .post(format!("{console}/vehicles"))
        .bearer_auth(KEY)
        .json(&json!({ "vin": "vin" }))
        .send()
        .await
        .unwrap();
    assert_eq!(invalid.status(), StatusCode::BAD_REQUEST);
    assert_eq!(invalid.headers()["content-type"], "application/problem+json");
    assert_eq!(snapshot(console).await["settings"]["needsKey"], true);
    platform.finish().await;
}
