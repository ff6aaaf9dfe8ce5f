//! Leases, on one connection that all requests share: their statements do not wait for each other.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_postgres::{
    Client, Row,
    types::{FromSql, ToSql, Type},
};

use super::{error::PostgresError, server::PostgresServer};
use crate::{
    shutdown::Shutdown,
    store::{
        Coordination, LEASE_TIME, Lease, LeaseAttempt, LeaseEnd, StoreError, StoreFuture,
        WantedLease,
    },
};

/// The connection for coordination, if there is one.
pub(super) struct CoordinationClient {
    /// A random number that stands for this process.
    owner: i64,
    client: Mutex<Option<Arc<Client>>>,
    /// Takes the task of the connection.
    shutdown: Shutdown,
}

/// A parameter and its type: statements have no names, for the sake of poolers.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Reads first, since an attempt that conflicts writes even if it changes nothing. The condition is checked
/// again under the lock of the row. A fence is a time, so that it grows after its row was deleted too.
const ACQUIRE: &str = "WITH seen AS (
        SELECT expires_at, finished_at, failed_until, failure FROM usage_proxy.lease WHERE name = $1
    ), clock AS (
        SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS now
    ), taken AS (
        INSERT INTO usage_proxy.lease AS l
            (name, owner, fence, expires_at, finished_at, failed_until, failure)
        SELECT $1, $2, now, now + $3, 0, 0, NULL FROM clock WHERE NOT EXISTS (SELECT 1 FROM seen
            WHERE expires_at > now OR finished_at >= now - $4 OR failed_until > now)
        ON CONFLICT (name) DO UPDATE
        SET owner = excluded.owner, fence = greatest(excluded.fence, l.fence + 1),
            expires_at = excluded.expires_at, failure = NULL
        WHERE l.expires_at <= excluded.fence AND l.finished_at < excluded.fence - $4
            AND l.failed_until <= excluded.fence
        RETURNING l.fence
    )
    SELECT (SELECT fence FROM taken), expires_at > now, finished_at >= now - $4, failed_until - now, failure
    FROM clock LEFT JOIN seen ON true";

const RENEW: &str = "UPDATE usage_proxy.lease
    SET expires_at = CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) + $3
    WHERE name = $1 AND fence = $2 RETURNING fence";

const RELEASE: &str = "WITH clock AS (
        SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT) AS now
    )
    UPDATE usage_proxy.lease SET expires_at = 0,
        finished_at = CASE WHEN $3 THEN now ELSE finished_at END, failed_until = now + $4, failure = $5
    FROM clock WHERE name = $1 AND fence = $2";

const CONNECTED: &str = "SELECT 1 FROM usage_proxy.lease LIMIT 1";

// === impl CoordinationClient ===

impl CoordinationClient {
    pub(super) fn new(shutdown: Shutdown) -> Self {
        Self {
            owner: rand::random(),
            client: Mutex::default(),
            shutdown,
        }
    }

    async fn connect_if_closed(&self, server: &PostgresServer) -> Result<(), PostgresError> {
        let is_open = self
            .lock()
            .as_ref()
            .is_some_and(|client| !client.is_closed());
        if !is_open {
            let (client, driver) = server.connect().await?;
            self.shutdown.spawn(driver);
            *self.lock() = Some(Arc::new(client));
        }
        let answered = self.query(CONNECTED, &[]).await;
        if answered.is_err() {
            // It closes when all its statements are done.
            *self.lock() = None;
        }
        answered.map(drop)
    }

    /// Runs a statement on the connection. Nothing here connects: a request waits.
    async fn query(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, PostgresError> {
        let client = self.lock().clone();
        let Some(client) = client.filter(|client| !client.is_closed()) else {
            let problem = "the connection for leases is closed; a new one is made".to_owned();
            return Err(PostgresError::NotConnected(problem));
        };
        Ok(client.query_typed(statement, parameters).await?)
    }

    async fn acquire(&self, wanted: WantedLease) -> Result<LeaseAttempt, PostgresError> {
        let name = &*wanted.name;
        let (lifetime, unknown) = (millis(LEASE_TIME), millis(wanted.unknown_since));
        let parameters: [Parameter<'_>; 4] = [
            (&name, Type::TEXT),
            (&self.owner, Type::INT8),
            (&lifetime, Type::INT8),
            (&unknown, Type::INT8),
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
            LeaseEnd::Failed { failure, lifetime } => (Some(failure), millis(lifetime)),
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
        self.query(RELEASE, &parameters).await.map(drop)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Client>>> {
        // It is assigned whole.
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Coordination for PostgresServer {
    fn connect(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            self.coordination
                .connect_if_closed(self)
                .await
                .map_err(StoreError::from)
        })
    }

    fn acquire_lease(&self, wanted: WantedLease) -> StoreFuture<'_, LeaseAttempt> {
        Box::pin(async {
            self.coordination
                .acquire(wanted)
                .await
                .map_err(StoreError::from)
        })
    }

    fn renew_lease(&self, lease: Lease) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            self.coordination
                .renew(&lease)
                .await
                .map_err(StoreError::from)
        })
    }

    fn release_lease(&self, lease: Lease, end: LeaseEnd) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.coordination
                .release(&lease, end)
                .await
                .map_err(StoreError::from)
        })
    }
}

fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<Option<T>, PostgresError> {
    Ok(row.try_get(column)?)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
