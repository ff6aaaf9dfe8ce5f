//! The random part of delays, which spreads what would otherwise happen at the same time.

/// The source of the random part.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Jitter {
    /// A new random number each time.
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
}
