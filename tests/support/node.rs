//! Kills and starts nodes of the cluster.

use std::process::Command;

use super::engines::address;

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
        let output = Command::new(&self.script).args([command, self.name]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cannot {command} {}: {said}", self.name);
    }
}

/// A node of the cluster that is down until this is dropped.
pub struct Killed(Node);

impl Killed {
    /// Kills a node. Reports and returns `None` when there is no cluster script.
    pub fn node(name: &'static str) -> Option<Self> {
        let node = Node::named(name)?;
        node.run("kill");
        Some(Self(node))
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.run("start");
    }
}
