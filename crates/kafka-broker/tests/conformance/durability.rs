//! Checks what the embedded broker recovers after a crash.

use std::net::SocketAddr;
use std::path::Path;

use embedded_kafka_broker::{Broker, JournalError, StartError};
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{FutureProducer, Producer};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::harness::*;
use crate::protocol::{init, produce, producer_id};
use crate::raw::{Raw, batch, described};

mod admin;

/// Runs a broker with its own directory, which can crash and restart.
pub struct Restartable {
    dir: TempDir,
    running: Option<(Runtime, Broker)>,
}

impl Restartable {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let running = Some(run(dir.path(), "127.0.0.1:0".parse().unwrap()));
        Self { dir, running }
    }

    pub fn address(&self) -> String {
        self.running.as_ref().unwrap().1.address().to_string()
    }

    /// Stops all tasks where they are, as a killed process does, and restarts the broker at the same address.
    pub fn crash(&mut self) {
        let (runtime, broker) = self.running.take().unwrap();
        let address = broker.address();
        drop(runtime);
        drop(broker);
        self.running = Some(run(self.dir.path(), address));
    }

    pub fn producer(&self, settings: &[(&str, &str)]) -> FutureProducer {
        config_for(&self.address(), settings).create().unwrap()
    }

    fn values(&self, topic: &str, isolation: &str) -> Vec<String> {
        values_of(read_all_at(&self.address(), topic, isolation))
    }
}

fn run(dir: &Path, address: SocketAddr) -> (Runtime, Broker) {
    let runtime = Runtime::new().unwrap();
    let broker = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        // Segments are small, so that a test has several.
        let builder = Broker::builder().listener(socket.listen(128).unwrap()).segment_bytes(1000);
        builder.data_dir(dir).start().await.unwrap()
    });
    (runtime, broker)
}

#[test]
fn topics_records_and_the_cluster_id_survive() {
    let mut broker = Restartable::new();
    let topic = topic_at(&broker.address(), 2);
    let deleted = topic_at(&broker.address(), 1);
    let producer = broker.producer(&[]);
    for index in 0..10 {
        send(&producer, &topic, index % 2, &format!("{index}")).unwrap();
    }
    let admin: rdkafka::admin::AdminClient<_> = config_for(&broker.address(), &[]).create().unwrap();
    wait(admin.delete_topics(&[&deleted], &options())).unwrap()[0].clone().unwrap();
    let cluster_id = |broker: &Restartable| {
        let consumer: BaseConsumer = config_for(&broker.address(), &[]).create().unwrap();
        consumer.client().fetch_cluster_id(PATIENCE).unwrap()
    };
    let before = (cluster_id(&broker), broker.values(&topic, "read_committed"));
    assert_eq!(before.1.len(), 10);
    broker.crash();
    let after = (cluster_id(&broker), broker.values(&topic, "read_committed"));
    assert_eq!(after, before);
    let consumer: BaseConsumer = config_for(&broker.address(), &[]).create().unwrap();
    let metadata = consumer.fetch_metadata(None, PATIENCE).unwrap();
    let names: Vec<_> = metadata.topics().iter().map(|topic| topic.name()).collect();
    assert_eq!(names, [topic]);
}

#[test]
fn topics_keep_their_ids() {
    let mut broker = Restartable::new();
    let topics = [topic_at(&broker.address(), 1), topic_at(&broker.address(), 1)];
    let ids = |broker: &Restartable| {
        let mut raw = Raw::connect_to(&broker.address());
        topics.each_ref().map(|topic| described(&mut raw, topic).topic_id)
    };
    let before = ids(&broker);
    assert_ne!(before[0], before[1]);
    broker.crash();
    assert_eq!(ids(&broker), before);
}

#[test]
fn committed_offsets_and_their_group_survive() {
    let mut broker = Restartable::new();
    let topic = topic_at(&broker.address(), 1);
    let group = unique("group");
    let settings = [("group.id", group.as_str())];
    let consumer: BaseConsumer = config_for(&broker.address(), &settings).create().unwrap();
    let offsets = offsets(&topic, 0, Offset::Offset(42));
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
    broker.crash();
    assert_eq!(committed_at(&broker.address(), &group, &topic, 0), Some(42));
    let consumer: BaseConsumer = config_for(&broker.address(), &[]).create().unwrap();
    let groups = consumer.fetch_group_list(Some(&group), PATIENCE).unwrap();
    assert_eq!(groups.groups()[0].state(), "Empty");
}

#[test]
fn offsets_in_a_transaction_survive_and_become_visible_when_it_commits() {
    let mut broker = Restartable::new();
    let topic = topic_at(&broker.address(), 1);
    let group = unique("group");
    let committed = |broker: &Restartable| committed_at(&broker.address(), &group, &topic, 0);
    let name = unique("txn");
    let producer = broker.producer(&[("transactional.id", &name)]);
    let consumer: BaseConsumer = config_for(&broker.address(), &[("group.id", &group)]).create().unwrap();
    let metadata = consumer.group_metadata().unwrap();
    producer.init_transactions(PATIENCE).unwrap();

    producer.begin_transaction().unwrap();
    send(&producer, &topic, 0, "committed").unwrap();
    let seven = offsets(&topic, 0, Offset::Offset(7));
    producer.send_offsets_to_transaction(&seven, &metadata, PATIENCE).unwrap();
    broker.crash();
    eventually("the transaction commits", || producer.commit_transaction(PATIENCE).ok());
    assert_eq!(committed(&broker), Some(7));
    broker.crash();
    assert_eq!(committed(&broker), Some(7));

    producer.begin_transaction().unwrap();
    eventually("the record is sent", || send(&producer, &topic, 0, "aborted").ok());
    let nine = offsets(&topic, 0, Offset::Offset(9));
    eventually("the offsets are sent", || {
        producer.send_offsets_to_transaction(&nine, &metadata, PATIENCE).ok()
    });
    broker.crash();
    eventually("the transaction aborts", || producer.abort_transaction(PATIENCE).ok());
    broker.crash();
    assert_eq!(committed(&broker), Some(7));
    assert_eq!(broker.values(&topic, "read_committed"), ["committed"]);
}

