//! The random part of delays, which spreads what would otherwise happen at the same time.

use std::hash::{DefaultHasher, Hash, Hasher};

/// The source of the random part.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Jitter {
    /// A random number: a new one each time, or that of a key.
    #[default]
    Random,
    /// Always this fraction in `[0, 1)`, for tests.
    Fixed(f64),
}

// === impl Jitter ===

impl Jitter {
    /// Returns a fraction in `[0, 1)`.
    pub fn fraction(self) -> f64 {
        match self {
            Self::Random => rand::random(),
            Self::Fixed(fraction) => fraction,
        }
    }

    /// Returns a fraction in `[0, 1)` that all processes agree on for a key.
    pub fn fraction_of(self, key: impl Hash) -> f64 {
        match self {
            Self::Random => {
                let mut hasher = DefaultHasher::new();
                key.hash(&mut hasher);
                (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
            }
            Self::Fixed(fraction) => fraction,
        }
    }
}
