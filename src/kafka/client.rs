//! Defines what all Kafka clients of the platform share: settings, names and logging.

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::args::KafkaArgs;
use crate::event::EventType;

/// The names of topics and groups on the cluster.
#[derive(Clone, Debug)]
pub struct Naming {
    prefix: String,
}

impl Naming {
    pub fn new(kafka: &KafkaArgs) -> Self {
        Self { prefix: kafka.prefix.clone() }
    }

    pub fn topic(&self, event: EventType) -> String {
        format!("{}{}", self.prefix, event.topic)
    }

    /// Returns the name of a consumer group or a transactional id, with the prefix.
    pub fn group(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// Returns the settings of every client: those of the user and those of the platform. The properties that are set here
/// without [`default_to`] are reserved, and a user's value for them is refused at startup.
pub(super) fn client_config(kafka: &KafkaArgs) -> ClientConfig {
    let mut config = ClientConfig::new();
    for property in &kafka.properties {
        config.set(&property.key, &property.value);
    }
    config
        .set("bootstrap.servers", kafka.bootstrap_servers())
        .set("client.id", "vehicle-platform")
        .set("allow.auto.create.topics", "false")
        .set_log_level(RDKafkaLogLevel::Info);
    // Reconnect to a restarted broker soon.
    default_to(&mut config, "reconnect.backoff.max.ms", "2000");
    if cfg!(feature = "tls") {
        // OpenSSL is linked statically and does not know where this system stores its certificates.
        default_to(&mut config, "ssl.ca.location", "probe");
    }
    config
}

/// Sets a property unless the user has set it.
pub(super) fn default_to(config: &mut ClientConfig, key: &str, value: &str) {
    if config.get(key).is_none() {
        config.set(key, value);
    }
}

/// A client that is closed on a separate thread. While the brokers are unavailable, closing it takes long, and the
/// client may be dropped on a thread of the async runtime.
pub(super) struct ClosedElsewhere<C: Send + 'static> {
    /// `None` only during the drop.
    client: Option<C>,
}

impl<C: Send + 'static> ClosedElsewhere<C> {
    pub(super) fn new(client: C) -> Self {
        Self { client: Some(client) }
    }

    pub(super) fn get(&self) -> anyhow::Result<&C> {
        self.client.as_ref().context("the client is closed")
    }
}

impl<C: Send + 'static> Drop for ClosedElsewhere<C> {
    fn drop(&mut self) {
        let client = self.client.take();
        std::thread::spawn(move || drop(client));
    }
}

/// Forwards the log of librdkafka to the log of the platform. Lost connections are logged at debug level, because
/// librdkafka reconnects by itself and the role that waits reports the reason.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LoggingContext;

impl ClientContext for LoggingContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, message, "librdkafka reported a critical error");
            }
            _ => tracing::debug!(target: "librdkafka", facility, message, "client log"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason, "client error");
    }
}

impl rdkafka::consumer::ConsumerContext for LoggingContext {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::args::Property;
    use crate::kafka::follower::follower_config;
    use crate::kafka::observer::{Isolation, observer_config};
    use crate::kafka::reader::reader_config;
    use crate::kafka::transaction::producer_config;
    use crate::kafka::worker::consumer_config;

    /// Returns the settings of each kind of client.
    fn configs(properties: Vec<Property>) -> Vec<ClientConfig> {
        let mut kafka = KafkaArgs::default();
        kafka.properties = properties;
        vec![
            client_config(&kafka),
            consumer_config(&kafka, "group"),
            producer_config(&kafka, "id"),
            observer_config(&kafka, Some("group"), Isolation::ReadCommitted),
            reader_config(&kafka, "read_committed"),
            follower_config(&kafka),
        ]
    }

    #[test]
    fn every_property_of_the_platform_is_refused_or_overridden_by_the_users_value() {
        let ours = configs(Vec::new());
        let keys: std::collections::BTreeSet<_> =
            ours.iter().flat_map(|config| config.config_map().into_keys()).collect();
        assert!(keys.len() > 15, "{keys:?}");
        for key in keys {
            let refusal = format!("{key}=12345").parse::<Property>().err();
            if refusal.is_some_and(|reason| reason.contains("cannot be changed")) {
                continue;
            }
            let property = Property { key: key.to_owned(), value: "12345".to_owned() };
            for config in configs(vec![property]) {
                assert_eq!(config.get(key), Some("12345"), "{key} is overridden");
            }
        }
    }

    #[test]
    fn an_alias_sets_the_property_that_it_stands_for() {
        for (alias, key) in [
            ("queue.buffering.max.ms", "linger.ms"),
            ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
        ] {
            let property: Property = format!("{alias}=7").parse().unwrap();
            assert_eq!(property.key, key);
        }
    }
}