#[test]
fn a_batch_repeated_after_a_restart_is_not_stored_twice() {
    let mut broker = Restartable::new();
    let topic = topic_at(&broker.address(), 1);
    let mut raw = Raw::connect_to(&broker.address());
    let producer = producer_id(&mut raw, init(&unique("txn")));
    let (id, epoch) = (producer.producer_id.0, producer.producer_epoch);
    let records = |sequence| batch(id, epoch, sequence, &["once"]);
    assert_eq!(produce(&mut raw, &topic, None, records(0)).error_code, 0);
    broker.crash();
    let mut raw = Raw::connect_to(&broker.address());
    let repeated = produce(&mut raw, &topic, None, records(0));
    assert_eq!((repeated.error_code, repeated.base_offset), (0, 0));
    assert_eq!(produce(&mut raw, &topic, None, records(1)).base_offset, 1);
    assert_eq!(broker.values(&topic, "read_committed"), ["once"; 2]);
    let next = producer_id(&mut raw, init(&unique("txn")));
    assert!(next.producer_id.0 > id);
}

#[test]
fn an_open_transaction_continues_after_a_restart() {
    let mut broker = Restartable::new();
    let topic = topic_at(&broker.address(), 1);
    let producer = broker.producer(&[("transactional.id", &unique("txn"))]);
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, &topic, 0, "before").unwrap();
    broker.crash();
    assert_eq!(broker.values(&topic, "read_committed"), [""; 0]);
    send(&producer, &topic, 0, "after").unwrap();
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(broker.values(&topic, "read_committed"), ["before", "after"]);
}

#[test]
fn an_open_transaction_is_aborted_by_the_next_producer_after_a_restart() {
    let mut broker = Restartable::new();
    let topic = topic_at(&broker.address(), 1);
    let id = unique("txn");
    let producer = broker.producer(&[("transactional.id", &id)]);
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, &topic, 0, "lost").unwrap();
    broker.crash();
    let successor = broker.producer(&[("transactional.id", &id)]);
    successor.init_transactions(PATIENCE).unwrap();
    successor.begin_transaction().unwrap();
    send(&successor, &topic, 0, "kept").unwrap();
    successor.commit_transaction(PATIENCE).unwrap();
    assert_eq!(broker.values(&topic, "read_committed"), ["kept"]);
    broker.crash();
    assert_eq!(broker.values(&topic, "read_committed"), ["kept"]);
    assert_eq!(broker.values(&topic, "read_uncommitted"), ["lost", "kept"]);
}

#[test]
fn an_open_transaction_times_out_after_a_restart() {
    let mut broker = Restartable::new();
    let topic = topic_at(&broker.address(), 1);
    let settings = [
        ("transactional.id", unique("txn")),
        ("transaction.timeout.ms", "3000".to_owned()),
        ("message.timeout.ms", "3000".to_owned()),
    ];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let abandoned = broker.producer(&settings);
    abandoned.init_transactions(PATIENCE).unwrap();
    abandoned.begin_transaction().unwrap();
    send(&abandoned, &topic, 0, "abandoned").unwrap();
    broker.crash();
    send(&broker.producer(&[]), &topic, 0, "behind it").unwrap();
    eventually("the transaction is aborted", || {
        (broker.values(&topic, "read_committed") == ["behind it"]).then_some(())
    });
}

#[test]
fn a_shutdown_ends_connections_and_releases_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let broker = wait(Broker::builder().data_dir(dir.path()).start()).unwrap();
    let topic = topic_at(&broker.address().to_string(), 1);
    let address = broker.address().to_string();
    let consumer: BaseConsumer = config_for(&address, &[("group.id", "reader")]).create().unwrap();
    consumer.assign(&offsets(&topic, 0, Offset::Beginning)).unwrap();
    let mut idle = Raw::connect_to(&address);
    wait(broker.shutdown());
    assert!(idle.is_closed());
    let again = wait(Broker::builder().data_dir(dir.path()).start()).unwrap();
    wait(again.shutdown());
}

#[test]
fn a_dropped_broker_ends_connections_and_releases_its_port() {
    let broker = wait(Broker::start()).unwrap();
    let address = broker.address();
    let mut idle = Raw::connect_to(&address.to_string());
    drop(broker);
    assert!(idle.is_closed());
    eventually("the port is closed", || std::net::TcpStream::connect(address).is_err().then_some(()));
}

#[test]
fn a_directory_in_use_by_another_broker_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = wait(Broker::builder().data_dir(dir.path()).start()).unwrap();
    let refused = wait(Broker::builder().data_dir(dir.path()).start()).unwrap_err();
    assert!(matches!(refused, StartError::Journal(JournalError::Locked(_))), "{refused}");
}

#[test]
fn a_broker_without_a_directory_starts_empty() {
    let topics = |broker: &Broker| {
        let consumer: BaseConsumer = config_for(&broker.address().to_string(), &[]).create().unwrap();
        consumer.fetch_metadata(None, PATIENCE).unwrap().topics().len()
    };
    let first = wait(Broker::start()).unwrap();
    topic_at(&first.address().to_string(), 1);
    assert_eq!(topics(&first), 1);
    let second = wait(Broker::start()).unwrap();
    assert_ne!(second.address(), first.address());
    assert_eq!(topics(&second), 0);
}
