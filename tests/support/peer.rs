//! A foreign member of the estimators' group.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::{Platform, eventually};

const CREATED: &str = "stock.vehicle-created";

/// A member of the estimators' group that reads and never commits.
pub struct Peer {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Peer {
    pub async fn join(platform: &Platform, assignor: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", platform.kafka())
            .set("group.id", "ms-price-estimate")
            .set("enable.auto.commit", "false")
            .set("partition.assignment.strategy", assignor)
            .create()
            .unwrap();
        consumer.subscribe(&[CREATED]).unwrap();
        let (stop, joined) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (stop, joined) = (Arc::clone(&stop), Arc::clone(&joined));
            move || {
                while !stop.load(Ordering::SeqCst) {
                    let _ = consumer.poll(Duration::from_millis(100));
                    joined.store(consumer.assignment().unwrap().count() > 0, Ordering::SeqCst);
                }
            }
        });
        eventually("the peer to join", async || joined.load(Ordering::SeqCst).then_some(())).await;
        Self { stop, thread: Some(thread) }
    }

    pub fn leave(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}
