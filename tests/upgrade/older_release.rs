//! Simulates the relay of the older release on Kafka.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::database::Database;
use crate::engines::Engines;
use crate::support::kafka::read_all;

pub const TOPIC: &str = "stock.vehicle-created";

const TIMEOUT: Duration = Duration::from_secs(30);

/// The producer of the older relay, which commits the number of the next batch as the offset of a group.
pub struct OlderRelay {
    bootstrap: String,
    name: String,
    producer: BaseProducer,
}

impl OlderRelay {
    /// Starts a producer with the identity in the database.
    pub async fn begin(engines: &Engines, database: &Database) -> Self {
        let identity = database.texts("SELECT identity AS text FROM outbox_identity").await.remove(0);
        let (bootstrap, name) = (engines.kafka.clone(), format!("ms-vehicles-stock.{identity}"));
        tokio::task::spawn_blocking(move || {
            let producer: BaseProducer = ClientConfig::new()
                .set("bootstrap.servers", &bootstrap)
                .set("transactional.id", &name)
                .set("transaction.timeout.ms", "20000")
                .create()
                .unwrap();
            producer.init_transactions(TIMEOUT).unwrap();
            Self { bootstrap, name, producer }
        })
        .await
        .unwrap()
    }

    /// Sends the transaction that publishes `batch` without committing it.
    pub async fn send(self, batch: i64, vins: &'static [&'static str]) -> Self {
        tokio::task::spawn_blocking(move || {
            self.producer.begin_transaction().unwrap();
            for vin in vins {
                let record = BaseRecord::to(TOPIC).key(*vin).payload("of the older release");
                self.producer.send(record).map_err(|(error, _)| error).unwrap();
            }
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", &self.bootstrap)
                .set("group.id", &self.name)
                .create()
                .unwrap();
            let mut offsets = TopicPartitionList::new();
            offsets.add_partition_offset(TOPIC, 0, Offset::Offset(batch + 1)).unwrap();
            let group = consumer.group_metadata().unwrap();
            self.producer.send_offsets_to_transaction(&offsets, &group, TIMEOUT).unwrap();
            self.producer.flush(TIMEOUT).unwrap();
            self
        })
        .await
        .unwrap()
    }

    pub async fn commit(self) -> KafkaResult<()> {
        tokio::task::spawn_blocking(move || self.producer.commit_transaction(TIMEOUT)).await.unwrap()
    }
}

/// Returns the keys of all committed records, sorted, and whether the older release wrote each.
pub async fn published(engines: &Engines) -> Vec<(String, bool)> {
    let mut published: Vec<_> = read_all(&engines.kafka, TOPIC)
        .await
        .iter()
        .map(|record| {
            let key = String::from_utf8(record.key().unwrap().to_vec()).unwrap();
            (key, record.payload() == Some(b"of the older release"))
        })
        .collect();
    published.sort();
    published
}
