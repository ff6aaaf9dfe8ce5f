//! The random part of durations, so that what began together does not stay together.

/// Where the random part comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Jitter {
    /// Drawn anew each time.
    #[default]
    Random,
    /// Always this fraction, in `[0, 1)`: what a test wants.
    Fixed(f64),
}

// === impl Jitter ===

impl Jitter {
    /// A fraction in `[0, 1)`.
    pub fn fraction(self) -> f64 {
        match self {
            Self::Random => rand::random(),
            Self::Fixed(fraction) => fraction,
        }
    }
}
