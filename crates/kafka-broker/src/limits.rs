//! Defines what connections may use of the process.

use tokio::time::Duration;

/// Sets the limits of connections. Apache Kafka has the same `max_idle`, and none of the others by default.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Time without a request, after which a connection is closed (`connections.max.idle.ms`). 10 minutes by default.
    pub max_idle: Duration,
    /// Time for the rest of a request after its first byte. 1 minute by default.
    pub request_timeout: Duration,
    /// Time for a client to read a response, after which its connection is closed. 1 minute by default.
    pub response_timeout: Duration,
    /// Number of open connections (`max.connections`). Further clients wait until a connection closes. 1000 by default.
    pub max_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_idle: Duration::from_secs(600),
            request_timeout: Duration::from_secs(60),
            response_timeout: Duration::from_secs(60),
            max_connections: 1000,
        }
    }
}
