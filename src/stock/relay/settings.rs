//! The settings of relay sessions.

use std::time::Duration;

/// The default time for which published events are retained.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);

/// The settings of a session.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// The maximum number of events in a transaction.
    pub batch_events: i64,
    /// The maximum total size of the events in a transaction, in bytes.
    pub batch_bytes: i64,
    /// The minimum interval between transactions, unless more events are waiting than one can hold: a transaction
    /// costs the brokers about as much as a thousand events. A single event is published immediately.
    pub pace: Duration,
    /// The interval between beats of the lease, which also store the position.
    pub beat: Duration,
    /// The interval at which the log is checked for events of other instances.
    pub look_again: Duration,
    /// The time for which published events are retained.
    pub retention: Duration,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            batch_events: 5_000,
            batch_bytes: 8 << 20,
            pace: Duration::from_millis(100),
            beat: Duration::from_secs(1),
            look_again: Duration::from_millis(500),
            retention: DEFAULT_RETENTION,
        }
    }
}
