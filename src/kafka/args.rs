//! The settings of the connection to Kafka.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use crate::duration::parse_duration;
use crate::secret::SecretParser;

const DEFAULT_BOOTSTRAP_SERVERS: &str = "127.0.0.1:9092";

/// The properties that the guarantees depend on, and the reason or the flag to use instead.
const RESERVED: &[(&str, &str)] = &[
    ("acks", "all in-sync replicas must acknowledge a record (--topic-min-insync-replicas)"),
    ("allow.auto.create.topics", "a role creates its topics itself (--topic-partitions)"),
    ("auto.offset.reset", "a group without committed offsets begins with the first record"),
    ("bootstrap.servers", "use --kafka-bootstrap-servers"),
    ("client.id", "all roles use the same name in the brokers' quotas and logs"),
    ("enable.auto.commit", "offsets are committed with the work in one transaction"),
    ("enable.auto.offset.store", "offsets are committed with the work in one transaction"),
    ("enable.idempotence", "transactions need it"),
    ("enable.partition.eof", "tools that need it set it themselves"),
    ("fetch.error.backoff.ms", "the detection of recreated topics depends on it"),
    ("group.id", "use --kafka-prefix to separate groups"),
    ("group.instance.id", "static membership is not supported"),
    ("group.protocol", "the consumer groups use the classic protocol"),
    ("isolation.level", "only committed records are read"),
    ("log_level", "use --log"),
    ("max.in.flight.requests.per.connection", "transactions need the default"),
    ("message.max.bytes", "the brokers limit the size of a record"),
    ("partition.assignment.strategy", "all members of a group must use the same strategy"),
    ("retries", "transactions need the default"),
    ("statistics.interval.ms", "the statistics are not used; see /metrics"),
    ("transaction.timeout.ms", "other timeouts depend on it"),
    ("transactional.id", "it is derived from --instance-id or from the database of stock"),
];

/// The aliases of properties in librdkafka.
const ALIASES: &[(&str, &str)] = &[
    ("auto.commit.enable", "enable.auto.commit"),
    ("compression.codec", "compression.type"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("message.send.max.retries", "retries"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("request.required.acks", "acks"),
    ("sasl.mechanism", "sasl.mechanisms"),
];

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaArgs {
    /// Brokers for the initial connection to the cluster [default: 127.0.0.1:9092]
    #[arg(long = "kafka-bootstrap-servers", env = "KAFKA_BOOTSTRAP_SERVERS", value_name = "HOST:PORT,...", value_parser = parse_servers)]
    bootstrap_servers: Option<String>,

    /// The name of the variable in the original services.
    #[arg(long = "kafka-bootstrap-server", env = "KAFKA_BOOTSTRAP_SERVER", hide = true, value_parser = parse_servers)]
    bootstrap_server: Option<String>,

    /// Additional librdkafka setting, such as security.protocol=SASL_SSL; may be repeated, and the variable has one
    /// per line
    #[arg(
        long = "kafka-property",
        env = "KAFKA_PROPERTIES",
        value_name = "KEY=VALUE",
        value_delimiter = '\n',
        hide_env_values = true,
        value_parser = SecretParser::new(str::parse::<Property>)
    )]
    pub properties: Vec<Property>,

    /// Prefix of every topic, group and transactional id, which allows platforms to share a cluster
    #[arg(long = "kafka-prefix", env = "KAFKA_PREFIX", value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = parse_prefix)]
    pub prefix: String,

    /// Number of partitions of new topics
    #[arg(long, env = "TOPIC_PARTITIONS", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub topic_partitions: i32,

    /// Number of replicas of new topics
    #[arg(long, env = "TOPIC_REPLICATION_FACTOR", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=100))]
    pub topic_replication_factor: i32,

    /// min.insync.replicas of new topics: replicas that must acknowledge a record
    #[arg(long, env = "TOPIC_MIN_INSYNC_REPLICAS", value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(i32).range(1..=100))]
    pub topic_min_insync_replicas: i32,

    /// Time for which new data topics retain records, read or unread: forever, or a duration of at least 1m
    #[arg(long, env = "TOPIC_RETENTION", value_name = "DURATION", default_value = "forever")]
    pub topic_retention: TopicRetention,
}

/// The time for which a topic retains records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicRetention(Option<Duration>);

impl TopicRetention {
    /// Returns the value for Kafka: milliseconds, or -1 for no limit.
    pub(super) fn millis(self) -> i64 {
        self.0.map_or(-1, |retention| i64::try_from(retention.as_millis()).unwrap_or(i64::MAX))
    }
}

