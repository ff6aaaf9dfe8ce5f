//! How many bytes may be in use at once.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts bytes in use. Nothing is taken once as many as the limit are; the last to take before that
/// may go beyond it, so that nothing is too large to be had at all.
#[derive(Debug)]
pub struct ByteBudget {
    limit: usize,
    used: AtomicUsize,
}

// === impl ByteBudget ===

impl ByteBudget {
    /// Nothing of it used yet.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
        }
    }

    /// Takes bytes, and tells whether they could be had. Who takes them gives them back.
    #[must_use]
    pub fn acquire(&self, bytes: usize) -> bool {
        let taken = self.used.fetch_add(bytes, Relaxed) < self.limit;
        if !taken {
            self.release(bytes);
        }
        taken
    }

    /// Gives back what was taken.
    pub fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
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
}
