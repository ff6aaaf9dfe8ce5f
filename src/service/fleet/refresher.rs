//! Refreshes all customers in the background.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{FleetMetrics, schedule::CheckSchedule};
use crate::{
    cache::{CachedFailure, EarlierAnswer, StoreChange, UsageCache},
    clock::SharedClock,
    domain::{CustomerId, LicenseUsage, ProcessedDate, Resource, UpstreamApi},
    jitter::Jitter,
    offload,
    render::{RenderError, Rendered},
    resilience::backoff::Backoff,
    service::{
        backfill::background_caller,
        concurrency_limiter::FetchReason,
        fetcher::Fetcher,
        second_level::{Coverage, ROW_BYTES, SecondLevel},
        source::{CallTrace, SourceError},
    },
    shutdown::Shutdown,
    store::{AcceptedSnapshot, HeldLease, StoreWrite},
};
use jiff::Timestamp;

/// Keeps the usage of all customers fresh, with few calls.
///
/// With the commercial call, a small call asks for the newest processed date. If it is new, one call
/// with all pages fetches all customers; if not, all customers are confirmed without asking for each.
/// With the insights call, which answers for one customer at a time, it walks the customers over a day.
#[derive(Debug)]
pub struct FleetRefresher {
    pub(in crate::service) fetcher: Arc<Fetcher>,
    pub(in crate::service) level: Arc<SecondLevel>,
    pub(in crate::service) cache: Arc<UsageCache>,
    pub(in crate::service) api: UpstreamApi,
    pub(in crate::service) interval: Duration,
    pub(in crate::service) confirm_after: Duration,
    pub(in crate::service) clock: SharedClock,
    pub(in crate::service) jitter: Jitter,
    pub(in crate::service) metrics: FleetMetrics,
    pub(in crate::service) shutdown: Shutdown,
}

/// The last refresh of all customers.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastRefresh {
    pub(super) date: ProcessedDate,
    pub(super) at: Timestamp,
    /// The time of the last check or refresh that succeeded.
    pub(super) confirmed_at: Timestamp,
    /// The time for a second look at suspect answers.
    pub(super) second_look: Option<Timestamp>,
}

/// The state of the refreshes, which goes on when another process has made some.
#[derive(Debug)]
pub(super) struct RefreshProgress {
    pub(super) schedule: CheckSchedule,
    pub(super) last: Option<LastRefresh>,
    /// The time of the next check, if another process has made the last.
    pub(super) due: Option<Instant>,
}

/// The failure of a check or refresh.
type FleetFailure = Arc<CachedFailure<SourceError>>;

/// An answer for one customer in a refresh.
struct CustomerAnswer {
    usage: Arc<LicenseUsage>,
    /// The rows before, if something changed and there are any.
    before: Option<Arc<LicenseUsage>>,
    /// The same, if the cache lacks them.
    evicted: Option<Rendered>,
    /// `None` if nothing changed.
    rendered: Option<Rendered>,
}

/// The pauses after failures.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(15 * 60));
const MIN_PAUSE: Duration = Duration::from_secs(5);

// === impl FleetRefresher ===

impl FleetRefresher {
    /// Refreshes until the task is cancelled. The others are told of what a process does that holds the
    /// lease.
    pub(super) async fn refresh_or_walk(
        &self,
        progress: &mut RefreshProgress,
        held: Option<&HeldLease>,
    ) {
        match self.api {
            UpstreamApi::Commercial => self.refresh_together(progress, held).await,
            _ => self.walk_customers().await,
        }
    }