impl std::str::FromStr for TopicRetention {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "forever" {
            return Ok(Self(None));
        }
        match parse_duration(text) {
            Ok(retention) if retention >= Duration::from_secs(60) => Ok(Self(Some(retention))),
            Ok(_) => Err("must be at least 1m".to_owned()),
            Err(reason) => Err(format!("{reason}; or \"forever\"")),
        }
    }
}

impl KafkaArgs {
    /// Returns the arguments for a cluster of one broker at `address`.
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

/// A librdkafka setting. Its value may be a secret and is never shown.
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
        let key = ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, name)| name);
        if let Some((_, instead)) = RESERVED.iter().find(|(reserved, _)| *reserved == key) {
            return Err(format!("{key} cannot be changed: {instead}"));
        }
        match ClientConfig::new().set(key, value).create_native_config() {
            Ok(_) => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
            // librdkafka's own texts repeat the value.
            Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_INVALID, ..)) => {
                let lacks_tls =
                    !cfg!(feature = "tls") && (key.starts_with("ssl.") || key == "security.protocol");
                let hint = if lacks_tls { "; this program was built without --features tls" } else { "" };
                Err(format!("librdkafka does not accept the value of {key}{hint}"))
            }
            Err(_) if is_name(key) => Err(format!("librdkafka has no setting {key}")),
            Err(_) => Err("must be KEY=VALUE with a setting of librdkafka".to_owned()),
        }
    }
}

/// Returns whether `key` has the form of librdkafka's names. Another text may be a part of a secret, such as a line of a
/// private key.
fn is_name(key: &str) -> bool {
    let is_part =
        |character: char| character.is_ascii_lowercase() || matches!(character, '.' | '_' | '0'..='9');
    key.len() <= 64 && key.contains('.') && key.chars().all(is_part)
}

/// Parses a list of brokers. Ignores white space and empty elements.
fn parse_servers(text: &str) -> Result<String, String> {
    let servers: Vec<_> = text.split(',').map(str::trim).filter(|server| !server.is_empty()).collect();
    let is_address = |server: &&str| {
        let address = server.split_once("://").map_or(*server, |(_, address)| address);
        let (host, port) = match address.strip_prefix('[').and_then(|address| address.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').or(port.is_empty().then_some("9092"))),
            None => {
                address.split_once(':').map_or((address, Some("9092")), |(host, port)| (host, Some(port)))
            }
        };
        let port = port.and_then(|port| port.parse::<u16>().ok());
        !host.is_empty() && !host.contains(char::is_whitespace) && port.is_some_and(|port| port > 0)
    };
    if servers.is_empty() || !servers.iter().all(is_address) {
        return Err("must be a list such as host-1:9092,host-2:9092, with ports from 1 to 65535".to_owned());
    }
    Ok(servers.join(","))
}

/// Parses a prefix: characters that Kafka allows in the name of a topic, short enough for the longest name.
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
    fn the_value_of_a_property_begins_after_the_first_equals_sign_and_is_not_shown() {
        let property: Property = "sasl.password=a=b".parse().unwrap();
        assert_eq!(property.value, "a=b");
        assert_eq!(format!("{property:?}"), "sasl.password=***");
    }

    #[test]
    fn the_list_of_brokers_is_normalized() {
        for (text, servers) in [
            ("a:1", "a:1"),
            (" a , b:65535 ,, SSL://c:3,[::1]:4,[::1],", "a,b:65535,SSL://c:3,[::1]:4,[::1]"),
        ] {
            assert_eq!(parse_servers(text), Ok(servers.to_owned()));
        }
        for wrong in ["", ",", "a:0", "a:65536", "a:b", ":1", "a b:1", "::1", "[::1]1", "a:1:2"] {
            assert!(parse_servers(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_property_that_librdkafka_refuses_is_named_without_its_value() {
        for (text, reason) in [
            ("sasl.passwordd=hunter2", "no setting sasl.passwordd"),
            ("hunter2XYZ+/==", "must be KEY=VALUE with a setting of librdkafka"),
            ("security.protocol=hunter2", "does not accept the value of security.protocol"),
            ("linger.ms=hunter2", "does not accept the value of linger.ms"),
            ("linger.ms=18446744073709551616", "does not accept the value of linger.ms"),
        ] {
            let refusal = text.parse::<Property>().unwrap_err();
            assert!(refusal.contains(reason) && !refusal.contains("hunter2"), "{text}: {refusal}");
        }
    }

    #[test]
    fn properties_that_the_guarantees_depend_on_cannot_be_changed() {
        for text in ["isolation.level=read_uncommitted", "transactional.id=x", "acks=0", "=x", "x"] {
            assert!(text.parse::<Property>().is_err(), "{text}");
        }
    }
}
