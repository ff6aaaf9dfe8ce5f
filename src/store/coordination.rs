//! The agreement between the processes that share a store.

use std::{fmt, sync::Arc, time::Duration};

use super::StoreFuture;
use crate::{
    cache::PurgeScope,
    domain::{CustomerId, Resource},
};

/// Coordinates the processes that share a store on a server.
///
/// Times are those of the server's clock. Every call fails fast, and its caller goes on by itself then.
pub trait Coordination: fmt::Debug + Send + Sync + 'static {
    /// Connects if there is no connection. No other method does.
    fn connect(&self) -> StoreFuture<'_, ()>;

    /// Takes a lease for [`LEASE_TIME`], unless another process holds it, or has ended it with a result
    /// that this one does not know.
    ///
    /// A call whose result is lost may have taken it: it expires.
    fn acquire_lease(&self, wanted: WantedLease) -> StoreFuture<'_, LeaseAttempt>;

    /// Extends a lease to [`LEASE_TIME`] from now. Returns false if it is lost.
    fn renew_lease(&self, lease: Lease) -> StoreFuture<'_, bool>;

    /// Ends a lease, unless it is lost.
    fn release_lease(&self, lease: Lease, end: LeaseEnd) -> StoreFuture<'_, ()>;
}

/// A lease expires so long after it was taken or renewed.
pub const LEASE_TIME: Duration = Duration::from_secs(10);

/// A holder renews its lease so often.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(3);

/// A request for a lease.
#[derive(Clone, Debug)]
pub struct WantedLease {
    /// The name of what only one process may do at a time.
    pub name: Arc<str>,
    /// What another process finished within this time is not known here.
    pub unknown_since: Duration,
}

/// The right of this process to do something that only one may do at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// As in [`WantedLease`].
    pub name: Arc<str>,
    /// Greater than that of every earlier lease of this name.
    pub fence: i64,
}

/// The answer to a request for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAttempt {
    /// This process holds it now.
    Granted(Lease),
    /// Another process holds it.
    Held,
    /// Another process has just ended it, and stored its result.
    Finished,
    /// Another process failed; a text of [`LeaseEnd::Failed`], and the time for which it counts.
    Failed {
        /// The failure.
        failure: String,
        /// It counts so much longer.
        remaining: Duration,
    },
}

/// The end of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseEnd {
    /// The result is in the store, for others to read.
    Finished,
    /// There is nothing for others to read, so the next one may try.
    Abandoned,
    /// It failed, and so would others.
    Failed {
        /// The failure.
        failure: String,
        /// It counts for so long.
        lifetime: Duration,
    },
}

/// Returns the name of the lease for a call; `None` for a call whose answer is not stored.
pub fn lease_name(resource: Resource) -> Option<Arc<str>> {
    let api = resource.api().as_str();
    let name = match (resource, resource.customer()) {
        (Resource::Customers, _) => "call/customers".to_owned(),
        (Resource::InsightsUsage(_) | Resource::CommercialUsage(..), Some(customer)) => {
            let calls = calls_of(Some(customer));
            match resource.date() {
                Some(date) => format!("{calls}{api}/{date}"),
                None => format!("{calls}{api}"),
            }
        }
        _ => return None,
    };
    Some(name.into())
}

/// Returns the pattern (of SQL's `LIKE`) of the leases for calls whose answer a purge includes.
pub(super) fn purged_leases(scope: PurgeScope) -> String {
    format!("{}%", calls_of(scope.customer_id))
}

fn calls_of(customer: Option<CustomerId>) -> String {
    match customer {
        Some(customer) => format!("call/usage/{customer}/"),
        None => "call/".to_owned(),
    }
}