    async fn refresh_together(&self, progress: &mut RefreshProgress, held: Option<&HeldLease>) {
        let mut failures = 0_u32;
        if let Some(due) = progress.due.take()
            && self.pause_until(due).await
        {
            progress.last = None;
        }
        loop {
            let last = progress.last;
            let (pause, mut unpublished) =
                match self.check_or_refresh(last, &mut progress.schedule).await {
                    Ok(refresh) => {
                        failures = 0;
                        let pause = self.until_next_check(&progress.schedule, &refresh);
                        let now = self.clock.now();
                        self.cover(Coverage {
                            since: refresh.at,
                            confirmed_at: now,
                            fresh_until: now + pause + self.cache.fresh_for(),
                        });
                        let is_refreshed = last.is_none_or(|last| last.at != refresh.at);
                        if is_refreshed {
                            self.metrics.record_refresh(true);
                        } else {
                            self.metrics.record_check(true);
                        }
                        progress.last = Some(refresh);
                        (pause, held.map(|held| (refresh, held)))
                    }
                    Err(failure) => {
                        let backoff = BACKOFF.delay(failures, self.jitter.fraction());
                        failures = failures.saturating_add(1);
                        tracing::warn!(
                            error = %failure.error,
                            "all customers could not be refreshed; the data before is served"
                        );
                        let wanted = failure.error.retry_after.unwrap_or_default();
                        let pause = backoff.max(MIN_PAUSE).min(self.interval).max(wanted);
                        (pause, None)
                    }
                };
            let due = self.clock.now() + pause;
            while let Some((refresh, held)) = unpublished {
                if self.publish_to_others(&refresh, held).await.is_ok() {
                    unpublished = None;
                    continue;
                }
                let retry_at = self.clock.now() + MIN_PAUSE;
                if retry_at >= due || self.pause_until(retry_at).await {
                    break;
                }
            }
            if self.pause_until(due).await {
                progress.last = None;
            }
        }
    }

    /// Returns true if a purge ended the pause.
    async fn pause_until(&self, due: Instant) -> bool {
        tokio::select! {
            () = self.clock.sleep_until(due) => false,
            () = self.level.purged.notified() => true,
        }
    }

    fn until_next_check(&self, schedule: &CheckSchedule, refresh: &LastRefresh) -> Duration {
        let now = self.clock.wall_time();
        let until_check = schedule.until_next_check(now, self.jitter.fraction());
        match refresh.second_look {
            Some(at) => Duration::try_from(at.duration_since(now))
                .unwrap_or_default()
                .min(until_check),
            None => until_check,
        }
    }

    async fn check_or_refresh(
        &self,
        last: Option<LastRefresh>,
        schedule: &mut CheckSchedule,
    ) -> Result<LastRefresh, FleetFailure> {
        let Some(last) = last else {
            return self.refresh(None).await;
        };
        let now = self.clock.wall_time();
        if last.second_look.is_some_and(|at| at <= now) {
            return self.refresh(Some(last)).await;
        }
        let newest = self.fetcher.fetch_fleet_date(&background_caller()).await;
        let newest = newest.inspect_err(|_| self.metrics.record_check(false))?;
        let Some(newest) = newest else {
            self.metrics.record_check(false);
            return Err(self.fetcher.suspect_fleet_failure(None, Some(last.date)));
        };
        // An older date may be that of late customers, and confirms nothing.
        if newest == last.date {
            let confirmed_at = self.clock.wall_time().max(last.at);
            self.level.book.confirm(last.at, confirmed_at);
            self.level.write(StoreWrite::FleetConfirmed {
                api: self.api,
                refreshed_at: last.at,
                confirmed_at,
            });
            return Ok(LastRefresh {
                confirmed_at,
                ..last
            });
        }
        self.metrics.record_check(true);
        let refreshed = self.refresh(Some(last)).await?;
        if refreshed.date > last.date {
            schedule.observe(last.confirmed_at, now);
        }
        Ok(refreshed)
    }

    /// Fetches all customers, and makes their data visible in one step.
    async fn refresh(&self, last: Option<LastRefresh>) -> Result<LastRefresh, FleetFailure> {
        let refreshed = self.fetch_and_publish(last).await;
        refreshed.inspect_err(|_| self.metrics.record_refresh(false))
    }

