//! Measures the limits for estimate: librdkafka alone consumes records and produces records of the size of estimate's.
//!
//! One thread polls and produces with librdkafka's defaults, `acks=all` and no compression. It copies key, headers and
//! value and appends the price to the value as text. It neither decodes JSON nor checks a schema.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::records::{Producer, send};
use crate::transactions::BATCH;

const TIMEOUT: Duration = Duration::from_secs(30);
const PRICE: &[u8] = br#","price":25000.55,"priceUnit":"USD"}"#;

/// How the loop commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commits {
    /// Commits the offsets once, at the end, when all records are acknowledged.
    AtTheEnd,
    /// Produces every 5,000 records and commits their offsets in one transaction.
    Transactions,
}

/// A run over a backlog.
#[derive(Clone, Debug)]
pub struct CopyLoop {
    pub kafka: String,
    pub from: String,
    /// The topic to write to, and the name of the group and of the transactional id.
    pub to: String,
    pub count: u64,
    pub commits: Commits,
}

impl CopyLoop {
    /// Copies the backlog. Returns the records per second from the first record to the last commit.
    pub async fn run(self) -> f64 {
        tokio::task::spawn_blocking(move || self.run_blocking()).await.unwrap()
    }

    fn run_blocking(&self) -> f64 {
        let consumer: BaseConsumer = self
            .config()
            .set("group.id", &self.to)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let producer = self.producer();
        consumer.subscribe(&[&self.from]).unwrap();
        let mut next = BTreeMap::new();
        let mut value = Vec::new();
        let mut started = None;
        let mut done = 0;
        while done < self.count {
            let batch = BATCH.min(self.count - done);
            if self.commits == Commits::Transactions {
                producer.begin_transaction().unwrap();
            }
            for _ in 0..batch {
                let message = self.read(&consumer);
                started.get_or_insert_with(Instant::now);
                self.copy(&producer, &message, &mut value);
                next.insert(message.partition(), message.offset() + 1);
            }
            if self.commits == Commits::Transactions {
                let group = consumer.group_metadata().unwrap();
                producer.send_offsets_to_transaction(&self.offsets(&next), &group, TIMEOUT).unwrap();
                producer.commit_transaction(TIMEOUT).unwrap();
            }
            done += batch;
        }
        if self.commits == Commits::AtTheEnd {
            producer.flush(TIMEOUT).unwrap();
            consumer.commit(&self.offsets(&next), CommitMode::Sync).unwrap();
        }
        self.count as f64 / started.unwrap().elapsed().as_secs_f64()
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.kafka);
        config
    }

    fn producer(&self) -> Producer {
        let mut config = self.config();
        config.set("acks", "all");
        if self.commits == Commits::Transactions {
            // The same value as in estimate. The default of 100 ms would dominate the duration of each transaction.
            config.set("transactional.id", &self.to).set("retry.backoff.ms", "10");
        }
        let producer: Producer = config.create().unwrap();
        if self.commits == Commits::Transactions {
            producer.init_transactions(TIMEOUT).unwrap();
        }
        producer
    }

    fn read<'a>(&self, consumer: &'a BaseConsumer) -> BorrowedMessage<'a> {
        let deadline = Instant::now() + TIMEOUT;
        // A poll returns early without a record when partitions are assigned.
        while Instant::now() < deadline {
            if let Some(message) = consumer.poll(TIMEOUT) {
                return message.unwrap();
            }
        }
        panic!("no record of {} arrived within {TIMEOUT:?}", self.from);
    }

    fn copy(&self, producer: &Producer, message: &BorrowedMessage<'_>, value: &mut Vec<u8>) {
        value.clear();
        value.extend_from_slice(message.payload().unwrap().strip_suffix(b"}").unwrap());
        value.extend_from_slice(PRICE);
        let record = BaseRecord::to(&self.to).key(message.key().unwrap()).payload(value.as_slice());
        send(producer, record.headers(message.headers().unwrap().detach()));
    }

    fn offsets(&self, next: &BTreeMap<i32, i64>) -> TopicPartitionList {
        let mut offsets = TopicPartitionList::new();
        for (&partition, &offset) in next {
            offsets.add_partition_offset(&self.from, partition, Offset::Offset(offset)).unwrap();
        }
        offsets
    }
}
