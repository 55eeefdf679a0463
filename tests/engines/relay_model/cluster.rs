//! Models a Kafka cluster as relays see it: transactions, fencing, and the mark of each identity.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use anyhow::anyhow;
use async_trait::async_trait;
use vehicle_platform::kafka::Mark;
use vehicle_platform::stock::relay::{Begun, Cluster, PublishError};
use vehicle_platform::stock::vehicle_store::{LogEntry, PositionKey};

use super::gate::Gate;

/// The prefix of vins whose events an older release cannot encode.
pub const UNENCODABLE: &str = "unencodable";
/// The prefix of vins whose events the cluster refuses until its settings change.
pub const REFUSED: &str = "refused";

#[derive(Default)]
pub struct State {
    pub name: String,
    /// The `event_id`s in order.
    pub published: Vec<String>,
    pub marks: HashMap<String, Mark>,
    owners: HashMap<String, u64>,
    producers: u64,
    pub lose_answer: bool,
    pub fail_publish: bool,
    pub fail_encode: bool,
}

/// A cluster that its relays share.
#[derive(Clone, Default)]
pub struct ModelCluster(pub Arc<Mutex<State>>);

impl ModelCluster {
    pub fn named(name: &str) -> Self {
        Self(Arc::new(Mutex::new(State { name: name.to_owned(), ..State::default() })))
    }
}

/// The cluster client of one relay.
pub struct ModelProducer {
    pub cluster: ModelCluster,
    pub gate: Gate,
    pub encodes_all: bool,
    pub begun: Option<(String, u64)>,
    /// Whether the next records are sent alone, which identifies those that are refused.
    pub sends_alone: bool,
}

impl ModelProducer {
    /// Takes over the identity, even from a producer that took it over meanwhile, as a restarted producer does.
    fn take_over(&mut self, identity: &str) {
        let mut state = self.cluster.0.lock().unwrap();
        state.producers += 1;
        let producer = state.producers;
        state.owners.insert(identity.to_owned(), producer);
        self.begun = Some((identity.to_owned(), producer));
    }
}

#[async_trait]
impl Cluster for ModelProducer {
    type Record = String;

    async fn begin(&mut self, identity: &str) -> anyhow::Result<Begun> {
        self.gate.pass().await;
        self.take_over(identity);
        self.gate.pass().await;
        let state = self.cluster.0.lock().unwrap();
        let key = PositionKey { cluster: state.name.clone(), topic: "topic".to_owned() };
        Ok(Begun { key, mark: state.marks.get(identity).cloned() })
    }

    fn schema_id(&self) -> Option<u32> {
        Some(u32::from(self.encodes_all))
    }

    fn refusal(&self, entry: &LogEntry) -> Option<String> {
        let is_unknown = entry.vin.starts_with(UNENCODABLE) && !self.encodes_all;
        is_unknown.then(|| "a field that this release does not know".to_owned())
    }

    async fn encode(&self, entries: &[LogEntry]) -> anyhow::Result<Vec<Result<String, String>>> {
        self.gate.pass().await;
        if std::mem::take(&mut self.cluster.0.lock().unwrap().fail_encode) {
            return Err(anyhow!("the registry is unavailable"));
        }
        Ok(entries
            .iter()
            .map(|entry| match self.refusal(entry) {
                Some(reason) => Err(reason),
                None if entry.vin.starts_with(REFUSED) && !self.encodes_all => Ok(REFUSED.to_owned()),
                None => Ok(entry.event_id.clone()),
            })
            .collect())
    }

    async fn publish(&mut self, records: Vec<String>, mark: Mark) -> Result<(), PublishError> {
        self.gate.pass().await;
        let (identity, producer) = self.begun.clone().unwrap();
        let indices = records.iter().enumerate().filter(|(_, record)| *record == REFUSED);
        let refused: Vec<_> = indices.map(|(index, _)| (index, "too large".to_owned())).collect();
        let lose_answer = {
            let mut state = self.cluster.0.lock().unwrap();
            if state.owners.get(&identity) != Some(&producer) {
                return Err(PublishError::Fenced(anyhow!("a newer producer has the identity")));
            }
            if refused.is_empty() {
                if std::mem::take(&mut state.fail_publish) {
                    return Err(PublishError::Failed(anyhow!("aborted")));
                }
                state.published.extend(records);
                state.marks.insert(identity.clone(), mark);
            }
            refused.is_empty() && std::mem::take(&mut state.lose_answer)
        };
        // A crash here is a crash after the commit, and another relay may take over before the producer restarts.
        self.gate.pass().await;
        if !refused.is_empty() {
            self.take_over(&identity);
            return Err(match std::mem::replace(&mut self.sends_alone, true) {
                false => PublishError::RefusedSome(anyhow!("too large")),
                true => PublishError::Refused(refused),
            });
        }
        if lose_answer {
            return Err(PublishError::Failed(anyhow!("the answer was lost")));
        }
        if std::mem::take(&mut self.sends_alone) {
            self.take_over(&identity);
        }
        Ok(())
    }

    async fn next_batch_of_older_release(&mut self, _: &str) -> anyhow::Result<Option<i64>> {
        Ok(None)
    }
}