    async fn fetch_and_publish(
        &self,
        last: Option<LastRefresh>,
    ) -> Result<LastRefresh, FleetFailure> {
        self.fetch_customers().await?;
        let started = self.clock.now();
        let (caller, trace) = (background_caller(), CallTrace::default());
        let usages = self
            .fetcher
            .fetch_fleet(None, &caller, FetchReason::Refresh, trace)
            .await?
            .usages;
        self.metrics.observe_duration(self.clock.now() - started);
        let date = usages.iter().filter_map(LicenseUsage::processed_date).max();
        let known = self
            .level
            .book
            .newest_date()
            .max(last.map(|last| last.date));
        let Some(date) = date.filter(|date| Some(*date) >= known) else {
            return Err(self.fetcher.suspect_fleet_failure(date, known));
        };
        let at = self.clock.wall_time();
        let answers = self
            .answers(usages, at)
            .await
            .map_err(|error| self.fetcher.malformed_fleet_failure(&error.to_string()))?;
        let kept = self.publish(answers, date, at);
        if kept == 0 {
            self.level.write(StoreWrite::FleetFetched {
                date,
                asked_at: at,
                purge_generation: self.level.purges.generation(),
            });
        }
        tracing::info!(
            processed_date = %date,
            kept,
            "all customers were refreshed"
        );
        Ok(LastRefresh {
            date,
            at,
            confirmed_at: at,
            second_look: (kept > 0).then(|| at + self.confirm_after),
        })
    }

    /// Fetches the list of customers, unless it is fresh.
    async fn fetch_customers(&self) -> Result<(), FleetFailure> {
        let fetched = self
            .fetcher
            .fetch_if_stale(Resource::Customers, &background_caller())
            .await;
        match fetched {
            Err(failure) if self.level.book.customers().is_none() => Err(failure),
            _ => Ok(()),
        }
    }

    /// Pairs every customer with its answer, and renders those that changed.
    async fn answers(
        &self,
        usages: Vec<LicenseUsage>,
        seen_at: Timestamp,
    ) -> Result<Vec<CustomerAnswer>, RenderError> {
        /// The customers that are rendered as one piece of work.
        const BATCH: usize = 250;

        let mut usages: HashMap<CustomerId, LicenseUsage> = usages
            .into_iter()
            .map(|usage| (usage.customer_id(), usage))
            .collect();
        for customer in self.level.book.known_customers() {
            usages
                .entry(customer)
                .or_insert_with(|| LicenseUsage::without_rows(customer));
        }
        let mut usages = usages.into_values();
        let mut answers = Vec::with_capacity(usages.len());
        loop {
            let batch: Vec<_> = usages.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(answers);
            }
            let rows: usize = batch.iter().map(|usage| usage.rows().len() + 1).sum();
            let (level, cache, api) = (Arc::clone(&self.level), Arc::clone(&self.cache), self.api);
            let now = self.clock.now();
            let render = move || {
                let answer = |usage| customer_answer(&level, &cache, api, usage, seen_at, now);
                batch.into_iter().map(answer).collect::<Result<Vec<_>, _>>()
            };
            answers.extend(offload::run_cpu_bound(rows * ROW_BYTES, render).await?);
        }
    }

    /// Returns the number of customers whose earlier rows are kept.
    fn publish(&self, answers: Vec<CustomerAnswer>, date: ProcessedDate, at: Timestamp) -> usize {
        let now = self.clock.now();
        let (mut accepted, mut kept) = (Vec::with_capacity(answers.len()), Vec::new());
        for answer in answers {
            let CustomerAnswer {
                usage,
                before,
                evicted,
                rendered,
            } = answer;
            let customer = usage.customer_id();
            let resource = Resource::newest_usage(customer, self.api);
            // What was cached a moment ago may be evicted by now.
            let evicted = evicted.or_else(|| {
                let before = before.filter(|_| self.cache.look_up(resource, now).is_none())?;
                Rendered::new(&before, None, at).ok()
            });
            if let Some(rendered) = evicted {
                let earlier = EarlierAnswer {
                    rendered,
                    stored_at: now,
                    lifetime: None,
                    is_purged: false,
                };
                drop(self.cache.restore(resource, earlier, now));
            }
            let is_kept = rendered.is_some_and(|rendered| {
                let stored = self.cache.store(resource, rendered, now);
                matches!(stored.change, StoreChange::Suspect(_))
            });
            if is_kept {
                kept.push(customer);
                continue;
            }
            // The same rows again only confirm what is stored.
            self.level.write(StoreWrite::Snapshot(AcceptedSnapshot {
                api: self.api,
                usage: Arc::clone(&usage),
                native: None,
                asked_date: None,
                fetched_at: at,
                purge_generation: self.level.purges.generation(),
                lease: None,
                is_of_refresh: true,
            }));
            accepted.push(usage);
        }
        self.level.book.refresh(date, &accepted, &kept, at);
        kept.len()
    }

    /// Keeps the answers of all customers fresh that a refresh covers.
    pub(super) fn cover(&self, coverage: Coverage) {
        self.level.set_coverage(coverage);
        let now = self.clock.now();
        let lifetime = coverage.fresh_until.saturating_duration_since(now);
        for customer in self.level.book.confirmed_since(coverage.since) {
            self.cache.confirm_newest(customer, self.api, lifetime, now);
        }
    }

    /// Asks for one customer after the other, each once a day.
    async fn walk_customers(&self) {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);

        let mut failures = 0;
        loop {
            if self.fetch_customers().await.is_err() {
                let pause = BACKOFF
                    .delay(failures, self.jitter.fraction())
                    .max(MIN_PAUSE);
                failures = failures.saturating_add(1);
                self.clock.sleep_until(self.clock.now() + pause).await;
                continue;
            }
            failures = 0;
            let customers = self.level.book.known_customers();
            let share = u32::try_from(customers.len()).unwrap_or(u32::MAX).max(1);
            let begin: Instant = self.clock.now();
            for (index, customer) in (0_u32..).zip(customers) {
                let resource = Resource::newest_usage(customer, self.api);
                let fetched = self
                    .fetcher
                    .fetch_if_stale(resource, &background_caller())
                    .await;
                self.metrics.record_check(fetched.is_ok());
                let due = begin + DAY / share * (index + 1);
                self.clock.sleep_until(due).await;
            }
            if share == 1 {
                self.clock.sleep_until(begin + DAY).await;
            }
        }
    }
}

