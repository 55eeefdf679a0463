//! Records rebalances in librdkafka's callback, for the worker's loop to handle. The callback also determines the
//! offset at which reading a new partition begins.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::CALL_TIMEOUT;
use super::client::LoggingContext;
use super::consumed::{Committed, Consumed, Start};
use super::progress::Mark;
use super::transaction::TRANSACTION_TIMEOUT;

/// The time limit for determining where to begin. A transaction that a killed member left open blocks the committed
/// offsets until it times out, and a partition may wait about as long for a new leader.
const START_TIMEOUT: Duration = TRANSACTION_TIMEOUT.saturating_add(CALL_TIMEOUT);

/// A change of the assignment.
pub(super) enum RebalanceEvent {
    Assigned(Vec<Start>),
    /// Partitions were assigned, but the brokers did not return the offsets at which to begin.
    Unknown(KafkaError),
    Revoked(Vec<i32>),
    Failed(KafkaError),
}

/// The rebalances that the loop has not handled yet, in the order of their occurrence.
#[derive(Default)]
pub(super) struct RebalanceLog {
    events: Mutex<VecDeque<RebalanceEvent>>,
}

impl RebalanceLog {
    pub(super) fn take(&self) -> VecDeque<RebalanceEvent> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for RebalanceLog {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        LoggingContext.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        LoggingContext.error(error, reason);
    }
}

impl ConsumerContext for RebalanceLog {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let event = match rebalance {
            Rebalance::Assign(list) => match begin(consumer, list) {
                Ok(starts) => RebalanceEvent::Assigned(starts),
                Err(error) => RebalanceEvent::Unknown(error),
            },
            Rebalance::Revoke(list) => {
                let partitions = list.elements().iter().map(TopicPartitionListElem::partition).collect();
                RebalanceEvent::Revoked(partitions)
            }
            Rebalance::Error(error) => RebalanceEvent::Failed(error.clone()),
        };
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
    }
}

/// Sets the offset at which reading each partition of `list` begins.
fn begin(consumer: &BaseConsumer<RebalanceLog>, list: &TopicPartitionList) -> KafkaResult<Vec<Start>> {
    if list.count() == 0 {
        return Ok(Vec::new());
    }
    let until = Instant::now() + START_TIMEOUT;
    let left = || until.saturating_duration_since(Instant::now());
    let committed = consumer.committed_offsets(list.clone(), left())?;
    let mut starts = Vec::with_capacity(list.count());
    for mut assigned in list.elements() {
        let (topic, partition) = (assigned.topic().to_owned(), assigned.partition());
        let element = committed.find_partition(&topic, partition);
        let mark = match &element {
            Some(element) => {
                element.error()?;
                Mark::of(element)
            }
            None => None,
        };
        let committed = mark.map(|mark| Committed {
            next: mark.offset,
            last: mark.metadata.as_deref().and_then(Consumed::from_metadata),
        });
        let bounds = consumer.fetch_watermarks(&topic, partition, left())?;
        let start = Start::decide(partition, committed, bounds);
        assigned.set_offset(Offset::Offset(start.offset))?;
        starts.push(start);
    }
    Ok(starts)
}
