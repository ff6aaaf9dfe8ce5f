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
    own: usize,
    /// Bytes that one share may take in all.
    most: usize,
    /// Bytes in common, and how many of them are taken.
    common: usize,
    taken: AtomicUsize,
}

/// Bytes that are taken from a [`MemoryPool`]; they go back when it is dropped.
#[derive(Debug)]
pub struct MemoryShare {
    pool: Arc<MemoryPool>,
    used: usize,
}

/// Why a share gets no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryRefusal {
    /// It has all that one share may take.
    ShareFull,
    /// Others have taken what is in common.
    PoolFull,
}

// === impl MemoryPool ===

impl MemoryPool {
    /// A pool for shares of up to `most` bytes, each with up to `own` to itself; beyond that, all
    /// together take up to `most`.
    pub fn new(own: usize, most: usize) -> Arc<Self> {
        Arc::new(Self {
            own,
            most,
            common: most,
            taken: AtomicUsize::new(0),
        })
    }

    /// A share of nothing yet.
    pub fn share(self: &Arc<Self>) -> MemoryShare {
        MemoryShare {
            pool: Arc::clone(self),
            used: 0,
        }
    }

    /// How many of so many bytes are of those in common.
    fn in_common(&self, used: usize) -> usize {
        used.saturating_sub(self.own)
    }
}

// === impl MemoryShare ===

impl MemoryShare {
    /// A share of a pool that nobody else takes from.
    pub fn alone(most: usize) -> Self {
        MemoryPool::new(most, most).share()
    }

    /// Bytes taken so far.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Bytes that this share may still take.
    pub fn left(&self) -> usize {
        self.pool.most.saturating_sub(self.used)
    }

    /// Takes so many bytes more.
    ///
    /// # Errors
    ///
    /// [`MemoryRefusal`], and nothing is taken.
    pub fn take(&mut self, bytes: usize) -> Result<(), MemoryRefusal> {
        if bytes > self.left() {
            return Err(MemoryRefusal::ShareFull);
        }
        let pool = &self.pool;
        let used = self.used + bytes;
        let more = pool.in_common(used) - pool.in_common(self.used);
        let grown = |taken: usize| {
            taken
                .checked_add(more)
                .filter(|taken| *taken <= pool.common)
        };
        // Taking nothing in common is no reason to look at what others have taken.
        if more > 0
            && pool
                .taken
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown)
                .is_err()
        {
            return Err(MemoryRefusal::PoolFull);
        }
        self.used = used;
        Ok(())
    }

    /// Gives back all but so many bytes.
    pub fn shrink_to(&mut self, used: usize) {
        let used = used.min(self.used);
        let less = self.pool.in_common(self.used) - self.pool.in_common(used);
        self.pool.taken.fetch_sub(less, Ordering::Relaxed);
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
    fn shares_together_stay_below_the_bound_and_none_is_without_its_own() {
        let pool = MemoryPool::new(10, 100);
        let (mut first, mut second, mut third) = (pool.share(), pool.share(), pool.share());

        assert_eq!(first.take(101), Err(MemoryRefusal::ShareFull));
        assert_eq!(first.take(90), Ok(()));
        assert_eq!(first.take(11), Err(MemoryRefusal::ShareFull));
        assert_eq!(second.take(30), Ok(()), "10 of its own, and the last 20");
        assert_eq!(second.take(1), Err(MemoryRefusal::PoolFull));
        assert_eq!(third.take(11), Err(MemoryRefusal::PoolFull));
        assert_eq!(third.take(10), Ok(()));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let pool = MemoryPool::new(10, 100);
        let mut first = pool.share();
        first.take(100).unwrap();

        first.shrink_to(50);
        let mut second = pool.share();
        assert_eq!(second.take(70), Ok(()));
        drop(first);

        assert_eq!(second.take(30), Ok(()));
        drop(second);
        assert_eq!(pool.taken.load(Ordering::Relaxed), 0);
    }
}
