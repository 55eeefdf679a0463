//! Defines the event log as its relay uses it: the events, the lease, and the progress of publishing.

use async_trait::async_trait;

use crate::database::DatabaseError;
use crate::trace::TraceHeaders;

/// An event in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub id: i64,
    /// Unique among all events, including those with the same id in another history of the database.
    pub event_id: String,
    pub vin: String,
    /// A `VehicleCreated` as JSON.
    pub event: String,
    pub trace: TraceHeaders<'static>,
    /// Whether an audit appended the event again.
    pub reannounced: bool,
}

/// The last published event. Every earlier event was published or, if it cannot be published, recorded as a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastPublished {
    /// 0 before the first event.
    pub id: i64,
    /// The event that the log held under the id; `None` if it held none.
    pub event_id: Option<String>,
    /// The token of the most recent failure; empty if there is none.
    pub failure: String,
}

/// The destination of events. Progress on one Kafka cluster is independent of another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PositionKey {
    pub cluster: String,
    pub topic: String,
}

/// The row that determines which relay may publish. The holder advances the beat; another relay takes the lease when
/// the beat stops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Part of the relay's transactional id and consumer group.
    pub identity: String,
    pub holder: Option<String>,
    pub epoch: i64,
    pub beat: i64,
}

/// The result of reading the log, from a single snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRead {
    /// The events after the last published one, oldest first.
    Entries(Vec<LogEntry>),
    /// Another relay acquired the lease.
    LeaseLost,
    /// The log no longer contains the last published event or the record of a failure: its history has diverged.
    Parted,
    /// Inserts do not acquire the lock that keeps ids in commit order.
    Unordered,
    /// The server is in recovery, as a standby is, so its log may lack the newest events.
    Recovering,
}

/// The events to be published.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backlog {
    /// At most [`Backlog::MAX_EVENTS`], which bounds the cost of counting.
    pub events: i64,
    /// The age of the oldest event in seconds; 0 if there is none.
    pub oldest_seconds: f64,
    /// The id up to which events were published on the cluster that the relay used last.
    pub position: i64,
    /// The number of events that could not be published.
    pub failed: i64,
}

impl Backlog {
    pub const MAX_EVENTS: i64 = 10_000;
}

/// The events that an older release had claimed in numbered batches when its outbox was moved to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedEvents {
    /// Part of the transactional id and consumer group of the older release's relay.
    pub identity: String,
    /// The number and last id of each batch, in ascending order.
    pub batches: Vec<(i64, i64)>,
}

/// The log on a dedicated connection. After an error, the connection must not be used again.
///
/// Methods that modify the database require the lease. They return `false` and change nothing if another relay has
/// acquired it.
#[async_trait]
pub trait EventLog: Send {
    /// Checks that ids become visible in ascending order, and repairs what prevents it.
    async fn prove_order(&mut self) -> Result<(), DatabaseError>;

    async fn lease(&mut self) -> Result<Lease, DatabaseError>;

    /// Takes the lease if it is still in the state `seen`.
    async fn take(&mut self, seen: &Lease, holder: &str) -> Result<Option<Lease>, DatabaseError>;

    /// Advances the beat and the position, which never moves backwards. The position moves only if the log still
    /// contains the last published event.
    async fn renew(
        &mut self,
        lease: &Lease,
        position: Option<(&PositionKey, &LastPublished)>,
    ) -> Result<bool, DatabaseError>;

    /// Releases the lease.
    async fn release(&mut self, lease: &Lease) -> Result<(), DatabaseError>;

    /// Replaces the identity of the lease, which another database uses as well.
    async fn replace_identity(&mut self, lease: &Lease) -> Result<bool, DatabaseError>;

    /// Returns the position, with the event under that id and the most recent failure.
    async fn position(&mut self, key: &PositionKey) -> Result<LastPublished, DatabaseError>;

    /// Returns whether the log contains the event and the record of the failure.
    async fn holds(&mut self, last: &LastPublished) -> Result<bool, DatabaseError>;

    /// Reads at most `limit` events with a total size of at most `max_bytes`, but at least one. The same snapshot
    /// proves that the lease is still held and that the log still contains `last`.
    async fn read(
        &mut self,
        lease: &Lease,
        last: &LastPublished,
        limit: i64,
        max_bytes: i64,
    ) -> Result<LogRead, DatabaseError>;

    /// Records all `failures`, ids of events that cannot be published with the reasons, and returns the token of the most
    /// recent record; `None`, and records none, if the lease is lost or the log lacks the most recent failure before.
    async fn record_failures(
        &mut self,
        lease: &Lease,
        key: &PositionKey,
        last: &LastPublished,
        failures: &[(i64, String)],
    ) -> Result<Option<String>, DatabaseError>;

    /// Removes the failures of events after `last`, which will be read again.
    async fn forget_failures_after(
        &mut self,
        lease: &Lease,
        key: &PositionKey,
        last: i64,
    ) -> Result<(), DatabaseError>;

    /// Returns at most `limit` failed events with ids above `after` for this destination, oldest first.
    async fn failures(
        &mut self,
        key: &PositionKey,
        after: i64,
        limit: i64,
    ) -> Result<Vec<LogEntry>, DatabaseError>;

    /// Appends failed events to the end of the log, each once for all destinations, and returns their number.
    async fn retry_failures(&mut self, lease: &Lease, ids: &[i64]) -> Result<usize, DatabaseError>;

    /// Removes at most `limit` events that are older than `seconds` and have ids between `after` and `last`, and
    /// returns their ids. Retains events that a relay of another Kafka cluster has yet to publish.
    async fn prune(
        &mut self,
        lease: &Lease,
        after: i64,
        last: &LastPublished,
        seconds: f64,
        limit: i64,
    ) -> Result<Vec<i64>, DatabaseError>;

    /// Returns the events that an older release had claimed, while it is unknown which of them were published.
    async fn claimed(&mut self) -> Result<Option<ClaimedEvents>, DatabaseError>;

    /// Moves the position to `published`, the last claimed event that an older release published, and removes the
    /// claims.
    async fn resolve_claimed(
        &mut self,
        lease: &Lease,
        key: &PositionKey,
        published: i64,
    ) -> Result<bool, DatabaseError>;
}
