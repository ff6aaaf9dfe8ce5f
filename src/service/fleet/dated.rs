use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    cache::{CachedFailure, SingleFlight, StoreChange, UsageCache},
    clock::SharedClock,
    domain::{
        Caller, CustomerId, FleetEntry, FleetStatus, FleetUsage, LicenseUsage, ProcessedDate,
        Resource, UpstreamApi,
    },
    render::Rendered,
    service::{
        concurrency_limiter::FetchReason,
        fetcher::Fetcher,
        second_level::SecondLevel,
        source::{AnswerContent, CallTrace, SourceError, SourceErrorKind},
    },
    shutdown::Shutdown,
    store::{AcceptedSnapshot, DateRange, StoreWrite},
};

/// The usage of all customers on given dates.
///
/// It comes from the store; a date that was never fetched whole is fetched by one call with all pages,
/// which all requests share.
#[derive(Debug)]
pub(in crate::service) struct DatedFleets {
    fetcher: Arc<Fetcher>,
    level: Arc<SecondLevel>,
    cache: Arc<UsageCache>,
    flights: SingleFlight<ProcessedDate, FetchedDate>,
    recent: moka::sync::Cache<ProcessedDate, DatedRows>,
    /// The time for which rows of a date are served without looking again.
    fresh_for: Duration,
    clock: SharedClock,
}

/// The rows of all customers on a date.
#[derive(Clone, Debug)]
struct DatedRows {
    usages: Arc<Vec<Arc<LicenseUsage>>>,
    /// All customers were asked for.
    is_whole: bool,
    at: Instant,
}

type FetchedDate = Result<DatedRows, Arc<CachedFailure<SourceError>>>;

// === impl DatedFleets ===

impl DatedFleets {
    /// The dates whose rows are in memory. 5,000 customers with 8 rows take about 8 MB a date.
    const MAX_DATES: u64 = 4;

