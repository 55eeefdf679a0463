//! Provides Kafka and the schema registry: those from the environment, or else embedded ones for the test.

use crate::support::Platform;

pub struct Engines {
    pub kafka: String,
    pub registry: String,
    embedded: Option<Platform>,
}

impl Engines {
    pub async fn embedded() -> Self {
        let platform = Platform::start(&["--roles", "none"]).await;
        Self {
            kafka: platform.kafka().to_owned(),
            registry: platform.registry().to_owned(),
            embedded: Some(platform),
        }
    }

    pub async fn from_environment() -> Self {
        let named = |variable| std::env::var(variable).ok().filter(|address| !address.is_empty());
        match (named("KAFKA_BOOTSTRAP_SERVERS"), named("SCHEMA_REGISTRY_URL")) {
            (Some(kafka), Some(registry)) => Self { kafka, registry, embedded: None },
            _ => Self::embedded().await,
        }
    }

    /// Returns the variables with which a role finds the engines.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("KAFKA_BOOTSTRAP_SERVERS", self.kafka.clone()),
            ("SCHEMA_REGISTRY_URL", self.registry.clone()),
        ];
        if self.embedded.is_some() {
            let single = ["TOPIC_REPLICATION_FACTOR", "TOPIC_MIN_INSYNC_REPLICAS"];
            variables.extend(single.map(|variable| (variable, "1".to_owned())));
        }
        variables
    }

    pub async fn end(self) {
        if let Some(platform) = self.embedded {
            platform.end().await;
        }
    }
}
