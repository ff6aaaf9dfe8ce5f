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
    pub fn take(&self, bytes: usize) -> bool {
        let taken = self.used.fetch_add(bytes, Relaxed) < self.limit;
        if !taken {
            self.give_back(bytes);
        }
        taken
    }

    /// Gives back what was taken.
    pub fn give_back(&self, bytes: usize) {
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
    fn the_last_may_go_beyond_the_limit_and_no_other_until_it_is_given_back() {
        let budget = ByteBudget::new(10);

        assert!(budget.take(9) && budget.take(9));
        assert!(!budget.take(1));
        assert_eq!(budget.used(), 18);
        budget.give_back(9);

        assert!(budget.take(1));
    }
}
