//! Tests health checks, and how signals end tools.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use tokio::time::timeout;

use crate::support::{BINARY, DEADLINE, Platform, RoleProcess, eventually, free_port, signal};

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn a_health_check_succeeds_when_the_role_is_ready() {
    let platform = Platform::start(&[]).await;
    for url in [platform.stock(), platform.ads_url()] {
        let (_, port) = url.rsplit_once(':').unwrap();
        let output = run(&["healthcheck", "--port", port]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(output.stdout, b"ready\n");
    }
    platform.finish().await;
}

#[test]
fn a_health_check_reads_a_long_answer_of_another_program_in_part() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = BufReader::new(client.try_clone().unwrap()).lines();
        while !request.next().unwrap().unwrap().is_empty() {}
        client.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n{\"missing\":{\"").unwrap();
        // Fails as soon as nothing reads it.
        while client.write_all(&[b'x'; 65_536]).is_ok() {}
    });
    let output = run(&["healthcheck", "--port", &port]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("another program"), "{}", stderr(&output));
    server.join().unwrap();
}

#[tokio::test]
async fn a_health_check_names_the_missing_dependencies() {
    let (port, nowhere) = (free_port().to_string(), free_port().to_string());
    let kafka = format!("127.0.0.1:{nowhere}");
    let registry = format!("http://127.0.0.1:{nowhere}");
    let arguments = ["--kafka-bootstrap-servers", &kafka, "--schema-registry-url", &registry];
    let _estimate = RoleProcess::spawn(&[&["estimate", "--port", &port], &arguments[..]].concat());
    let output = eventually("an answer of the role", async || {
        // Sets the role's port by the variable, and a proxy that must not be used.
        let mut command = Command::new(BINARY);
        command.arg("healthcheck").env("PORT", &port).env("http_proxy", &registry);
        let output = command.output().unwrap();
        (!stderr(&output).contains("no role answers")).then_some(output)
    })
    .await;
    assert_eq!(output.status.code(), Some(1));
    for dependency in ["kafka (", "schema-registry ("] {
        assert!(stderr(&output).contains(dependency), "{}", stderr(&output));
    }
}

#[test]
fn a_health_check_without_a_role_names_the_address() {
    let port = free_port().to_string();
    let output = run(&["healthcheck", "--port", &port]);
    assert_eq!(output.status.code(), Some(1));
    let named = format!("http://127.0.0.1:{port}/readyz");
    assert!(stderr(&output).contains(&named), "{}", stderr(&output));
}

#[test]
fn a_health_check_of_another_program_reports_it() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let other = std::thread::spawn(move || {
        let (connection, _) = listener.accept().unwrap();
        let mut request = BufReader::new(&connection).lines();
        assert!(request.any(|line| line.unwrap().is_empty()), "the request has no end");
        (&connection).write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    let output = run(&["healthcheck", "--port", &port]);
    other.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("another program"), "{}", stderr(&output));
}

#[tokio::test]
async fn a_signal_ends_a_tool_that_waits() {
    for (tool, name) in [(["dlq", "list"], "TERM"), (["dlq", "list"], "INT"), (["schemas", "check"], "TERM")]
    {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let mut child = Command::new(BINARY)
            .args(tool)
            .env("KAFKA_BOOTSTRAP_SERVERS", &address)
            .env("SCHEMA_REGISTRY_URL", format!("http://{address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _client = timeout(DEADLINE, silent.accept()).await.unwrap().unwrap();
        signal(&child, name);
        let status = eventually("the tool to end", async || child.try_wait().unwrap()).await;
        assert_eq!(status.code(), Some(1), "{tool:?}");
        let reason = stderr(&child.wait_with_output().unwrap());
        assert!(reason.contains(&format!("ended by SIG{name}")), "{reason}");
    }
}
