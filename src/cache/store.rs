//! Stores answers: data that they confirm stays, data that they outdate goes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    AnomalyKind, CachedAnswer, Freshness, NewestKey, SnapshotKey, UsageCache,
    anomaly::{Anomaly, AnswerDigest, Check},
    freshness,
    known_dates::KnownDates,
    newest_dates::NewestEntry,
    snapshots::CachedSnapshot,
};
use crate::{
    domain::{ProcessedDate, Resource, UpstreamApi},
    render::Rendered,
};

/// The result of storing an answer.
#[derive(Clone, Debug)]
pub struct StoreResult {
    /// The answer to serve, stored or not.
    pub answer: CachedAnswer,
    /// It was stored.
    pub stored: bool,
    /// The change to the cache.
    pub change: StoreChange,
}

/// The change that an answer made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreChange {
    /// There was no such data.
    New,
    /// The same content again: validators stay, freshness starts again.
    Unchanged,
    /// Other content, or a newer date.
    Replaced,
    /// Other content, which was suspect before and is confirmed now.
    AcceptedAfterRepeat,
    /// Nothing that is served: the answer is suspect, and the cached data stays.
    Suspect(AnomalyKind),
}

/// The data of a customer's newest date, when upstream sends an older one.
#[derive(Clone, Debug)]
pub enum NewerData {
    /// It is cached.
    Cached(CachedAnswer),
    /// Only its date is known.
    Evicted(ProcessedDate),
}

/// Something that upstream says does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbsenceKind {
    /// The customer, or the partner's relationship with it.
    Customer,
    /// Data of the date that was asked for.
    Date,
}

/// The entry that answers for a resource now, to compare a new answer with.
struct CurrentEntry {
    /// The key of the snapshot.
    key: SnapshotKey,
    snapshot: Arc<CachedSnapshot>,
    /// `None` if a date was asked for.
    newest: Option<Arc<NewestEntry>>,
}

// === impl UsageCache ===

impl UsageCache {
    /// Stores an answer, unless it is [suspect](AnomalyKind): then the cached one is served in its
    /// place. Forms that have not changed are kept.
    ///
    /// The caller decides whether the answer may be stored: one that was fetched before a purge is
    /// served by [`UsageCache::uncached_answer`] instead.
    pub fn store(&self, resource: Resource, rendered: Rendered, now: Instant) -> StoreResult {
        self.store_beside(resource, rendered, None, now)
    }

    /// Stores an answer as [`UsageCache::store`] does. `newer` is the data of a newer date that was
    /// cached when the answer arrived: it is served even if it has been evicted since.
    pub fn store_beside(
        &self,
        resource: Resource,
        rendered: Rendered,
        newer: Option<&CachedAnswer>,
        now: Instant,
    ) -> StoreResult {
        let mut records = self.lock_records();
        let key = NewestKey::from(resource).snapshot(rendered.processed_date());
        if let Some(customer) = key.customer {
            records.absences.observe_present(customer, now);
        }
        let known = &mut records.known_dates;
        let good = self.current_entry(resource);
        if let Some(newest_date) = newer_known_date(known, resource, key.date)
            && good
                .as_ref()
                .is_none_or(|good| good.key.date != Some(newest_date))
        {
            if let Some(newer) = newer {
                return self.restore_newer(resource, rendered, newer, now);
            }
            // An answer that is known to be outdated is not stored.
            let change = StoreChange::Suspect(AnomalyKind::WentBackwards);
            let held = CachedAnswer {
                suspect: true,
                ..self.uncached_answer(rendered, now)
            };
            return StoreResult {
                answer: held,
                stored: false,
                change,
            };
        }
        let Some(good) = good else {
            return self.replace(known, resource, key, rendered, now);
        };
        let answer = AnswerDigest::of(&rendered);
        let suspicion = AnomalyKind::detect(answer, AnswerDigest::of(&good.snapshot.rendered));
        match self.check_answer(&good, answer, suspicion, now) {
            Check::Accepted => self.replace(known, resource, key, rendered, now),
            Check::AcceptedAfterRepeat => StoreResult {
                change: StoreChange::AcceptedAfterRepeat,
                ..self.replace(known, resource, key, rendered, now)
            },
            Check::Suspect {
                kind: suspicion,
                first_seen_at: since,
            } => {
                self.metrics.record_suspect(suspicion);
                let held = self.keep_current(&good, answer, suspicion, since, now);
                StoreResult {
                    answer: held,
                    stored: suspicion == AnomalyKind::WentBackwards
                        && key.api.tells_usage()
                        && self.store_older_date(key, rendered, now),
                    change: StoreChange::Suspect(suspicion),
                }
            }
        }
    }

