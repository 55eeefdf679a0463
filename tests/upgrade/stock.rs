//! Runs stock of either release in a process.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use reqwest::{Response, StatusCode};
use serde_json::Value;
use vehicle_platform::database::Access;
use vehicle_platform::stock::vehicle_store;

use crate::engines::Engines;
use crate::support::{BINARY, eventually, free_port, http_client, terminate, vehicle};

/// The settings of a process, and the process while it is running.
pub struct Stock {
    binary: PathBuf,
    port: u16,
    /// The port of health and metrics, if they have one.
    admin_port: Option<u16>,
    variables: Vec<(&'static str, String)>,
    log: Option<PathBuf>,
    child: Option<Child>,
}

impl Stock {
    /// Returns a process of this release, not started yet.
    pub fn new(engines: &Engines, database_url: &str) -> Self {
        let mut variables = engines.variables();
        variables.push(("DATABASE_URL", database_url.to_owned()));
        Self { binary: BINARY.into(), port: free_port(), admin_port: None, variables, log: None, child: None }
    }

    /// Replaces the executable, the topic prefix, and the log file.
    pub fn with(mut self, binary: PathBuf, prefix: &str, log: PathBuf) -> Self {
        self.binary = binary;
        self.variables.push(("KAFKA_PREFIX", prefix.to_owned()));
        self.log = Some(log);
        self
    }

    /// Starts a process of this release.
    pub fn start_new(engines: &Engines, database_url: &str) -> Self {
        let mut stock = Self::new(engines, database_url);
        // The older release has none.
        stock.admin_port = Some(free_port());
        stock.start();
        stock
    }

    pub fn start(&mut self) {
        let mut command = Command::new(&self.binary);
        command.args(["stock", "--port", &self.port.to_string()]).envs(self.variables.clone());
        if let Some(port) = self.admin_port {
            command.args(["--admin-port", &port.to_string()]);
        }
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

    async fn probe(&self, path: &str) -> Option<Response> {
        let port = self.admin_port.unwrap_or(self.port);
        http_client().get(format!("http://127.0.0.1:{port}{path}")).send().await.ok()
    }

    /// Kills the process (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Terminates the process gracefully (SIGTERM).
    pub async fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        terminate(&mut child).await
    }

    /// Returns the answer of `/readyz`, or `None` when there was none.
    pub async fn readiness(&self) -> Option<(StatusCode, Value)> {
        let answer = self.probe("/readyz").await?;
        Some((answer.status(), answer.json().await.ok()?))
    }

    pub async fn await_ready(&self) {
        eventually("stock to be ready", async || {
            let (status, _) = self.readiness().await?;
            status.is_success().then_some(())
        })
        .await;
    }

    /// Waits until the instance has published everything. Asks the database, as a metric is as old as the last check.
    pub async fn await_published(&self) {
        self.await_ready().await;
        let (_, url) = self.variables.iter().find(|(name, _)| *name == "DATABASE_URL").unwrap();
        let store = vehicle_store::open(&url.parse().unwrap(), Access::Observer).await.unwrap();
        eventually("an empty outbox", async || {
            let backlog = store.backlog().await.ok()?;
            (backlog.events == 0).then_some(())
        })
        .await;
    }

    /// Returns the value of a metric.
    pub async fn metric(&self, name: &str) -> Option<i64> {
        let answer = self.probe("/metrics").await?;
        let text = answer.text().await.ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// Posts a vehicle and returns the status, or `None` when there was no answer.
    pub async fn post(&self, vin: &str) -> Option<StatusCode> {
        let request = http_client().post(format!("{}/stock", self.url())).json(&vehicle(vin));
        Some(request.send().await.ok()?.status())
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.kill();
    }
}
