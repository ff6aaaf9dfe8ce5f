use std::{
    fmt,
    hash::Hash,
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ahash::RandomState;
use lru::LruCache;

/// A map with room for so many entries: one more evicts the least recently used.
///
/// A lock guards it, and it compiles to far less code than a moka cache: it is for what no cached answer
/// passes.
pub(crate) struct LruMap<K, V> {
    entries: Mutex<LruCache<K, V, RandomState>>,
    capacity: NonZeroUsize,
}

// === impl LruMap ===

impl<K: Eq + Hash, V> LruMap<K, V> {
    pub(crate) fn new(capacity: NonZeroUsize) -> Self {
        // A bounded one allocates room for all its entries at once.
        Self {
            entries: Mutex::new(LruCache::unbounded_with_hasher(RandomState::new())),
            capacity,
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V>
    where
        V: Clone,
    {
        self.lock().get(key).cloned()
    }

    /// Returns a value, which is made first if there is none.
    pub(crate) fn get_or_insert_with(&self, key: K, value: impl FnOnce() -> V) -> V
    where
        V: Clone,
    {
        let mut entries = self.lock();
        let value = entries.get_or_insert(key, value).clone();
        if entries.len() > self.capacity.get() {
            entries.pop_lru();
        }
        value
    }

    /// Sets a value. Returns true if that evicted another entry.
    pub(crate) fn insert(&self, key: K, value: V) -> bool {
        self.put(&mut self.lock(), key, value)
    }

    /// Sets a value unless `keeps` returns true for the one before. Returns true if it was set.
    pub(crate) fn insert_unless(&self, key: K, value: V, keeps: impl FnOnce(&V) -> bool) -> bool {
        let mut entries = self.lock();
        let is_kept = entries.get(&key).is_some_and(keeps);
        if !is_kept {
            self.put(&mut entries, key, value);
        }
        !is_kept
    }

    fn put(&self, entries: &mut LruCache<K, V, RandomState>, key: K, value: V) -> bool {
        entries.put(key, value);
        entries.len() > self.capacity.get() && entries.pop_lru().is_some()
    }

    pub(crate) fn remove(&self, key: &K) {
        self.lock().pop(key);
    }

    /// Removes all entries whose keys match.
    pub(crate) fn remove_if(&self, matches: impl Fn(&K) -> bool)
    where
        K: Clone,
    {
        let mut entries = self.lock();
        let keys = entries.iter().map(|(key, _)| key);
        let removed: Vec<K> = keys.filter(|key| matches(key)).cloned().collect();
        for key in removed {
            entries.pop(&key);
        }
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<K, V, RandomState>> {
        // A panic in a key's or value's own code leaves the map whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> fmt::Debug for LruMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LruMap")
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_more_evicts_the_least_recently_used() {
        let map = LruMap::new(NonZeroUsize::new(2).unwrap());
        let evicted = [map.insert(1, "one"), map.insert(2, "two")];
        let _used = map.get(&1);

        let third = map.insert(3, "three");

        assert_eq!((evicted, third), ([false, false], true));
        assert_eq!(
            [1, 2, 3].map(|key| map.get(&key)),
            [Some("one"), None, Some("three")]
        );
        assert_eq!(map.get_or_insert_with(4, || "four"), "four");
        assert_eq!(map.len(), 2);
    }

    #[test]
    fn a_value_stays_where_it_is_kept() {
        let map = LruMap::new(NonZeroUsize::MIN);
        let set = |value| map.insert_unless("key", value, |before| *before > value);

        assert_eq!([set(2), set(1), set(3)], [true, false, true]);
        assert_eq!(map.get(&"key"), Some(3));
    }
}
