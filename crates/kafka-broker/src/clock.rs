//! Reads the wall clock in the unit of the protocol.

use std::time::SystemTime;

/// Returns the milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}
