//! Caches schemas by id, within bounds: any producer may name any schema that a registry has.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// The maximum size of the texts of all cached schemas together. Schemas take a multiple of it once they are compiled.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The maximum number of cached schemas.
const MAX_SCHEMAS: usize = 1_000;

/// A cache that evicts the schemas that were not used for the longest time. Entries do not expire, because a schema never
/// changes.
pub(super) struct SchemaCache<S> {
    entries: RwLock<HashMap<u32, Entry<S>>>,
    /// The number of uses so far.
    clock: AtomicU64,
}

struct Entry<S> {
    schema: Arc<S>,
    bytes: usize,
    last_use: AtomicU64,
}

impl<S> Default for SchemaCache<S> {
    fn default() -> Self {
        Self { entries: RwLock::default(), clock: AtomicU64::default() }
    }
}

impl<S> SchemaCache<S> {
    pub(super) fn get(&self, id: u32) -> Option<Arc<S>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(&id)?;
        entry.last_use.store(self.tick(), Ordering::Relaxed);
        Some(Arc::clone(&entry.schema))
    }

    /// Adds a schema whose text, with those that it refers to, has this number of `bytes`.
    pub(super) fn insert(&self, id: u32, schema: Arc<S>, bytes: usize) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(id, Entry { schema, bytes, last_use: AtomicU64::new(self.tick()) });
        let mut total: usize = entries.values().map(|entry| entry.bytes).sum();
        while total > MAX_BYTES || entries.len() > MAX_SCHEMAS {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.last_use.load(Ordering::Relaxed));
            let Some(oldest) = oldest.map(|(id, _)| *id) else { break };
            total -= entries.remove(&oldest).map_or(0, |entry| entry.bytes);
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cached(cache: &SchemaCache<u32>, ids: impl IntoIterator<Item = u32>) -> Vec<u32> {
        ids.into_iter().filter_map(|id| cache.get(id)).map(|schema| *schema).collect()
    }

    #[test]
    fn the_schemas_that_were_not_used_for_the_longest_time_are_evicted_beyond_the_size() {
        let cache = SchemaCache::default();
        for id in 1..=4 {
            cache.insert(id, Arc::new(id), MAX_BYTES / 4);
        }
        assert_eq!(cached(&cache, [2, 3, 4, 1]), [2, 3, 4, 1]);
        cache.insert(5, Arc::new(5), 1);
        assert_eq!(cached(&cache, 1..=5), [1, 3, 4, 5]);
        cache.insert(6, Arc::new(6), MAX_BYTES);
        assert_eq!(cached(&cache, 1..=6), [6]);
        cache.insert(7, Arc::new(7), MAX_BYTES + 1);
        assert_eq!(cached(&cache, 1..=7), [0; 0]);
    }

    #[test]
    fn the_number_of_schemas_is_bounded() {
        let cache = SchemaCache::default();
        let count = u32::try_from(MAX_SCHEMAS).unwrap();
        (0..count + 5).for_each(|id| cache.insert(id, Arc::new(id), 0));
        assert_eq!(cached(&cache, 0..count + 5), (5..count + 5).collect::<Vec<_>>());
        // The same one again is no other one.
        cache.insert(5, Arc::new(5), 1);
        assert_eq!(cached(&cache, 0..count + 5).len(), MAX_SCHEMAS);
    }
}