    /// Returns the data of a customer's newest date, where an answer for the newest date has an older
    /// one, or no rows.
    ///
    /// If the data was evicted, [`UsageCache::store_older`] stores such an answer, or
    /// [`UsageCache::store_without_rows`] if upstream has nothing of the newest date any more.
    pub fn newer_data(
        &self,
        resource: Resource,
        answer: Option<ProcessedDate>,
        now: Instant,
    ) -> Option<NewerData> {
        let date = newer_known_date(&self.lock_records().known_dates, resource, answer)?;
        let has_date = |cached: &CachedAnswer| cached.rendered.processed_date() == Some(date);
        let cached = self.look_up(resource, now).filter(has_date);
        Some(cached.map_or(NewerData::Evicted(date), NewerData::Cached))
    }

    /// Stores an answer without rows to the question for the newest date, where upstream has nothing
    /// of the date before either, whose data was evicted: two calls agree, and nothing is cached to
    /// serve in its place.
    pub fn store_without_rows(
        &self,
        resource: Resource,
        nothing: Rendered,
        now: Instant,
    ) -> StoreResult {
        self.lock_records().known_dates.remove(&resource.into());
        self.store(resource, nothing, now)
    }

    /// Stores an answer to the question for the newest date that is older than one before, or has no
    /// rows, and serves `newest` in its place: the data of that date, as the dated call sent it.
    pub fn store_older(
        &self,
        resource: Resource,
        older: Rendered,
        newest: &CachedAnswer,
        now: Instant,
    ) -> StoreResult {
        let _change = self.lock_records();
        self.restore_newer(resource, older, newest, now)
    }

    fn restore_newer(
        &self,
        resource: Resource,
        older: Rendered,
        newest: &CachedAnswer,
        now: Instant,
    ) -> StoreResult {
        let suspicion = match older.processed_date() {
            Some(_) => AnomalyKind::WentBackwards,
            None => AnomalyKind::Empty,
        };
        self.metrics.record_suspect(suspicion);
        let older_key = NewestKey::from(resource).snapshot(older.processed_date());
        let rendered = &newest.rendered;
        let lifetime = self.policy.jittered_lifetime(older_key.newest());
        let good = CurrentEntry {
            key: older_key.newest().snapshot(rendered.processed_date()),
            snapshot: Arc::new(CachedSnapshot::new(Arc::clone(rendered), newest.stored_at)),
            newest: Some(Arc::new(NewestEntry::new(
                rendered,
                lifetime,
                newest.stored_at,
            ))),
        };
        self.snapshots.insert(good.key, Arc::clone(&good.snapshot));
        let held = self.keep_current(&good, AnswerDigest::of(&older), suspicion, now, now);
        StoreResult {
            answer: held,
            stored: older_key.date.is_some() && self.store_older_date(older_key, older, now),
            change: StoreChange::Suspect(suspicion),
        }
    }

    /// Drops the cached answer to a question, since upstream has nothing for it.
    ///
    /// If that is suspect, the cached answer stays, and is returned to be served.
    pub fn store_absence(
        &self,
        resource: Resource,
        absence: AbsenceKind,
        now: Instant,
    ) -> Option<StoreResult> {
        let mut records = self.lock_records();
        let answer = AnswerDigest::EMPTY;
        if let Some(good) = self.current_entry(resource) {
            let suspicion = match absence {
                AbsenceKind::Customer => {
                    let lost = |customer| records.absences.observe_absent(customer, now);
                    let is_one_of_many = resource.customer().is_some_and(lost);
                    let was_doubted = good
                        .anomaly()
                        .is_some_and(|doubt| doubt.kind() == AnomalyKind::ManyAbsent);
                    (is_one_of_many || was_doubted).then_some(AnomalyKind::ManyAbsent)
                }
                AbsenceKind::Date => {
                    AnomalyKind::detect(answer, AnswerDigest::of(&good.snapshot.rendered))
                }
            };
            if let Check::Suspect {
                kind: suspicion,
                first_seen_at: since,
            } = self.check_answer(&good, answer, suspicion, now)
            {
                self.metrics.record_suspect(suspicion);
                return Some(StoreResult {
                    answer: self.keep_current(&good, answer, suspicion, since, now),
                    stored: false,
                    change: StoreChange::Suspect(suspicion),
                });
            }
        }
        match resource.date() {
            None => self.newest.remove(&resource.into()),
            date @ Some(_) => {
                for api in UpstreamApi::OF_USAGE {
                    self.snapshots.remove(&SnapshotKey {
                        customer: resource.customer(),
                        api,
                        date,
                    });
                }
            }
        }
        None
    }

