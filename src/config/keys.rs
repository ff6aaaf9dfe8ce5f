//! The one table of keys: name, default, form, and which field holds the value.
//!
//! Reading, the search for unknown keys, their nearest neighbours, environment variable names and
//! the effective configuration all follow this table, so they cannot tell different stories.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use url::{Host, Url};

use self::KeyPresence::{AllowedBy, Default, Optional, Required, RequiredBy};
use super::{
    AuthConfig, Config, CorsOrigin, GrantConfig, JwtConfig, LogFormat, RequestLog, TracingConfig,
    choices::AuthKind,
    form::{self, UnquotedKind, ValueType},
    invalid_value::InvalidValue,
};
use crate::{access_key::KeyHash, domain::UpstreamApi};

/// What the names of our environment variables begin with.
///
/// Two underscores: Kubernetes itself sets `USAGE_PROXY_SERVICE_HOST` and the like for a service
/// of this name, and those are not ours to refuse.
pub(super) const VARIABLE_PREFIX: &str = "USAGE_PROXY__";

/// The beginning of the names of variables that may be ours.
pub(super) const SHORT_VARIABLE_PREFIX: &str = "USAGE_PROXY_";

/// A key whose value is a `T`.
pub(super) struct ConfigKey<T: 'static> {
    name: &'static str,
    presence: KeyPresence,
    form: ValueType<T>,
    /// Where a finished configuration keeps the value.
    field: fn(&Config) -> Option<T>,
}

