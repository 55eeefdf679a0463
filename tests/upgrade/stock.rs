//! A process of stock, of either release.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::engines::Engines;
use crate::support::{BINARY, eventually, free_port, terminate, vehicle};

/// How to start it, and the process while it runs.
pub struct Stock {
    binary: PathBuf,
    port: u16,
    variables: Vec<(&'static str, String)>,
    log: Option<PathBuf>,
    child: Option<Child>,
}

impl Stock {
    /// A process of this release, not yet started.
    pub fn new(engines: &Engines, database_url: &str) -> Self {
        let mut variables = engines.variables();
        variables.push(("DATABASE_URL", database_url.to_owned()));
        Self { binary: BINARY.into(), port: free_port(), variables, log: None, child: None }
    }

    /// Replaces the executable, the prefix of its topics, and where its output goes.
    pub fn with(mut self, binary: PathBuf, prefix: &str, log: PathBuf) -> Self {
        self.binary = binary;
        self.variables.push(("KAFKA_PREFIX", prefix.to_owned()));
        self.log = Some(log);
        self
    }

    /// Starts a process of this release.
    pub fn start_new(engines: &Engines, database_url: &str) -> Self {
        let mut stock = Self::new(engines, database_url);
        stock.start();
        stock
    }

    pub fn start(&mut self) {
        let mut command = Command::new(&self.binary);
        command.args(["stock", "--port", &self.port.to_string()]).envs(self.variables.clone());
        if let Some(path) = &self.log {
            let log = File::options().create(true).append(true).open(path).unwrap();
            command.stdout(log.try_clone().unwrap()).stderr(Stdio::from(log));
        }
        self.child = Some(command.spawn().unwrap());
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Ends it gracefully (SIGTERM).
    pub async fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        terminate(&mut child).await
    }

    /// What it waits for, by the answer of `/readyz`; `None` before it answers.
    pub async fn readiness(&self) -> Option<(StatusCode, Value)> {
        let answer = Client::new().get(format!("{}/readyz", self.url())).send().await.ok()?;
        Some((answer.status(), answer.json().await.ok()?))
    }

    pub async fn await_ready(&self) {
        eventually("stock to be ready", async || {
            let (status, _) = self.readiness().await?;
            status.is_success().then_some(())
        })
        .await;
    }

    /// Waits until it has published everything, as far as it knows.
    pub async fn await_published(&self) {
        self.await_ready().await;
        eventually("an empty outbox", async || {
            (self.metric("stock_outbox_depth").await == Some(0)).then_some(())
        })
        .await;
    }

    /// A number that it counts.
    pub async fn metric(&self, name: &str) -> Option<i64> {
        let answer = Client::new().get(format!("{}/metrics", self.url())).send().await.ok()?;
        let text = answer.text().await.ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// The status that it answers to a vehicle with; `None` when there was no answer.
    pub async fn post(&self, vin: &str) -> Option<StatusCode> {
        let request = Client::new().post(format!("{}/stock", self.url())).json(&vehicle(vin));
        Some(request.send().await.ok()?.status())
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.kill();
    }
}
