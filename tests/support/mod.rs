//! Drives the platform from outside: through its process, HTTP and Kafka.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod cluster;
#[cfg(feature = "embedded")]
pub mod empty_metadata;
pub mod end_txn;
pub mod engines;
pub mod frames;
pub mod home;
pub mod kafka;
pub mod node;
pub mod peer;
pub mod postgres;
pub mod proxy;
pub mod registry;
pub mod role;
pub mod topics;
#[cfg(feature = "embedded")]
pub mod wire;

use std::fmt::Debug;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::dsl::sql;
use diesel::sql_types::BigInt;
use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection};
use reqwest::{Client, IntoUrl, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use vehicle_platform::https;

/// Long enough for a busy machine. A wait ends as soon as its condition holds.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub const BINARY: &str = env!("CARGO_BIN_EXE_vehicle-platform");

/// The allocator's setting in the image, for processes whose memory is measured.
pub const ALLOCATOR: (&str, &str) = ("MALLOC_ARENA_MAX", "2");

/// Polls `condition` until it returns a value, for at most [`DEADLINE`].
pub async fn eventually<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(DEADLINE, what, condition).await
}

/// Polls `condition` until it returns a value, for at most `limit`.
pub async fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(started.elapsed() < limit, "timed out waiting for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Returns the body of a vehicle, as documented.
pub fn vehicle(vin: &str) -> Value {
    json!({
        "vin": vin, "model": "model", "manufacturer": "manufacturer",
        "year": 2022, "odometer": 1000, "odometerUnit": "odometerUnit"
    })
}

/// Returns an HTTP client with the default settings.
pub fn http_client() -> Client {
    https::client().build().unwrap()
}

/// Sends a GET request.
pub async fn get(url: impl IntoUrl) -> reqwest::Result<Response> {
    http_client().get(url).send().await
}

/// A separate `vehicle-platform dev` for a test.
pub struct Platform {
    data_dir: TempDir,
    arguments: Vec<String>,
    process: Dev,
    client: reqwest::Client,
}

/// A running process and its addresses.
struct Dev {
    child: Child,
    stock: String,
    ads: String,
    console: String,
    kafka: String,
    registry: String,
}

impl Platform {
    /// Starts the platform on free ports with an empty data directory, and waits until it is ready.
    pub async fn start(arguments: &[&str]) -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let process = Dev::spawn(data_dir.path(), &arguments);
        let platform = Self { data_dir, arguments, process, client: http_client() };
        platform.await_ready().await;
        platform
    }

    pub fn stock(&self) -> &str {
        &self.process.stock
    }

    pub fn ads_url(&self) -> &str {
        &self.process.ads
    }

    /// Returns the address of the console, which runs only with `--console-port`.
    pub fn console(&self) -> &str {
        &self.process.console
    }

    pub fn kafka(&self) -> &str {
        &self.process.kafka
    }

    pub fn registry(&self) -> &str {
        &self.process.registry
    }

    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// Kills the process as a power failure would, and restarts it on the same data.
    pub async fn kill_and_restart(&mut self) {
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
        self.process = Dev::spawn(self.data_dir.path(), &self.arguments);
        self.await_ready().await;
    }

    /// Kills the process.
    pub fn kill(mut self) {
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
    }

    async fn await_ready(&self) {
        for url in [&self.process.stock, &self.process.ads] {
            if !url.is_empty() {
                let url = format!("{url}/readyz");
                eventually(&url, async || {
                    let response = self.client.get(&url).send().await.ok()?;
                    response.status().is_success().then_some(())
                })
                .await;
            }
        }
    }

    pub async fn post(&self, body: &Value) -> Response {
        self.client.post(format!("{}/stock", self.process.stock)).json(body).send().await.unwrap()
    }

    /// Posts a vehicle that must be accepted.
    pub async fn accept(&self, vin: &str) -> Value {
        let response = self.post(&vehicle(vin)).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        response.json().await.unwrap()
    }

    pub async fn get(&self, url: &str) -> Response {
        self.client.get(url).send().await.unwrap()
    }

    /// Returns the items of all pages of a list.
    pub async fn list(&self, base: &str, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut next = Some(format!("{base}{path}?limit=1000"));
        while let Some(url) = next {
            let response = self.get(&url).await;
            assert_eq!(response.status(), StatusCode::OK, "{url}");
            next = next_page(base, &response);
            items.extend(response.json::<Vec<Value>>().await.unwrap());
        }
        items
    }

    pub async fn ads(&self) -> Vec<Value> {
        self.list(&self.process.ads, "/ads").await
    }

    /// Waits until there are `count` ads.
    pub async fn await_ads(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} ads"), async || {
            let ads = self.ads().await;
            (ads.len() >= count).then_some(ads)
        })
        .await
    }

    /// Runs one of the tools on this platform.
    pub fn tool(&self, arguments: &[&str]) -> Output {
        let database = |name: &str| format!("sqlite:{}", self.data_dir().join(name).display());
        Command::new(BINARY)
            .args(arguments)
            .env("KAFKA_BOOTSTRAP_SERVERS", self.kafka())
            .env("SCHEMA_REGISTRY_URL", self.registry())
            .env("STOCK_DATABASE_URL", database("stock.db"))
            .env("ADS_DATABASE_URL", database("ads.db"))
            .output()
            .unwrap()
    }

    /// Terminates the platform gracefully once it has published all events.
    pub async fn finish(self) {
        self.await_empty_outbox().await;
        self.end().await;
    }

    /// Waits until the relay has recorded that all events are published. The metric of the outbox's depth would not
    /// do: it is as old as the latest readiness check.
    pub async fn await_empty_outbox(&self) {
        if !self.process.stock.is_empty() {
            eventually("an empty outbox", async || (self.unpublished_events() == 0).then_some(())).await;
        }
    }

    fn unpublished_events(&self) -> i64 {
        let path = self.data_dir().join("stock.db");
        let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 5000").unwrap();
        let unpublished = sql::<BigInt>(
            "(SELECT count(*) FROM event_log
              WHERE id > coalesce((SELECT max(last_id) FROM relay_position), 0))",
        );
        diesel::select(unpublished).get_result(&mut connection).unwrap()
    }

    /// Waits until the process ends by itself.
    pub async fn ended(mut self) -> ExitStatus {
        eventually("the process to end", async || self.process.child.try_wait().unwrap()).await
    }

    /// Terminates the platform gracefully, even with events to be published.
    pub async fn end(mut self) {
        let status = terminate(&mut self.process.child).await;
        assert_eq!(status.code(), Some(0), "the platform did not exit with 0");
    }
}