    fn current_entry(&self, resource: Resource) -> Option<CurrentEntry> {
        if let Resource::CommercialUsage(customer, Some(date)) = resource {
            let (key, snapshot) = self.dated_snapshot(customer, date)?;
            return Some(CurrentEntry {
                key,
                snapshot,
                newest: None,
            });
        }
        let newest = self.newest.get(&resource.into())?;
        let key = NewestKey::from(resource).snapshot(newest.date);
        Some(CurrentEntry {
            key,
            snapshot: self.snapshots.get(&key)?,
            newest: Some(newest),
        })
    }

    fn check_answer(
        &self,
        good: &CurrentEntry,
        answer: AnswerDigest,
        suspicion: Option<AnomalyKind>,
        now: Instant,
    ) -> Check {
        let confirm_after = self.suspect_confirm_after;
        match Check::evaluate(answer, suspicion, good.anomaly(), confirm_after, now) {
            // Data that is too old to be served in place of a failure is not served in place of this either.
            Check::Suspect {
                kind: suspicion, ..
            } if suspicion != AnomalyKind::WentBackwards
                && self.expires_in(good, now).is_zero() =>
            {
                Check::Accepted
            }
            verdict => verdict,
        }
    }

    /// Returns the time until an entry expires. Dated data does not.
    fn expires_in(&self, good: &CurrentEntry, now: Instant) -> Duration {
        good.newest.as_ref().map_or(Duration::MAX, |newest| {
            let age = now.saturating_duration_since(newest.stored_at);
            self.policy
                .time_until_expired(newest.lifetime.duration, age)
        })
    }

    /// Keeps the cached data in spite of a suspect answer, for a while.
    fn keep_current(
        &self,
        good: &CurrentEntry,
        answer: AnswerDigest,
        suspicion: AnomalyKind,
        since: Instant,
        now: Instant,
    ) -> CachedAnswer {
        let stored_at = good.stored_at();
        let age = now.saturating_duration_since(stored_at);
        let at_most = match suspicion {
            AnomalyKind::WentBackwards => Duration::MAX,
            // Until they may be confirmed, or must be accepted.
            AnomalyKind::Empty
            | AnomalyKind::Shrunken
            | AnomalyKind::Grown
            | AnomalyKind::ManyAbsent => (since + self.suspect_confirm_after)
                .saturating_duration_since(now)
                .min(self.expires_in(good, now)),
        };
        let policy = &self.policy;
        let lifetime = policy.lifetime_despite_anomaly(good.key.newest(), age, at_most);
        let doubt = Anomaly::new(suspicion, answer, since, lifetime.clone(), now);
        match &good.newest {
            Some(newest) => self.newest.attach_anomaly(good.key.newest(), newest, doubt),
            None => {
                self.snapshots
                    .insert(good.key, good.snapshot.with_anomaly(doubt));
            }
        }
        CachedAnswer {
            rendered: Arc::clone(&good.snapshot.rendered),
            stored_at,
            checked_at: now,
            suspect: true,
            age,
            freshness: Freshness::Fresh,
            ttl: freshness::ttl_seconds(lifetime.duration, age),
            cache_control: lifetime.cache_control,
        }
    }

    /// Stores the snapshot of a date that is not the newest, for those who ask for that date;
    /// returns whether it did. There too, suspect data replaces nothing.
    fn store_older_date(&self, key: SnapshotKey, rendered: Rendered, now: Instant) -> bool {
        let rendered = match self.snapshots.get(&key) {
            Some(cached) => {
                let cached_digest = AnswerDigest::of(&cached.rendered);
                if AnomalyKind::detect(AnswerDigest::of(&rendered), cached_digest).is_some() {
                    return false;
                }
                rendered.reusing_unchanged(&cached.rendered)
            }
            None => rendered,
        };
        self.snapshots
            .insert(key, CachedSnapshot::new(Arc::new(rendered), now))
    }

