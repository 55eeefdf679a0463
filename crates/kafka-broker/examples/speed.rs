//! Measures an embedded broker with librdkafka in the same process: how fast it fills a directory, then how fast it
//! starts with these data, how much memory that takes, and how fast a consumer reads them.
//!
//! ```text
//! speed fill <directory> <records> <codec> <records per batch>
//! speed start <directory>
//! ```

use std::path::Path;
use std::time::{Duration, Instant};

use embedded_kafka_broker::Broker;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::runtime::Runtime;

const TOPIC: &str = "speed";
const PARTITIONS: i32 = 3;
const TIMEOUT: Duration = Duration::from_secs(60);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fill", dir, records, codec, per_batch] => fill(dir.as_ref(), records.parse()?, codec, per_batch),
        ["start", dir] => start(dir.as_ref()),
        _ => {
            Err("speed fill <directory> <records> <codec> <records per batch> | speed start <directory>"
                .into())
        }
    }
}

fn client(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.address().to_string());
    config
}

fn fill(dir: &Path, records: usize, codec: &str, per_batch: &str) -> Result<()> {
    let runtime = Runtime::new()?;
    let broker = runtime.block_on(Broker::builder().data_dir(dir).start())?;
    let admin: AdminClient<_> = client(&broker).create()?;
    let topic = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1));
    runtime.block_on(admin.create_topics(&[topic], &AdminOptions::new()))?;
    let producer: BaseProducer = client(&broker)
        .set("compression.type", codec)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("batch.num.messages", per_batch)
        .set("queue.buffering.max.messages", "100000")
        .create()?;
    let begun = Instant::now();
    for (index, partition) in (0..records).zip((0..PARTITIONS).cycle()) {
        let payload = payload(index);
        let mut record = BaseRecord::<(), _>::to(TOPIC).partition(partition).payload(&payload);
        while let Err((error, refused)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            producer.poll(Duration::from_millis(1));
            record = refused;
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(TIMEOUT)?;
    println!("produce {codec}: {} records/s", per_second(records, begun));
    drop(producer);
    runtime.block_on(broker.shutdown());
    Ok(())
}

/// Returns about 300 bytes that compress about as JSON does.
fn payload(index: usize) -> String {
    let scattered = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut payload =
        format!(r#"{{"id":{index},"vin":"{scattered:016X}","odometer":{}"#, scattered % 400_000);
    for field in ["model", "manufacturer", "odometerUnit", "price", "priceUnit"] {
        payload.push_str(&format!(
            r#","{field}":"{field}-{}-{:08x}""#,
            index % 97,
            scattered.rotate_left(20) & 0xffff_ffff
        ));
    }
    payload.push('}');
    payload
}

fn start(dir: &Path) -> Result<()> {
    let runtime = Runtime::new()?;
    let begun = Instant::now();
    let broker = runtime.block_on(Broker::builder().data_dir(dir).start())?;
    println!("start: {} ms, {}", begun.elapsed().as_millis(), memory());
    let consumer: BaseConsumer = client(&broker)
        .set("group.id", "speed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(TOPIC, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let begun = Instant::now();
    let (mut records, mut bytes, mut ended) = (0, 0, 0);
    while ended < PARTITIONS {
        match consumer.poll(TIMEOUT) {
            Some(Ok(message)) => {
                records += 1;
                bytes += message.payload_len();
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => return Err(error.into()),
            None => return Err("no records arrive".into()),
        }
    }
    println!("fetch: {} records/s of {} bytes", per_second(records, begun), bytes / records.max(1));
    drop(consumer);
    runtime.block_on(broker.shutdown());
    Ok(())
}

fn per_second(records: usize, begun: Instant) -> u128 {
    records as u128 * 1000 / begun.elapsed().as_millis().max(1)
}

/// Returns the memory of the process, where the system reports it.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = |line: &&str| line.starts_with("VmRSS") || line.starts_with("VmHWM");
    status.lines().filter(wanted).collect::<Vec<_>>().join(", ")
}
