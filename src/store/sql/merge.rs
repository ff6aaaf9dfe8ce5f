//! The history of a snapshot, of two stores together.

use std::mem;

use crate::store::schema::{COPIED, StoredFact};

/// All that was ever stored of a customer, day and source, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store) struct SnapshotHistory {
    pub(in crate::store) day: i64,
    pub(in crate::store) source: i64,
    /// The last is the current one.
    pub(in crate::store) revisions: Vec<Revision>,
    /// That of the current content.
    pub(in crate::store) generation: i64,
}

/// A content of a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store) struct Revision {
    pub(in crate::store) state: i64,
    pub(in crate::store) customer_name: Option<i64>,
    pub(in crate::store) fetched_at: i64,
    pub(in crate::store) confirmed_at: i64,
    /// By product and workload.
    pub(in crate::store) facts: Vec<StoredFact>,
    pub(in crate::store) body: Option<StoredBody>,
}

/// A native body as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct StoredBody {
    pub(in crate::store) codec: i64,
    pub(in crate::store) length: i64,
    pub(in crate::store) bytes: Vec<u8>,
}

// === impl SnapshotHistory ===

impl SnapshotHistory {
    /// Adds what another store has of the same snapshot. What was confirmed last is the current content.
    pub(in crate::store) fn merge(&mut self, other: Self) {
        let (ours, theirs) = (self.confirmed_at(), other.confirmed_at());
        self.generation = merge_generations((self.generation, ours), (other.generation, theirs));
        let mut added = Vec::new();
        for revision in other.revisions {
            added.extend(self.merge_known(revision));
        }
        if added.is_empty() {
            return;
        }
        // Each side stays in its own order, which a wrong clock may have made.
        let mut added = added.into_iter().peekable();
        let mut all = Vec::new();
        for revision in mem::take(&mut self.revisions) {
            while let Some(older) = added.next_if(|it| it.confirmed_at <= revision.confirmed_at) {
                push(&mut all, older);
            }
            push(&mut all, revision);
        }
        added.for_each(|newer| push(&mut all, newer));
        self.revisions = all;
    }

    /// Merges a revision into the one that was fetched at the same time. Returns it if there is none.
    fn merge_known(&mut self, revision: Revision) -> Option<Revision> {
        let mut known = self.revisions.iter_mut();
        let Some(same) = known.find(|known| known.fetched_at == revision.fetched_at) else {
            return Some(revision);
        };
        if same.body.is_none() {
            same.body.clone_from(&revision.body);
        }
        if revision.confirmed_at <= same.confirmed_at {
            return None;
        }
        if known.any(|later| later.fetched_at <= revision.confirmed_at) {
            // There was another content in between, so it came back.
            return self.merge_known(Revision {
                fetched_at: revision.confirmed_at,
                ..revision
            });
        }
        same.confirmed_at = revision.confirmed_at;
        same.customer_name = revision.customer_name;
        None
    }

    fn confirmed_at(&self) -> i64 {
        let current = self.revisions.last();
        current.map_or(i64::MIN, |current| current.confirmed_at)
    }
}

/// Adds a revision, or merges it into the last if that has the same content.
fn push(all: &mut Vec<Revision>, revision: Revision) {
    match all.last_mut() {
        Some(last) if (last.state, &last.facts) == (revision.state, &revision.facts) => {
            last.fetched_at = last.fetched_at.min(revision.fetched_at);
            last.confirmed_at = last.confirmed_at.max(revision.confirmed_at);
            last.customer_name = revision.customer_name.or(last.customer_name);
            last.body = revision.body.or(last.body.take());
        }
        _ => all.push(revision),
    }
}