/// Whether a key has to be stated.
#[derive(Clone, Copy, Debug)]
pub(super) enum KeyPresence {
    /// It has this value unless another is stated.
    Default(&'static str),
    /// Its absence has a meaning of its own.
    Optional,
    /// It must be stated.
    Required,
    /// It must be stated with these kinds of `upstream.auth`, and has no meaning with others.
    RequiredBy(&'static [AuthKind]),
    /// It may be stated with these kinds of `upstream.auth`, and has no meaning with others.
    AllowedBy(&'static [AuthKind]),
}

/// A value as it was stated, before its key has judged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InputValue {
    Text(String),
    /// A TOML integer, in decimal.
    Number(String),
    /// A TOML float, as it was written.
    Fraction(String),
    Boolean(bool),
    /// A TOML array of nothing but text.
    List(Vec<String>),
    /// Nothing that any key accepts, with its article: "a table".
    Other(&'static str),
}

/// What can be said of a key without knowing its type.
pub(super) trait AnyConfigKey: Sync {
    fn name(&self) -> &'static str;
    fn presence(&self) -> KeyPresence;
    /// Completes "expected …".
    fn expected(&self) -> &'static str;
    /// The text of a value that this key accepts.
    fn accept(&self, value: InputValue) -> Result<String, InvalidValue>;
    /// The value in a finished configuration, as text; `None` where it is absent.
    fn text(&self, config: &Config) -> Option<String>;
    /// The same as TOML.
    fn toml(&self, config: &Config) -> Option<String>;
}

macro_rules! keys {
    ($($ident:ident: $type:ty = $name:literal, $presence:expr, $form:expr, $field:expr;)*) => {
        $(pub(super) static $ident: ConfigKey<$type> = ConfigKey {
            name: $name,
            presence: $presence,
            form: $form,
            field: $field,
        };)*

        /// Every key, tables together, in the order in which configuration is shown.
        pub(super) static ALL: &[&dyn AnyConfigKey] = &[$(&$ident),*];
    };
}

const GRANTS: &[AuthKind] = &[AuthKind::RefreshToken, AuthKind::ClientCredentials];

keys! {
    SERVER_LISTEN: SocketAddr = "server.listen", Default("127.0.0.1:8080"),
        form::ADDRESS, |c| Some(c.server.listen);
    SERVER_DRAIN_TIMEOUT: Duration = "server.drain_timeout", Default("25s"),
        form::DURATION, |c| Some(c.server.drain_timeout);
    SERVER_CORS_ORIGINS: Vec<CorsOrigin> = "server.cors_origins", Default(""),
        form::ORIGINS, |c| Some(c.server.cors_origins.clone());
    SERVER_ALLOWED_HOSTS: Vec<Host> = "server.allowed_hosts", Default(""),
        form::HOSTS, |c| Some(c.server.allowed_hosts.clone());
    SERVER_HEADER_TIMEOUT: Duration = "server.header_timeout", Default("5s"),
        form::POSITIVE_DURATION, |c| Some(c.server.header_timeout);
    SERVER_IDLE_TIMEOUT: Duration = "server.idle_timeout", Default("75s"),
        form::POSITIVE_DURATION, |c| Some(c.server.idle_timeout);
    SERVER_REQUEST_TIMEOUT: Duration = "server.request_timeout", Default("60s"),
        form::POSITIVE_DURATION, |c| Some(c.server.request_timeout);
    SERVER_STALL_TIMEOUT: Duration = "server.stall_timeout", Default("10s"),
        form::POSITIVE_DURATION, |c| Some(c.server.stall_timeout);
    SERVER_MAX_CONNECTIONS: NonZeroUsize = "server.max_connections", Default("10000"),
        form::CONNECTIONS, |c| Some(c.server.max_connections);
    SERVER_HTTP2_CLEARTEXT: bool = "server.http2_cleartext", Default("false"),
        form::BOOLEAN, |c| Some(c.server.http2_cleartext);
    SERVER_TLS_CERTIFICATE_FILE: PathBuf = "server.tls.certificate_file", Optional,
        form::FILE, |c| Some(c.server.tls.as_ref()?.certificate_file.clone());
    SERVER_TLS_KEY_FILE: PathBuf = "server.tls.key_file", Optional,
        form::FILE, |c| Some(c.server.tls.as_ref()?.key_file.clone());
    SERVER_TLS_CLIENT_CA_FILE: PathBuf = "server.tls.client_ca_file", Optional,
        form::FILE, |c| c.server.tls.as_ref()?.client_ca_file.clone();

    ADMIN_LISTEN: SocketAddr = "admin.listen", Default("127.0.0.1:9090"),
        form::ADDRESS, |c| Some(c.admin.listen);
    ADMIN_KEY_SHA256: Vec<KeyHash> = "admin.key_sha256", Default(""),
        form::KEY_HASHES, |c| Some(c.admin.key_hashes.clone());
    ADMIN_METRICS_NEED_KEY: bool = "admin.metrics_need_key", Default("true"),
        form::BOOLEAN, |c| Some(c.admin.metrics_need_key);
    ADMIN_TLS_CERTIFICATE_FILE: PathBuf = "admin.tls.certificate_file", Optional,
        form::FILE, |c| Some(c.admin.tls.as_ref()?.certificate_file.clone());
    ADMIN_TLS_KEY_FILE: PathBuf = "admin.tls.key_file", Optional,
        form::FILE, |c| Some(c.admin.tls.as_ref()?.key_file.clone());
    ADMIN_TLS_CLIENT_CA_FILE: PathBuf = "admin.tls.client_ca_file", Optional,
        form::FILE, |c| c.admin.tls.as_ref()?.client_ca_file.clone();

    CALLERS_FILE: PathBuf = "callers.file", Optional,
        form::FILE, |c| c.callers.file.clone();
    CALLERS_ANONYMOUS: bool = "callers.anonymous", Default("false"),
        form::BOOLEAN, |c| Some(c.callers.anonymous);

    JWT_ISSUER: String = "callers.jwt.issuer", Optional,
        form::EXACT_TEXT, |c| jwt(c).map(|jwt| jwt.issuer.clone());
    JWT_AUDIENCE: String = "callers.jwt.audience", Optional,
        form::EXACT_TEXT, |c| jwt(c).map(|jwt| jwt.audience.clone());
    JWT_JWKS_URL: Url = "callers.jwt.jwks_url", Optional,
        form::DOCUMENT, |c| jwt(c).map(|jwt| jwt.jwks_url.clone());
    JWT_SUBJECT_CLAIM: String = "callers.jwt.subject_claim", Default(JwtConfig::SUBJECT_CLAIM),
        form::EXACT_TEXT, |c| jwt(c).map(|jwt| jwt.subject_claim.clone());
    JWT_SCOPES_CLAIM: String = "callers.jwt.scopes_claim", Optional,
        form::EXACT_TEXT, |c| jwt(c)?.scopes_claim.clone();
    JWT_CUSTOMERS_CLAIM: String = "callers.jwt.customers_claim", Optional,
        form::EXACT_TEXT, |c| jwt(c)?.customers_claim.clone();

    UPSTREAM_BASE_URL: Url = "upstream.base_url", Default("https://api.partnercenter.microsoft.com"),
        form::ENDPOINT, |c| Some(c.upstream.base_url.clone());
    UPSTREAM_SOURCE: UpstreamApi = "upstream.source", Default("insights"),
        form::SOURCE, |c| Some(c.upstream.source);
    UPSTREAM_COMMERCIAL_PATH: String = "upstream.commercial_path", Default("/v1/analytics/commercial/usage/license/"),
        form::URL_PATH, |c| Some(c.upstream.commercial_path.clone());
    UPSTREAM_LOCALE: String = "upstream.locale", Default("en-US"),
        form::HEADER_VALUE, |c| Some(c.upstream.locale.clone());
    UPSTREAM_APPLICATION: String = "upstream.application", Default("usage-proxy"),
        form::HEADER_VALUE, |c| Some(c.upstream.application.clone());
    UPSTREAM_CONNECT_TIMEOUT: Duration = "upstream.connect_timeout", Default("2s"),
        form::POSITIVE_DURATION, |c| Some(c.upstream.connect_timeout);
    UPSTREAM_ATTEMPT_TIMEOUT: Duration = "upstream.attempt_timeout", Default("10s"),
        form::POSITIVE_DURATION, |c| Some(c.upstream.attempt_timeout);
    UPSTREAM_DEADLINE: Duration = "upstream.deadline", Default("25s"),
        form::POSITIVE_DURATION, |c| Some(c.upstream.deadline);
    UPSTREAM_MAX_CONCURRENCY: NonZeroUsize = "upstream.max_concurrency", Default("16"),
        form::CONCURRENCY, |c| Some(c.upstream.max_concurrency);
    UPSTREAM_RETRIES: u32 = "upstream.retries", Default("3"),
        form::RETRIES, |c| Some(c.upstream.retries);
    UPSTREAM_MAX_BODY: usize = "upstream.max_body", Default("32MiB"),
        form::SIZE_IN_MEMORY, |c| Some(c.upstream.max_body);
    UPSTREAM_VALIDATE_MFA: bool = "upstream.validate_mfa", Default("false"),
        form::BOOLEAN, |c| Some(c.upstream.validate_mfa);

    AUTH_KIND: AuthKind = "upstream.auth.kind", Required,
        form::AUTH_KIND, |c| Some(c.upstream.auth.kind());
    AUTH_TOKEN_URL: Url = "upstream.auth.token_url", RequiredBy(GRANTS),
        form::ENDPOINT, |c| grant(c).map(|grant| grant.token_url.clone());
    AUTH_CLIENT_ID: String = "upstream.auth.client_id", RequiredBy(GRANTS),
        form::OAUTH_TEXT, |c| grant(c).map(|grant| grant.client_id.clone());
    AUTH_CLIENT_SECRET_FILE: PathBuf = "upstream.auth.client_secret_file", AllowedBy(GRANTS),
        form::FILE, |c| proof_file(c, &AUTH_CLIENT_SECRET_FILE);
    AUTH_CLIENT_CERTIFICATE_FILE: PathBuf = "upstream.auth.client_certificate_file", AllowedBy(GRANTS),
        form::FILE, |c| proof_file(c, &AUTH_CLIENT_CERTIFICATE_FILE);
    AUTH_CLIENT_KEY_FILE: PathBuf = "upstream.auth.client_key_file", AllowedBy(GRANTS),
        form::FILE, |c| proof_file(c, &AUTH_CLIENT_KEY_FILE);
    AUTH_FEDERATED_TOKEN_FILE: PathBuf = "upstream.auth.federated_token_file", AllowedBy(GRANTS),
        form::FILE, |c| proof_file(c, &AUTH_FEDERATED_TOKEN_FILE);
    AUTH_REFRESH_TOKEN_FILE: PathBuf = "upstream.auth.refresh_token_file", RequiredBy(&[AuthKind::RefreshToken]),
        form::FILE, |c| refresh_token_file(&c.upstream.auth);
    AUTH_SCOPE: String = "upstream.auth.scope", AllowedBy(GRANTS),
        form::OAUTH_TEXT, |c| grant(c)?.audience.scope().cloned();
    AUTH_RESOURCE: String = "upstream.auth.resource", AllowedBy(GRANTS),
        form::OAUTH_TEXT, |c| grant(c)?.audience.resource().cloned();
    AUTH_TOKEN_FILE: PathBuf = "upstream.auth.token_file", RequiredBy(&[AuthKind::TokenFile]),
        form::FILE, |c| token_file(&c.upstream.auth);

    CACHE_MAX_BYTES: u64 = "cache.max_bytes", Default("256MiB"),
        form::SIZE, |c| Some(c.cache.max_bytes);
    CACHE_FRESH_FOR: Duration = "cache.fresh_for", Default("15m"),
        form::POSITIVE_DURATION, |c| Some(c.cache.fresh_for);
    CACHE_STALE_WHILE_REVALIDATE: Duration = "cache.stale_while_revalidate", Default("1h"),
        form::DURATION, |c| Some(c.cache.stale_while_revalidate);
    CACHE_STALE_IF_ERROR: Duration = "cache.stale_if_error", Default("7d"),
        form::DURATION, |c| Some(c.cache.stale_if_error);
    CACHE_SOFT_TIMEOUT: Duration = "cache.soft_timeout", Default("2s"),
        form::DURATION, |c| Some(c.cache.soft_timeout);
    CACHE_NEGATIVE_FRESH_FOR: Duration = "cache.negative_fresh_for", Default("30s"),
        form::DURATION, |c| Some(c.cache.negative_fresh_for);
    CACHE_PAST_ABSENCE_FRESH_FOR: Duration = "cache.past_absence_fresh_for", Default("24h"),
        form::DURATION, |c| Some(c.cache.past_absence_fresh_for);
    CACHE_MIN_REFRESH_INTERVAL: Duration = "cache.min_refresh_interval", Default("30s"),
        form::DURATION, |c| Some(c.cache.min_refresh_interval);
    CACHE_SUSPECT_CONFIRM_AFTER: Duration = "cache.suspect_confirm_after", Default("15m"),
        form::DURATION, |c| Some(c.cache.suspect_confirm_after);

    LOG_FORMAT: LogFormat = "log.format", Optional,
        form::LOG_FORMAT, |c| c.log.format;
    LOG_FILTER: String = "log.filter", Default("info"),
        form::LOG_FILTER, |c| Some(c.log.filter.clone());
    LOG_REQUESTS: RequestLog = "log.requests", Default("all"),
        form::REQUEST_LOG, |c| Some(c.log.requests);

    TRACING_OTLP_ENDPOINT: Url = "tracing.otlp_endpoint", Optional,
        form::COLLECTOR, |c| tracing(c).map(|tracing| tracing.otlp_endpoint.clone());
    TRACING_HEADERS_FILE: PathBuf = "tracing.headers_file", Optional,
        form::FILE, |c| tracing(c)?.headers_file.clone();
    TRACING_SAMPLE_RATIO: f64 = "tracing.sample_ratio", Default("1"),
        form::RATIO, |c| tracing(c).map(|tracing| tracing.sample_ratio);
    TRACING_SERVICE_NAME: String = "tracing.service_name", Default("usage-proxy"),
        form::EXACT_TEXT, |c| tracing(c).map(|tracing| tracing.service_name.clone());
}

pub(super) fn find(name: &str) -> Option<&'static dyn AnyConfigKey> {
    ALL.iter().copied().find(|key| key.name() == name)
}

/// Whether keys stand below this name.
pub(super) fn is_table(name: &str) -> bool {
    ALL.iter()
        .filter_map(|key| key.name().strip_prefix(name))
        .any(|rest| rest.starts_with('.'))
}

/// The known key that someone who wrote `name` most likely meant.
///
/// First a key of the same last part in another table, then one that was cut short, then the one
/// with the fewest letters to change.
pub(super) fn nearest(name: &str) -> Option<&'static dyn AnyConfigKey> {
    ALL.iter().copied().min_by_key(|key| {
        (
            last_part(key.name()) != last_part(name),
            !key.name().starts_with(name),
            strsim::damerau_levenshtein(key.name(), name),
        )
    })
}

/// The environment variable that states this key.
pub(super) fn variable(name: &str) -> String {
    format!(
        "{VARIABLE_PREFIX}{}",
        name.to_ascii_uppercase().replace('.', "__")
    )
}

/// The key whose variable this is but for the number of underscores; other variables that begin with
/// `USAGE_PROXY_` are none of ours.
pub(super) fn by_misspelled_variable(variable_name: &str) -> Option<&'static dyn AnyConfigKey> {
    let single = |name: &str| name.replace("__", "_");
    let meant = single(&variable_name.to_ascii_uppercase());
    let mut keys = ALL.iter().copied();
    keys.find(|key| single(&variable(key.name())) == meant)
}

