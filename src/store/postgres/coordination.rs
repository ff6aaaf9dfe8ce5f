//! Leases and tokens, on one connection that all requests share: their statements do not wait for each other.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::join;
use jiff::Timestamp;
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};
use tokio_postgres::{
    Client, Row,
    types::{FromSql, ToSql, Type},
};

use super::{error::PostgresError, listener::NOTIFY, server::PostgresServer};
use crate::{
    domain::{ProcessedDate, UpstreamApi},
    shutdown::Shutdown,
    store::{
        Coordination, FleetRefresh, LEASE_TIME, Lease, LeaseAttempt, LeaseEnd, MAX_FAILURE_TIME,
        Notification, Notifications, SealedTokens, SharedPause, StoreFuture, StoredTokens,
        WantedLease, schema::source_number,
    },
};

/// The connection for coordination, if there is one; clones share it.
#[derive(Clone)]
pub(super) struct CoordinationClient {
    /// A random number that stands for this process.
    pub(super) owner: i64,
    client: watch::Sender<Option<Arc<Client>>>,
    /// Takes the task of the connection.
    shutdown: Shutdown,
}

/// The connection is closed at the end of the process if two looks in a row find it unused, and after the
/// last look in any case.
const LAST_LOOK_INTERVAL: Duration = Duration::from_millis(50);

const LAST_LOOKS: u32 = 100;

/// Time for the answer to a probe, after which a new connection is made: less than a probe may take.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// A parameter and its type: statements have no names, for the sake of poolers.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Reads first, since an attempt that conflicts writes even if it changes nothing. The condition is checked
/// again under the lock of the row. A fence is a time, so that it grows after its row was deleted too. A time
/// that is too far in the future comes from a server whose clock was ahead, before a fail-over, or from a
/// row that no process wrote. It counts for nothing.
///
/// The commit does not wait for the disk, which would take most of the time that a request has. A crash of
/// the server may lose it, and then also all that was stored later.
const ACQUIRE: &str = "WITH seen AS (
        SELECT expires_at, finished_at, failed_until, failure FROM usage_proxy.lease WHERE name = $1
    ), clock AS (
        SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS now,
            set_config('synchronous_commit', 'off', true)
    ), taken AS (
        INSERT INTO usage_proxy.lease AS l
            (name, owner, fence, expires_at, finished_at, failed_until, failure)
        SELECT $1, $2, now, now + $3, 0, 0, NULL FROM clock WHERE NOT EXISTS (SELECT 1 FROM seen
            WHERE expires_at BETWEEN now + 1 AND now + $3 OR finished_at BETWEEN now - $4 AND now
                OR failed_until BETWEEN now + 1 AND now + $5 AND failure IS NOT NULL)
        ON CONFLICT (name) DO UPDATE
        SET owner = excluded.owner,
            fence = greatest(excluded.fence, mod(l.fence, 9000000000000000000) + 1),
            expires_at = excluded.expires_at, failure = NULL
        WHERE l.expires_at NOT BETWEEN excluded.expires_at - $3 + 1 AND excluded.expires_at
            AND l.finished_at NOT BETWEEN excluded.expires_at - $3 - $4 AND excluded.expires_at - $3
            AND (l.failure IS NULL OR l.failed_until NOT BETWEEN excluded.expires_at - $3 + 1
                AND excluded.expires_at - $3 + $5)
        RETURNING l.fence
    )
    SELECT (SELECT fence FROM taken), expires_at BETWEEN now + 1 AND now + $3,
        finished_at BETWEEN now - $4 AND now,
        CASE WHEN failed_until BETWEEN now + 1 AND now + $5 THEN failed_until - now END, failure
    FROM clock LEFT JOIN seen ON true";

const RENEW: &str = "UPDATE usage_proxy.lease
    SET expires_at = CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) + $3
    WHERE name = $1 AND fence = $2 AND expires_at > 0 RETURNING fence";

const RELEASE: &str = "WITH clock AS (
        SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS now,
            set_config('synchronous_commit', 'off', true)
    )
    UPDATE usage_proxy.lease SET expires_at = 0,
        finished_at = CASE WHEN $3 THEN now ELSE finished_at END, failed_until = now + $4, failure = $5
    FROM clock WHERE name = $1 AND fence = $2";