/// Returns the generation of two together, each with the time of its confirmation. The second is a copy.
pub(in crate::store) fn merge_generations(
    (ours, confirmed_at): (i64, i64),
    (copied, copied_at): (i64, i64),
) -> i64 {
    if copied_at < confirmed_at || (copied_at == confirmed_at && copied == COPIED) {
        ours
    } else if copied_at == confirmed_at {
        ours.min(copied)
    } else if copied == COPIED {
        // It is later than all purges that ours is later than.
        ours.max(COPIED)
    } else {
        copied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema::{COPIED_PURGED_HARD, STATE_ROWS};

    /// A content that is told apart by its active seats.
    fn revision(licenses_active: i64, fetched_at: i64, confirmed_at: i64) -> Revision {
        Revision {
            state: STATE_ROWS,
            customer_name: Some(1),
            fetched_at,
            confirmed_at,
            facts: vec![StoredFact {
                product: 1,
                workload: 1,
                licenses_active,
                licenses_qualified: 9,
                reported_usage_percent: None,
                processed_offset: 0,
            }],
            body: None,
        }
    }

    fn history(generation: i64, revisions: &[Revision]) -> SnapshotHistory {
        SnapshotHistory {
            day: 1,
            source: 1,
            revisions: revisions.to_vec(),
            generation,
        }
    }

    #[test]
    fn what_was_confirmed_last_is_current_and_all_is_kept() {
        let one = revision;
        for (name, ours, copied, expected) in [
            (
                "the same",
                vec![one(1, 1, 2)],
                vec![one(1, 1, 2)],
                vec![one(1, 1, 2)],
            ),
            (
                "later confirmed",
                vec![one(1, 1, 2)],
                vec![one(1, 1, 5)],
                vec![one(1, 1, 5)],
            ),
            (
                "a correction",
                vec![one(1, 1, 2)],
                vec![one(1, 1, 2), one(2, 3, 4)],
                vec![one(1, 1, 2), one(2, 3, 4)],
            ),
            (
                "corrected since it was copied",
                vec![one(1, 1, 2), one(2, 3, 4)],
                vec![one(1, 1, 2)],
                vec![one(1, 1, 2), one(2, 3, 4)],
            ),
            (
                "older than all",
                vec![one(2, 3, 4)],
                vec![one(1, 1, 2)],
                vec![one(1, 1, 2), one(2, 3, 4)],
            ),
            (
                "the same content",
                vec![one(1, 3, 4)],
                vec![one(1, 1, 2)],
                vec![one(1, 1, 4)],
            ),
            (
                "between two",
                vec![one(1, 1, 2), one(3, 5, 6)],
                vec![one(2, 3, 4)],
                vec![one(1, 1, 2), one(2, 3, 4), one(3, 5, 6)],
            ),
            (
                "back again",
                vec![one(1, 1, 2), one(2, 3, 4)],
                vec![one(1, 1, 5)],
                vec![one(1, 1, 2), one(2, 3, 4), one(1, 5, 5)],
            ),
            (
                "by a clock that was wrong",
                vec![one(1, 90, 91), one(2, 3, 4)],
                vec![one(1, 90, 91), one(2, 3, 4)],
                vec![one(1, 90, 91), one(2, 3, 4)],
            ),
        ] {
            let mut merged = history(0, &ours);
            let copied = history(0, &copied);

            merged.merge(copied.clone());
            let first = merged.clone();
            merged.merge(copied);

            assert_eq!(first, history(0, &expected), "{name}");
            assert_eq!(merged, first, "{name}, again");
        }
    }

    #[test]
    fn a_purge_counts_until_what_it_hides_is_confirmed() {
        let hidden = COPIED_PURGED_HARD;
        for (ours, copied, expected) in [
            ((5, 10), (COPIED, 10), 5),
            ((5, 10), (hidden, 10), hidden),
            ((5, 10), (hidden, 9), 5),
            ((5, 10), (hidden, 11), hidden),
            ((hidden, 10), (COPIED, 11), COPIED),
            ((5, 10), (COPIED, 11), 5),
        ] {
            assert_eq!(
                merge_generations(ours, copied),
                expected,
                "{ours:?} {copied:?}"
            );
        }
    }
}
