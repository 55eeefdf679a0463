//! Runs a role as a process.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::http::Connection;
use crate::processes::Process;
use crate::support::{ALLOCATOR, eventually, free_port, terminate};
use crate::workspace::{Site, Workspace};

/// Partitions of each topic of the platform.
pub const PARTITIONS: usize = 3;

/// A role that runs until it is stopped or dropped.
pub struct Role {
    name: &'static str,
    child: Child,
    address: SocketAddr,
}

impl Role {
    /// Starts a role on the topics of `site`, without waiting until it is ready.
    pub fn start(workspace: &Workspace, site: &Site, name: &'static str, arguments: &[&str]) -> Self {
        let port = free_port();
        let log = workspace.settings.output.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(&workspace.settings.binary)
            .args([name, "--port", &port.to_string()])
            .args(arguments)
            .env("KAFKA_BOOTSTRAP_SERVERS", &workspace.kafka)
            .env("SCHEMA_REGISTRY_URL", &workspace.registry)
            .env("KAFKA_PREFIX", &site.prefix)
            .envs([ALLOCATOR])
            .stdout(log.try_clone().unwrap())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        Self { name, child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// Waits until the role is ready. Panics when it ends.
    pub async fn await_ready(&mut self) {
        eventually(&format!("{} to be ready", self.name), async || {
            self.assert_running();
            let mut connection = Connection::open(self.address).await.ok()?;
            let answer = connection.get("/readyz").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn process(&self) -> Process {
        Process::new(self.name, self.child.id())
    }

    /// Returns the metrics, or `None` when the role does not respond.
    pub async fn metrics(&self) -> Option<Metrics> {
        let mut connection = Connection::open(self.address).await.ok()?;
        let answer = connection.get("/metrics").await.ok()?;
        String::from_utf8(connection.body(answer).to_vec()).ok().map(Metrics)
    }

    /// Returns one metric, or `None` when it is missing or the role does not respond.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        self.metrics().await?.value(name)
    }

    /// Panics when the process has ended.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{0} ended with {status}, see {0}.log", self.name);
        }
    }

    /// Stops the role gracefully.
    pub async fn stop(mut self) {
        let status = terminate(&mut self.child).await;
        assert_eq!(status.code(), Some(0), "{0} did not stop gracefully, see {0}.log", self.name);
    }
}

/// Waits until the instances of a role share the partitions of their topic.
pub async fn await_assigned(roles: &[Role]) {
    let share = PARTITIONS / roles.len();
    eventually("the partitions to be assigned", async || {
        let mut all = 0.0;
        for role in roles {
            let assigned = role.metric(&format!("{}_partitions_assigned", role.name)).await?;
            if assigned < share as f64 {
                return None;
            }
            all += assigned;
        }
        (all >= PARTITIONS as f64).then_some(())
    })
    .await;
}

impl Drop for Role {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The response of /metrics.
pub struct Metrics(String);

impl Metrics {
    pub fn value(&self, name: &str) -> Option<f64> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }
}
