//! The connection on which this process receives the notifications of others.
//!
//! A pooler may accept LISTEN and pass no notification on. Hence this process first listens on a channel
//! of its own, and notifies itself through the connection for coordination. It listens on the channel of
//! all processes only once that arrives: a connection of the pooler must not listen there for ever.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_postgres::{Client, types::Type};

use super::{
    check::DatabaseProblem,
    coordination::Parameter,
    error::PostgresError,
    server::{Driver, PostgresServer},
};
use crate::{resilience::backoff::Backoff, store::Notification};

/// The channel of all processes.
const CHANNEL: &str = "usage_proxy";

/// Notifies all processes.
pub(super) const NOTIFY: &str = "SELECT pg_notify('usage_proxy', $1)";

const NOTIFY_ITSELF: &str = "SELECT pg_notify($1, '')";

/// Time for the answer to a statement, and then for the notification.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Time without a notification after which the connection is tested again.
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// Pauses between connections.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// Failures in a row that are logged: one may be a mishap.
const FAILURES_TO_LOG: u32 = 2;

/// Listens for all that use the server in this process.
pub(super) struct Listener {
    server: Arc<PostgresServer>,
    /// Failures since notifications arrived.
    failures: u32,
}

/// A connection that may receive notifications.
pub(super) struct ListenConnection {
    client: Client,
    own_channel: String,
    /// Any notification that arrived.
    heard: Arc<Notify>,
}

/// Notifications do not arrive.
#[derive(Debug)]
pub(super) enum ListenFailure {
    /// There is no connection, or a statement failed.
    Failed(PostgresError),
    /// All statements succeed, but no notification arrives.
    Deaf,
}

// === impl Listener ===

impl Listener {
    pub(super) fn new(server: Arc<PostgresServer>) -> Self {
        Self {
            server,
            failures: 0,
        }
    }

    /// Listens until the task is cancelled.
    pub(super) async fn run(mut self) {
        loop {
            // Without it, the whole server is away, and there is nothing to log here.
            self.server.coordination.connected().await;
            let Err(failure) = self.listen().await;
            let pause = PAUSES.delay(self.failures, rand::random::<f64>().midpoint(1.0));
            self.failures = self.failures.saturating_add(1);
            if self.failures == FAILURES_TO_LOG {
                let DatabaseProblem { said, action } = failure.problem(&self.server);
                tracing::warn!(
                    "{said}, so this replica sees what others do up to a second later: {action}"
                );
            }
            sleep(pause).await;
        }
    }

    /// Listens as long as notifications arrive.
    async fn listen(&mut self) -> Result<Infallible, ListenFailure> {
        let (connection, driver) = ListenConnection::open(&self.server).await?;
        let listening = async {
            let Some(notifying) = self.server.coordination.client() else {
                return Err(disconnected());
            };
            connection.test(&notifying).await?;
            connection.listen(CHANNEL).await?;
            if self.failures >= FAILURES_TO_LOG {
                tracing::info!("this replica sees at once again what others do");
            }
            self.failures = 0;
            // Others may have notified while nobody listened.
            self.server.notifier.send(Notification::Unknown);
            loop {
                let heard = timeout(MAX_SILENCE, connection.heard.notified()).await;
                if heard.is_err()
                    && let Some(notifying) = self.server.coordination.client()
                {
                    connection.notify_itself(&notifying).await?;
                }
            }
        };
        while_open(driver, listening).await
    }
}

// === impl ListenConnection ===

impl ListenConnection {
    pub(super) async fn open(server: &PostgresServer) -> Result<(Self, Driver), ListenFailure> {
        let (notifier, heard) = (server.notifier.clone(), Arc::new(Notify::new()));
        let hear = Arc::clone(&heard);
        let connecting = server.connect_to_listen(Box::new(move |received| {
            if received.channel() == CHANNEL {
                notifier.send(Notification::parse(received.payload()));
            }
            hear.notify_one();
        }));
        let (client, driver) = connecting.await.map_err(ListenFailure::Failed)?;
        let own_channel = format!("{CHANNEL}_{:x}", server.coordination.owner);
        let connection = Self {
            client,
            own_channel,
            heard,
        };
        Ok((connection, driver))
    }

    /// Checks that a notification through another connection arrives here.
    pub(super) async fn test(&self, notifying: &Client) -> Result<(), ListenFailure> {
        self.listen(&self.own_channel).await?;
        self.notify_itself(notifying).await
    }

    async fn notify_itself(&self, notifying: &Client) -> Result<(), ListenFailure> {
        let parameters: [Parameter<'_>; 1] = [(&self.own_channel, Type::TEXT)];
        in_time(notifying.query_typed(NOTIFY_ITSELF, &parameters)).await?;
        let heard = timeout(ANSWER_TIME, self.heard.notified()).await;
        heard.map_err(|_elapsed| ListenFailure::Deaf)
    }

    async fn listen(&self, channel: &str) -> Result<(), ListenFailure> {
        in_time(self.client.batch_execute(&format!("LISTEN {channel}"))).await
    }
}

// === impl ListenFailure ===

impl ListenFailure {
    /// Returns what is wrong, with advice.
    pub(super) fn problem(self, server: &PostgresServer) -> DatabaseProblem {
        let (said, action) = match (self, server.has_listen_url()) {
            (Self::Failed(error), has_listen_url) => {
                let DatabaseProblem { said, action } = error.into();
                let action = match has_listen_url {
                    true => action.replace("store.url", "store.listen_url"),
                    false => action,
                };
                return DatabaseProblem {
                    said: format!("the connection for PostgreSQL's notifications fails ({said})"),
                    action,
                };
            }
            (Self::Deaf, false) => (
                "PostgreSQL's notifications do not arrive through store.url",
                "if a pooler is in between, such as PgBouncer in transaction mode, set \
                 store.listen_url to the server itself",
            ),
            (Self::Deaf, true) => (
                "PostgreSQL's notifications do not arrive through store.listen_url",
                "it must lead to the database of store.url, and past any pooler in transaction mode",
            ),
        };
        DatabaseProblem {
            said: said.to_owned(),
            action: action.to_owned(),
        }
    }
}

/// Does work on a connection, which fails if that closes.
pub(super) async fn while_open<T>(
    driver: Driver,
    work: impl Future<Output = Result<T, ListenFailure>>,
) -> Result<T, ListenFailure> {
    tokio::select! {
        biased;
        done = work => done,
        () = driver => Err(disconnected()),
    }
}

async fn in_time<T>(
    statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<(), ListenFailure> {
    let executed = timeout(ANSWER_TIME, statement).await;
    let executed = executed.map_err(|_elapsed| PostgresError::TimedOut);
    let executed = executed.and_then(|executed| Ok(executed?));
    executed.map(drop).map_err(ListenFailure::Failed)
}

fn disconnected() -> ListenFailure {
    let problem = "the connection broke".to_owned();
    ListenFailure::Failed(PostgresError::NotConnected(problem))
}