const PUBLISH_REFRESH: &str = "INSERT INTO usage_proxy.fleet_refresh AS f
        (source, fence, day, refreshed_at, confirmed_at, second_look, published_at, fresh_until)
    SELECT $1, $2, $3, $4, $5, $6, now - $7, now + $8
    FROM (SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS now) clock
    ON CONFLICT (source) DO UPDATE SET fence = excluded.fence, day = excluded.day,
        refreshed_at = excluded.refreshed_at, confirmed_at = excluded.confirmed_at,
        second_look = excluded.second_look, published_at = excluded.published_at,
        fresh_until = excluded.fresh_until
    WHERE f.fence NOT BETWEEN excluded.fence + 1 AND excluded.fence + 86400000";

const LAST_REFRESH: &str = "SELECT CAST(day AS BIGINT), refreshed_at, confirmed_at, second_look,
        now - published_at, fresh_until - now
    FROM usage_proxy.fleet_refresh,
        (SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS now) clock
    WHERE source = $1";

const SHARE_PAUSE: &str = "INSERT INTO usage_proxy.throttle AS t (name, until_at)
    VALUES ($1, CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) + $2)
    ON CONFLICT (name) DO UPDATE SET until_at = excluded.until_at WHERE t.until_at < excluded.until_at";

const SHARED_PAUSES: &str = "SELECT name, until_at - now FROM usage_proxy.throttle,
        (SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS now) clock
    WHERE until_at > now";

const SERVER_TIME: &str = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";

const CONNECTED: &str = "SELECT 1 FROM usage_proxy.lease LIMIT 1";

// === impl CoordinationClient ===

impl CoordinationClient {
    pub(super) fn new(shutdown: Shutdown) -> Self {
        Self {
            owner: rand::random(),
            client: watch::Sender::default(),
            shutdown,
        }
    }

    async fn connect_if_closed(&self, server: &PostgresServer) -> Result<(), PostgresError> {
        if self.client().is_none() {
            let (client, driver) = server.connect().await?;
            let client = Arc::new(client);
            // At the end, leases are released through it, and tokens stored.
            let (coordination, used) = (self.clone(), Arc::downgrade(&client));
            self.shutdown.spawn_until_done(async move {
                tokio::select! {
                    () = driver => {}
                    () = coordination.until_unused(&used) => {}
                }
            });
            self.client.send_replace(Some(client));
        }
        // Behind a proxy, a connection may be open for ever without a server.
        let answered = timeout(ANSWER_TIME, self.query(CONNECTED, &[])).await;
        let answered = answered.unwrap_or(Err(PostgresError::TimedOut));
        if answered.is_err() {
            // It closes when all its statements are done.
            self.client.send_replace(None);
        }
        answered.map(drop)
    }

