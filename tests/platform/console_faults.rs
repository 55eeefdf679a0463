//! Tests what the console shows while parts of the platform are unavailable, lose their data, or do not read.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use crate::console::{await_counting, await_state, post, snapshot};
use crate::support::kafka::produce_all;
use crate::support::role::Role;
use crate::support::topics::{create_topic, delete_topic};
use crate::support::{
    BINARY, DEADLINE, Platform, RoleProcess, eventually, eventually_within, free_port, http_client,
    terminate, vehicle,
};

const CREATED: &str = "stock.vehicle-created";
const PROCESSED: &str = "stock.vehicle-processed";

/// A console, and the addresses of a platform that need not run.
struct Watched {
    stock: String,
    ads: String,
    kafka: String,
    data: TempDir,
    console: RoleProcess,
    page: String,
}

impl Watched {
    async fn start() -> Self {
        let [port, stock, ads, kafka] = [(); 4].map(|()| free_port().to_string());
        let url = |port: &str| format!("http://127.0.0.1:{port}");
        let console = RoleProcess::spawn(&[
            "console",
            "--port",
            &port,
            "--stock-url",
            &url(&stock),
            "--ads-url",
            &url(&ads),
            "--kafka-bootstrap-servers",
            &format!("127.0.0.1:{kafka}"),
            "--processing-time",
            "0s",
        ]);
        let page = url(&port);
        eventually("the page", async || http_client().get(&page).send().await.ok()).await;
        Self { stock, ads, kafka, data: tempfile::tempdir().unwrap(), console, page }
    }

