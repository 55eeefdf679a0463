//! The entries of the journal: every change of the durable state.

mod codec;

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

/// One change. It is applied as a whole or not at all, since it is one frame of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    ClusterCreated {
        cluster_id: StrBytes,
    },
    TopicCreated {
        topic: StrBytes,
        partitions: i32,
        configs: Vec<(StrBytes, StrBytes)>,
    },
    PartitionsAdded {
        topic: StrBytes,
        total: i32,
    },
    TopicDeleted {
        topic: StrBytes,
    },
    BatchAppended(Append),
    OffsetsCommitted {
        group: StrBytes,
        offsets: Vec<OffsetCommit>,
    },
    ProducerIdAllocated {
        producer_id: i64,
    },
    /// A transactional id is in the hands of this producer id and epoch from now on.
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
    /// Offsets that become visible when the producer's transaction commits.
    TxnOffsetsCommitted {
        producer_id: i64,
        group: StrBytes,
        offsets: Vec<OffsetCommit>,
    },
    /// Markers in all partitions and the fate of the pending offsets, at once.
    TxnEnded {
        transactional_id: StrBytes,
        committed: bool,
        /// Higher than before when the end also fences the producer.
        producer_epoch: i16,
        markers: Vec<Append>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerIdAndEpoch {
    pub id: i64,
    pub epoch: i16,
}

impl ProducerIdAndEpoch {
    /// Kafka's `NO_PRODUCER_ID` and `NO_PRODUCER_EPOCH`.
    pub const NONE: Self = Self { id: -1, epoch: -1 };
}

/// A record batch at the end of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    pub topic: StrBytes,
    pub partition: i32,
    pub batch: Bytes,
    /// Where the batch begins in the entry's payload. Known once it was read from one, else 0.
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
