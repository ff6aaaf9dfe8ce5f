//! Values that are computed of shared data, remembered for as long as the data is in use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A value for each of the shared data that were used lately.
#[derive(Debug)]
pub(super) struct RecentValues<T, V>(Mutex<Vec<(Weak<T>, V)>>);

// === impl RecentValues ===

impl<T, V: Copy> RecentValues<T, V> {
    const MAX_VALUES: usize = 16;

    /// Returns the value of `data` if it was computed before.
    pub(super) fn get(&self, data: &Arc<T>) -> Option<V> {
        let values = self.lock();
        // An address is not used again while there is a weak reference to it.
        let mut values = values.iter();
        let found = values.find(|(known, _)| Weak::as_ptr(known) == Arc::as_ptr(data))?;
        Some(found.1)
    }

    /// Returns the value of `data`, and computes it if that was not done before.
    pub(super) fn get_or_compute(&self, data: &Arc<T>, compute: impl FnOnce(&T) -> V) -> V {
        if let Some(known) = self.get(data) {
            return known;
        }
        let value = compute(data);
        let mut values = self.lock();
        values.retain(|(data, _)| data.strong_count() > 0);
        if values.len() >= Self::MAX_VALUES {
            values.remove(0);
        }
        values.push((Arc::downgrade(data), value));
        value
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Weak<T>, V)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, V> Default for RecentValues<T, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}
