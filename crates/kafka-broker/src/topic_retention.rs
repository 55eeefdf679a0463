//! Reads the retention of a topic from its configs.

use crate::partition::Retention;
use crate::state::Topic;

pub const RETENTION_MS: &str = "retention.ms";
pub const RETENTION_BYTES: &str = "retention.bytes";
/// `log.retention.hours`
pub const DEFAULT_RETENTION_MS: &str = "604800000";
pub const CLEANUP_POLICY: &str = "cleanup.policy";

/// Returns what the topic keeps, or `None` when its records are never deleted.
pub fn retention(topic: &Topic) -> Option<Retention> {
    let config = |name, default| topic.configs.get(name).map_or(default, String::as_str);
    let mut policies = config(CLEANUP_POLICY, "delete").split(',');
    if !policies.any(|policy| policy.trim() == "delete") {
        return None;
    }
    // -1 means without limit.
    let ms: Option<i64> = config(RETENTION_MS, DEFAULT_RETENTION_MS).trim().parse().ok();
    let bytes: Option<u64> = config(RETENTION_BYTES, "-1").trim().parse().ok();
    Some(Retention { ms: ms.filter(|ms| *ms >= 0), bytes })
}