    pub(in crate::service) fn new(
        fetcher: Arc<Fetcher>,
        level: Arc<SecondLevel>,
        cache: Arc<UsageCache>,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            fetcher,
            level,
            fresh_for: cache.fresh_for(),
            cache,
            flights: SingleFlight::new(shutdown),
            recent: moka::sync::Cache::new(Self::MAX_DATES),
            clock,
        }
    }

    /// Returns the usage of all customers on a date, and the time when it was read.
    ///
    /// # Errors
    ///
    /// The failure of the call, where nothing of the date is stored.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the wait, not the call.
    pub(in crate::service) async fn usage(
        self: &Arc<Self>,
        date: ProcessedDate,
        caller: &Caller,
        trace: CallTrace,
    ) -> Result<(FleetUsage, Instant), Arc<CachedFailure<SourceError>>> {
        let now = self.clock.now();
        let is_recent = |rows: &DatedRows| now < rows.at + self.fresh_for;
        let rows = match self.recent.get(&date).filter(is_recent) {
            Some(rows) => rows,
            None => self.read_or_fetch(date, caller, trace).await?,
        };
        Ok((self.fleet(date, &rows), rows.at))
    }

    async fn read_or_fetch(
        self: &Arc<Self>,
        date: ProcessedDate,
        caller: &Caller,
        trace: CallTrace,
    ) -> FetchedDate {
        let Ok(flight) = self.flights.join_or_lead(
            date,
            |()| (),
            || Ok::<_, std::convert::Infallible>(()),
            |guard, ()| {
                let (fleets, caller) = (Arc::clone(self), caller.clone());
                async move {
                    let rows = fleets.rows(date, &caller, trace).await;
                    let remember = |rows: FetchedDate| {
                        if let Ok(rows) = &rows {
                            fleets.recent.insert(date, rows.clone());
                        }
                        rows
                    };
                    guard.complete(rows, remember).unwrap_or_else(|rows| rows)
                }
            },
        );
        flight
            .outcome()
            .await
            .unwrap_or_else(|_aborted| Err(self.fetcher.aborted_failure()))
    }

    async fn rows(&self, date: ProcessedDate, caller: &Caller, trace: CallTrace) -> FetchedDate {
        let stored = self.stored(date).await;
        if let Some(rows) = stored.as_ref().filter(|rows| rows.is_whole) {
            return Ok(rows.clone());
        }
        let before = stored.as_ref().map_or(&[][..], |rows| &rows.usages);
        let fetched = self.fetch_rows(date, caller, FetchReason::Request, trace, before);
        match (fetched.await, stored) {
            (Ok(rows), _) => Ok(rows),
            (Err(_), Some(rows)) if !rows.usages.is_empty() => Ok(rows),
            (Err(failure), _) => Err(failure),
        }
    }

    /// Fetches a date into the store, for no request.
    ///
    /// # Errors
    ///
    /// The failure of the call.
    pub(in crate::service) async fn fetch(
        &self,
        date: ProcessedDate,
        caller: &Caller,
    ) -> Result<(), Arc<CachedFailure<SourceError>>> {
        let trace = CallTrace::default();
        let stored = self.stored(date).await;
        let before = stored.as_ref().map_or(&[][..], |rows| &rows.usages);
        let fetched = self.fetch_rows(date, caller, FetchReason::Refresh, trace, before);
        fetched.await.map(drop)
    }

    async fn fetch_rows(
        &self,
        date: ProcessedDate,
        caller: &Caller,
        reason: FetchReason,
        trace: CallTrace,
        before: &[Arc<LicenseUsage>],
    ) -> FetchedDate {
        let resource = Resource::FleetUsage(Some(date));
        let fetched = self
            .fetcher
            .fetch_fleet(resource, caller, reason, trace)
            .await;
        match fetched {
            Ok(answer) => Ok(self.accept(date, answer.content, before).await),
            Err(failure) => {
                if failure.error.kind == SourceErrorKind::NothingProcessed {
                    self.level.record_nothing_processed(None, date);
                }
                Err(failure)
            }
        }
    }

    async fn stored(&self, date: ProcessedDate) -> Option<DatedRows> {
        let store = &self.level.durable()?.store;
        let range = DateRange {
            from: date,
            to: date,
        };
        // The store itself reports its failures.
        let usages = store.all_of_date(date).await.ok()?;
        let asked = store.asked_dates(None, range).await.ok()?;
        Some(DatedRows {
            usages: Arc::new(usages.into_iter().map(|stored| stored.usage).collect()),
            is_whole: !asked.is_empty(),
            at: self.clock.now(),
        })
    }

    /// Stores the rows of all customers. Suspect rows of a customer do not replace those before.
    async fn accept(
        &self,
        date: ProcessedDate,
        content: AnswerContent,
        before: &[Arc<LicenseUsage>],
    ) -> DatedRows {
        let usages = match content {
            AnswerContent::Fleet(usages) => usages,
            _ => Vec::new(),
        };
        let at = self.clock.wall_time();
        let mut before: HashMap<CustomerId, &Arc<LicenseUsage>> = before
            .iter()
            .map(|usage| (usage.customer_id(), usage))
            .collect();
        let mut accepted = Vec::with_capacity(usages.len());
        for usage in usages {
            let usage = Arc::new(usage);
            if let Some(before) = before.remove(&usage.customer_id())
                && **before != *usage
                && self.is_suspect(date, &usage, at).await
            {
                accepted.push(Arc::clone(before));
                continue;
            }
            self.level.write(StoreWrite::Snapshot(AcceptedSnapshot {
                api: UpstreamApi::Commercial,
                usage: Arc::clone(&usage),
                native: None,
                asked_date: Some(date),
                fetched_at: at,
            }));
            accepted.push(usage);
        }
        accepted.extend(before.into_values().map(Arc::clone));
        self.level
            .write(StoreWrite::FleetFetched { date, asked_at: at });
        DatedRows {
            usages: Arc::new(accepted),
            is_whole: true,
            at: self.clock.now(),
        }
    }

    /// Compares rows of a customer with those before, by the rules of the cache.
    async fn is_suspect(&self, date: ProcessedDate, usage: &LicenseUsage, at: Timestamp) -> bool {
        let resource = Resource::dated_usage(usage.customer_id(), date);
        self.level.load(resource).await;
        let Ok(rendered) = Rendered::new(usage, None, at) else {
            return true;
        };
        let stored = self.cache.store(resource, rendered, self.clock.now());
        matches!(stored.change, StoreChange::Suspect(_))
    }

    fn fleet(&self, date: ProcessedDate, rows: &DatedRows) -> FleetUsage {
        let usages: HashMap<CustomerId, &Arc<LicenseUsage>> = rows
            .usages
            .iter()
            .map(|usage| (usage.customer_id(), usage))
            .collect();
        let without_rows = if rows.is_whole {
            FleetStatus::Empty
        } else {
            FleetStatus::NotFetched
        };
        let today = self.level.book.usage().unwrap_or_default();
        let entries = today.entries.iter().map(|entry| {
            let usage = usages.get(&entry.customer_id);
            let usage = usage.filter(|usage| usage.processed_date() == Some(date));
            let status = match usage {
                Some(_) => FleetStatus::Current,
                None if entry.status == FleetStatus::Failed => FleetStatus::Failed,
                None => without_rows,
            };
            Arc::new(FleetEntry {
                customer_id: entry.customer_id,
                customer_name: Arc::clone(&entry.customer_name),
                status,
                usage: usage.map(|usage| Arc::clone(usage)),
                fetched_at: entry.fetched_at.filter(|_| usage.is_some()),
                failure: entry.failure,
            })
        });
        FleetUsage {
            processed_date: Some(date),
            entries: entries.collect(),
        }
    }
}
