//! The newest usage of all customers, in memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use crate::{
    cache::PurgeScope,
    domain::{
        CustomerEntry, CustomerId, FleetEntry, FleetStatus, FleetUsage, LicenseUsage, ListPosition,
        ProcessedDate, UpstreamApi,
    },
    render::Rendered,
    store::StoredSnapshot,
};

/// The newest usage of every customer, in memory.
///
/// It has the rows that were last accepted, whether a call for all customers or for one brought them.
/// A refresh of all customers becomes visible in one step.
#[derive(Debug, Default)]
pub(in crate::service) struct FleetBook(Mutex<BookState>);

#[derive(Debug, Default)]
struct BookState {
    /// The list of customers.
    list: Option<Arc<Rendered>>,
    records: HashMap<CustomerId, CustomerRecord>,
    /// The newest date of the last refresh of all customers.
    refreshed_date: Option<ProcessedDate>,
    /// The fleet as of the last change, once it was asked for.
    built: Option<Arc<FleetUsage>>,
}

/// The known state of one customer.
#[derive(Clone, Debug, Default)]
pub(in crate::service) struct CustomerRecord {
    /// The rows that were accepted last; `None` if nothing was fetched.
    pub(in crate::service) usage: Option<Arc<LicenseUsage>>,
    /// The arrival of these rows.
    pub(in crate::service) fetched_at: Option<Timestamp>,
    /// The last time when upstream confirmed them.
    pub(in crate::service) confirmed_at: Option<Timestamp>,
    /// The last refresh has no rows of it, or suspect ones, and the earlier rows are kept.
    is_kept: bool,
    /// They came from the other call than the service asks now, before a change of the configuration.
    pub(in crate::service) is_of_other_call: bool,
    /// It was known before the list of customers, and is not in it.
    has_left: bool,
    /// A soft purge includes them: upstream must be asked before they are fresh.
    pub(in crate::service) is_purged: bool,
    /// The name of the last failure, if upstream refuses to answer for the customer.
    failure: Option<&'static str>,
}

// === impl FleetBook ===

impl FleetBook {
    /// Sets the list of customers, as it was rendered.
    pub(in crate::service) fn set_customers(&self, list: Arc<Rendered>) {
        let mut state = self.lock();
        if let Some(index) = list.customers() {
            let is_listed = |customer| index.find(customer).is_some();
            let mut records = std::mem::take(&mut state.records);
            records.retain(|customer, record| record.has_rows() || is_listed(*customer));
            for (customer, record) in &mut records {
                record.has_left = !is_listed(*customer);
            }
            state.records = records;
        }
        state.list = Some(list);
        state.built = None;
    }

    /// Returns the list of customers.
    pub(in crate::service) fn customers(&self) -> Option<Arc<Rendered>> {
        self.lock().list.clone()
    }

    /// Records an accepted answer for one customer, unless it has newer rows.
    ///
    /// A customer that is not listed is recorded only with rows: anyone can ask for any id.
    pub(in crate::service) fn record(&self, usage: &Arc<LicenseUsage>, fetched_at: Timestamp) {
        let mut state = self.lock();
        if usage.rows().is_empty() && !state.accepts(usage.customer_id()) {
            return;
        }
        let record = state.records.entry(usage.customer_id()).or_default();
        record.accept(usage, fetched_at, fetched_at);
        state.built = None;
    }

    /// Records rows that another process accepted, of which the cache has an older or no answer.
    pub(in crate::service) fn take_over(
        &self,
        usage: &Arc<LicenseUsage>,
        fetched_at: Timestamp,
        confirmed_at: Timestamp,
    ) {
        let mut state = self.lock();
        let record = state.records.entry(usage.customer_id()).or_default();
        // This process may have fetched others since.
        if record
            .confirmed_at
            .is_none_or(|known| known <= confirmed_at)
        {
            record.accept(usage, fetched_at, confirmed_at);
            state.built = None;
        }
    }

    /// Returns whether an answer without rows is worth keeping: the customer is listed or has a record,
    /// or the list is not known yet.
    pub(in crate::service) fn accepts(&self, customer: CustomerId) -> bool {
        self.lock().accepts(customer)
    }