pub(super) fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

// === impl Key ===

impl<T> ConfigKey<T> {
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) const fn default(&self) -> Option<&'static str> {
        match self.presence {
            Default(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn parse(&self, text: &str) -> Result<T, InvalidValue> {
        (self.form.parse)(text)
    }

    pub(super) fn print(&self, value: &T) -> String {
        (self.form.print)(value)
    }
}

impl<T> AnyConfigKey for ConfigKey<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn presence(&self) -> KeyPresence {
        self.presence
    }

    fn expected(&self) -> &'static str {
        self.form.expected
    }

    fn accept(&self, value: InputValue) -> Result<String, InvalidValue> {
        let text = match value {
            InputValue::Text(text) => text,
            InputValue::Number(number)
                if matches!(
                    self.form.unquoted,
                    UnquotedKind::Integer | UnquotedKind::Fraction
                ) =>
            {
                number
            }
            InputValue::Fraction(number) if self.form.unquoted == UnquotedKind::Fraction => number,
            InputValue::Fraction(_) => return Err("is a number with a fraction".into()),
            InputValue::Number(_) if self.form.unquoted == UnquotedKind::Nothing => {
                return Err("is a number, not text in quotes".into());
            }
            InputValue::Number(_) => return Err("is a number".into()),
            InputValue::Boolean(truth) if self.form.unquoted == UnquotedKind::Boolean => {
                truth.to_string()
            }
            InputValue::Boolean(_) => return Err("is a boolean".into()),
            InputValue::List(items) if self.form.unquoted == UnquotedKind::List => {
                form::joined(&items)?
            }
            InputValue::List(_) => return Err("is an array".into()),
            InputValue::Other(what) => return Err(format!("is {what}").into()),
        };
        self.parse(&text).map(|_| text)
    }

    fn text(&self, config: &Config) -> Option<String> {
        Some(self.print(&(self.field)(config)?))
    }

    fn toml(&self, config: &Config) -> Option<String> {
        let text = self.text(config)?;
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        Some(match self.form.unquoted {
            UnquotedKind::Integer if text.parse::<i64>().is_ok() => text,
            UnquotedKind::Boolean | UnquotedKind::Fraction => text,
            UnquotedKind::List => {
                let items: Vec<_> = form::items(&text).map(quoted).collect();
                format!("[{}]", items.join(", "))
            }
            UnquotedKind::Nothing | UnquotedKind::Integer => quoted(&text),
        })
    }
}

