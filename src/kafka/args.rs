//! Where Kafka is, and how to speak to it.

use std::fmt;
use std::net::SocketAddr;

use clap::Args;

use crate::secret::SecretParser;

const DEFAULT_BOOTSTRAP_SERVERS: &str = "127.0.0.1:9092";

/// What the guarantees rest on: not for the user to change.
const RESERVED: &[&str] = &[
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.send.max.retries",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "request.required.acks",
    "retries",
    "transaction.timeout.ms",
    "transactional.id",
];

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaArgs {
    /// Brokers to find the cluster through [default: 127.0.0.1:9092]
    #[arg(long = "kafka-bootstrap-servers", env = "KAFKA_BOOTSTRAP_SERVERS", value_name = "HOST:PORT,...")]
    bootstrap_servers: Option<String>,

    /// The name that the original services gave the variable.
    #[arg(long = "kafka-bootstrap-server", env = "KAFKA_BOOTSTRAP_SERVER", hide = true)]
    bootstrap_server: Option<String>,

    /// Any further librdkafka setting, such as security.protocol=SASL_SSL; may be repeated (in the variable: one
    /// a line)
    #[arg(
        long = "kafka-property",
        env = "KAFKA_PROPERTIES",
        value_name = "KEY=VALUE",
        value_delimiter = '\n',
        hide_env_values = true,
        value_parser = SecretParser::new(str::parse::<Property>)
    )]
    pub properties: Vec<Property>,

    /// Text put before the name of every topic, group and transactional id, so that platforms can share a cluster
    #[arg(long = "kafka-prefix", env = "KAFKA_PREFIX", value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = parse_prefix)]
    pub prefix: String,

    /// Partitions of a topic that has to be created
    #[arg(long, env = "TOPIC_PARTITIONS", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub topic_partitions: i32,

    /// Replicas of a topic that has to be created
    #[arg(long, env = "TOPIC_REPLICATION_FACTOR", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=100))]
    pub topic_replication_factor: i32,

    /// min.insync.replicas of a topic that has to be created: so many hold a record before it counts as written
    #[arg(long, env = "TOPIC_MIN_INSYNC_REPLICAS", value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(i32).range(1..=100))]
    pub topic_min_insync_replicas: i32,
}

impl KafkaArgs {
    /// The lone broker at `address`.
    pub fn single_node(address: SocketAddr) -> Self {
        Self {
            bootstrap_servers: Some(address.to_string()),
            topic_partitions: 3,
            topic_replication_factor: 1,
            topic_min_insync_replicas: 1,
            ..Self::default()
        }
    }

    pub fn bootstrap_servers(&self) -> &str {
        self.bootstrap_servers
            .as_deref()
            .or(self.bootstrap_server.as_deref())
            .unwrap_or(DEFAULT_BOOTSTRAP_SERVERS)
    }
}

/// A librdkafka setting. Its value may be a secret: it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Property {
    pub key: String,
    pub value: String,
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=***", self.key)
    }
}

impl std::str::FromStr for Property {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
        let key = key.trim();
        if key.is_empty() {
            return Err("must be KEY=VALUE".to_owned());
        }
        if RESERVED.contains(&key) {
            return Err(format!("{key} is set by vehicle-platform and cannot be changed"));
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// What Kafka allows in the name of a topic, with room for the longest of ours.
fn parse_prefix(text: &str) -> Result<String, String> {
    let legal = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    if text.len() <= 200 && text.chars().all(legal) {
        Ok(text.to_owned())
    } else {
        Err("must have at most 200 characters, each a letter, a digit, '.', '_' or '-'".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_keeps_what_follows_the_first_equals_sign_and_hides_it() {
        let property: Property = "sasl.jaas.config=a=b".parse().unwrap();
        assert_eq!(property.value, "a=b");
        assert_eq!(format!("{property:?}"), "sasl.jaas.config=***");
    }

    #[test]
    fn settings_that_carry_the_guarantees_cannot_be_changed() {
        for text in ["isolation.level=read_uncommitted", "transactional.id=x", "acks=0", "=x", "x"] {
            assert!(text.parse::<Property>().is_err(), "{text}");
        }
    }
}
