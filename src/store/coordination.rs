//! The agreement between the processes that share a store.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{Notifications, StoreFuture};
use crate::{
    cache::PurgeScope,
    domain::{CustomerId, ProcessedDate, Resource, UpstreamApi},
    sealing::{KeyId, SealedSecret},
};

/// Coordinates the processes that share a store on a server.
///
/// Times are those of the server's clock. Every call fails fast, and its caller goes on by itself then.
pub trait Coordination: fmt::Debug + Send + Sync + 'static {
    /// Connects if there is no connection. No other method does.
    fn connect(&self) -> StoreFuture<'_, ()>;

    /// Returns what this and other processes do from now on.
    fn notifications(&self) -> Notifications;

    /// Takes a lease for [`LEASE_TIME`], unless another process holds it, or has ended it with a result
    /// that this one does not know.
    ///
    /// A call whose result is lost may have taken it: it expires.
    fn acquire_lease(&self, wanted: WantedLease) -> StoreFuture<'_, LeaseAttempt>;

    /// Extends a lease to [`LEASE_TIME`] from now. Returns false if it is lost.
    fn renew_lease(&self, lease: Lease) -> StoreFuture<'_, bool>;

    /// Ends a lease, unless it is lost.
    fn release_lease(&self, lease: Lease, end: LeaseEnd) -> StoreFuture<'_, ()>;

    /// Tells the other processes of a refresh of all customers whose rows are in the store, unless a later
    /// holder of the lease has told of one.
    fn publish_refresh(&self, refresh: FleetRefresh, fence: i64) -> StoreFuture<'_, ()>;

    /// Returns the last refresh of all customers by this call.
    fn last_refresh(&self, api: UpstreamApi) -> StoreFuture<'_, Option<FleetRefresh>>;

    /// Tells the other processes of a pause that upstream asked for. It never becomes shorter.
    fn share_pause(&self, pause: SharedPause) -> StoreFuture<'_, ()>;

    /// Returns the pauses that are not over.
    fn shared_pauses(&self) -> StoreFuture<'_, Vec<SharedPause>>;

    /// Returns the time of the server.
    fn server_time(&self) -> StoreFuture<'_, Timestamp>;

    /// Returns the tokens of an account, if there are any.
    fn tokens(&self, account: Arc<str>) -> StoreFuture<'_, Option<StoredTokens>>;

    /// Replaces the tokens of an account if they are still of this version; `None`: if there are none.
    /// Returns the new version; `None` if another process was faster.
    fn swap_tokens(
        &self,
        account: Arc<str>,
        seen: Option<i64>,
        tokens: SealedTokens,
    ) -> StoreFuture<'_, Option<i64>>;
}

/// A lease expires so long after it was taken or renewed.
pub const LEASE_TIME: Duration = Duration::from_secs(10);

/// A failure counts no longer for other processes.
pub const MAX_FAILURE_TIME: Duration = Duration::from_secs(15 * 60);

/// A holder renews its lease so often.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(3);

/// A request for a lease.
#[derive(Clone, Debug)]
pub struct WantedLease {
    /// The name of what only one process may do at a time.
    pub name: Arc<str>,
    /// The time since this process looked for a result: one that came later is not known here.
    pub unknown_since: Duration,
    /// True if a request waits for the answer, so that it must come at once.
    pub is_urgent: bool,
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
        /// It counts for so long, up to [`MAX_FAILURE_TIME`].
        lifetime: Duration,
    },
}

/// A refresh of all customers, as the other processes see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetRefresh {
    /// The call.
    pub api: UpstreamApi,
    /// The newest date.
    pub processed_date: ProcessedDate,
    /// All newest snapshots that were confirmed since then are of this refresh.
    pub refreshed_at: Timestamp,
    /// The last check that found no newer date.
    pub confirmed_at: Timestamp,
    /// The time for a second look at suspect answers.
    pub second_look: Option<Timestamp>,
    /// The age of the last check.
    pub age: Duration,
    /// The data is fresh for so much longer.
    pub fresh_for: Duration,
}

/// The tokens of an account, as they are stored.
#[derive(Clone, Debug)]
pub struct StoredTokens {
    /// Grows with each change.
    pub version: i64,
    /// The time since the last change.
    pub age: Duration,
    /// The tokens.
    pub tokens: SealedTokens,
}

/// The tokens of an account, encrypted.
#[derive(Clone, Debug)]
pub struct SealedTokens {
    /// The key that encrypted them.
    pub key_id: KeyId,
    /// The refresh token, if the account has one.
    pub refresh_token: Option<SealedSecret>,
    /// The access token, if there is one.
    pub access_token: Option<SealedSecret>,
    /// The time until the access token expires.
    pub remaining: Duration,
    /// The whole lifetime of the access token.
    pub lifetime: Duration,
    /// The hashes of refresh tokens of files that count no longer.
    pub origins: Vec<[u8; 32]>,
}

/// A pause that upstream asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPause {
    /// The calls that pause.
    pub name: String,
    /// They pause so much longer.
    pub remaining: Duration,
}

/// Returns the name of the lease for a call; `None` for a call whose answer is not stored.
pub fn lease_name(resource: Resource) -> Option<Arc<str>> {
    let api = resource.api().as_str();
    let name = match (resource, resource.customer()) {
        (Resource::Customers, _) => "call/customers".to_owned(),
        (Resource::FleetUsage(Some(date)), _) => format!("call/fleet/{date}"),
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