    /// Records a snapshot that was accepted by an earlier process. `newest_api` is the call that the
    /// service asks now.
    pub(in crate::service) fn restore(&self, snapshot: &StoredSnapshot, newest_api: UpstreamApi) {
        let mut state = self.lock();
        let customer = snapshot.usage.customer_id();
        let record = CustomerRecord {
            usage: Some(Arc::clone(&snapshot.usage)),
            fetched_at: Some(snapshot.fetched_at),
            confirmed_at: Some(snapshot.confirmed_at),
            is_of_other_call: snapshot.api != newest_api,
            is_purged: snapshot.is_purged,
            has_left: state.lists(customer) == Some(false),
            ..CustomerRecord::default()
        };
        state.records.entry(customer).or_insert(record);
        state.built = None;
    }

    /// Records that upstream refuses to answer for a customer.
    pub(in crate::service) fn record_failure(&self, customer: CustomerId, failure: &'static str) {
        let mut state = self.lock();
        if state.accepts(customer) {
            state.records.entry(customer).or_default().failure = Some(failure);
            state.built = None;
        }
    }

    /// Records a refresh of all customers: the accepted answers, and the customers whose earlier rows
    /// are kept, because the refresh has no rows of them or suspect ones.
    pub(in crate::service) fn refresh(
        &self,
        date: ProcessedDate,
        accepted: &[Arc<LicenseUsage>],
        kept: &[CustomerId],
        fetched_at: Timestamp,
    ) {
        let mut state = self.lock();
        let state = &mut *state;
        for usage in accepted {
            let record = state.records.entry(usage.customer_id()).or_default();
            record.accept(usage, fetched_at, fetched_at);
        }
        for customer in kept {
            let record = state.records.entry(*customer).or_default();
            record.is_kept = true;
        }
        state.refreshed_date = Some(date);
        state.built = None;
    }

    /// Confirms the rows of all customers that a refresh covers.
    pub(in crate::service) fn confirm(&self, refreshed_at: Timestamp, confirmed_at: Timestamp) {
        for record in self.lock().records.values_mut() {
            if record.confirmed_at >= Some(refreshed_at) {
                // A clock that was set back ends no coverage.
                record.confirmed_at = Some(confirmed_at.max(refreshed_at));
            }
        }
    }

    /// Returns the customers of the list, and others that are known and have not left, each once.
    pub(in crate::service) fn known_customers(&self) -> Vec<CustomerId> {
        let state = self.lock();
        let list = state.list.as_ref().and_then(|list| list.customers());
        let listed = list.into_iter().flat_map(|list| list.entries());
        let is_other = |customer, record: &CustomerRecord| {
            !record.has_left && list.is_none_or(|list| list.find(customer).is_none())
        };
        let others = state.records.iter();
        let others = others.filter(|(customer, record)| is_other(**customer, record));
        let others = others.map(|(customer, _)| *customer);
        listed.map(|entry| entry.id).chain(others).collect()
    }

    /// Returns what is known of a customer.
    pub(in crate::service) fn record_of(&self, customer: CustomerId) -> Option<CustomerRecord> {
        self.lock().records.get(&customer).cloned()
    }

    /// Returns the customers whose rows were confirmed since then.
    pub(in crate::service) fn confirmed_since(&self, since: Timestamp) -> Vec<CustomerId> {
        let state = self.lock();
        let records = state.records.iter();
        records
            .filter(|(_, record)| record.confirmed_at >= Some(since))
            .map(|(customer, _)| *customer)
            .collect()
    }

    /// Forgets the rows that a hard purge includes.
    pub(in crate::service) fn purge(&self, scope: PurgeScope) {
        let mut state = self.lock();
        state.records.retain(|customer, record| {
            let date = record
                .usage
                .as_ref()
                .and_then(|usage| usage.processed_date());
            !scope.covers(Some(*customer), date)
        });
        if state.records.is_empty() {
            state.refreshed_date = None;
        }
        state.built = None;
    }

    /// Returns the date of the last refresh; before the first, the newest of any customer.
    pub(in crate::service) fn newest_date(&self) -> Option<ProcessedDate> {
        self.lock().newest_date()
    }

    /// Returns the time when the oldest rows were last confirmed.
    pub(in crate::service) fn oldest_confirmation(&self) -> Option<Timestamp> {
        let state = self.lock();
        let with_rows = state.records.values().filter(|record| record.counts());
        with_rows.filter_map(|record| record.confirmed_at).min()
    }

    /// Returns true if upstream has data of a later date: this date gets no more.
    pub(in crate::service) fn is_past(&self, date: ProcessedDate) -> bool {
        self.lock()
            .newest_date()
            .is_some_and(|newest| date < newest)
    }

    /// Returns the usage of all customers, each with its own newest date; `None` while the list of
    /// customers is unknown.
    pub(in crate::service) fn usage(&self) -> Option<Arc<FleetUsage>> {
        let mut state = self.lock();
        if let Some(built) = &state.built {
            return Some(Arc::clone(built));
        }
        let built = Arc::new(state.build()?);
        state.built = Some(Arc::clone(&built));
        Some(built)
    }

