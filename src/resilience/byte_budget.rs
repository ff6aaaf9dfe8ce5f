//! Bounds on the bytes that are in use at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Counts bytes in use. Nothing can be acquired at or above the limit. The last acquisition below it may
/// exceed it, so that nothing is too large at all.
#[derive(Debug)]
pub struct ByteBudget {
    limit: usize,
    used: AtomicUsize,
}

/// Memory for many shares, which bounds them all and starves none.
///
/// Each share has some reserved bytes. Beyond these it uses bytes that all shares have in common. No share
/// waits: two that wait for each other's memory would wait for ever.
#[derive(Debug)]
pub struct MemoryPool {
    /// The bytes that each share may always use.
    reserved_per_share: usize,
    /// The bytes that one share may use in all, and all shares together beyond their reserves.
    max_bytes: usize,
    shared_used: AtomicUsize,
}

/// Bytes of a [`MemoryPool`], which are released on drop.
#[derive(Debug)]
pub struct MemoryShare {
    pool: Arc<MemoryPool>,
    used: usize,
}

/// The reason why a share gets no more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimitError {
    /// It has all that one share may use.
    ShareFull,
    /// Other shares use the common bytes.
    PoolFull,
}

// === impl ByteBudget ===

impl ByteBudget {
    /// Creates an unused budget.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
        }
    }

    /// Acquires bytes, and returns whether that succeeded. Release them afterwards.
    #[must_use]
    pub fn acquire(&self, bytes: usize) -> bool {
        let taken = self.used.fetch_add(bytes, Relaxed) < self.limit;
        if !taken {
            self.release(bytes);
        }
        taken
    }

    /// Releases acquired bytes.
    pub fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }

    /// The bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }
}

// === impl MemoryPool ===

impl MemoryPool {
    /// Creates a pool for shares of up to `max_bytes` bytes, each with `reserved_per_share` of its own.
    /// Beyond these, all shares together use up to `max_bytes`.
    pub fn new(reserved_per_share: usize, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            reserved_per_share,
            max_bytes,
            shared_used: AtomicUsize::new(0),
        })
    }

    /// Returns an unused share.
    pub fn new_share(self: &Arc<Self>) -> MemoryShare {
        MemoryShare {
            pool: Arc::clone(self),
            used: 0,
        }
    }

    /// Returns the part of a share's bytes that are common ones.
    fn shared_part(&self, used: usize) -> usize {
        used.saturating_sub(self.reserved_per_share)
    }
}

// === impl MemoryShare ===

impl MemoryShare {
    /// Returns the only share of a pool.
    pub fn unshared(max_bytes: usize) -> Self {
        MemoryPool::new(max_bytes, max_bytes).new_share()
    }

    /// The bytes in use.
    pub fn used(&self) -> usize {
        self.used
    }

    /// The bytes that this share may still use.
    pub fn remaining(&self) -> usize {
        self.pool.max_bytes.saturating_sub(self.used)
    }

    /// Acquires more bytes.
    ///
    /// # Errors
    ///
    /// [`MemoryLimitError`]. Then nothing is acquired.
    pub fn acquire(&mut self, bytes: usize) -> Result<(), MemoryLimitError> {
        if bytes > self.remaining() {
            return Err(MemoryLimitError::ShareFull);
        }
        let pool = &self.pool;
        let used = self.used + bytes;
        let more = pool.shared_part(used) - pool.shared_part(self.used);
        let grown = |used: usize| {
            used.checked_add(more)
                .filter(|used| *used <= pool.max_bytes)
        };
        if more > 0
            && pool
                .shared_used
                .fetch_update(Relaxed, Relaxed, grown)
                .is_err()
        {
            return Err(MemoryLimitError::PoolFull);
        }
        self.used = used;
        Ok(())
    }

    /// Releases all but so many bytes.
    pub fn shrink_to(&mut self, used: usize) {
        let used = used.min(self.used);
        let less = self.pool.shared_part(self.used) - self.pool.shared_part(used);
        self.pool.shared_used.fetch_sub(less, Relaxed);
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
    fn one_acquisition_may_exceed_the_limit_and_the_next_is_refused() {
        let budget = ByteBudget::new(10);

        assert!(budget.acquire(9) && budget.acquire(9));
        assert!(!budget.acquire(1));
        assert_eq!(budget.used(), 18);
        budget.release(9);

        assert!(budget.acquire(1));
    }

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
        assert_eq!(pool.shared_used.load(Relaxed), 0);
    }
}
