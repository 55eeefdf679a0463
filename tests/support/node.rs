//! Kills and starts nodes of the cluster.

use std::process::Command;

use super::engines::address;

/// Returns the names of the nodes. Reports and returns `None` when there is no cluster.
pub fn names() -> Option<Vec<&'static str>> {
    let names = address("the nodes of the cluster", "TEST_CLUSTER_NODES")?;
    // Faults name them until the process ends.
    Some(names.leak().split_whitespace().collect())
}

/// A node of the cluster, controlled by the cluster's script.
#[derive(Clone)]
pub struct Node {
    script: String,
    pub name: &'static str,
}

impl Node {
    /// Returns a node. Reports and returns `None` when there is no cluster script.
    pub fn named(name: &'static str) -> Option<Self> {
        Some(Self { script: address("the script of the cluster", "TEST_CLUSTER")?, name })
    }

    /// Runs a command of the script on the node. Blocks until it completes.
    pub fn run(&self, command: &str) {
        run(&self.script, command, &[self.name]);
    }
}

fn run(script: &str, command: &str, nodes: &[&str]) {
    let output = Command::new(script).arg(command).args(nodes).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cannot {command} {nodes:?}: {said}");
}

/// Nodes of the cluster that are down until this is dropped.
pub struct Killed {
    script: String,
    nodes: Vec<&'static str>,
}

impl Killed {
    /// Kills a node. Reports and returns `None` when there is no cluster script.
    pub fn node(name: &'static str) -> Option<Self> {
        Self::nodes(&[name])
    }

    /// Kills several nodes, which start together: no broker is ready without a majority of the controllers.
    pub fn nodes(names: &[&'static str]) -> Option<Self> {
        let script = address("the script of the cluster", "TEST_CLUSTER")?;
        run(&script, "kill", names);
        Some(Self { script, nodes: names.to_vec() })
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        run(&self.script, "start", &self.nodes);
    }
}
