//! The event log as its relay sees it: what it holds, who may publish it, and how far that has come.

use async_trait::async_trait;

use crate::database::DatabaseError;

/// An event as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub id: i64,
    /// Differs between events, also between those that two histories of one database hold under the same id.
    pub event_id: String,
    pub vin: String,
    /// A `VehicleCreated`, as JSON.
    pub event: String,
    pub traceparent: String,
    /// Whether an audit appended it again.
    pub reannounced: bool,
}

/// The last event that was published. Everything below it was published or, where it cannot be encoded, recorded as a
/// failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastPublished {
    /// 0 before the first.
    pub id: i64,
    /// What the log held under the id; `None` when it held nothing.
    pub event_id: Option<String>,
    /// The token of the failure that was recorded last; empty when there is none.
    pub failure: String,
}

/// Where events are published: progress on one Kafka cluster says nothing about another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PositionKey {
    pub cluster: String,
    pub topic: String,
}

/// The row that says which relay may publish. A relay that holds it moves its beat; one that waits for it takes it
/// when the beat does not move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Part of the transactional id and of the consumer group of the relay.
    pub identity: String,
    pub holder: Option<String>,
    pub epoch: i64,
    pub beat: i64,
}

/// What one read of the log found, all of it in one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRead {
    /// The events after the last published one, oldest first.
    Entries(Vec<LogEntry>),
    /// Another relay took the lease.
    LeaseLost,
    /// The log does not hold the last published event any more, or the record of a failure: its history parted.
    Parted,
    /// Inserts do not take the lock that keeps ids in commit order.
    Unordered,
    /// A server that recovers, such as a standby, shows a log that may lack its newest events.
    Recovering,
}

/// What is still to be published.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backlog {
    /// At most [`Backlog::MAX_EVENTS`], so that counting costs the same however many there are.
    pub events: i64,
    /// The age of the oldest, in seconds; 0 when there is none.
    pub oldest_seconds: f64,
    /// The id up to which events were published, on the cluster that the relay published to last.
    pub position: i64,
    /// Events that could not be encoded.
    pub failed: i64,
}

impl Backlog {
    pub const MAX_EVENTS: i64 = 10_000;
}

/// Events that an older release had claimed in numbered batches when its outbox was moved to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedEvents {
    /// Part of the transactional id and of the consumer group of the older release's relay.
    pub identity: String,
    /// Batch and last id of each, in their order.
    pub batches: Vec<(i64, i64)>,
}

/// The log, on a connection of its own. After an error the connection must not be used again.
///
/// What changes something takes the lease along, and does nothing when that is held by another by then: the answer is
/// `false`.
#[async_trait]
pub trait EventLog: Send {
    /// Checks that ids become visible in the order of their numbers, and repairs what keeps them from it.
    async fn prove_order(&mut self) -> Result<(), DatabaseError>;

    async fn lease(&mut self) -> Result<Lease, DatabaseError>;

    /// Takes the lease when it is still as it was `seen`.
    async fn take(&mut self, seen: &Lease, holder: &str) -> Result<Option<Lease>, DatabaseError>;

    /// Moves the beat and, never backwards, the position, if the log still holds what was published last.
    async fn renew(
        &mut self,
        lease: &Lease,
        position: Option<(&PositionKey, &LastPublished)>,
    ) -> Result<bool, DatabaseError>;

    /// Gives the lease back.
    async fn release(&mut self, lease: &Lease) -> Result<(), DatabaseError>;

    /// Replaces the identity of the lease, which another database uses as well.
    async fn replace_identity(&mut self, lease: &Lease) -> Result<bool, DatabaseError>;

    /// Returns the position, with the event that the log holds there and the newest failure.
    async fn position(&mut self, key: &PositionKey) -> Result<LastPublished, DatabaseError>;

    /// Returns whether the log holds the event, and the record of the failure.
    async fn holds(&mut self, last: &LastPublished) -> Result<bool, DatabaseError>;

    /// Returns the token of the failure that was recorded last for this place; empty when there is none.
    async fn last_failure(&mut self, key: &PositionKey) -> Result<String, DatabaseError>;

    /// Reads up to `limit` events of at most `max_bytes` together, at least one, and proves with them, in one snapshot,
    /// that the lease is still held and that the log still holds `last`.
    async fn read(
        &mut self,
        lease: &Lease,
        last: &LastPublished,
        limit: i64,
        max_bytes: i64,
    ) -> Result<LogRead, DatabaseError>;

    /// Records that an event cannot be encoded, and returns the token of the record; `None` when the lease is lost.
    async fn record_failure(
        &mut self,
        lease: &Lease,
        key: &PositionKey,
        id: i64,
        reason: &str,
    ) -> Result<Option<String>, DatabaseError>;

    /// Forgets the failures of events after `last`, which are still to be read.
    async fn forget_failures_after(
        &mut self,
        lease: &Lease,
        key: &PositionKey,
        last: i64,
    ) -> Result<(), DatabaseError>;

    /// Returns up to `limit` events after the id `after` that could not be encoded for this place, oldest first.
    async fn failures(
        &mut self,
        key: &PositionKey,
        after: i64,
        limit: i64,
    ) -> Result<Vec<LogEntry>, DatabaseError>;

    /// Appends an event that could not be encoded before to the end of the log, once for all places.
    async fn retry_failure(&mut self, lease: &Lease, id: i64) -> Result<bool, DatabaseError>;

    /// Removes events older than `seconds` between the ids `after` and `last`, up to `limit`, and returns the
    /// ids. Keeps what a relay of another Kafka cluster has still to publish.
    async fn prune(
        &mut self,
        lease: &Lease,
        after: i64,
        last: &LastPublished,
        seconds: f64,
        limit: i64,
    ) -> Result<Vec<i64>, DatabaseError>;

    /// Returns what an older release had claimed, when it is not yet known what of that was published.
    async fn claimed(&mut self) -> Result<Option<ClaimedEvents>, DatabaseError>;

    /// Moves the position to the event `published`, the last one that an older release had claimed and published, and
    /// forgets what it had claimed.
    async fn resolve_claimed(
        &mut self,
        lease: &Lease,
        key: &PositionKey,
        published: i64,
    ) -> Result<bool, DatabaseError>;
}
