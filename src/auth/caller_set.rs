use std::{collections::HashMap, sync::Arc, time::Instant};

use super::{callers_file::CallerEntry, rate_limit::RateLimit};
use crate::{access_key::KeyHash, domain::Caller, resilience::byte_budget::ByteBudget};

/// Somebody who has proved who it is: its rights, how often it may come, and how much of its answers
/// may be unsent.
#[derive(Debug)]
pub struct CallerIdentity {
    caller: Caller,
    rate_limit: Option<Arc<RateLimit>>,
    unsent: Arc<ByteBudget>,
}

/// All callers, as they were at one time. Replaced whole when the file changes.
#[derive(Debug, Default)]
pub struct CallerSet {
    by_name: HashMap<Arc<str>, Arc<CallerIdentity>>,
    by_key: HashMap<KeyHash, Arc<CallerIdentity>>,
    by_subject: HashMap<String, Arc<CallerIdentity>>,
    by_certificate: HashMap<String, Arc<CallerIdentity>>,
}

// === impl Identity ===

impl CallerIdentity {
    /// Bytes that the answers to one caller may have unsent.
    const MAX_UNSENT_BYTES: usize = 16 * 1024 * 1024;

    /// A caller with a limit, or without.
    pub fn new(caller: Caller, limit: Option<Arc<RateLimit>>) -> Self {
        Self::with_unsent_budget(Self::new_unsent_budget(), caller, limit)
    }

    /// A caller whose unsent bytes this budget counts already.
    pub const fn with_unsent_budget(
        unsent: Arc<ByteBudget>,
        caller: Caller,
        limit: Option<Arc<RateLimit>>,
    ) -> Self {
        Self {
            caller,
            rate_limit: limit,
            unsent,
        }
    }

    /// A budget of unsent bytes, nothing of it used yet.
    pub fn new_unsent_budget() -> Arc<ByteBudget> {
        Arc::new(ByteBudget::new(Self::MAX_UNSENT_BYTES))
    }

    /// Who it is, and what it may have.
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// How often it may come; `None`: as often as it likes.
    pub const fn rate_limit(&self) -> Option<&Arc<RateLimit>> {
        self.rate_limit.as_ref()
    }

    /// What its answers take until they are sent.
    pub const fn unsent(&self) -> &Arc<ByteBudget> {
        &self.unsent
    }
}

// === impl CallerSet ===

impl CallerSet {
    /// The callers that were declared. A caller that was known `before` keeps its budget of unsent
    /// bytes, and what is left of its rate if that is the same.
    pub(super) fn new(declared: Vec<CallerEntry>, before: &Self, now: Instant) -> Self {
        let mut set = Self::default();
        for one in declared {
            let known = before.by_name.get(one.caller.name());
            let limit = one.rate.map(|rate| {
                known
                    .and_then(|known| known.rate_limit())
                    .filter(|limit| limit.rate() == rate)
                    .map_or_else(|| Arc::new(RateLimit::new(rate, now)), Arc::clone)
            });
            let unsent = known.map_or_else(CallerIdentity::new_unsent_budget, |known| {
                Arc::clone(known.unsent())
            });
            let identity = Arc::new(CallerIdentity::with_unsent_budget(
                unsent, one.caller, limit,
            ));
            for hash in one.key_hashes {
                set.by_key.insert(hash, Arc::clone(&identity));
            }
            for (map, proof) in [
                (&mut set.by_subject, one.jwt_subject),
                (&mut set.by_certificate, one.client_certificate),
            ] {
                if let Some(proof) = proof {
                    map.insert(proof, Arc::clone(&identity));
                }
            }
            let name = Arc::clone(identity.caller().name());
            set.by_name.insert(name, identity);
        }
        set
    }

    /// Whose key this is.
    ///
    /// What is looked up is the key's hash, by a hash of that hash with a secret of this process's,
    /// and compared in constant time: how long it takes tells nothing of what is configured.
    pub fn by_key(&self, key: &[u8]) -> Option<&Arc<CallerIdentity>> {
        self.by_key.get(&KeyHash::of_key(key))
    }

    /// Whose tokens have this subject.
    pub fn by_subject(&self, subject: &str) -> Option<&Arc<CallerIdentity>> {
        self.by_subject.get(subject)
    }

    /// Whose certificate has this common name.
    pub fn by_certificate(&self, common_name: &str) -> Option<&Arc<CallerIdentity>> {
        self.by_certificate.get(common_name)
    }

    /// How many callers there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none, which is so only before the first reading.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}
