//! Caches for a short time which schemas a registry does not have, because any producer may name any id.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::excerpt::excerpt;

/// The time for which an entry is valid. A follower of the registry may receive the schema in the meantime.
const MEMORY: Duration = Duration::from_secs(10);
/// The maximum number of entries. Beyond it, the oldest one is removed.
const MAX_IDS: usize = 10_000;
/// The maximum number of characters stored of a reason.
const MAX_REASON_CHARS: usize = 200;

/// A schema id and the topic of the record that names it.
type Named = (u32, String);

/// The ids under which a registry has no usable schema.
#[derive(Debug, Default)]
pub(super) struct MissingSchemas(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    reasons: HashMap<Named, String>,
    /// The entries with their time of insertion, oldest first.
    learned: VecDeque<(Instant, Named)>,
}

impl MissingSchemas {
    /// Returns why a schema is missing, if this was found out within the last 10 s.
    pub(super) fn reason(&self, id: u32, topic: &str) -> Option<String> {
        self.reason_at(id, topic, Instant::now())
    }

    pub(super) fn insert(&self, id: u32, topic: &str, reason: &str) {
        self.insert_at(id, topic, reason, Instant::now());
    }

    fn reason_at(&self, id: u32, topic: &str, now: Instant) -> Option<String> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |(learned, _): &(Instant, Named)| now.saturating_duration_since(*learned) >= MEMORY;
        while state.learned.front().is_some_and(is_old) {
            state.forget_oldest();
        }
        state.reasons.get(&(id, topic.to_owned())).cloned()
    }

    fn insert_at(&self, id: u32, topic: &str, reason: &str, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let named = (id, topic.to_owned());
        // Concurrent lookups may insert the same entry.
        if state.reasons.insert(named.clone(), excerpt(reason, MAX_REASON_CHARS)).is_none() {
            state.learned.push_back((now, named));
        }
        if state.learned.len() > MAX_IDS {
            state.forget_oldest();
        }
    }
}

impl State {
    fn forget_oldest(&mut self) {
        if let Some((_, named)) = self.learned.pop_front() {
            self.reasons.remove(&named);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_schema_is_remembered_per_topic_and_for_a_limited_time() {
        let (missing, now) = (MissingSchemas::default(), Instant::now());
        for _ in 0..2 {
            missing.insert_at(7, "topic", "the reason", now);
        }
        assert_eq!(missing.reason_at(7, "topic", now).as_deref(), Some("the reason"));
        assert_eq!(missing.reason_at(7, "other", now), None);
        assert_eq!(missing.reason_at(7, "topic", now + MEMORY), None);
        missing.insert_at(7, "topic", "another", now + MEMORY);
        assert_eq!(missing.reason_at(7, "topic", now + MEMORY).as_deref(), Some("another"));
    }

    #[test]
    fn the_number_and_size_of_the_entries_are_bounded() {
        let (missing, now) = (MissingSchemas::default(), Instant::now());
        let count = u32::try_from(MAX_IDS).unwrap() + 5;
        (0..count).for_each(|id| missing.insert_at(id, "topic", &"x".repeat(3_000), now));
        let state = missing.0.lock().unwrap();
        assert_eq!((state.reasons.len(), state.learned.len()), (MAX_IDS, MAX_IDS));
        assert!(state.reasons.values().all(|reason| reason.len() <= MAX_REASON_CHARS));
        assert!(!state.reasons.contains_key(&(4, "topic".to_owned())));
    }
}