fn tracing(config: &Config) -> Option<&TracingConfig> {
    config.tracing.as_ref()
}

fn jwt(config: &Config) -> Option<&JwtConfig> {
    config.callers.jwt.as_ref()
}

fn grant(config: &Config) -> Option<&GrantConfig> {
    config.upstream.auth.grant()
}

fn proof_file(config: &Config, key: &ConfigKey<PathBuf>) -> Option<PathBuf> {
    grant(config)?.client_auth.file(key.name)
}

fn refresh_token_file(auth: &AuthConfig) -> Option<PathBuf> {
    match auth {
        AuthConfig::RefreshToken {
            refresh_token_file, ..
        } => Some(refresh_token_file.clone()),
        AuthConfig::ClientCredentials { .. } | AuthConfig::TokenFile { .. } => None,
    }
}

fn token_file(auth: &AuthConfig) -> Option<PathBuf> {
    match auth {
        AuthConfig::TokenFile { token_file } => Some(token_file.clone()),
        AuthConfig::RefreshToken { .. } | AuthConfig::ClientCredentials { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_key() {
        for key in ALL {
            if let Default(text) = key.presence() {
                let accepted = key.accept(InputValue::Text(text.to_owned()));

                assert_eq!(accepted, Ok(text.to_owned()), "{}", key.name());
            }
        }
    }

    #[test]
    fn every_default_is_printed_as_it_is_written() {
        fn printed<T>(key: &ConfigKey<T>) -> Option<String> {
            let value = key.parse(key.default()?).ok()?;
            Some(key.print(&value))
        }

        for (key, printed) in [
            (
                SERVER_DRAIN_TIMEOUT.default(),
                printed(&SERVER_DRAIN_TIMEOUT),
            ),
            (UPSTREAM_BASE_URL.default(), printed(&UPSTREAM_BASE_URL)),
            (UPSTREAM_MAX_BODY.default(), printed(&UPSTREAM_MAX_BODY)),
            (CACHE_MAX_BYTES.default(), printed(&CACHE_MAX_BYTES)),
            (
                CACHE_STALE_IF_ERROR.default(),
                printed(&CACHE_STALE_IF_ERROR),
            ),
        ] {
            assert_eq!(key, printed.as_deref());
        }
    }

    #[test]
    fn every_choice_is_named_where_it_is_asked_for() {
        let names = UpstreamApi::OF_USAGE.map(UpstreamApi::as_str);
        for name in names {
            assert!(form::SOURCE.expected.contains(name), "{name}");
        }
        for name in AuthKind::ALL.map(AuthKind::as_str) {
            assert!(form::AUTH_KIND.expected.contains(name), "{name}");
        }
        for name in LogFormat::ALL.map(LogFormat::as_str) {
            assert!(form::LOG_FORMAT.expected.contains(name), "{name}");
        }
        for name in RequestLog::ALL.map(RequestLog::as_str) {
            assert!(form::REQUEST_LOG.expected.contains(name), "{name}");
        }
    }

    #[test]
    fn no_key_is_a_table_too() {
        for key in ALL {
            assert!(!is_table(key.name()), "{}", key.name());
        }
        assert!(is_table("upstream"));
        assert!(is_table("upstream.auth"));
        assert!(!is_table("up"));
    }

    #[test]
    fn the_nearest_key_is_the_one_that_was_meant() {
        for (written, meant) in [
            ("cache.fresh_fro", "cache.fresh_for"),
            ("cahce.max_bytes", "cache.max_bytes"),
            ("fresh_for", "cache.fresh_for"),
            ("upstream.kind", "upstream.auth.kind"),
            ("server.drain", "server.drain_timeout"),
            ("log.level", "log.filter"),
        ] {
            assert_eq!(
                nearest(written).map(AnyConfigKey::name),
                Some(meant),
                "{written}"
            );
        }
    }
}
