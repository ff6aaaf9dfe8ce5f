//! The server, as the threads that use it see it together.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use secrecy::ExposeSecret;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket, tls::TlsStream};

use super::{
    coordination::CoordinationClient, error::PostgresError, reader::PostgresReader,
    tls::VerifiedTls, writer::PostgresWriter,
};
use crate::{
    config::{PostgresConfig, PostgresUrl, secret},
    shutdown::Shutdown,
    store::{
        Coordination,
        notifications::Notifier,
        sql::{
            error::{SqlError, SqlResult},
            store::SqlEngine,
        },
    },
};

/// The database of a store.
pub(in crate::store) struct PostgresServer {
    config: PostgresConfig,
    /// True while this process has seen or made its schema.
    has_schema: AtomicBool,
    pub(super) coordination: CoordinationClient,
    pub(super) notifier: Notifier,
}

/// Moves bytes between a client and its socket, until one of them ends.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes the notifications of a connection.
pub(super) type OnNotification = Box<dyn FnMut(&tokio_postgres::Notification) + Send>;

/// Time for a TCP connection to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for a connection with TLS and the password, over all addresses.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Time until a connection to a host that vanished breaks.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);

const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);

const KEEPALIVE_RETRIES: u32 = 2;

// === impl PostgresServer ===

impl PostgresServer {
    pub(super) fn new(config: PostgresConfig, shutdown: Shutdown) -> Self {
        Self {
            config,
            has_schema: AtomicBool::new(false),
            coordination: CoordinationClient::new(shutdown),
            notifier: Notifier::new(),
        }
    }

    pub(super) fn set_has_schema(&self) {
        self.has_schema.store(true, Ordering::Release);
    }

    /// Lets the schema be made again if a result says that it was dropped, or the database replaced.
    pub(super) fn notice_missing_schema<T>(&self, result: &SqlResult<T>) {
        if let Err(SqlError::Postgres(error)) = result
            && error.lacks_schema()
        {
            self.has_schema.store(false, Ordering::Release);
        }
    }

    /// Connects; the password's file is read each time.
    pub(super) async fn connect(&self) -> Result<(Client, Driver), PostgresError> {
        self.connect_to(&self.config.url, Box::new(|_| {})).await
    }

    pub(super) fn has_listen_url(&self) -> bool {
        self.config.listen_url.is_some()
    }

    /// Connects to where notifications arrive.
    pub(super) async fn connect_to_listen(
        &self,
        on_notification: OnNotification,
    ) -> Result<(Client, Driver), PostgresError> {
        let url = self.config.listen_url.as_ref();
        self.connect_to(url.unwrap_or(&self.config.url), on_notification)
            .await
    }

    async fn connect_to(
        &self,
        url: &PostgresUrl,
        on_notification: OnNotification,
    ) -> Result<(Client, Driver), PostgresError> {
        let connecting = timeout(LOGIN_TIMEOUT, self.connect_untimed(url, on_notification));
        connecting.await.unwrap_or(Err(PostgresError::TimedOut))
    }

    async fn connect_untimed(
        &self,
        url: &PostgresUrl,
        on_notification: OnNotification,
    ) -> Result<(Client, Driver), PostgresError> {
        let mut config = url.client_config().clone();
        config
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(TCP_USER_TIMEOUT)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES);
        if config.get_application_name().is_none() {
            config.application_name("usage-proxy");
        }
        if let Some(file) = &self.config.password_file {
            let password = secret::read_secret(file);
            let password = password.map_err(|error| PostgresError::Setup(error.to_string()))?;
            config.password(password.expose_secret());
        }
        if url.uses_tls() {
            let tls = VerifiedTls::new(self.config.ca_file.as_deref());
            let tls = tls.map_err(PostgresError::Setup)?;
            let (client, connection) = config.connect(tls).await?;
            Ok((client, drive(connection, on_notification)?))
        } else {
            let (client, connection) = config.connect(NoTls).await?;
            Ok((client, drive(connection, on_notification)?))
        }
    }
}

impl SqlEngine for PostgresServer {
    type Reader = PostgresReader;
    type Writer = PostgresWriter;

    fn is_open(&self) -> bool {
        self.has_schema.load(Ordering::Acquire)
    }

    fn origin(&self) -> i64 {
        self.coordination.owner
    }

    fn coordination(&self) -> Option<&dyn Coordination> {
        Some(self)
    }
}

impl fmt::Debug for PostgresServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresServer")
            .field("url", &self.config.url)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for PostgresServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.url.fmt(f)
    }
}

fn drive<S>(
    mut connection: Connection<Socket, S>,
    mut on_notification: OnNotification,
) -> Result<Driver, PostgresError>
where
    S: TlsStream + Unpin + Send + 'static,
{
    if let Some(encoding) = connection.parameter("server_encoding")
        && encoding != "UTF8"
    {
        let problem = format!("the database has the encoding {encoding}; it needs UTF8");
        return Err(PostgresError::Setup(problem));
    }
    Ok(Box::pin(async move {
        // Notices say nothing that a statement's result does not; errors reach the client.
        while let Some(Ok(message)) = next_message(&mut connection).await {
            if let AsyncMessage::Notification(notification) = message {
                on_notification(&notification);
            }
        }
    }))
}

async fn next_message<S>(
    connection: &mut Connection<Socket, S>,
) -> Option<Result<AsyncMessage, tokio_postgres::Error>>
where
    S: TlsStream + Unpin,
{
    std::future::poll_fn(|cx| connection.poll_message(cx)).await
}
