//! Runs a role in a separate process and reads its state.

use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::NamedTempFile;

use super::{ALLOCATOR, BINARY, Platform, RoleProcess, eventually, free_port, get};

pub struct Role {
    pub process: RoleProcess,
    url: String,
    log: NamedTempFile,
}

impl Role {
    /// Starts `estimate` or another consuming role next to a platform.
    pub fn join(platform: &Platform, role: &str, arguments: &[&str]) -> Self {
        let engines =
            ["--kafka-bootstrap-servers", platform.kafka(), "--schema-registry-url", platform.registry()];
        let mut all = vec!["--port", "0"];
        all.extend(engines.iter().chain(arguments));
        Self::start(role, &all, &[])
    }

    /// Starts a role for topics of one replica.
    pub fn start(role: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let port = free_port().to_string();
        let log = NamedTempFile::new().unwrap();
        let child = Command::new(BINARY)
            .args([role, "--admin-port", &port])
            .args(["--topic-replication-factor", "1", "--topic-min-insync-replicas", "1"])
            .args(arguments)
            .envs([ALLOCATOR])
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        Self { process: RoleProcess { child }, url: format!("http://127.0.0.1:{port}"), log }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub async fn metric(&self, name: &str) -> Option<i64> {
        let text = get(self.url("/metrics")).await.ok()?.text().await.ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().trim_end_matches(".0").parse().ok())
    }

    /// Returns the peak resident memory of the process, in MiB.
    pub fn peak_memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Returns the missing dependencies, or `None` while the role does not answer.
    pub async fn missing(&self) -> Option<Value> {
        let answer: Value = get(self.url("/readyz")).await.ok()?.json().await.ok()?;
        Some(answer["missing"].clone())
    }

    pub async fn await_ready(&self) {
        eventually("the role to be ready", async || self.missing().await?.is_null().then_some(())).await;
    }

    /// Waits until the role reports `text` as the reason for a missing entry.
    pub async fn await_reason(&self, entry: &str, text: &str) {
        eventually(&format!("{entry} with {text}"), async || {
            self.missing().await?[entry].as_str()?.contains(text).then_some(())
        })
        .await;
    }
}
