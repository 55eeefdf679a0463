//! Writes backlogs of events.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders, ToBytes};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use serde::Serialize;
use vehicle_platform::event::{EventType, VehicleCreated, VehicleProcessed};
use vehicle_platform::registry::{Codec, RegistryArgs};
use vehicle_platform::vehicle::{PlainVehicle, Price};

use crate::role::PARTITIONS;
use crate::stats::{say, show};
use crate::workspace::{Site, Workspace};

pub type Producer = ThreadedProducer<DefaultProducerContext>;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the event of a vehicle that stock accepted, of the same size as the events of the relay measure.
pub fn created(number: u64) -> VehicleCreated {
    VehicleCreated {
        id: Some(i64::try_from(number).unwrap()),
        vehicle: PlainVehicle {
            vin: format!("V{number:016x}"),
            model: "model".to_owned(),
            manufacturer: "manufacturer".to_owned(),
            year: 2022,
            odometer: 1_000.0,
            odometer_unit: "km".to_owned(),
        },
    }
}

/// Returns the event of a vehicle that has a price.
pub fn processed(number: u64) -> VehicleProcessed {
    let cents = i64::try_from(number % 4_900_000).unwrap();
    created(number).priced(Price::from_cents(1_000_00 + cents))
}

/// Creates the topic of an event type and writes `count` valid events to it. The platform's codec registers the schema
/// and encodes the events, which have the same key and headers as on the platform.
pub async fn write<E: Serialize>(
    workspace: &Workspace,
    site: &Site,
    event_type: EventType,
    count: u64,
    event: impl Fn(u64) -> E,
) {
    let started = Instant::now();
    let topic = site.topic(event_type.topic);
    workspace.create_topic(&topic).await;
    let registry = RegistryArgs { urls: vec![workspace.registry.parse().unwrap()] };
    let codec = Codec::new(&registry).unwrap();
    let mut values = Vec::new();
    for number in 0..count {
        let value = codec.encode(event_type, &topic, &event(number)).await;
        values.push(value.expect("the registry accepts the schema and the event conforms to it"));
    }
    let kafka = workspace.kafka.clone();
    let written = topic.clone();
    tokio::task::spawn_blocking(move || write_blocking(&kafka, &written, &values)).await.unwrap();
    // Without transactions, each offset is a record.
    assert_eq!(end(workspace, &topic).await, count, "{topic} does not contain the backlog");
    say(&format!(
        "  wrote {} records to {} in {:.1} s",
        show(count as f64),
        event_type.topic,
        started.elapsed().as_secs_f64()
    ));
}

fn write_blocking(kafka: &str, topic: &str, values: &[Vec<u8>]) {
    let producer: Producer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("enable.idempotence", "true")
        .create()
        .unwrap();
    for (number, value) in (0..).zip(values) {
        let key = created(number).vehicle.vin;
        send(&producer, BaseRecord::to(topic).key(&key).payload(value).headers(trace_headers(number)));
    }
    producer.flush(TIMEOUT).expect("the brokers accept the backlog");
}

/// Queues a record, waiting while the queue is full.
pub fn send<K: ToBytes + ?Sized, V: ToBytes + ?Sized>(producer: &Producer, record: BaseRecord<'_, K, V>) {
    let mut record = record;
    while let Err((error, returned)) = producer.send(record) {
        assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
        producer.poll(Duration::from_millis(1));
        record = returned;
    }
}

pub fn trace_headers(number: u64) -> OwnedHeaders {
    let traceparent = format!("00-{number:032x}-{number:016x}-01");
    OwnedHeaders::new().insert(Header { key: "traceparent", value: Some(&traceparent) })
}

/// Returns the sum of the offsets at the ends of a topic's partitions.
pub async fn end(workspace: &Workspace, topic: &str) -> u64 {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &workspace.kafka);
    let topic = topic.to_owned();
    let read = move || {
        let consumer: BaseConsumer = config.create().unwrap();
        let end = |partition| consumer.fetch_watermarks(&topic, partition, TIMEOUT).unwrap().1;
        (0..i32::try_from(PARTITIONS).unwrap()).map(end).sum::<i64>().try_into().unwrap()
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}
