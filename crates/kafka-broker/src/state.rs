//! Holds the durable state in memory, the result of all journal entries.
//!
//! Only [`State::apply`] changes it, both for requests and for the replay at start.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::batch::{self, BatchHeader};
use crate::entry::{Append, Entry, ProducerIdAndEpoch, StoredGroup};
use crate::group_offsets::GroupOffsets;
use crate::ids;
use crate::partition::{Partition, Stored};
use crate::topic_configs::TopicConfigs;
use crate::transaction::{Status, Transaction};

#[derive(Debug, Default)]
pub struct State {
    pub cluster_id: Option<String>,
    pub topics: BTreeMap<String, Topic>,
    pub topic_names: HashMap<Uuid, String>,
    /// Keyed by group id.
    pub offsets: BTreeMap<String, GroupOffsets>,
    /// Keyed by transactional id.
    pub transactions: HashMap<String, Transaction>,
    /// Groups as a restart finds them, by id.
    pub groups: BTreeMap<String, StoredGroup>,
    pub next_producer_id: i64,
}

#[derive(Debug)]
pub struct Topic {
    /// Identifies the topic. A topic that is created again with the same name has another id.
    pub id: Uuid,
    pub partitions: Vec<Partition>,
    pub configs: TopicConfigs,
}

impl Topic {
    pub fn partition(&self, index: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

impl State {
    /// Returns the name of the topic with this id.
    pub fn topic_name(&self, id: Uuid) -> Option<&str> {
        self.topic_names.get(&id).map(String::as_str)
    }

    pub fn partition(&self, topic: &str, index: i32) -> Option<&Partition> {
        self.topics.get(topic)?.partition(index)
    }

    pub fn partition_mut(&mut self, topic: &str, index: i32) -> Option<&mut Partition> {
        let partitions = &mut self.topics.get_mut(topic)?.partitions;
        partitions.get_mut(usize::try_from(index).ok()?)
    }

    /// Returns the entry that ends an open transaction, with a marker for each of its partitions.
    pub fn txn_ended(
        &self,
        transactional_id: &str,
        committed: bool,
        producer_epoch: i16,
        now_ms: i64,
    ) -> Option<Entry> {
        let txn = self.transactions.get(transactional_id)?;
        let markers = txn.ongoing()?.partitions.iter().filter_map(|(topic, index)| {
            let base_offset = self.partition(topic, *index)?.end_offset();
            let id = txn.producer.id;
            let batch = batch::end_marker(base_offset, now_ms, id, producer_epoch, committed);
            Some(Append { topic: topic.clone().into(), partition: *index, batch, offset_in_payload: 0 })
        });
        Some(Entry::TxnEnded {
            transactional_id: transactional_id.to_owned().into(),
            committed,
            producer_epoch,
            markers: markers.collect(),
        })
    }

    /// Applies an entry whose payload is at `position` in the journal.
    ///
    /// # Errors
    /// When the entry contradicts those before it.
    pub fn apply(&mut self, entry: &Entry, position: u64) -> Result<()> {
        match entry {
            Entry::ClusterCreated { cluster_id } => {
                self.cluster_id = Some(cluster_id.to_string());
            }
            Entry::TopicCreated { topic, partitions, configs, topic_id } => {
                ensure!(!self.topics.contains_key(topic.as_str()), "topic {topic} is created twice");
                let id = topic_id.unwrap_or_else(|| ids::topic_id_of_entry(topic, position));
                let created = Topic {
                    id,
                    partitions: (0..*partitions).map(|_| Partition::default()).collect(),
                    configs: topic_configs(configs),
                };
                self.topics.insert(topic.to_string(), created);
                self.topic_names.insert(id, topic.to_string());
            }
            Entry::PartitionsAdded { topic, total } => {
                let total = usize::try_from(*total)?;
                let grown = self.topics.get_mut(topic.as_str());
                let partitions = &mut grown.context("partitions are added to an unknown topic")?.partitions;
                ensure!(total >= partitions.len(), "topic {topic} would lose partitions");
                partitions.resize_with(total, Partition::default);
            }
            Entry::TopicDeleted { topic } => self.delete_topic(topic)?,
            Entry::TopicConfigured { topic, configs } => {
                let configured = self.topics.get_mut(topic.as_str());
                configured.context("an unknown topic is configured")?.configs = topic_configs(configs);
            }
            Entry::BatchAppended(append) => {
                let (partition, header, stored) = self.target(append, position)?;
                partition.append(&header, stored);
            }
            Entry::RecordsDeleted { topic, partition, before } => {
                let partition = self.partition_mut(topic, *partition);
                partition.context("records of an unknown partition are deleted")?.delete_before(*before);
            }
            Entry::ProducersExpired { before_ms } => {
                let partitions = self.topics.values_mut().flat_map(|topic| &mut topic.partitions);
                partitions.for_each(|partition| partition.expire_producers(*before_ms));
            }
            Entry::OffsetsCommitted { group, offsets } => {
                self.group_offsets(group).commit(offsets, position);
            }
            Entry::OffsetsDeleted { group, partitions } => {
                if let Some(offsets) = self.offsets.get_mut(group.as_str()) {
                    partitions.iter().for_each(|(topic, partition)| offsets.remove(topic, *partition));
                }
                self.offsets.retain(|_, offsets| !offsets.is_empty());
            }
            Entry::GroupDeleted { group } => {
                self.offsets.remove(group.as_str());
                self.groups.remove(group.as_str());
            }
            Entry::ProducerIdAllocated { producer_id } => {
                self.next_producer_id = self.next_producer_id.max(producer_id + 1);
            }
            Entry::TransactionInitialized { transactional_id, producer, last_producer, timeout_ms } => {
                self.next_producer_id = self.next_producer_id.max(producer.id + 1);
                let initialized = Transaction {
                    producer: *producer,
                    last_producer: *last_producer,
                    timeout_ms: *timeout_ms,
                    status: Status::Empty,
                };
                self.transactions.insert(transactional_id.to_string(), initialized);
            }
            Entry::PartitionsAddedToTxn { transactional_id, at_ms, partitions } => {
                let txn = self.transaction(transactional_id)?;
                let ongoing = txn.open_or_begin(*at_ms).context("the transaction did not begin")?;
                let added = partitions.iter();
                ongoing.partitions.extend(added.map(|(topic, index)| (topic.to_string(), *index)));
            }
            Entry::GroupAddedToTxn { transactional_id, at_ms, group } => {
                let txn = self.transaction(transactional_id)?;
                let ongoing = txn.open_or_begin(*at_ms).context("the transaction did not begin")?;
                ongoing.groups.insert(group.to_string());
            }
            Entry::TxnOffsetsCommitted { producer_id, group, offsets } => {
                self.group_offsets(group).commit_pending(*producer_id, offsets, position);
            }
            Entry::TxnEnded { transactional_id, committed, producer_epoch, markers } => {
                self.append_markers(markers, position, *committed)?;
                self.end_transaction(transactional_id, *committed, *producer_epoch)?;
            }
            Entry::MarkersWritten { committed, markers } => {
                self.append_markers(markers, position, *committed)?;
            }
            Entry::GroupStored { group, stored } => {
                self.groups.insert(group.to_string(), stored.clone());
            }
            Entry::GroupRemoved { group } => {
                self.groups.remove(group.as_str());
            }
        }
        Ok(())
    }

    fn append_markers(&mut self, markers: &[Append], position: u64, committed: bool) -> Result<()> {
        for marker in markers {
            let (partition, header, stored) = self.target(marker, position)?;
            partition.append_marker(&header, stored, committed);
        }
        Ok(())
    }

    fn end_transaction(&mut self, id: &str, committed: bool, epoch: i16) -> Result<()> {
        let txn = self.transaction(id)?;
        let end = if committed { Status::CompleteCommit } else { Status::CompleteAbort };
        let Status::Ongoing(ended) = std::mem::replace(&mut txn.status, end) else {
            anyhow::bail!("transaction {id} ends but is not open");
        };
        if txn.producer.epoch != epoch {
            txn.producer.epoch = epoch;
            txn.last_producer = ProducerIdAndEpoch::NONE;
        }
        let producer_id = txn.producer.id;
        for group in &ended.groups {
            if let Some(offsets) = self.offsets.get_mut(group) {
                offsets.end_transaction(producer_id, committed);
            }
        }
        self.offsets.retain(|_, offsets| !offsets.is_empty());
        Ok(())
    }

    fn delete_topic(&mut self, name: &str) -> Result<()> {
        let mut topic = self.topics.remove(name).with_context(|| format!("topic {name} is unknown"))?;
        self.topic_names.remove(&topic.id);
        topic.partitions.iter_mut().for_each(Partition::wake);
        for offsets in self.offsets.values_mut() {
            offsets.remove_topic(name);
        }
        self.offsets.retain(|_, offsets| !offsets.is_empty());
        for txn in self.transactions.values_mut() {
            if let Status::Ongoing(ongoing) = &mut txn.status {
                ongoing.partitions.retain(|(topic, _)| topic != name);
            }
        }
        Ok(())
    }

    fn transaction(&mut self, id: &str) -> Result<&mut Transaction> {
        let txn = self.transactions.get_mut(id);
        txn.with_context(|| format!("transaction {id} is unknown"))
    }

    fn group_offsets(&mut self, group: &str) -> &mut GroupOffsets {
        self.offsets.entry(group.to_owned()).or_default()
    }

    fn target(&mut self, append: &Append, position: u64) -> Result<(&mut Partition, BatchHeader, Stored)> {
        let header = BatchHeader::read(&append.batch).context("a batch is too short")?;
        let stored =
            Stored { position: position + append.offset_in_payload, length: append.batch.len().try_into()? };
        let partition = self
            .partition_mut(&append.topic, append.partition)
            .with_context(|| format!("{}-{} is unknown", append.topic, append.partition))?;
        ensure!(
            header.base_offset == partition.end_offset(),
            "a batch for {}-{} begins at offset {} instead of {}",
            append.topic,
            append.partition,
            header.base_offset,
            partition.end_offset()
        );
        Ok((partition, header, stored))
    }
}

fn topic_configs(configs: &[(StrBytes, StrBytes)]) -> TopicConfigs {
    TopicConfigs::new(configs.iter().map(|(name, value)| (name.to_string(), value.to_string())))
}