// === impl RefreshProgress ===

impl RefreshProgress {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            schedule: CheckSchedule::new(interval),
            last: None,
            due: None,
        }
    }
}

fn customer_answer(
    level: &SecondLevel,
    cache: &UsageCache,
    api: UpstreamApi,
    usage: LicenseUsage,
    seen_at: Timestamp,
    now: Instant,
) -> Result<CustomerAnswer, RenderError> {
    let customer = usage.customer_id();
    let record = level.book.record_of(customer);
    let record = record.filter(|record| !record.is_of_other_call);
    let before = record.and_then(|record| record.usage);
    let cached = cache.look_up(Resource::newest_usage(customer, api), now);
    let is_suspect = cached.as_ref().is_some_and(|cached| cached.suspect);
    if let Some(before) = &before
        && **before == usage
        && !is_suspect
    {
        // An evicted answer comes back when it is asked for.
        return Ok(CustomerAnswer {
            usage: Arc::clone(before),
            before: None,
            evicted: None,
            rendered: None,
        });
    }
    let evicted = before.as_ref().filter(|_| cached.is_none());
    let render = |usage: &LicenseUsage| Rendered::new(usage, None, seen_at);
    Ok(CustomerAnswer {
        evicted: evicted.map(|before| render(before)).transpose()?,
        before,
        rendered: Some(render(&usage)?),
        usage: Arc::new(usage),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::{PurgeMode, PurgeScope},
        clock::Clock,
        config::FleetConfig,
        service::tests::{ServiceFixture, SourceStep, documented_customer, usage_with_seats},
    };

    #[tokio::test]
    async fn suspect_rows_replace_none_of_a_customer_that_was_evicted_since_they_were_rendered() {
        let fixture = ServiceFixture::new([SourceStep::Seats(100)]);
        fixture.answer().await.unwrap();
        let config = FleetConfig {
            refresh: Some(true),
            check_interval: Duration::from_secs(3_600),
        };
        let refresher = fixture
            .service
            .fleet_refresher(&config, Jitter::Fixed(0.0))
            .unwrap();
        let customer = documented_customer();
        let grown = usage_with_seats(Resource::InsightsUsage(customer), 200);
        let (date, at) = (grown.processed_date().unwrap(), fixture.clock.wall_time());

        let answers = refresher.answers(vec![grown], at).await.unwrap();
        refresher
            .cache
            .purge(PurgeScope::default(), PurgeMode::Hard);
        let kept = refresher.publish(answers, date, at);

        assert_eq!(kept, 1);
        let record = refresher.level.book.record_of(customer).unwrap();
        let rows = record.usage.unwrap();
        assert_eq!(rows.rows()[0].licenses_qualified, 100);
    }
}
