use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moka::sync::Cache;
use sha2::{Digest, Sha256};

use super::{VerifiedToken, key_set::KeySet};
use crate::domain::CustomerAccess;

/// How long a token is believed without looking at it again.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// Bytes that all of it may take, about.
const CAPACITY: u64 = 8 * 1024 * 1024;

/// Tokens that were verified a moment ago, so that a dashboard that polls does not have the same
/// signature checked with each request.
///
/// Tokens are known by their digest, which lets nobody in. Only valid ones are kept, and all of them
/// within [`CAPACITY`]: no flood of tokens, forged or genuine, makes it grow.
#[derive(Debug)]
pub(super) struct VerifiedTokenCache {
    tokens: Cache<TokenDigest, VerifiedTokenEntry>,
}

/// The SHA-256 of a whole token, its signature included.
pub(super) type TokenDigest = [u8; 32];

#[derive(Clone, Debug)]
struct VerifiedTokenEntry {
    verified: Arc<VerifiedToken>,
    /// Whose keys confirmed it. Held, so that no later set stands at the same address.
    keys: Arc<KeySet>,
    until: Instant,
}

// === impl Remembered ===

impl Default for VerifiedTokenCache {
    fn default() -> Self {
        let tokens = Cache::builder()
            .max_capacity(CAPACITY)
            .weigher(|_, entry: &VerifiedTokenEntry| weight(&entry.verified))
            .build();
        Self { tokens }
    }
}

impl VerifiedTokenCache {
    pub(super) fn digest(token: &str) -> TokenDigest {
        Sha256::digest(token).into()
    }

    /// What the token said, if it still may and `keys` are those that confirmed it.
    pub(super) fn get(
        &self,
        token: &TokenDigest,
        keys: &Arc<KeySet>,
        now: Instant,
    ) -> Option<Arc<VerifiedToken>> {
        let entry = self.tokens.get(token)?;
        (now < entry.until && Arc::ptr_eq(&entry.keys, keys)).then_some(entry.verified)
    }

    /// Keeps what a valid token said, until `valid_for` from now has passed at most.
    pub(super) fn insert(
        &self,
        token: TokenDigest,
        verified: Arc<VerifiedToken>,
        keys: Arc<KeySet>,
        now: Instant,
        valid_for: Duration,
    ) {
        let entry = VerifiedTokenEntry {
            verified,
            keys,
            until: now + valid_for.min(LONGEST),
        };
        self.tokens.insert(token, entry);
    }
}

/// Bytes, about: the entry and its bookkeeping, and twice what a set of customers holds.
fn weight(verified: &VerifiedToken) -> u32 {
    let customers = match &verified.customers {
        Some(CustomerAccess::Only(these)) => these.len() * 32,
        Some(CustomerAccess::All) | None => 0,
    };
    u32::try_from(512 + verified.name.len() + customers).unwrap_or(u32::MAX)
}
