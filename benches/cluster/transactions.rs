//! Measures the limit for the relay: Kafka transactions written by librdkafka alone.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer as _};

use crate::records::{Producer, send, trace_headers};

/// Records per transaction.
pub const BATCH: u64 = 5_000;
const TIMEOUT: Duration = Duration::from_secs(30);

/// Writes `count` records of the same size as the relay's and returns the records per second. The first transaction
/// opens the connections and is not counted.
pub async fn write(kafka: &str, topic: &str, count: u64) -> f64 {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka)
        .set("transactional.id", topic)
        .set("acks", "all")
        // Every transaction retries some request, and the default of 100 ms would dominate its duration.
        .set("retry.backoff.ms", "10");
    let topic = topic.to_owned();
    tokio::task::spawn_blocking(move || write_blocking(&config, &topic, count)).await.unwrap()
}

fn write_blocking(config: &ClientConfig, topic: &str, count: u64) -> f64 {
    let producer: Producer = config.create().unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    transact(&producer, topic, 0);
    let started = Instant::now();
    let batches = count.div_ceil(BATCH);
    for batch in 1..=batches {
        transact(&producer, topic, batch);
    }
    (batches * BATCH) as f64 / started.elapsed().as_secs_f64()
}

fn transact(producer: &Producer, topic: &str, batch: u64) {
    producer.begin_transaction().unwrap();
    for number in batch * BATCH..(batch + 1) * BATCH {
        let key = format!("V{number:016x}");
        // The wire format of the schema registry: a zero byte, then a schema id of four bytes.
        let value = format!(
            "\0\0\0\0\u{1}{{\"id\":{number},\"vin\":\"{key}\",\"model\":\"model\",\"manufacturer\":\"manufacturer\",\
             \"year\":2022,\"odometer\":1000,\"odometerUnit\":\"km\"}}"
        );
        let record = BaseRecord::to(topic).key(&key).payload(&value).headers(trace_headers(number));
        send(producer, record);
    }
    producer.commit_transaction(TIMEOUT).unwrap();
}