    /// Stores an answer in place of the cached data.
    fn replace(
        &self,
        known: &mut KnownDates,
        resource: Resource,
        key: SnapshotKey,
        rendered: Rendered,
        now: Instant,
    ) -> StoreResult {
        let earlier = self.snapshots.get(&key);
        // Content that comes back after other content was modified by that, for those who ask by
        // `If-Modified-Since`.
        let returns = resource.date().is_none()
            && self
                .newest
                .get(&key.newest())
                .is_some_and(|newest| newest.date != key.date);
        let unchanged = !returns
            && earlier
                .as_ref()
                .is_some_and(|earlier| rendered.is_unchanged_from(&earlier.rendered));
        let rendered = match &earlier {
            Some(_) if returns => Arc::new(rendered),
            Some(earlier) if unchanged => Arc::clone(&earlier.rendered),
            Some(earlier) => Arc::new(rendered.reusing_unchanged(&earlier.rendered)),
            None => Arc::new(rendered),
        };
        let change = match (&earlier, unchanged) {
            (None, _) => StoreChange::New,
            (Some(_), true) => StoreChange::Unchanged,
            (Some(_), false) => StoreChange::Replaced,
        };
        let snapshot = CachedSnapshot::new(rendered, now);
        let (held, stored) = match resource.date() {
            Some(_) => {
                let held = self.dated_answer(&snapshot, now);
                (held, self.snapshots.insert(key, snapshot))
            }
            None => {
                match key.date.filter(|_| key.api.tells_usage()) {
                    Some(date) => {
                        known.observe(key.newest(), date);
                        self.metrics.observe_processed_date(date);
                    }
                    // An accepted answer without rows ends the memory of the date before.
                    None => known.remove(&key.newest()),
                }
                self.replace_newest(key, snapshot, now)
            }
        };
        StoreResult {
            answer: held,
            stored,
            change,
        }
    }

    fn replace_newest(
        &self,
        key: SnapshotKey,
        snapshot: CachedSnapshot,
        now: Instant,
    ) -> (CachedAnswer, bool) {
        let lifetime = self.policy.jittered_lifetime(key.newest());
        let held = CachedAnswer {
            rendered: Arc::clone(&snapshot.rendered),
            stored_at: now,
            checked_at: now,
            suspect: false,
            age: Duration::ZERO,
            freshness: Freshness::Fresh,
            ttl: freshness::ttl_seconds(lifetime.duration, Duration::ZERO),
            cache_control: lifetime.cache_control.clone(),
        };
        let rendered = Arc::clone(&snapshot.rendered);
        let outdated = self.newest.get(&key.newest()).map(|newest| newest.date);
        let stored = self.snapshots.insert(key, snapshot);
        if stored {
            self.newest.insert(key.newest(), &rendered, lifetime, now);
        } else {
            // The cached data is known to be outdated, and the new does not fit.
            self.newest.remove(&key.newest());
        }
        if let Some(date) = outdated.filter(|date| *date != key.date && !key.api.tells_usage()) {
            // No request can ask for it any more.
            self.snapshots.remove(&key.newest().snapshot(date));
        }
        (held, stored)
    }
}

/// The newest date of a customer's usage, where an answer to the question for the newest date has an
/// older one, or none because it has no rows.
fn newer_known_date(
    known: &KnownDates,
    resource: Resource,
    answer: Option<ProcessedDate>,
) -> Option<ProcessedDate> {
    if resource.date().is_some() {
        return None;
    }
    known
        .get(&resource.into())
        .filter(|newest| answer.is_none_or(|date| date < *newest))
}

// === impl CurrentEntry ===

impl CurrentEntry {
    /// The time when it arrived: the newest date may have been confirmed after its snapshot was stored.
    fn stored_at(&self) -> Instant {
        self.newest
            .as_ref()
            .map_or(self.snapshot.stored_at, |newest| newest.stored_at)
    }

    /// The suspect answer that it is served in place of already.
    fn anomaly(&self) -> Option<&Anomaly> {
        match &self.newest {
            Some(newest) => newest.anomaly(),
            None => self.snapshot.anomaly(),
        }
    }
}
