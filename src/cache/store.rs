//! Putting an answer where what is held is: what it confirms stays, what it outdates goes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Freshness, Held, NewestKey, SnapshotKey, Suspicion, UsageCache,
    doubt::{AnswerDigest, Doubt, Verdict},
    freshness,
    known_dates::KnownDates,
    newest::Newest,
    snapshots::Snapshot,
};
use crate::{
    domain::{ProcessedDate, Question, Subject, UpstreamApi},
    render::Prepared,
};

/// What became of an answer that was to be stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The answer to hand out, stored or not.
    pub held: Held,
    /// Whether it is held from now on.
    pub stored: bool,
    /// What it did to what was held.
    pub change: Change,
}

/// What an answer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing of the kind was held.
    New,
    /// The same content again: validators stay, freshness begins anew.
    Confirmed,
    /// Other content, or a newer date.
    Replaced,
    /// Other content, which was doubted before and has been confirmed since.
    Conceded,
    /// Nothing that is served: the answer is doubted, and what was held stays.
    Doubted(Suspicion),
}

/// Something that upstream says does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbsenceKind {
    /// The customer, or the partner's relationship with it.
    Customer,
    /// Data of the date that was asked for.
    Date,
}

/// What answers for a question now, for a new answer to be held against.
struct Good {
    /// Under which the snapshot is held.
    key: SnapshotKey,
    snapshot: Arc<Snapshot>,
    /// Where the newest date was asked for.
    newest: Option<Arc<Newest>>,
}

// === impl UsageCache ===

impl UsageCache {
    /// Stores the answer to a question, keeping what it confirms, unless it is
    /// [doubted](Suspicion): what is held is then handed out in its place.
    ///
    /// Whether it may be stored at all is for the caller to say: an answer that a purge overtook
    /// is handed out with [`UsageCache::pass_through`].
    pub fn store(&self, question: Question, prepared: Prepared, now: Instant) -> Stored {
        let mut records = self.changes();
        let key = SnapshotKey {
            subject: prepared.subject(),
            api: question.api(),
            date: prepared.processed_date(),
        };
        if let Some(customer) = key.subject.customer() {
            records.absences.saw(customer, now);
        }
        let known = &mut records.known_dates;
        let good = self.good(key, question);
        if let Some(newer) = newer_than(known, key.subject, question, key.date)
            && good
                .as_ref()
                .is_none_or(|good| good.key.date != Some(newer))
        {
            // Evicted since `lost_newest` was asked: what is known to be outdated is not stored.
            let change = Change::Doubted(Suspicion::WentBackwards);
            let held = Held {
                suspect: true,
                ..self.pass_through(prepared, now)
            };
            return Stored {
                held,
                stored: false,
                change,
            };
        }
        let Some(good) = good else {
            return self.replace(known, question, key, prepared, now);
        };
        let answer = AnswerDigest::of(&prepared);
        let suspicion = Suspicion::of(answer, AnswerDigest::of(&good.snapshot.prepared));
        match self.judge(&good, answer, suspicion, now) {
            Verdict::Believed => self.replace(known, question, key, prepared, now),
            Verdict::Conceded => Stored {
                change: Change::Conceded,
                ..self.replace(known, question, key, prepared, now)
            },
            Verdict::Doubted { suspicion, since } => {
                self.metrics.suspected(suspicion);
                let held = self.keep(&good, answer, suspicion, since, now);
                Stored {
                    held,
                    stored: suspicion == Suspicion::WentBackwards
                        && key.api.tells_usage()
                        && self.store_aside(key, prepared, now),
                    change: Change::Doubted(suspicion),
                }
            }
        }
    }

