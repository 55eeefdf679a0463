//! Deletes a topic and creates it again.
//!
//! Deleting a topic loses the records on it, which the operator has caused. The load therefore pauses, and the topic
//! is deleted once all accepted vehicles have become ads and all poison has become dead letters. Any later loss is
//! caused by the platform, whose committed offsets are ahead of the new log.

use std::time::Duration;

use crate::fault::Fault;
use crate::support::kafka::read_each;
use crate::support::topics::{is_empty, replace_topic};
use crate::verdict::{Verdict, key};
use crate::world::{TOPICS, World};

/// The time for the platform to become idle while other faults continue.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(500);

impl World {
    pub async fn recreate(&self, topic: usize, fault: Fault) {
        self.report(fault, Duration::ZERO).await;
        let resting = async {
            let closed = self.ledger.gate.write().await;
            let mut nodes = Vec::new();
            // The verdict reads the topics, and the brokers must agree on the deletion.
            for (_, node) in self.nodes.iter().filter(|(name, _)| is_of_kafka(name)) {
                nodes.push(node.lock().await);
            }
            // The platform does not become idle while a line is cut.
            let mut lines = Vec::new();
            for line in &self.lines {
                lines.push(line.lock().await);
            }
            while Verdict::reach(&self.platform, &self.ledger, &self.history().await).await.is_unfinished() {
                tokio::time::sleep(TICK).await;
            }
            (closed, nodes, lines)
        };
        let Ok(_rest) = tokio::time::timeout(PATIENCE, resting).await else {
            self.note("topics not recreated", "the platform does not become idle", PATIENCE).await;
            return;
        };
        let (bootstrap, name) = (self.platform.bootstrap(), self.platform.topic(TOPICS[topic]));
        if is_empty(bootstrap, &name).await != Some(false) {
            self.note("topics not recreated", "the topic is empty", Duration::ZERO).await;
            return;
        }
        let keys = read_each(bootstrap, &name, key).await;
        self.archived.lock().await[topic].extend(keys.into_iter().flatten());
        replace_topic(bootstrap, &name).await;
        self.count_recreation();
        println!("{:7.1} s  {name} has been recreated", self.age().as_secs_f64());
    }
}

fn is_of_kafka(node: &str) -> bool {
    node.starts_with("kafka-") || node.starts_with("zookeeper-")
}
