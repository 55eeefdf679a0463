//! What all our clients of the brokers have in common: settings, names, and where their log goes.

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::args::KafkaArgs;
use crate::event::EventType;

/// What things are called on the cluster.
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

    /// The name of a consumer group, or of a transactional id.
    pub fn group(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// The settings of any client: the user's, and ours. What is set here and not by [`default_to`] is reserved: a user's
/// value for it is refused at the start.
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
    // A restarted broker is worth another try at once.
    default_to(&mut config, "reconnect.backoff.max.ms", "2000");
    config
}

/// Sets what the user has not set.
pub(super) fn default_to(config: &mut ClientConfig, key: &str, value: &str) {
    if config.get(key).is_none() {
        config.set(key, value);
    }
}

/// A client that is closed on a thread of its own: with the brokers away librdkafka takes its time, and whoever drops
/// it may be an async thread.
pub(super) struct ClosedElsewhere<C: Send + 'static> {
    /// `None` only while it is dropped.
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

/// Sends what librdkafka reports to our log, at the level that it has for us: lost connections are mended by
/// librdkafka itself, and told by the role that waits for them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LoggingContext;

impl ClientContext for LoggingContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, message, "client failure");
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
    use crate::kafka::observer::{Isolation, observer_config};
    use crate::kafka::reader::reader_config;
    use crate::kafka::transaction::producer_config;
    use crate::kafka::worker::consumer_config;

    /// The settings of each kind of client that there is.
    fn configs(properties: Vec<Property>) -> Vec<ClientConfig> {
        let mut kafka = KafkaArgs::default();
        kafka.properties = properties;
        vec![
            client_config(&kafka),
            consumer_config(&kafka, "group"),
            producer_config(&kafka, "id"),
            observer_config(&kafka, Some("group"), Isolation::ReadCommitted),
            reader_config(&kafka, "read_committed"),
        ]
    }

    #[test]
    fn every_property_that_we_set_is_refused_or_the_users_value_wins() {
        let ours = configs(Vec::new());
        let keys: std::collections::BTreeSet<_> =
            ours.iter().flat_map(|config| config.config_map().into_keys()).collect();
        assert!(keys.len() > 15, "{keys:?}");
        for key in keys {
            let Ok(property) = format!("{key}=12345").parse::<Property>() else { continue };
            for config in configs(vec![property]) {
                assert_eq!(config.get(key), Some("12345"), "{key} is overridden");
            }
        }
    }

    #[test]
    fn an_alias_is_the_property_that_it_names() {
        for (alias, key) in [
            ("queue.buffering.max.ms", "linger.ms"),
            ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
        ] {
            let property: Property = format!("{alias}=7").parse().unwrap();
            assert_eq!(property.key, key);
        }
    }
}