    /// The book is consistent after a panic: each step is one insert or remove.
    fn lock(&self) -> MutexGuard<'_, BookState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl BookState ===

impl BookState {
    /// The date of the last refresh; before the first, the newest of any customer.
    fn newest_date(&self) -> Option<ProcessedDate> {
        let newest_of_any = || {
            let records = self.records.values();
            let usage = records.filter_map(|record| record.usage.as_ref());
            usage.filter_map(|usage| usage.processed_date()).max()
        };
        self.refreshed_date.or_else(newest_of_any)
    }

    /// The records without rows that are kept while the list is not known.
    const MAX_UNLISTED: usize = 10_000;

    fn accepts(&self, customer: CustomerId) -> bool {
        let is_new = self.records.len() < Self::MAX_UNLISTED;
        self.lists(customer).unwrap_or(is_new) || self.records.contains_key(&customer)
    }

    /// Returns whether the list has a customer; `None` while it is not known.
    fn lists(&self, customer: CustomerId) -> Option<bool> {
        let list = self.list.as_ref()?.customers()?;
        Some(list.find(customer).is_some())
    }

    fn build(&self) -> Option<FleetUsage> {
        let list = self.list.as_ref()?.customers()?;
        let processed_date = self.newest_date();
        let nothing = CustomerRecord::default();
        let listed = list.entries().map(|listed| {
            let record = self.records.get(&listed.id).unwrap_or(&nothing);
            record.entry(listed, processed_date)
        });
        // Rows of a customer that joined after the list was read.
        let others = self.records.iter();
        let others = others
            .filter(|(customer, record)| record.counts() && list.find(**customer).is_none())
            .map(|(customer, record)| {
                let unlisted = CustomerEntry {
                    id: *customer,
                    name: String::new(),
                    domain: None,
                };
                record.entry(&unlisted, processed_date)
            });
        let mut entries: Vec<_> = listed.collect();
        let listed = entries.len();
        entries.extend(others);
        if entries.len() > listed {
            entries.sort_by_cached_key(|entry| {
                ListPosition::new(&entry.customer_name, entry.customer_id)
            });
        }
        Some(FleetUsage {
            processed_date,
            entries,
        })
    }
}

// === impl CustomerRecord ===

impl CustomerRecord {
    fn accept(
        &mut self,
        usage: &Arc<LicenseUsage>,
        fetched_at: Timestamp,
        confirmed_at: Timestamp,
    ) {
        let date = |usage: &Arc<LicenseUsage>| usage.processed_date();
        let is_older = self
            .usage
            .as_ref()
            .is_some_and(|known| date(usage) < date(known));
        if is_older && date(usage).is_some() && !self.is_of_other_call {
            return;
        }
        self.is_of_other_call = false;
        if self.usage.as_ref() != Some(usage) {
            self.usage = Some(Arc::clone(usage));
            self.fetched_at = Some(fetched_at);
        }
        self.confirmed_at = Some(confirmed_at);
        self.is_kept = false;
        self.is_purged = false;
        self.failure = None;
    }

    fn has_rows(&self) -> bool {
        self.usage
            .as_ref()
            .is_some_and(|usage| !usage.rows().is_empty())
    }

    /// Returns true if its rows count for all customers together.
    fn counts(&self) -> bool {
        self.has_rows() && !self.has_left
    }

    fn status(&self, newest: Option<ProcessedDate>) -> FleetStatus {
        match &self.usage {
            _ if self.failure.is_some() => FleetStatus::Failed,
            None => FleetStatus::NotFetched,
            Some(usage) if usage.rows().is_empty() => FleetStatus::Empty,
            Some(usage) if self.is_kept || usage.processed_date() < newest => FleetStatus::Stale,
            Some(_) => FleetStatus::Current,
        }
    }

    fn entry(&self, listed: &CustomerEntry, newest: Option<ProcessedDate>) -> Arc<FleetEntry> {
        let name_of_rows = || self.usage.as_ref().and_then(|usage| usage.customer_name());
        let customer_name = match &*listed.name {
            "" => name_of_rows().unwrap_or_default(),
            name => name,
        };
        Arc::new(FleetEntry {
            customer_id: listed.id,
            customer_name: customer_name.into(),
            status: self.status(newest),
            usage: self.usage.clone(),
            fetched_at: self.fetched_at,
            failure: self.failure,
        })
    }
}
