//! Defines the entries of the journal, one for each kind of durable change.

pub mod codec;
mod stored_group;

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

pub use stored_group::{StoredGroup, StoredMember};

/// Describes one change. It is one frame of the journal, so it is applied as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    ClusterCreated {
        cluster_id: StrBytes,
    },
    TopicCreated {
        topic: StrBytes,
        partitions: i32,
        configs: Vec<(StrBytes, StrBytes)>,
        /// Missing in journals of older versions.
        topic_id: Option<Uuid>,
    },
    PartitionsAdded {
        topic: StrBytes,
        total: i32,
    },
    TopicDeleted {
        topic: StrBytes,
    },
    /// Replaces all configs that are set on the topic.
    TopicConfigured {
        topic: StrBytes,
        configs: Vec<(StrBytes, StrBytes)>,
    },
    BatchAppended(Append),
    /// Moves the start of the log to this offset.
    RecordsDeleted {
        topic: StrBytes,
        partition: i32,
        before: i64,
    },
    /// Forgets producers without an open transaction that last wrote before this time, in all partitions.
    ProducersExpired {
        before_ms: i64,
    },
    OffsetsCommitted {
        group: StrBytes,
        offsets: Vec<OffsetCommit>,
    },
    /// Removes the committed offsets of these partitions.
    OffsetsDeleted {
        group: StrBytes,
        partitions: Vec<(StrBytes, i32)>,
    },
    /// Removes all offsets of a group.
    GroupDeleted {
        group: StrBytes,
    },
    ProducerIdAllocated {
        producer_id: i64,
    },
    /// Assigns a producer id and epoch to a transactional id.
    TransactionInitialized {
        transactional_id: StrBytes,
        producer: ProducerIdAndEpoch,
        last_producer: ProducerIdAndEpoch,
        timeout_ms: i32,
    },
    /// Begins the transaction when none is open.
    PartitionsAddedToTxn {
        transactional_id: StrBytes,
        at_ms: i64,
        partitions: Vec<(StrBytes, i32)>,
    },
    /// Begins the transaction when none is open.
    GroupAddedToTxn {
        transactional_id: StrBytes,
        at_ms: i64,
        group: StrBytes,
    },
    /// Adds offsets that become visible when the producer's transaction commits.
    TxnOffsetsCommitted {
        producer_id: i64,
        group: StrBytes,
        offsets: Vec<OffsetCommit>,
    },
    /// Ends a transaction: appends markers to all its partitions, and applies or drops its offsets.
    TxnEnded {
        transactional_id: StrBytes,
        committed: bool,
        /// Higher than the current epoch when the end also fences the producer.
        producer_epoch: i16,
        markers: Vec<Append>,
    },
    /// Ends a transaction in some partitions only, for an operator (WriteTxnMarkers).
    MarkersWritten {
        committed: bool,
        markers: Vec<Append>,
    },
    /// Replaces what a restart finds of a group.
    GroupStored {
        group: StrBytes,
        stored: StoredGroup,
    },
    GroupRemoved {
        group: StrBytes,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerIdAndEpoch {
    pub id: i64,
    pub epoch: i16,
}

impl ProducerIdAndEpoch {
    /// Kafka's `NO_PRODUCER_ID` with `NO_PRODUCER_EPOCH`.
    pub const NONE: Self = Self { id: -1, epoch: -1 };
}

/// Appends a record batch to a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    pub topic: StrBytes,
    pub partition: i32,
    pub batch: Bytes,
    /// Where the batch begins in the entry's payload. Set when the entry is decoded, else 0.
    pub offset_in_payload: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    pub topic: StrBytes,
    pub partition: i32,
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: StrBytes,
}