/// Returns the URL of the next page in the `Link` header.
pub fn next_page(base: &str, response: &Response) -> Option<String> {
    let link = response.headers().get("link")?.to_str().unwrap();
    let (path, relation) = link.split_once(">; ").unwrap();
    assert_eq!(relation, "rel=\"next\"");
    Some(format!("{base}{}", path.strip_prefix('<').unwrap()))
}

impl Dev {
    fn spawn(data_dir: &Path, arguments: &[String]) -> Self {
        let with_console = arguments.iter().any(|argument| argument == "--console-port");
        let mut child = Command::new(BINARY)
            .args([
                "dev",
                "--kafka-port",
                "0",
                "--registry-port",
                "0",
                "--stock-port",
                "0",
                "--ads-port",
                "0",
            ])
            .args(["--console-port", "none"].iter().filter(|_| !with_console))
            .arg("--data-dir")
            .arg(data_dir)
            .args(arguments)
            .envs([ALLOCATOR])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        Self::read_addresses(child, output)
    }

    /// Reads the addresses that the platform prints.
    fn read_addresses(child: Child, output: impl std::io::Read) -> Self {
        let mut dev = Self {
            child,
            stock: String::new(),
            ads: String::new(),
            console: String::new(),
            kafka: String::new(),
            registry: String::new(),
        };
        for line in BufReader::new(output).lines() {
            let line = line.unwrap();
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["stock", url] => dev.stock = url.strip_suffix("/stock").unwrap().to_owned(),
                ["ads", url] => dev.ads = url.strip_suffix("/ads").unwrap().to_owned(),
                ["console", url] => dev.console = url.to_owned(),
                ["kafka", address] => dev.kafka = address.to_owned(),
                ["schema", "registry", url] => dev.registry = url.to_owned(),
                ["Try:"] => return dev,
                _ => {}
            }
        }
        panic!("the platform ended before it printed its addresses");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A role in a separate process.
pub struct RoleProcess {
    pub child: Child,
}

impl RoleProcess {
    pub fn spawn(arguments: &[&str]) -> Self {
        let child = Command::new(BINARY).args(arguments).spawn().unwrap();
        Self { child }
    }
}

impl Drop for RoleProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Sends SIGTERM and waits for the end of the process.
pub async fn terminate(child: &mut Child) -> ExitStatus {
    signal(child, "TERM");
    eventually("the process to end", async || child.try_wait().unwrap()).await
}

/// Sends a signal, named without SIG.
pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Asserts that both contain the same items in any order.
pub fn assert_same<T: Ord + Debug>(mut actual: Vec<T>, mut expected: Vec<T>) {
    actual.sort();
    expected.sort();
    assert_eq!(actual, expected);
}

/// Returns a port that is free at this moment, below those that the system gives to outgoing connections.
pub fn free_port() -> u16 {
    let mut ports = std::iter::repeat_with(|| rand::random_range(10_000..18_000_u16));
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}
