//! Tests that clients which send or read slowly shut out no others, and do not fill the memory.

use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::StatusCode;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use vehicle_platform::https;

use crate::http_edge::{PATIENCE, authority, await_alive, connect, lonely_stock, post_head};
use crate::support;
use crate::support::{eventually, free_port, http_client, vehicle};

#[tokio::test]
async fn slow_bodies_are_ended_and_do_not_shut_out_other_clients() {
    let directory = tempfile::tempdir().unwrap();
    let (mut role, url) = lonely_stock(directory.path(), &["--max-connections", "16"]);
    await_alive(&url).await;
    let head = post_head("Content-Type: application/json\r\nContent-Length: 65000\r\n");
    let mut slow = Vec::new();
    for _ in 0..16 {
        slow.push(connect(&url, format!("{head}{{").as_bytes()).await);
    }
    // The client waits for a connection until the server has closed the slow ones.
    let client = https::client().timeout(PATIENCE).build().unwrap();
    let began = Instant::now();
    let accepted = client.post(format!("{url}/stock")).json(&vehicle("patient")).send().await.unwrap();
    assert_eq!(accepted.status(), StatusCode::CREATED);
    assert!(began.elapsed() < PATIENCE);
    for mut stream in slow {
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("/problems/body-timeout"), "{answer}");
    }
    assert_eq!(support::terminate(&mut role.child).await.code(), Some(0));
}

#[tokio::test]
async fn clients_that_never_end_a_request_after_a_response_do_not_shut_out_others() {
    let directory = tempfile::tempdir().unwrap();
    let (mut role, url) = lonely_stock(directory.path(), &["--max-connections", "16"]);
    await_alive(&url).await;
    let whole = "GET /healthz HTTP/1.1\r\nHost: stock\r\n\r\n";
    let endless = "GET /healthz HTTP/1.1\r\nHost: stock\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut open = Vec::new();
    for number in 0..16 {
        let mut stream = connect(&url, [whole, endless][number % 2].as_bytes()).await;
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let read = stream.read_buf(&mut answer).await.unwrap();
            assert!(read > 0, "{answer:?}");
        }
        // The beginning of another request, or of a chunk.
        stream.write_all(b"1").await.unwrap();
        open.push(stream);
    }
    // The server closes them after half a minute.
    let client = https::client().timeout(support::DEADLINE).build().unwrap();
    let accepted = client.post(format!("{url}/stock")).json(&vehicle("patient")).send().await.unwrap();
    assert_eq!(accepted.status(), StatusCode::CREATED);
    for mut stream in open {
        // It ends, or it is reset because the server has not read all of it.
        let ended = tokio::time::timeout(support::DEADLINE, stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "a connection is still open");
    }
    assert_eq!(support::terminate(&mut role.child).await.code(), Some(0));
}

/// Each response would have more than a megabyte, and the platform has 32 MiB of room for all of them.
#[tokio::test]
async fn clients_that_read_no_page_are_limited_and_leave_room_for_small_responses() {
    let directory = tempfile::tempdir().unwrap();
    let (mut role, url) = lonely_stock(directory.path(), &[]);
    await_alive(&url).await;
    let client = http_client();
    let wide = "\u{1F697}".repeat(255);
    let posts = futures::stream::iter(0..600).map(async |number| {
        let mut body = vehicle(&format!("wide-{number}"));
        body["model"] = wide.clone().into();
        body["manufacturer"] = wide.clone().into();
        let answer = client.post(format!("{url}/stock")).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
    });
    posts.buffer_unordered(32).collect::<Vec<_>>().await;
    // The kernel takes the first responses.
    let list = "GET /stock?limit=1000 HTTP/1.1\r\nHost: stock\r\n\r\n".repeat(16);
    let mut open = Vec::new();
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut stream = socket.connect(authority(&url).parse().unwrap()).await.unwrap();
        stream.write_all(list.as_bytes()).await.unwrap();
        let mut start = [0; 13];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut start)).await.unwrap().unwrap();
        if &start == b"HTTP/1.1 503 " {
            break;
        }
        assert_eq!(&start, b"HTTP/1.1 200 ");
        open.push(stream);
        assert!(open.len() < 200, "all clients are served");
    }
    assert!(open.len() > 5);
    // What others do not read prevents neither a small response nor the metrics.
    for path in ["/stock?limit=1", "/stock/1", "/metrics"] {
        assert_eq!(
            client.get(format!("{url}{path}")).send().await.unwrap().status(),
            StatusCode::OK,
            "{path}"
        );
    }
    drop(open);
    eventually("room again", async || {
        let answer = client.get(format!("{url}/stock?limit=1000")).send().await.unwrap();
        (answer.status() == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(support::terminate(&mut role.child).await.code(), Some(0));
}

#[tokio::test]
async fn clients_that_disconnect_during_a_query_cause_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let (log, port) = (directory.path().join("log"), free_port().to_string());
    let database = format!("sqlite:{}", directory.path().join("stock.db").display());
    let nowhere = format!("127.0.0.1:{}", free_port());
    let mut stock = Command::new(support::BINARY)
        .args(["stock", "--port", &port, "--database-url", &database, "--log", "error"])
        .args(["--kafka-bootstrap-servers", &nowhere, "--schema-registry-url", &format!("http://{nowhere}")])
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let url = format!("http://127.0.0.1:{port}");
    await_alive(&url).await;
    let client = http_client();
    let posts = futures::stream::iter(0..200).map(async |number| {
        let post = client.post(format!("{url}/stock")).json(&vehicle(&format!("vin-{number}")));
        assert_eq!(post.send().await.unwrap().status(), StatusCode::CREATED);
    });
    posts.buffer_unordered(32).collect::<Vec<_>>().await;
    // Each client leaves after the first of several responses, while the server works on a later one.
    let list = "GET /stock?limit=1000 HTTP/1.1\r\nHost: stock\r\n\r\n".repeat(16);
    let visits = futures::stream::iter(0..200).map(async |_| {
        let mut stream = connect(&url, list.as_bytes()).await;
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut [0; 12])).await.unwrap().unwrap();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    visits.buffer_unordered(4).collect::<Vec<_>>().await;
    let answer = client.get(format!("{url}/stock?limit=1")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(support::terminate(&mut stock).await.code(), Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(log, "");
}