    /// Returns the newest date of a customer's usage, where an answer to the question for the newest
    /// date has an older one, or no rows, and the data of the newest was evicted.
    ///
    /// Such an answer is stored by [`UsageCache::store_older`], or by
    /// [`UsageCache::store_in_place_of`] where upstream has nothing of the newest date any more.
    pub fn lost_newest(
        &self,
        subject: Subject,
        question: Question,
        answer: Option<ProcessedDate>,
    ) -> Option<ProcessedDate> {
        let newer = newer_than(&self.changes().known_dates, subject, question, answer)?;
        let key = NewestKey {
            subject,
            api: question.api(),
        };
        let newest = self.newest.get(&key);
        let is_cached = newest.is_some_and(|newest| newest.date == Some(newer))
            && self.snapshots.get(&key.snapshot(Some(newer))).is_some();
        (!is_cached).then_some(newer)
    }

    /// Stores an answer without rows to the question for the newest date, where upstream has nothing
    /// of the date before either, whose data was evicted: two calls agree, and nothing is cached to
    /// serve in its place.
    pub fn store_in_place_of(&self, question: Question, nothing: Prepared, now: Instant) -> Stored {
        self.changes().known_dates.forget(&NewestKey {
            subject: nothing.subject(),
            api: question.api(),
        });
        self.store(question, nothing, now)
    }

    /// Stores an answer to the question for the newest date that is older than one before, or has no
    /// rows, and serves `newest` in its place: the data of that date, as the dated call sent it.
    pub fn store_older(
        &self,
        question: Question,
        older: Prepared,
        newest: &Held,
        now: Instant,
    ) -> Stored {
        let _change = self.changes();
        let suspicion = match older.processed_date() {
            Some(_) => Suspicion::WentBackwards,
            None => Suspicion::Empty,
        };
        self.metrics.suspected(suspicion);
        let older_key = SnapshotKey {
            subject: older.subject(),
            api: question.api(),
            date: older.processed_date(),
        };
        let prepared = &newest.prepared;
        let lifetime = self.policy.draw_lifetime();
        let good = Good {
            key: older_key.newest().snapshot(prepared.processed_date()),
            snapshot: Arc::new(Snapshot::new(Arc::clone(prepared), newest.stored_at)),
            newest: Some(Arc::new(Newest::new(prepared, lifetime, newest.stored_at))),
        };
        self.snapshots.insert(good.key, Arc::clone(&good.snapshot));
        let held = self.keep(&good, AnswerDigest::of(&older), suspicion, now, now);
        Stored {
            held,
            stored: older_key.date.is_some() && self.store_aside(older_key, older, now),
            change: Change::Doubted(suspicion),
        }
    }

    /// Drops the cached answer to a question, since upstream has nothing for it.
    ///
    /// Where that is doubted, the cached answer stays, and is returned to be served.
    pub fn store_absence(
        &self,
        subject: Subject,
        question: Question,
        absence: AbsenceKind,
        now: Instant,
    ) -> Option<Stored> {
        let mut records = self.changes();
        let key = SnapshotKey {
            subject,
            api: question.api(),
            date: None,
        };
        let answer = AnswerDigest::NOTHING;
        if let Some(good) = self.good(key, question) {
            let suspicion = match absence {
                AbsenceKind::Customer => {
                    let lost = |customer| records.absences.lost(customer, now);
                    let is_one_of_many = subject.customer().is_some_and(lost);
                    let was_doubted = good
                        .doubt()
                        .is_some_and(|doubt| doubt.suspicion() == Suspicion::ManyAbsent);
                    (is_one_of_many || was_doubted).then_some(Suspicion::ManyAbsent)
                }
                AbsenceKind::Date => {
                    Suspicion::of(answer, AnswerDigest::of(&good.snapshot.prepared))
                }
            };
            if let Verdict::Doubted { suspicion, since } = self.judge(&good, answer, suspicion, now)
            {
                self.metrics.suspected(suspicion);
                return Some(Stored {
                    held: self.keep(&good, answer, suspicion, since, now),
                    stored: false,
                    change: Change::Doubted(suspicion),
                });
            }
        }
        match question {
            Question::Newest(_) => self.newest.remove(&key.newest()),
            Question::Dated(date) => {
                for api in UpstreamApi::OF_USAGE {
                    let date = Some(date);
                    self.snapshots.remove(&SnapshotKey { subject, api, date });
                }
            }
        }
        None
    }

