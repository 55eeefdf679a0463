//! Generates identifiers, which must be unique but not secret.

use std::hash::{BuildHasher, RandomState};

use uuid::{Builder, Uuid};

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

/// Returns a random topic id (KIP-516).
pub fn topic_id() -> Uuid {
    let (high, low) = halves();
    let id = Uuid::from_u64_pair(high, low);
    Builder::from_random_bytes(*id.as_bytes()).into_uuid()
}

/// Returns the id of a topic whose journal entry has none: older versions of this broker did not write one. The position
/// of the entry distinguishes topics that had the same name.
pub fn topic_id_of_entry(topic: &str, position: u64) -> Uuid {
    let name = u64::from(crc32c::crc32c(topic.as_bytes()));
    Uuid::from_u64_pair(1 << 32 | name, position)
}

/// Returns 32 hexadecimal digits.
fn unique() -> String {
    let (high, low) = halves();
    format!("{high:016x}{low:016x}")
}

/// Returns 128 random bits. Each `RandomState` is seeded by the operating system.
fn halves() -> (u64, u64) {
    let half = || RandomState::new().hash_one(());
    (half(), half())
}