    /// Runs a statement on the connection. Nothing here connects: a request waits.
    pub(super) async fn query(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, PostgresError> {
        let client = self.open_client()?;
        Ok(client.query_typed(statement, parameters).await?)
    }

    /// Runs a statement, and notifies other processes. Both are sent at once.
    async fn change(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
        notification: Notification,
    ) -> Result<(), PostgresError> {
        let client = self.open_client()?;
        let payload = notification.to_string();
        let payload: [Parameter<'_>; 1] = [(&payload, Type::TEXT)];
        let changed = client.query_typed(statement, parameters);
        // Those who wait look without it, later.
        let (changed, _notified) = join(changed, client.query_typed(NOTIFY, &payload)).await;
        Ok(changed.map(drop)?)
    }

    /// Completes when there is a connection.
    pub(super) async fn connected(&self) {
        let mut client = self.client.subscribe();
        let is_open = |client: &Option<Arc<Client>>| {
            (client.as_ref()).is_some_and(|client| !client.is_closed())
        };
        // The sender is here.
        let _connected = client.wait_for(is_open).await.is_ok();
    }

    /// Returns the connection, if it is not closed.
    pub(super) fn client(&self) -> Option<Arc<Client>> {
        let client = self.client.borrow().clone();
        client.filter(|client| !client.is_closed())
    }

    fn open_client(&self) -> Result<Arc<Client>, PostgresError> {
        self.client().ok_or_else(|| {
            let problem = "the connection for leases is closed; a new one is made".to_owned();
            PostgresError::NotConnected(problem)
        })
    }

    /// Completes at the end of the process, once no statement runs any more.
    async fn until_unused(&self, client: &Weak<Client>) {
        self.shutdown.cancelled().await;
        let mut idle = 0;
        for _ in 0..LAST_LOOKS {
            tokio::time::sleep(LAST_LOOK_INTERVAL).await;
            // One is that of `self`.
            idle = match client.strong_count() {
                0 | 1 => idle + 1,
                _ => 0,
            };
            if idle > 1 {
                return;
            }
        }
    }

    /// Takes a lease, and gives it back if its caller has gone in the meantime: the statement runs on.
    async fn acquire_or_return(self, wanted: WantedLease) -> Result<LeaseAttempt, PostgresError> {
        let (sender, attempted) = oneshot::channel();
        let client = self.clone();
        self.shutdown.spawn_until_done(async move {
            let attempt = client.acquire(wanted).await;
            if let Err(Ok(LeaseAttempt::Granted(lease))) = sender.send(attempt) {
                let _released = client.release(&lease, LeaseEnd::Abandoned).await.is_ok();
            }
        });
        attempted.await.unwrap_or(Err(PostgresError::TimedOut))
    }

    async fn acquire(&self, wanted: WantedLease) -> Result<LeaseAttempt, PostgresError> {
        let name = &*wanted.name;
        let (lifetime, unknown) = (millis(LEASE_TIME), millis(wanted.unknown_since));
        let longest = millis(MAX_FAILURE_TIME);
        let parameters: [Parameter<'_>; 5] = [
            (&name, Type::TEXT),
            (&self.owner, Type::INT8),
            (&lifetime, Type::INT8),
            (&unknown, Type::INT8),
            (&longest, Type::INT8),
        ];
        let rows = self.query(ACQUIRE, &parameters).await?;
        let Some(row) = rows.first() else {
            return Ok(LeaseAttempt::Held);
        };
        if let Some(fence) = get(row, 0)? {
            let name = wanted.name;
            return Ok(LeaseAttempt::Granted(Lease { name, fence }));
        }
        let is_held = get(row, 1)?.unwrap_or_default();
        let is_finished = get(row, 2)?.unwrap_or_default();
        let remaining: i64 = get(row, 3)?.unwrap_or_default();
        let failure: Option<String> = get(row, 4)?;
        Ok(match failure {
            _ if is_held => LeaseAttempt::Held,
            Some(failure) if remaining > 0 => LeaseAttempt::Failed {
                failure,
                remaining: Duration::from_millis(remaining.unsigned_abs()),
            },
            _ if is_finished => LeaseAttempt::Finished,
            // Another process was faster.
            _ => LeaseAttempt::Held,
        })
    }

    async fn renew(&self, lease: &Lease) -> Result<bool, PostgresError> {
        let (name, lifetime) = (&*lease.name, millis(LEASE_TIME));
        let parameters: [Parameter<'_>; 3] = [
            (&name, Type::TEXT),
            (&lease.fence, Type::INT8),
            (&lifetime, Type::INT8),
        ];
        Ok(!self.query(RENEW, &parameters).await?.is_empty())
    }

    async fn release(&self, lease: &Lease, end: LeaseEnd) -> Result<(), PostgresError> {
        let is_finished = end == LeaseEnd::Finished;
        let (failure, lifetime) = match end {
            LeaseEnd::Failed { failure, lifetime } => {
                (Some(failure), millis(lifetime.min(MAX_FAILURE_TIME)))
            }
            LeaseEnd::Finished | LeaseEnd::Abandoned => (None, 0),
        };
        let name = &*lease.name;
        let parameters: [Parameter<'_>; 5] = [
            (&name, Type::TEXT),
            (&lease.fence, Type::INT8),
            (&is_finished, Type::BOOL),
            (&lifetime, Type::INT8),
            (&failure, Type::TEXT),
        ];
        let ended = Notification::lease_ended(name);
        self.change(RELEASE, &parameters, ended).await
    }

    async fn publish(&self, refresh: FleetRefresh, fence: i64) -> Result<(), PostgresError> {
        let source = source_number(refresh.api);
        let day = refresh.processed_date.days_since_epoch();
        let (refreshed_at, confirmed_at) = (
            refresh.refreshed_at.as_millisecond(),
            refresh.confirmed_at.as_millisecond(),
        );
        let second_look = refresh.second_look.map(Timestamp::as_millisecond);
        let (age, fresh_for) = (millis(refresh.age), millis(refresh.fresh_for));
        let parameters: [Parameter<'_>; 8] = [
            (&source, Type::INT8),
            (&fence, Type::INT8),
            (&day, Type::INT8),
            (&refreshed_at, Type::INT8),
            (&confirmed_at, Type::INT8),
            (&second_look, Type::INT8),
            (&age, Type::INT8),
            (&fresh_for, Type::INT8),
        ];
        self.change(PUBLISH_REFRESH, &parameters, Notification::FleetRefreshed)
            .await
    }

    async fn last_refresh(&self, api: UpstreamApi) -> Result<Option<FleetRefresh>, PostgresError> {
        let source = source_number(api);
        let rows = self.query(LAST_REFRESH, &[(&source, Type::INT8)]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let number = |column| get::<i64>(row, column);
        let time = |column| -> Result<_, PostgresError> {
            let millis = number(column)?;
            Ok(millis.and_then(|millis| Timestamp::from_millisecond(millis).ok()))
        };
        let duration = |column| -> Result<_, PostgresError> {
            let millis = number(column)?.unwrap_or_default().max(0);
            Ok(Duration::from_millis(millis.unsigned_abs()))
        };
        let date = number(0)?.and_then(ProcessedDate::from_days_since_epoch);
        let (Some(processed_date), Some(refreshed_at), Some(confirmed_at)) =
            (date, time(1)?, time(2)?)
        else {
            return Ok(None);
        };
        Ok(Some(FleetRefresh {
            api,
            processed_date,
            refreshed_at,
            confirmed_at,
            second_look: time(3)?,
            age: duration(4)?,
            fresh_for: duration(5)?,
        }))
    }

    async fn share_pause(&self, pause: SharedPause) -> Result<(), PostgresError> {
        let remaining = millis(pause.remaining);
        let parameters: [Parameter<'_>; 2] = [(&pause.name, Type::TEXT), (&remaining, Type::INT8)];
        self.change(SHARE_PAUSE, &parameters, Notification::Paused)
            .await
    }

    async fn shared_pauses(&self) -> Result<Vec<SharedPause>, PostgresError> {
        let rows = self.query(SHARED_PAUSES, &[]).await?;
        let pause = |row| -> Result<_, PostgresError> {
            let remaining: i64 = get(row, 1)?.unwrap_or_default();
            Ok(SharedPause {
                name: get(row, 0)?.unwrap_or_default(),
                remaining: Duration::from_millis(remaining.max(0).unsigned_abs()),
            })
        };
        rows.iter().map(pause).collect()
    }

    async fn server_time(&self) -> Result<Timestamp, PostgresError> {
        let rows = self.query(SERVER_TIME, &[]).await?;
        let millis = rows.first().map(|row| get(row, 0)).transpose()?.flatten();
        let time = millis.and_then(|millis| Timestamp::from_millisecond(millis).ok());
        time.ok_or_else(|| PostgresError::Setup("the server has no valid time".to_owned()))
    }
}

impl Coordination for PostgresServer {
    fn connect(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(self.coordination.connect_if_closed(self).await?) })
    }

    fn notifications(&self) -> Notifications {
        self.notifier.subscribe()
    }

    fn acquire_lease(&self, wanted: WantedLease) -> StoreFuture<'_, LeaseAttempt> {
        Box::pin(async {
            let coordination = self.coordination.clone();
            Ok(coordination.acquire_or_return(wanted).await?)
        })
    }

    fn renew_lease(&self, lease: Lease) -> StoreFuture<'_, bool> {
        Box::pin(async move { Ok(self.coordination.renew(&lease).await?) })
    }

