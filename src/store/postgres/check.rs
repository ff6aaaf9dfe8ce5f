//! Finds problems that keep a database from being used, with advice for each.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage, error::SqlState};

use super::{
    error::PostgresError,
    listener::{ListenConnection, while_open},
    migrations,
    server::PostgresServer,
};
use crate::{config::PostgresConfig, shutdown::Shutdown};

/// A problem with a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseProblem {
    /// The problem.
    pub said: String,
    /// Advice.
    pub action: String,
}

/// Time of all questions about a database.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Connects to a database and returns what it is.
///
/// # Errors
///
/// [`DatabaseProblem`] if the service could not use it.
pub async fn check(config: PostgresConfig) -> Result<String, DatabaseProblem> {
    let tls = match config.url.uses_tls() {
        true => "over TLS",
        false => "without TLS",
    };
    let server = PostgresServer::new(config, Shutdown::new());
    let (client, driver) = server.connect().await.map_err(DatabaseProblem::from)?;
    tokio::select! {
        said = timeout(TIME_LIMIT, examine(&client, tls)) => {
            said.unwrap_or_else(|_elapsed| Err(PostgresError::TimedOut.into()))
        }
        () = driver => {
            let broke = PostgresError::NotConnected("the connection broke".to_owned());
            Err(broke.into())
        }
    }
}

/// Checks that this process would receive the notifications of others.
///
/// # Errors
///
/// [`DatabaseProblem`] if none arrives.
pub async fn check_notifications(config: PostgresConfig) -> Result<(), DatabaseProblem> {
    let server = PostgresServer::new(config, Shutdown::new());
    let (notifying, driver) = server.connect().await?;
    let testing = async {
        let (connection, driver) = ListenConnection::open(&server).await?;
        while_open(driver, connection.test(&notifying)).await
    };
    let tested = while_open(driver, testing).await;
    tested.map_err(|failure| failure.problem(&server))
}

/// Connects to a database that is only read.
///
/// # Errors
///
/// [`DatabaseProblem`] if that is not possible.
pub(in crate::store) async fn check_connection(
    config: PostgresConfig,
) -> Result<(), DatabaseProblem> {
    let server = PostgresServer::new(config, Shutdown::new());
    Ok(server.connect().await.map(drop)?)
}

async fn examine(client: &Client, tls: &str) -> Result<String, DatabaseProblem> {
    const STATE: &str = "SELECT current_setting('server_version'), pg_is_in_recovery(), \
        to_regnamespace('usage_proxy') IS NOT NULL, \
        has_database_privilege(current_database(), 'CREATE'), \
        EXISTS (SELECT 1 FROM pg_class WHERE relname = 'schema_version' \
        AND relnamespace = to_regnamespace('usage_proxy')), \
        coalesce(has_schema_privilege(to_regnamespace('usage_proxy'), 'CREATE'), false)";
    // A list of privileges in one call asks for any of them.
    const USE: &str = "SELECT coalesce(max(version), 0), \
        (SELECT bool_and(has_table_privilege(c.oid, 'SELECT') \
        AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') \
        AND has_table_privilege(c.oid, 'DELETE')) FROM pg_class c \
        WHERE c.relnamespace = to_regnamespace('usage_proxy') AND c.relkind = 'r') \
        FROM usage_proxy.schema_version";

    let [
        version,
        is_standby,
        has_schema,
        may_create,
        has_tables,
        may_change,
    ] = first_row(client, STATE).await?;
    let answers = format!("PostgreSQL {version} answers {tls}");
    let but = |problem: &str, action: &str| DatabaseProblem {
        said: format!("{answers}, but {problem}"),
        action: action.to_owned(),
    };
    if is_standby == "t" {
        return Err(but(
            "it is a standby, which cannot be written",
            "name the primary, or all hosts and `target_session_attrs=read-write`",
        ));
    }
    if has_schema == "f" {
        return match may_create.as_str() {
            "f" => Err(but(
                "the schema usage_proxy is missing, and this user may not create it",
                "GRANT CREATE ON DATABASE to this user, or start the service once as another",
            )),
            _ => Ok(format!("{answers}; the service will create its schema")),
        };
    }
    if has_tables == "f" && may_change == "t" {
        return Ok(format!("{answers}; the service will create its schema"));
    }
    let may_not = || {
        but(
            "this user may not use the schema usage_proxy",
            "let its owner grant the rights that deploy/store/README.md lists",
        )
    };
    let [found, may_use] = first_row(client, USE).await.map_err(|_| may_not())?;
    let found: usize = found.parse().unwrap_or_default();
    let known = migrations::KNOWN_VERSION;
    match may_use.as_str() {
        "t" if found > known => Err(but(
            &format!("its schema has version {found}, and this release knows {known}"),
            "run the release that wrote it, or a newer one",
        )),
        "t" if found < known && may_change == "t" => Ok(format!(
            "{answers}; the service will bring its schema from version {found} to {known}"
        )),
        "t" if found < known => Err(but(
            &format!("its schema has version {found} of {known}, and this user may not change it"),
            "start this release once as the owner of the schema",
        )),
        "t" => Ok(format!("{answers} and has the schema")),
        _ => Err(may_not()),
    }
}

/// Returns the columns of the first row; `""` for NULL, and for all if there is no row.
async fn first_row<const N: usize>(
    client: &Client,
    query: &str,
) -> Result<[String; N], DatabaseProblem> {
    let messages = client.simple_query(query).await;
    let messages = messages.map_err(|error| DatabaseProblem::from(PostgresError::from(error)))?;
    let mut rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = rows.next();
    Ok(std::array::from_fn(|column| {
        let text = row.and_then(|row| row.try_get(column).ok().flatten());
        text.unwrap_or_default().to_owned()
    }))
}

// === impl DatabaseProblem ===

impl From<PostgresError> for DatabaseProblem {
    fn from(error: PostgresError) -> Self {
        let said = error.to_string();
        let by_text = [
            (
                "CaUsedAsEndEntity",
                "the server's certificate is a CA's own, as `openssl req -x509` makes it: let the CA \
                 sign another one for the server, with basicConstraints CA:FALSE, and name the CA's \
                 in store.ca_file",
            ),
            (
                "UnknownIssuer",
                "name the CA that signed the server's certificate in store.ca_file",
            ),
            (
                "NotValidForName",
                "write the server's name in store.url as its certificate has it",
            ),
            (
                "password missing",
                "name the file with the user's password in store.password_file",
            ),
            (
                "it needs UTF8",
                "create the database with ENCODING 'UTF8' TEMPLATE template0",
            ),
            (
                "server does not support TLS",
                "let the server use TLS: `ssl = on` in postgresql.conf, with a certificate",
            ),
        ];
        let mut by_text = by_text.into_iter();
        let action = match error.state() {
            Some(state)
                if [
                    SqlState::INVALID_PASSWORD,
                    SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                ]
                .contains(state) =>
            {
                "check the user in store.url, store.password_file, and the server's pg_hba.conf"
            }
            Some(state) if *state == SqlState::UNDEFINED_DATABASE => {
                "create the database: CREATE DATABASE"
            }
            _ => match by_text.find(|(text, _)| said.contains(text)) {
                Some((_, action)) => action,
                None if matches!(error, PostgresError::Setup(_)) => {
                    "check the files that store.password_file and store.ca_file name"
                }
                None if error.state().is_some() => "see the log of the server",
                None => "check host, port and firewall, and that PostgreSQL runs",
            },
        };
        Self {
            said,
            action: action.to_owned(),
        }
    }
}