    fn start_platform(&self) -> RoleProcess {
        let child = std::process::Command::new(BINARY)
            .args(["dev", "--processing-time", "0s", "--console-port", "none", "--registry-port", "0"])
            .args(["--stock-port", &self.stock, "--ads-port", &self.ads, "--kafka-port", &self.kafka])
            .arg("--data-dir")
            .arg(self.data.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        RoleProcess { child }
    }

    /// Waits until every role is unreachable, and the brokers do not answer.
    async fn await_silence(&self) {
        await_state(&self.page, "nothing to answer", |state| {
            let roles = state["roles"].as_array()?;
            let silent = roles.iter().all(|role| role["readiness"] == "unreachable");
            (!roles.is_empty() && silent && state["kafka"]["error"].is_string()).then_some(())
        })
        .await;
    }

    async fn post(&self, vin: &str) {
        let url = format!("{}/vehicles", self.page);
        eventually("stock to accept", async || {
            let status = post(&url, &vehicle(vin)).await.status().as_u16();
            [201, 409].contains(&status).then_some(())
        })
        .await;
    }

    async fn await_ads(&self, count: u64) {
        await_counts(&self.page, count).await;
    }
}

/// Waits until `count` vehicles have been accepted and have an ad. None may be lost or doubled.
async fn await_counts(page: &str, count: u64) {
    let expected = json!({ "accepted": count, "ads": count, "onTheirWay": 0, "lost": 0, "doubled": 0 });
    await_state(page, &format!("{count} ads"), |state| {
        let names = expected.as_object().unwrap().keys();
        let counts: serde_json::Map<_, _> =
            names.map(|name| (name.clone(), state["counts"][name].clone())).collect();
        (Value::Object(counts) == expected).then_some(())
    })
    .await;
}

/// Checks the counts for longer than it takes until a vehicle without an ad counts as lost: 20 s without an estimate.
async fn while_a_loss_would_appear(page: &str, check: impl Fn(&Value)) {
    let last_sample = async || {
        let state = snapshot(page).await;
        check(&state["counts"]);
        state["samples"].as_array().unwrap().last().and_then(|sample| sample["at"].as_i64())
    };
    let begun = eventually("a sample", last_sample).await;
    eventually("samples of 25 s", async || (last_sample().await? >= begun + 25_000).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_that_starts_before_everything_else_catches_up() {
    let mut watched = Watched::start().await;
    let is_ready = async || {
        let ready = http_client().get(format!("{}/readyz", watched.page)).send().await.unwrap();
        ready.status() == StatusCode::OK
    };
    assert!(!is_ready().await, "Kafka is unavailable");
    watched.await_silence().await;
    assert!(!is_ready().await, "Kafka is unavailable");
    let mut platform = watched.start_platform();
    eventually("the console to be ready", async || is_ready().await.then_some(())).await;
    await_counting(&watched.page).await;
    watched.post("late").await;
    watched.await_ads(1).await;
    await_state(&watched.page, "its records", |state| state["vehicles"][0]["processed"]["offset"].as_i64())
        .await;
    assert_eq!(terminate(&mut platform.child).await.code(), Some(0));
    watched.await_silence().await;
    while_a_loss_would_appear(&watched.page, |counts| {
        assert_eq!(
            (&counts["ads"], &counts["onTheirWay"], &counts["lost"]),
            (&json!(1), &json!(0), &json!(0))
        );
    })
    .await;
    assert_eq!(terminate(&mut watched.console.child).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_is_killed_and_comes_back_is_counted_on() {
    let mut watched = Watched::start().await;
    let mut platform = watched.start_platform();
    await_counting(&watched.page).await;
    for number in 0..5 {
        watched.post(&format!("before-{number}")).await;
    }
    platform.child.kill().unwrap();
    platform.child.wait().unwrap();
    watched.await_silence().await;
    let mut platform = watched.start_platform();
    for number in 0..5 {
        watched.post(&format!("after-{number}")).await;
    }
    watched.await_ads(10).await;
    await_state(&watched.page, "an answer of the brokers", |state| state["kafka"]["error"].as_null()).await;
    await_state(&watched.page, "all records", |state| {
        let vehicles = state["vehicles"].as_array()?;
        vehicles.iter().all(|way| way["processed"].is_object() && way["ad"].is_string()).then_some(())
    })
    .await;
    assert_eq!(terminate(&mut platform.child).await.code(), Some(0));
    assert_eq!(terminate(&mut watched.console.child).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn counting_begins_again_on_an_empty_platform() {
    let mut watched = Watched::start().await;
    let mut platform = watched.start_platform();
    await_counting(&watched.page).await;
    for number in 0..5 {
        watched.post(&format!("before-{number}")).await;
    }
    watched.await_ads(5).await;
    platform.child.kill().unwrap();
    platform.child.wait().unwrap();
    watched.data = tempfile::tempdir().unwrap();
    let mut platform = watched.start_platform();
    await_state(&watched.page, "a new count", |state| (state["counts"]["accepted"] == 0).then_some(())).await;
    // The lists of stock and of ads begin a new count independently. One of both may not have done so yet.
    let mut posted = 0;
    eventually("a vehicle that counts", async || {
        posted += 1;
        watched.post(&format!("after-{posted}")).await;
        let counts = &snapshot(&watched.page).await["counts"];
        (counts["accepted"].as_i64()? > 0 && counts["ads"] == counts["accepted"]).then_some(())
    })
    .await;
    assert_eq!(terminate(&mut platform.child).await.code(), Some(0));
    assert_eq!(terminate(&mut watched.console.child).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn vehicles_wait_for_an_estimator_that_is_away() {
    let arguments = ["--roles", "stock,ads", "--processing-time", "0s", "--console-port", "0"];
    let platform = Platform::start(&arguments).await;
    let console = platform.console();
    await_counting(console).await;
    for vin in ["one", "two", "three"] {
        platform.accept(vin).await;
    }
    await_state(console, "the lag", |state| (state["groups"]["estimate"]["lag"] == 3).then_some(())).await;
    await_state(console, "late vehicles", |state| (state["counts"]["late"] == 3).then_some(())).await;
    while_a_loss_would_appear(console, |counts| {
        assert_eq!((&counts["onTheirWay"], &counts["lost"]), (&json!(3), &json!(0)), "{counts}");
    })
    .await;
    let estimator = Role::join(&platform, "estimate", &["--processing-time", "0s"]);
    await_counts(console, 3).await;
    await_state(console, "no lag", |state| {
        let group = &state["groups"]["estimate"];
        (group["lag"] == 0 && group["members"].as_array()?.len() == 1).then_some(())
    })
    .await;
    drop(estimator);
    await_state(console, "no member", |state| {
        state["groups"]["estimate"]["members"].as_array()?.is_empty().then_some(())
    })
    .await;
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_created_again_do_not_disturb_the_counts() {
    let platform = Platform::start(&["--processing-time", "0s", "--console-port", "0"]).await;
    let console = platform.console();
    await_counting(console).await;
    for number in 0..30 {
        platform.accept(&format!("before-{number}")).await;
    }
    await_counts(console, 30).await;
    let mut count = 30;
    for topic in [CREATED, PROCESSED] {
        delete_topic(platform.kafka(), topic).await;
        create_topic(platform.kafka(), topic, &[]).await;
        for number in 0..4 {
            let body = vehicle(&format!("after-{topic}-{number}"));
            let accepted = post(&format!("{console}/vehicles"), &body).await;
            assert_eq!(accepted.status(), 201);
        }
        count += 4;
        await_counts(console, count).await;
        // The page shows the records of the new log.
        let kind = if topic == CREATED { "created" } else { "processed" };
        await_state(console, "records of the new topic", |state| {
            let ways = state["vehicles"].as_array()?.iter();
            let mut ways = ways.filter(|way| way["vin"].as_str().unwrap().contains(topic));
            ways.all(|way| way[kind]["offset"].as_i64().is_some_and(|offset| offset < 10)).then_some(())
        })
        .await;
    }
    await_state(console, "no lag", |state| {
        let groups = &state["groups"];
        (groups["estimate"]["lag"] == 0 && groups["ads"]["lag"] == 0).then_some(())
    })
    .await;
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vehicle_whose_event_was_destroyed_is_lost_until_it_is_published_again() {
    let arguments = ["--roles", "stock,ads", "--processing-time", "0s", "--console-port", "0"];
    let platform = Platform::start(&arguments).await;
    let console = platform.console();
    await_counting(console).await;
    platform.accept("first").await;
    platform.accept("second").await;
    await_state(console, "both events", |state| (state["totals"]["published"] == 2).then_some(())).await;
    platform.await_empty_outbox().await;
    delete_topic(platform.kafka(), CREATED).await;
    create_topic(platform.kafka(), CREATED, &[]).await;
    let _estimator = Role::join(&platform, "estimate", &["--processing-time", "0s"]);
    platform.accept("third").await;
    // A loss appears some 40 seconds after its vehicle is late.
    eventually_within(3 * DEADLINE, "two lost vehicles", async || {
        let counts = &snapshot(console).await["counts"];
        (counts["ads"] == 1 && counts["lost"] == 2 && counts["onTheirWay"] == 0).then_some(())
    })
    .await;
    let repaired = platform.tool(&["audit", "--repair", "--processing-time", "0s"]);
    assert!(!repaired.stdout.is_empty(), "{repaired:?}");
    await_counts(console, 3).await;
    platform.finish().await;
}

/// Returns whether the server still serves the connection of a client, whose own end shows nothing: what the server sends
/// last waits behind what the client does not read.
fn is_served(server: SocketAddr, client: SocketAddr) -> bool {
    let hex = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // 01 is ESTABLISHED.
    lines.any(|fields| fields[1] == hex(server) && fields[2] == hex(client) && fields[3] == "01")
}

fn memory_mib(pid: u32) -> u64 {
    status_mib(pid, "VmRSS:")
}

fn status_mib(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
}

/// Returns the most memory that a process has used, in MiB.
fn peak_mib(pid: u32) -> u64 {
    status_mib(pid, "VmHWM:")
}

#[tokio::test(flavor = "multi_thread")]
async fn large_dead_letters_are_resolved_in_bounded_memory() {
    const LETTERS: usize = 100;
    let mut watched = Watched::start().await;
    let mut platform = watched.start_platform();
    await_counting(&watched.page).await;
    let records = vec![("key".to_owned(), vec![b'x'; 900_000]); LETTERS];
    produce_all(&format!("127.0.0.1:{}", watched.kafka), CREATED, &records, "none").await;
    let ids = await_state(&watched.page, "the dead letters", |state| {
        let shown = state["letters"]["shown"].as_array()?;
        (shown.len() == LETTERS).then(|| shown.iter().map(|letter| letter["id"].clone()).collect::<Vec<_>>())
    })
    .await;
    let before = peak_mib(watched.console.child.id());
    let replayed = post(&format!("{}/letters/replay", watched.page), &json!({ "letters": ids })).await;
    let replayed: Value = replayed.json().await.unwrap();
    assert_eq!(replayed["resolved"].as_array().map(Vec::len), Some(LETTERS), "{replayed}");
    let more = peak_mib(watched.console.child.id()) - before;
    assert!(more < 64, "{more} MiB more");
    assert_eq!(terminate(&mut platform.child).await.code(), Some(0));
    assert_eq!(terminate(&mut watched.console.child).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_do_not_read_cost_bounded_memory_and_are_closed() {
    const PAGES: usize = 24;
    let platform = Platform::start(&["--processing-time", "0s", "--console-port", "0"]).await;
    let console = platform.console();
    await_counting(console).await;
    let server: SocketAddr = console.strip_prefix("http://").unwrap().parse().unwrap();
    let open = async || -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut stream = socket.connect(server).await.unwrap();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        stream
    };
    // Every further dead letter causes an event with all that are shown.
    let key = "\u{1F697}".repeat(80);
    let letters = async |count: usize| {
        let records = vec![(key.clone(), b"garbage".to_vec()); count];
        produce_all(platform.kafka(), CREATED, &records, "none").await;
    };
    letters(200).await;
    await_state(console, "the dead letters", |state| (state["letters"]["waiting"] == 200).then_some(()))
        .await;
    let before = memory_mib(platform.pid());
    let mut pages = Vec::new();
    for _ in 0..PAGES {
        let page = open().await;
        page.readable().await.unwrap();
        assert!(is_served(server, page.local_addr().unwrap()));
        pages.push(page);
    }
    eventually_within(Duration::from_secs(300), "the pages to be closed", async || {
        letters(2).await;
        let served = |page: &TcpStream| is_served(server, page.local_addr().unwrap());
        (!pages.iter().any(served)).then_some(())
    })
    .await;
    let more = memory_mib(platform.pid()).saturating_sub(before);
    assert!(more < 64, "{more} MiB more");
    assert_eq!(snapshot(console).await["counts"]["lost"], 0);
    platform.finish().await;
}
