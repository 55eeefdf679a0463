//! How a session of the relay works.

use std::time::Duration;

/// How long a published event is kept by default.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);

/// How a session works.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Events published by one transaction at most.
    pub batch_events: i64,
    /// Bytes of events published by one transaction at most.
    pub batch_bytes: i64,
    /// From one transaction to the next, unless there is more than one can take: each costs the brokers about as much as
    /// a thousand events. A lone event leaves at once.
    pub pace: Duration,
    /// From one beat of the lease, which takes the position along, to the next.
    pub beat: Duration,
    /// How soon an event is seen that another instance wrote.
    pub look_again: Duration,
    /// How long a published event is kept.
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
