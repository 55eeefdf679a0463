//! Runs the stock role as a process.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::events::Events;
use crate::http::Connection;
use crate::processes::Process;
use crate::sql::Sql;
use crate::support::{eventually, free_port, terminate};
use crate::workspace::{Site, Workspace};

/// A stock process that runs until it is stopped or dropped.
pub struct Stock {
    child: Child,
    address: SocketAddr,
}

impl Stock {
    /// Starts stock on the database and topics of `site`, without waiting until it is ready.
    pub fn start(workspace: &Workspace, site: &Site) -> Self {
        let port = free_port();
        let log = workspace.settings.output.join("stock.log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(&workspace.settings.binary)
            .args(["stock", "--port", &port.to_string(), "--database-url", site.url()])
            .env("KAFKA_BOOTSTRAP_SERVERS", &workspace.kafka)
            .env("SCHEMA_REGISTRY_URL", &workspace.registry)
            .env("KAFKA_PREFIX", &site.prefix)
            .stdout(log.try_clone().unwrap())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// Starts stock and waits until it is ready.
    pub async fn start_ready(workspace: &Workspace, site: &Site) -> Self {
        let stock = Self::start(workspace, site);
        eventually("stock to be ready", async || {
            let mut connection = Connection::open(stock.address).await.ok()?;
            let answer = connection.get("/readyz").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        stock
    }

    /// Runs stock once on the empty database of `site` to create the tables.
    pub async fn create_tables(workspace: &Workspace, site: &Site) -> Events {
        let stock = Self::start_ready(workspace, site).await;
        let events = Events::detect(&mut Sql::connect(site.url()).await).await;
        events.await_position(site.url()).await;
        stock.stop().await;
        events
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn process(&self) -> Process {
        Process::new("stock", self.child.id())
    }

    /// Returns a value from /metrics, or `None` when it is missing or stock does not respond.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let mut connection = Connection::open(self.address).await.ok()?;
        let answer = connection.get("/metrics").await.ok()?;
        let text = std::str::from_utf8(connection.body(answer)).ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Waits until all events are published and returns how long it took, or `None` after `patience`.
    pub async fn await_published(
        &self,
        events: Events,
        sql: &mut Sql,
        patience: Duration,
    ) -> Option<Duration> {
        let started = Instant::now();
        while events.depth(sql).await > 0 {
            if started.elapsed() > patience {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Some(started.elapsed())
    }

    /// Stops stock gracefully.
    pub async fn stop(mut self) {
        let status = terminate(&mut self.child).await;
        assert_eq!(status.code(), Some(0), "stock did not stop gracefully, see its log");
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
