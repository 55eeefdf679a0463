//! Generates identifiers, which must be unique but not secret.

use std::hash::{BuildHasher, RandomState};

/// Returns a cluster id of 22 characters, as Kafka's are.
pub fn cluster_id() -> String {
    let mut id = unique();
    id.truncate(22);
    id
}

/// Returns a member id that begins with the client's own name, so that logs are readable.
pub fn member_id(prefix: &str) -> String {
    format!("{prefix}-{}", unique())
}

/// Returns 32 hexadecimal digits. Each `RandomState` is seeded by the operating system.
fn unique() -> String {
    let half = || RandomState::new().hash_one(());
    format!("{:016x}{:016x}", half(), half())
}
