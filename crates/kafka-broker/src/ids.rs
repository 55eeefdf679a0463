//! Generates identifiers, which must be unique but not secret.

use std::hash::{BuildHasher, RandomState};

use uuid::{Builder, Uuid};

use crate::guard::MAX_TEXT;

/// Returns a cluster id of 22 characters, as Kafka's are.
pub fn cluster_id() -> String {
    let mut id = unique();
    id.truncate(22);
    id
}

/// Returns a member id that begins with the client's own name, so that logs are readable. A long name is cut, as the id is
/// a text of the protocol too.
pub fn member_id(prefix: &str) -> String {
    let unique = unique();
    let end = prefix.floor_char_boundary(MAX_TEXT - unique.len() - 1);
    let prefix = prefix.get(..end).unwrap_or_default();
    format!("{prefix}-{unique}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_id_is_not_longer_than_a_text_of_the_protocol() {
        assert_eq!(member_id("client").len(), "client-".len() + 32);
        assert!(member_id(&"\u{e9}".repeat(MAX_TEXT / 2)).len() <= MAX_TEXT);
    }
}
