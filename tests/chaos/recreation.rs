//! Deletes a topic and creates it again.
//!
//! Records that are on a topic when it is deleted are lost by the operator's act. So the load pauses, and the topic is
//! deleted when all that was accepted has become ads and all poison letters: whatever is lost afterwards is lost by the
//! platform, whose committed offsets are ahead of the new log.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::fault::Fault;
use crate::support::eventually;
use crate::support::kafka::read_each;
use crate::verdict::{Verdict, key};
use crate::world::{TOPICS, World};

const PARTITIONS: i32 = 3;
/// How long the platform may take to come to rest, with other faults going on.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(500);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

impl World {
    pub async fn recreate(&self, topic: usize, fault: Fault) {
        self.tell(fault, Duration::ZERO).await;
        let resting = async {
            let closed = self.ledger.gate.write().await;
            let mut nodes = Vec::new();
            // The verdict reads the topics, and the brokers have to agree to the deletion.
            for (_, node) in self.nodes.iter().filter(|(name, _)| is_of_kafka(name)) {
                nodes.push(node.lock().await);
            }
            // Nothing comes to rest while a line is cut.
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
            self.note("topics left as they are", "the platform does not come to rest", PATIENCE).await;
            return;
        };
        let (bootstrap, name) = (self.platform.bootstrap(), self.platform.topic(TOPICS[topic]));
        if is_empty(bootstrap, &name).await != Some(false) {
            self.note("topics left as they are", "there is nothing to delete", Duration::ZERO).await;
            return;
        }
        let keys = read_each(bootstrap, &name, key).await;
        self.archived.lock().await[topic].extend(keys.into_iter().flatten());
        replace(bootstrap, &name).await;
        self.count_recreation();
        println!("{:7.1} s  {name} is there again", self.age().as_secs_f64());
    }
}

fn is_of_kafka(node: &str) -> bool {
    node.starts_with("kafka-") || node.starts_with("zookeeper-")
}

async fn replace(bootstrap: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let options = AdminOptions::new().request_timeout(Some(CALL_TIMEOUT));
    // A role that starts now creates the topic, too: then it is empty before this does.
    eventually("the deletion of a topic", async || {
        let deleted = admin.delete_topics(&[topic], &options).await.ok()?;
        deleted.into_iter().next()?.ok()
    })
    .await;
    let settings = [
        ("cleanup.policy", "delete"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.insync.replicas", "2"),
        ("retention.bytes", "-1"),
        ("retention.ms", "-1"),
    ];
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(3));
    let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
    eventually("a topic to be there again", async || {
        // As long as the brokers have not deleted the old one they refuse.
        admin.create_topics([&new], &options).await.ok();
        is_empty(bootstrap, topic).await.filter(|is_empty| *is_empty)
    })
    .await;
}

/// Whether nothing was ever written to a topic. `None` when there is no topic.
async fn is_empty(bootstrap: &str, topic: &str) -> Option<bool> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let topic = topic.to_owned();
    let ends = move || {
        let ends =
            (0..PARTITIONS).map(|partition| consumer.fetch_watermarks(&topic, partition, CALL_TIMEOUT));
        ends.collect::<Result<Vec<_>, _>>().ok()
    };
    Some(tokio::task::spawn_blocking(ends).await.unwrap()?.iter().all(|(_, end)| *end == 0))
}
