//! Runs the stock role in a separate process.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::Value;
use vehicle_platform::https;

use crate::support::{BINARY, eventually, free_port, terminate, vehicle};

/// The time for a response: a request waits 10 s for its vehicle to be written, plus slack for a busy machine.
pub const POST_DEADLINE: Duration = Duration::from_secs(13);

/// A stock process and its address.
pub struct Stock {
    arguments: Vec<String>,
    child: Child,
    base: String,
    /// The address of health and metrics.
    admin: String,
    log: PathBuf,
    client: reqwest::Client,
}

/// The answer to a POST.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub took: Duration,
    retry_after: bool,
    problem: bool,
}

impl Answer {
    pub fn is_created(&self) -> bool {
        self.status == StatusCode::CREATED
    }

    /// Asserts that the answer invites a retry and arrived within the deadline.
    pub fn assert_unavailable(&self) {
        assert_eq!(self.status, StatusCode::SERVICE_UNAVAILABLE, "{self:?}");
        assert!(self.retry_after && self.problem, "{self:?}");
        assert!(self.took < POST_DEADLINE, "{self:?}");
    }
}

impl Stock {
    /// Starts the role on a free port and waits until it listens.
    pub async fn start(arguments: &[&str]) -> Self {
        let admin_port = free_port().to_string();
        let arguments = [arguments, &["--admin-port", &admin_port]].concat();
        let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        let (child, log) = spawn(&arguments);
        let client = https::client().pool_max_idle_per_host(64).build().unwrap();
        let admin = format!("http://127.0.0.1:{admin_port}");
        let mut stock = Self { arguments, child, base: String::new(), admin, log, client };
        stock.await_address().await;
        stock
    }

    async fn await_address(&mut self) {
        self.base = eventually("stock to listen", async || {
            let log = self.log();
            assert_eq!(self.child.try_wait().unwrap(), None, "{log}");
            let (_, rest) = log.split_once("stock listens address=")?;
            Some(format!("http://{}", rest.lines().next()?.trim()))
        })
        .await;
    }

    /// Kills the process as a power failure would, and restarts it.
    pub async fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.child, self.log) = spawn(&self.arguments);
        self.await_address().await;
    }

    pub async fn terminate(mut self) -> ExitStatus {
        terminate(&mut self.child).await
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Returns the address without the scheme.
    pub fn authority(&self) -> &str {
        self.base.strip_prefix("http://").unwrap()
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    pub async fn post(&self, body: &Value) -> Answer {
        let began = Instant::now();
        let response = self.client.post(format!("{}/stock", self.base)).json(body).send().await.unwrap();
        let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        Answer {
            status: response.status(),
            took: began.elapsed(),
            retry_after: header(RETRY_AFTER).is_some_and(|seconds| seconds.parse::<u32>().is_ok()),
            problem: header(CONTENT_TYPE).as_deref() == Some("application/problem+json"),
        }
    }

    /// Returns a POST with an `Idempotency-Key`, which outlives a restart of the process.
    pub fn post_with_key(&self, key: &str, body: &Value) -> RequestBuilder {
        self.client.post(format!("{}/stock", self.base)).header("Idempotency-Key", key).json(body)
    }

    pub async fn post_vin(&self, vin: &str) -> Answer {
        self.post(&vehicle(vin)).await
    }

    async fn probe(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.admin)).send().await.unwrap()
    }

    pub async fn await_ready(&self) {
        eventually("stock to be ready", async || {
            (self.probe("/readyz").await.status() == StatusCode::OK).then_some(())
        })
        .await;
    }

    /// Waits until the role reports that `dependency` is missing, with all of `words` in the reason.
    pub async fn await_unready(&self, dependency: &str, words: &[&str]) -> String {
        eventually(&format!("readyz to report {dependency} {words:?}"), async || {
            let response = self.probe("/readyz").await;
            let status = response.status();
            let body: Value = response.json().await.unwrap();
            let reason = body["missing"][dependency].as_str()?.to_owned();
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            words.iter().all(|word| reason.contains(word)).then_some(reason)
        })
        .await
    }

    pub async fn metric(&self, name: &str) -> f64 {
        let metrics = self.probe("/metrics").await.text().await.unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
    }

    /// Returns the resident memory of the process, in MiB.
    pub fn memory_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Starts a process. Its log is written to a file that remains after the test.
fn spawn(arguments: &[String]) -> (Child, PathBuf) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("stock_postgres");
    fs::create_dir_all(&directory).unwrap();
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("test").replace("::", ".");
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!("{test}.{}.{number}.log", std::process::id()));
    let log = File::create(&path).unwrap();
    let mut command = Command::new(BINARY);
    command.args(arguments).stdout(log.try_clone().unwrap()).stderr(log);
    (command.spawn().unwrap(), path)
}
