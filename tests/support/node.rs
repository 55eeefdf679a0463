//! Nodes of the cluster, which tests kill and start.

use std::process::Command;

use super::engines::address;

/// A node of the cluster, which its script ends and starts.
#[derive(Clone)]
pub struct Node {
    script: String,
    pub name: &'static str,
}

impl Node {
    /// `None`, after saying so, where the cluster has no script.
    pub fn named(name: &'static str) -> Option<Self> {
        Some(Self { script: address("the script of the cluster", "TEST_CLUSTER")?, name })
    }

    /// One of the script's commands on a node. Blocks until it is done.
    pub fn run(&self, command: &str) {
        let output = Command::new(&self.script).args([command, self.name]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cannot {command} {}: {said}", self.name);
    }
}

/// A node of the cluster that is dead until this is dropped.
pub struct Killed(Node);

impl Killed {
    /// Kills a node at once. `None`, after saying so, where the cluster has no script for that.
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
