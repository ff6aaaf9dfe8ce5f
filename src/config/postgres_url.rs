//! The URL of a PostgreSQL database, as everybody writes it, with TLS that is verified or not needed.

use std::{error::Error as _, fmt, net::IpAddr, path::PathBuf};

use tokio_postgres::config::{Host, SslMode};

use super::{sections::StoreConfig, value_type::StoreUrl};

/// The URL of a database, without a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresUrl {
    text: String,
    client_config: tokio_postgres::Config,
    uses_tls: bool,
}

/// A database and the files that connecting to it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresConfig {
    /// The database.
    pub url: PostgresUrl,
    /// The way to it on which notifications arrive, where `url` is none.
    pub listen_url: Option<PostgresUrl>,
    /// The file with the password, read at each connect.
    pub password_file: Option<PathBuf>,
    /// The CAs that the server's certificate may be of; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
}

const PASSWORD: &str = "has a password; put it into a file that store.password_file names";

// === impl PostgresUrl ===

impl PostgresUrl {
    /// Reads a URL. The client does not know `sslmode=verify-full`, so this decides on TLS.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (address, parameters) = text.split_once('?').unwrap_or((text, ""));
        let authority = address.split_once("://").map_or("", |(_, rest)| rest);
        if let Some((user, _)) = authority.rsplit_once('@')
            && user.contains(':')
        {
            return Err(PASSWORD.into());
        }
        let mut ssl_mode = None;
        let mut others = Vec::new();
        for parameter in parameters.split('&').filter(|it| !it.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", mode)) => ssl_mode = Some(mode),
                Some(("sslrootcert", _)) => {
                    return Err("has `sslrootcert`; name the file in store.ca_file".into());
                }
                _ => others.push(parameter),
            }
        }
        let url = format!("{address}?{}", others.join("&"));
        let mut client_config: tokio_postgres::Config = url.parse().map_err(invalid)?;
        if client_config.get_password().is_some() {
            return Err(PASSWORD.into());
        }
        if client_config.get_user().is_none() {
            return Err("names no user".into());
        }
        if client_config.get_hosts().is_empty() && client_config.get_hostaddrs().is_empty() {
            return Err("names no host".into());
        }
        let is_local = is_local(&client_config);
        let uses_tls = match ssl_mode {
            Some("require" | "verify-ca" | "verify-full") => true,
            Some("disable") | None if is_local => false,
            Some("disable") | None => {
                return Err(
                    "would send the password and customers' data unencrypted to another \
                            machine; add `?sslmode=verify-full`"
                        .into(),
                );
            }
            Some("prefer" | "allow") => {
                return Err(
                    "has an `sslmode` that may send everything unencrypted; use \
                            `sslmode=verify-full`"
                        .into(),
                );
            }
            Some(_) => return Err("has an unknown `sslmode`; use `sslmode=verify-full`".into()),
        };
        client_config.ssl_mode(match uses_tls {
            true => SslMode::Require,
            false => SslMode::Disable,
        });
        Ok(Self {
            text: text.to_owned(),
            client_config,
            uses_tls,
        })
    }

    /// The settings of the client that follow from the URL.
    pub fn client_config(&self) -> &tokio_postgres::Config {
        &self.client_config
    }

    /// True if connections use TLS, with a certificate that is fully verified.
    pub fn uses_tls(&self) -> bool {
        self.uses_tls
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// === impl StoreConfig ===

impl StoreConfig {
    /// Returns the PostgreSQL database, if the store is one.
    pub fn postgres(&self) -> Option<PostgresConfig> {
        let Some(StoreUrl::Postgres(url)) = &self.url else {
            return None;
        };
        Some(PostgresConfig {
            url: (**url).clone(),
            listen_url: self.listen_url.clone(),
            password_file: self.password_file.clone(),
            ca_file: self.ca_file.clone(),
        })
    }
}

/// Returns whether every host of the database is this machine.
fn is_local(config: &tokio_postgres::Config) -> bool {
    let is_loopback = |host: &str| {
        host == "localhost"
            || host
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback())
    };
    let mut hosts = config.get_hosts().iter();
    hosts.all(|host| match host {
        Host::Tcp(host) => is_loopback(host),
        Host::Unix(_) => true,
    }) && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

fn invalid(error: tokio_postgres::Error) -> String {
    match error.source() {
        Some(cause) => format!("is not the URL of a database ({cause})"),
        None => "is not the URL of a database".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_other_machines_need_verified_tls() {
        for (url, uses_tls) in [
            (
                "postgres://u@db.example.com/d?sslmode=verify-full",
                Some(true),
            ),
            (
                "postgresql://u@db.example.com:5433/d?sslmode=require&application_name=x",
                Some(true),
            ),
            (
                "postgres://u@one,two:5433/d?target_session_attrs=read-write&sslmode=verify-ca",
                Some(true),
            ),
            ("postgres://u%40corp@[::1]/d", Some(false)),
            ("postgres://u@127.0.0.1/d?sslmode=disable", Some(false)),
            ("postgres://u@localhost/d?sslmode=verify-full", Some(true)),
            ("postgres://u@%2Frun%2Fpostgresql/d", Some(false)),
            ("postgres://u@localhost,db.example.com/d", None),
            ("postgres://u@localhost/d?hostaddr=192.0.2.1", None),
            ("postgres://u@db.example.com/d", None),
            ("postgres://u@db.example.com/d?sslmode=disable", None),
            ("postgres://u@localhost/d?sslmode=prefer", None),
            ("postgres://u@localhost/d?sslmode=allow", None),
            ("postgres://u@localhost/d?sslmode=verify", None),
        ] {
            let parsed = PostgresUrl::parse(url);

            assert_eq!(parsed.ok().map(|parsed| parsed.uses_tls), uses_tls, "{url}");
        }
    }

    #[test]
    fn an_error_says_what_is_wrong_and_never_a_password() {
        for (url, reason) in [
            ("postgres://u:s3cr3t@localhost/d", "store.password_file"),
            ("postgres://u:s3@cr3t@localhost/d", "store.password_file"),
            (
                "postgres://u@localhost/d?password=s3cr3t",
                "store.password_file",
            ),
            (
                "postgres://u@localhost/d?passw%6frd=s3cr3t",
                "store.password_file",
            ),
            (
                "postgres://u@localhost/d?sslrootcert=/ca.pem",
                "store.ca_file",
            ),
            ("postgres://localhost/d", "names no user"),
            ("postgres://u@/d", "names no host"),
            ("postgres://u@localhost/d?colour=red", "colour"),
        ] {
            let error = PostgresUrl::parse(url).unwrap_err();

            assert!(error.contains(reason), "{url}: {error}");
            assert!(!error.contains("cr3t"), "{error}");
        }
    }
}
