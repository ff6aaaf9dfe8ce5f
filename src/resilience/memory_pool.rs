//! A bound on the memory that many shares take together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Memory that many take from, so that none starves and all together stay below a bound.
///
/// Each share has some bytes to itself, and what it takes beyond comes from what all have in common.
/// Nobody waits: two that wait for each other's memory would wait for ever.
#[derive(Debug)]
pub struct MemoryPool {
    /// Bytes that each share may take without asking.
    reserved_per_share: usize,
    /// Bytes that one share may take in all.
    max_per_share: usize,
    /// Bytes in common, and how many of them are taken.
    shared_bytes: usize,
    shared_used: AtomicUsize,
}

/// Bytes that are taken from a [`MemoryPool`]; they go back when it is dropped.
#[derive(Debug)]
pub struct MemoryShare {
    pool: Arc<MemoryPool>,
    used: usize,
}

/// Why a share gets no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimitError {
    /// It has all that one share may take.
    ShareFull,
    /// Others have taken what is in common.
    PoolFull,
}

// === impl MemoryPool ===

impl MemoryPool {
    /// A pool for shares of up to `max_per_share` bytes, each with up to `reserved_per_share` to itself; beyond that, all
    /// together take up to `max_per_share`.
    pub fn new(own: usize, most: usize) -> Arc<Self> {
        Arc::new(Self {
            reserved_per_share: own,
            max_per_share: most,
            shared_bytes: most,
            shared_used: AtomicUsize::new(0),
        })
    }

    /// A share of nothing yet.
    pub fn new_share(self: &Arc<Self>) -> MemoryShare {
        MemoryShare {
            pool: Arc::clone(self),
            used: 0,
        }
    }

    /// How many of so many bytes are of those in common.
    fn shared_part(&self, used: usize) -> usize {
        used.saturating_sub(self.reserved_per_share)
    }
}

// === impl MemoryShare ===

impl MemoryShare {
    /// A share of a pool that nobody else takes from.
    pub fn unshared(most: usize) -> Self {
        MemoryPool::new(most, most).new_share()
    }

    /// Bytes taken so far.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Bytes that this share may still take.
    pub fn remaining(&self) -> usize {
        self.pool.max_per_share.saturating_sub(self.used)
    }

    /// Takes so many bytes more.
    ///
    /// # Errors
    ///
    /// [`MemoryLimitError`], and nothing is taken.
    pub fn acquire(&mut self, bytes: usize) -> Result<(), MemoryLimitError> {
        if bytes > self.remaining() {
            return Err(MemoryLimitError::ShareFull);
        }
        let pool = &self.pool;
        let used = self.used + bytes;
        let more = pool.shared_part(used) - pool.shared_part(self.used);
        let grown = |taken: usize| {
            taken
                .checked_add(more)
                .filter(|taken| *taken <= pool.shared_bytes)
        };
        // Taking nothing in common is no reason to look at what others have taken.
        if more > 0
            && pool
                .shared_used
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown)
                .is_err()
        {
            return Err(MemoryLimitError::PoolFull);
        }
        self.used = used;
        Ok(())
    }

    /// Gives back all but so many bytes.
    pub fn shrink_to(&mut self, used: usize) {
        let used = used.min(self.used);
        let less = self.pool.shared_part(self.used) - self.pool.shared_part(used);
        self.pool.shared_used.fetch_sub(less, Ordering::Relaxed);
        self.used = used;
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stay_below_the_total_and_each_has_its_reserve() {
        let pool = MemoryPool::new(10, 100);
        let (mut first, mut second, mut third) =
            (pool.new_share(), pool.new_share(), pool.new_share());

        assert_eq!(first.acquire(101), Err(MemoryLimitError::ShareFull));
        assert_eq!(first.acquire(90), Ok(()));
        assert_eq!(first.acquire(11), Err(MemoryLimitError::ShareFull));
        assert_eq!(second.acquire(30), Ok(()), "10 of its own, and the last 20");
        assert_eq!(second.acquire(1), Err(MemoryLimitError::PoolFull));
        assert_eq!(third.acquire(11), Err(MemoryLimitError::PoolFull));
        assert_eq!(third.acquire(10), Ok(()));
    }

    #[test]
    fn released_memory_can_be_acquired_again() {
        let pool = MemoryPool::new(10, 100);
        let mut first = pool.new_share();
        first.acquire(100).unwrap();

        first.shrink_to(50);
        let mut second = pool.new_share();
        assert_eq!(second.acquire(70), Ok(()));
        drop(first);

        assert_eq!(second.acquire(30), Ok(()));
        drop(second);
        assert_eq!(pool.shared_used.load(Ordering::Relaxed), 0);
    }
}