    fn good(&self, told: SnapshotKey, question: Question) -> Option<Good> {
        match question {
            Question::Newest(_) => {
                let newest = self.newest.get(&told.newest())?;
                let key = told.newest().snapshot(newest.date);
                Some(Good {
                    key,
                    snapshot: self.snapshots.get(&key)?,
                    newest: Some(newest),
                })
            }
            Question::Dated(date) => {
                let (key, snapshot) = self.snapshot_of(told.subject, date)?;
                Some(Good {
                    key,
                    snapshot,
                    newest: None,
                })
            }
        }
    }

    fn judge(
        &self,
        good: &Good,
        answer: AnswerDigest,
        suspicion: Option<Suspicion>,
        now: Instant,
    ) -> Verdict {
        let confirm_after = self.suspect_confirm_after;
        match Verdict::on(answer, suspicion, good.doubt(), confirm_after, now) {
            // What is too old to stand in for a failure does not stand in for this either.
            Verdict::Doubted { suspicion, .. }
                if suspicion != Suspicion::WentBackwards
                    && self.expires_in(good, now).is_zero() =>
            {
                Verdict::Believed
            }
            verdict => verdict,
        }
    }

    /// Until it may not stand in for a failure any more; what was asked for by its date always may.
    fn expires_in(&self, good: &Good, now: Instant) -> Duration {
        good.newest.as_ref().map_or(Duration::MAX, |newest| {
            let age = now.saturating_duration_since(newest.stored_at);
            self.policy.until_expired(newest.lifetime.duration, age)
        })
    }

    /// Keeps what is held in spite of what was told, and has upstream asked again in a while.
    fn keep(
        &self,
        good: &Good,
        answer: AnswerDigest,
        suspicion: Suspicion,
        since: Instant,
        now: Instant,
    ) -> Held {
        let stored_at = good.stored_at();
        let age = now.saturating_duration_since(stored_at);
        let at_most = match suspicion {
            Suspicion::WentBackwards => Duration::MAX,
            // Until they may be confirmed, or must be believed.
            Suspicion::Empty | Suspicion::Shrunken | Suspicion::Grown | Suspicion::ManyAbsent => {
                (since + self.suspect_confirm_after)
                    .saturating_duration_since(now)
                    .min(self.expires_in(good, now))
            }
        };
        let lifetime = self.policy.in_place_of_doubt(age, at_most);
        let doubt = Doubt::new(suspicion, answer, since, lifetime.clone(), now);
        match &good.newest {
            Some(newest) => self.newest.keep(good.key.newest(), newest, doubt),
            None => {
                self.snapshots
                    .insert(good.key, good.snapshot.doubted(doubt));
            }
        }
        Held {
            prepared: Arc::clone(&good.snapshot.prepared),
            stored_at,
            checked_at: now,
            suspect: true,
            age,
            freshness: Freshness::Fresh,
            ttl: freshness::ttl(lifetime.duration, age),
            cache_control: lifetime.cache_control,
        }
    }

    /// Stores the snapshot of a date that is not the newest, for those who ask for that date;
    /// returns whether it did. There too, doubtful data replaces nothing.
    fn store_aside(&self, key: SnapshotKey, prepared: Prepared, now: Instant) -> bool {
        let prepared = match self.snapshots.get(&key) {
            Some(cached) => {
                let cached_digest = AnswerDigest::of(&cached.prepared);
                if Suspicion::of(AnswerDigest::of(&prepared), cached_digest).is_some() {
                    return false;
                }
                prepared.succeeding(&cached.prepared)
            }
            None => prepared,
        };
        self.snapshots
            .insert(key, Snapshot::new(Arc::new(prepared), now))
    }