    fn release_lease(&self, lease: Lease, end: LeaseEnd) -> StoreFuture<'_, ()> {
        Box::pin(async move { Ok(self.coordination.release(&lease, end).await?) })
    }

    fn publish_refresh(&self, refresh: FleetRefresh, fence: i64) -> StoreFuture<'_, ()> {
        Box::pin(async move { Ok(self.coordination.publish(refresh, fence).await?) })
    }

    fn last_refresh(&self, api: UpstreamApi) -> StoreFuture<'_, Option<FleetRefresh>> {
        Box::pin(async move { Ok(self.coordination.last_refresh(api).await?) })
    }

    fn share_pause(&self, pause: SharedPause) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(self.coordination.share_pause(pause).await?) })
    }

    fn shared_pauses(&self) -> StoreFuture<'_, Vec<SharedPause>> {
        Box::pin(async { Ok(self.coordination.shared_pauses().await?) })
    }

    fn server_time(&self) -> StoreFuture<'_, Timestamp> {
        Box::pin(async { Ok(self.coordination.server_time().await?) })
    }

    fn tokens(&self, account: Arc<str>) -> StoreFuture<'_, Option<StoredTokens>> {
        Box::pin(async move { Ok(self.coordination.tokens(&account).await?) })
    }

    fn swap_tokens(
        &self,
        account: Arc<str>,
        seen: Option<i64>,
        tokens: SealedTokens,
    ) -> StoreFuture<'_, Option<i64>> {
        Box::pin(async move {
            Ok(self
                .coordination
                .swap_tokens(&account, seen, tokens)
                .await?)
        })
    }
}

pub(super) fn get<'a, T: FromSql<'a>>(
    row: &'a Row,
    column: usize,
) -> Result<Option<T>, PostgresError> {
    Ok(row.try_get(column)?)
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
