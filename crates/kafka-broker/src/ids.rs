//! Identifiers that the broker makes up. They have to be unique, not secret.

use std::hash::{BuildHasher, RandomState};

/// 22 characters, as Kafka's cluster ids.
pub fn cluster_id() -> String {
    let mut id = unique();
    id.truncate(22);
    id
}

/// A member id begins with what its client calls itself, for those who read logs.
pub fn member_id(prefix: &str) -> String {
    format!("{prefix}-{}", unique())
}

/// 32 hexadecimal digits. Each `RandomState` has keys that nobody can guess, from the operating system.
fn unique() -> String {
    let half = || RandomState::new().hash_one(());
    format!("{:016x}{:016x}", half(), half())
}