    /// Stores an answer in place of what is held.
    fn replace(
        &self,
        known: &mut KnownDates,
        question: Question,
        key: SnapshotKey,
        prepared: Prepared,
        now: Instant,
    ) -> Stored {
        let earlier = self.snapshots.get(&key);
        // Content that comes back after other content was modified by that, for those who ask by
        // `If-Modified-Since`.
        let returns = matches!(question, Question::Newest(_))
            && self
                .newest
                .get(&key.newest())
                .is_some_and(|newest| newest.date != key.date);
        let unchanged = !returns
            && earlier
                .as_ref()
                .is_some_and(|earlier| prepared.is_unchanged_from(&earlier.prepared));
        let prepared = match &earlier {
            Some(_) if returns => Arc::new(prepared),
            Some(earlier) if unchanged => Arc::clone(&earlier.prepared),
            Some(earlier) => Arc::new(prepared.succeeding(&earlier.prepared)),
            None => Arc::new(prepared),
        };
        let change = match (&earlier, unchanged) {
            (None, _) => Change::New,
            (Some(_), true) => Change::Confirmed,
            (Some(_), false) => Change::Replaced,
        };
        let snapshot = Snapshot::new(prepared, now);
        let (held, stored) = match question {
            Question::Dated(_) => {
                let held = self.settled(&snapshot, now);
                (held, self.snapshots.insert(key, snapshot))
            }
            Question::Newest(_) => {
                match key.date.filter(|_| key.api.tells_usage()) {
                    Some(date) => {
                        known.saw(key.newest(), date);
                        self.metrics.saw_processed_date(date);
                    }
                    // An answer without rows that is believed ends the memory of what was before.
                    None => known.forget(&key.newest()),
                }
                self.replace_newest(key, snapshot, now)
            }
        };
        Stored {
            held,
            stored,
            change,
        }
    }

    fn replace_newest(&self, key: SnapshotKey, snapshot: Snapshot, now: Instant) -> (Held, bool) {
        let lifetime = self.policy.draw_lifetime();
        let held = Held {
            prepared: Arc::clone(&snapshot.prepared),
            stored_at: now,
            checked_at: now,
            suspect: false,
            age: Duration::ZERO,
            freshness: Freshness::Fresh,
            ttl: freshness::ttl(lifetime.duration, Duration::ZERO),
            cache_control: lifetime.cache_control.clone(),
        };
        let prepared = Arc::clone(&snapshot.prepared);
        let outdated = self.newest.get(&key.newest()).map(|newest| newest.date);
        let stored = self.snapshots.insert(key, snapshot);
        if stored {
            self.newest.insert(key.newest(), &prepared, lifetime, now);
        } else {
            // What is held is known to be outdated, and the new does not fit.
            self.newest.remove(&key.newest());
        }
        if let Some(date) = outdated.filter(|date| *date != key.date && !key.api.tells_usage()) {
            // Nobody can ask for it any more.
            self.snapshots.remove(&key.newest().snapshot(date));
        }
        (held, stored)
    }
}

/// The newest date of a customer's usage, where an answer to the question for the newest date has an
/// older one, or none because it has no rows.
fn newer_than(
    known: &KnownDates,
    subject: Subject,
    question: Question,
    answer: Option<ProcessedDate>,
) -> Option<ProcessedDate> {
    let Question::Newest(api) = question else {
        return None;
    };
    known
        .get(&NewestKey { subject, api })
        .filter(|newest| answer.is_none_or(|date| date < *newest))
}

// === impl Good ===

impl Good {
    /// When it arrived: the newest date may have been confirmed after its snapshot was stored.
    fn stored_at(&self) -> Instant {
        self.newest
            .as_ref()
            .map_or(self.snapshot.stored_at, |newest| newest.stored_at)
    }

    /// What stands against it already.
    fn doubt(&self) -> Option<&Doubt> {
        match &self.newest {
            Some(newest) => newest.doubt(),
            None => self.snapshot.doubt(),
        }
    }
}
