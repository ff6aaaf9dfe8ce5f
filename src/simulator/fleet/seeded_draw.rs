//! Random values that follow from a seed.

use uuid::Uuid;

/// A value drawn from everything that was mixed in so far, and from nothing else.
///
/// No generator, no state: the same seed, customer, product and day draw the same on any machine
/// and in any order, so an answer can be computed for one row without computing the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeededDraw(u64);

// === impl SeededDraw ===

impl SeededDraw {
    pub(super) fn new(seed: u64) -> Self {
        Self(scramble(seed))
    }

    /// Returns a draw that also depends on `word`.
    pub(super) fn with_word(self, word: u64) -> Self {
        Self(scramble(self.0 ^ scramble(word)))
    }

    /// Returns a draw that also depends on `text`.
    pub(super) fn with_text(self, text: &str) -> Self {
        text.bytes()
            .fold(self, |draw, byte| draw.with_word(u64::from(byte)))
    }

    /// Returns a draw that also depends on a GUID.
    pub(super) fn with_id(self, id: Uuid) -> Self {
        let (high, low) = id.as_u64_pair();
        self.with_word(high).with_word(low)
    }

    /// Returns a number in `0..bound`; zero when `bound` is zero.
    pub(super) fn number_below(self, bound: u64) -> u64 {
        self.0.checked_rem(bound).unwrap_or(0)
    }

    /// Returns one of `choices`; `None` when there are none.
    pub(super) fn choose<T>(self, choices: &[T]) -> Option<&T> {
        let index = self.number_below(choices.len() as u64);
        choices.get(usize::try_from(index).ok()?)
    }

    /// Returns a random-looking GUID (RFC 9562 version 4).
    pub(super) fn id(self) -> Uuid {
        let bits = Uuid::from_u64_pair(self.with_word(1).0, self.with_word(2).0);
        uuid::Builder::from_random_bytes(bits.into_bytes()).into_uuid()
    }
}

/// The output step of SplitMix64: every bit of the input touches every bit of the output.
fn scramble(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
