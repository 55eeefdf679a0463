//! The claim of one instance to resolve dead letters.

use std::collections::BTreeMap;

use tokio::runtime::Handle;

use super::letter_id::LetterId;
use crate::event::EventType;
use crate::kafka::{CommitError, KafkaArgs, Naming, OutgoingRecord, Resolutions, TransactionalProducer};

/// The transactional id of the tool. An instance that starts fences the one before it.
const TRANSACTIONAL_ID: &str = "vehicle-platform-dlq";

/// Publishes what resolves dead letters, unless another instance has the claim.
pub(super) struct Claim {
    producer: TransactionalProducer,
    /// The number of takeovers of the producer for which [`Self::resolved`] is complete.
    takeovers: u64,
    /// What was resolved since the claim was taken.
    resolved: BTreeMap<EventType, Resolutions>,
}

impl Claim {
    /// Takes the claim. Dead letters that are read from now on, and are unresolved then, stay unresolved until this
    /// instance resolves them, loses the claim, or has a transaction refused. This call blocks.
    ///
    /// # Errors
    /// Fails when the brokers do not respond.
    pub fn take(kafka: &KafkaArgs) -> anyhow::Result<Self> {
        let naming = Naming::new(kafka);
        let id = naming.group(TRANSACTIONAL_ID);
        let producer = Handle::current().block_on(TransactionalProducer::of_tool(kafka, &id))?;
        let takeovers = producer.takeovers();
        let resolutions = |event: EventType| Ok((event, Resolutions::from_now(kafka, &naming.topic(event))?));
        let resolved = EventType::ALL.into_iter().map(resolutions).collect::<anyhow::Result<_>>()?;
        Ok(Self { producer, takeovers, resolved })
    }

    /// Returns whether a dead letter that was unresolved is resolved by now. This call may block: after a refusal, the
    /// producer has taken the claim again, perhaps from an instance that has resolved dead letters since.
    ///
    /// # Errors
    /// Fails when the brokers do not respond.
    pub fn is_resolved(&mut self, id: LetterId) -> anyhow::Result<bool> {
        let takeovers = self.producer.takeovers();
        if self.takeovers != takeovers {
            for resolutions in self.resolved.values_mut() {
                resolutions.update()?;
            }
            self.takeovers = takeovers;
        }
        Ok(self.resolved.get(&id.event).is_some_and(|resolutions| resolutions.contains(id.position)))
    }

    /// Publishes the records, all or none.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn publish<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a OutgoingRecord>,
    ) -> Result<(), CommitError> {
        Handle::current().block_on(self.producer.publish(records))
    }
}
