//! Takes note of rebalances inside librdkafka's callback, for the worker's loop to handle.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{ClientContext, TopicPartitionList};

use super::client::LoggingContext;

/// What happened to the assignment, in the order in which it happened.
pub(super) enum RebalanceEvent {
    Assigned(Vec<i32>),
    Revoked(Vec<i32>),
    Failed(KafkaError),
}

/// Notes rebalances for the loop.
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
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let partitions = |list: &TopicPartitionList| -> Vec<i32> {
            list.elements().iter().map(TopicPartitionListElem::partition).collect()
        };
        let event = match rebalance {
            Rebalance::Assign(list) => RebalanceEvent::Assigned(partitions(list)),
            Rebalance::Revoke(list) => RebalanceEvent::Revoked(partitions(list)),
            Rebalance::Error(error) => RebalanceEvent::Failed(error.clone()),
        };
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
    }
}
