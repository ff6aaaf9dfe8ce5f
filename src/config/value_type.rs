//! The types of values that are not about the network: texts, numbers, durations, sizes, choices.
//!
//! A parser returns the reason why a value is invalid; the reason completes "the value …".

use std::{num::NonZeroUsize, path::PathBuf, str::FromStr, time::Duration};

use bytesize::ByteSize;
use http::HeaderValue;
use strum::{Display, EnumString};
use tracing_subscriber::EnvFilter;

use super::postgres_url::PostgresUrl;
use crate::{
    access_key::{InvalidKeyHash, KeyHash},
    domain::UpstreamApi,
};

/// A type of value; several keys can share it.
pub(super) struct ValueType<T> {
    /// Completes "expected …".
    pub(super) expected: &'static str,
    pub(super) parse: fn(&str) -> Result<T, String>,
    /// The TOML type that is accepted beside text in quotes.
    pub(super) unquoted: Option<UnquotedType>,
}

/// The type of a TOML value without quotes. The environment and flags have only text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display)]
pub(super) enum UnquotedType {
    #[strum(to_string = "a number")]
    Integer,
    #[strum(to_string = "a number with a fraction")]
    Fraction,
    #[strum(to_string = "a boolean")]
    Boolean,
    #[strum(to_string = "an array")]
    List,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object per line, for machines.
    Json,
    /// Text for people.
    Text,
}

/// The requests that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum RequestLog {
    /// All requests.
    All,
    /// Requests that ended in 4xx or 5xx, and slow ones.
    Problems,
    /// No request.
    Off,
}

/// The database of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// An SQLite file, for one process.
    Sqlite(PathBuf),
    /// A PostgreSQL database, which processes may share.
    Postgres(Box<PostgresUrl>),
}

impl StoreUrl {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// The reason why it is invalid, which completes "the URL …".
    pub fn parse(text: &str) -> Result<Self, String> {
        (STORE_URL.parse)(text)
    }
}

impl<T> ValueType<T> {
    pub(super) const fn new(expected: &'static str, parse: fn(&str) -> Result<T, String>) -> Self {
        Self {
            expected,
            parse,
            unquoted: None,
        }
    }

    pub(super) const fn or_unquoted(mut self, unquoted: UnquotedType) -> Self {
        self.unquoted = Some(unquoted);
        self
    }
}

pub(super) const BOOLEAN: ValueType<bool> =
    ValueType::new("`true` or `false`", choice).or_unquoted(UnquotedType::Boolean);

pub(super) const LOG_FORMAT: ValueType<LogFormat> = ValueType::new("`json` or `text`", choice);

pub(super) const REQUEST_LOG: ValueType<RequestLog> =
    ValueType::new("`all`, `problems` or `off`", choice);

pub(super) const USAGE_API: ValueType<UpstreamApi> =
    ValueType::new("`insights` or `commercial`", |text| {
        let mut usage = UpstreamApi::OF_USAGE.into_iter();
        let named = usage.find(|api| api.as_str() == text);
        named.ok_or_else(|| "is none of these".into())
    });

pub(super) const DURATION: ValueType<Duration> = ValueType::new(
    "a duration such as `250ms`, `30s`, `15m`, `1h30m` or `7d`; `0s` turns it off",
    parse_duration,
);

pub(super) const POSITIVE_DURATION: ValueType<Duration> = ValueType::new(
    "a duration above zero, such as `250ms`, `30s`, `15m`, `1h30m` or `7d`",
    |text| match parse_duration(text)? {
        Duration::ZERO => Err("is zero".into()),
        duration => Ok(duration),
    },
);

pub(super) const CHECK_INTERVAL: ValueType<Duration> = ValueType::new(
    "a duration of at least a second, such as `10m` or `1h`",
    |text| match parse_duration(text)? {
        duration if duration < Duration::from_secs(1) => Err("is too short".into()),
        duration => Ok(duration),
    },
);

pub(super) const STORE_URL: ValueType<StoreUrl> = ValueType::new(
    "`sqlite:PATH`, such as `sqlite:/var/lib/usage-proxy/usage.db`, or \
     `postgres://USER@HOST/DATABASE?sslmode=verify-full`",
    |text| match text.split_once(':') {
        Some(("sqlite", "")) => Err("names no file".into()),
        Some(("sqlite", path)) if path.starts_with("//") => {
            Err("has slashes that a path does not need".into())
        }
        Some(("sqlite", path)) => Ok(StoreUrl::Sqlite(PathBuf::from(path))),
        Some(("postgres" | "postgresql", _)) => {
            PostgresUrl::parse(text).map(|url| StoreUrl::Postgres(Box::new(url)))
        }
        _ => Err("begins with neither `sqlite:` nor `postgres://`".into()),
    },
);

pub(super) const LISTEN_URL: ValueType<PostgresUrl> = ValueType::new(
    "`postgres://USER@HOST/DATABASE?sslmode=verify-full`",
    |text| match text.split_once(':') {
        Some(("postgres" | "postgresql", _)) => PostgresUrl::parse(text),
        _ => Err("does not begin with `postgres://`".into()),
    },
);

pub(super) const SIZE: ValueType<u64> = ValueType::new(
    "a size above zero, such as `64KiB`, `256MiB`, `1GB` or a number of bytes",
    |text| match text.parse() {
        Ok(ByteSize(0)) => Err("is zero".into()),
        // bytesize stops at the largest number, which no one means.
        Ok(ByteSize(u64::MAX)) => Err("is too large".into()),
        Ok(ByteSize(bytes)) => Ok(bytes),
        Err(error) => Err(format!("is not a size ({error})")),
    },
)
.or_unquoted(UnquotedType::Integer);

pub(super) const SIZE_IN_MEMORY: ValueType<usize> = ValueType::new(SIZE.expected, |text| {
    usize::try_from((SIZE.parse)(text)?).map_err(|_| "is too large".into())
})
.or_unquoted(UnquotedType::Integer);

pub(super) const CONCURRENCY: ValueType<NonZeroUsize> =
    ValueType::new("a whole number from 1 to 10000", |text| {
        whole_number(text, |count: &NonZeroUsize| count.get() <= 10_000)
    })
    .or_unquoted(UnquotedType::Integer);

pub(super) const CONNECTIONS: ValueType<NonZeroUsize> =
    ValueType::new("a whole number from 1 to 1000000", |text| {
        whole_number(text, |count: &NonZeroUsize| count.get() <= 1_000_000)
    })
    .or_unquoted(UnquotedType::Integer);

pub(super) const RETRIES: ValueType<u32> = ValueType::new("a whole number from 0 to 100", |text| {
    whole_number(text, |count| *count <= 100)
})
.or_unquoted(UnquotedType::Integer);

pub(super) const SERIES: ValueType<usize> =
    ValueType::new("a whole number from 1 to 1000000", |text| {
        whole_number(text, |count: &usize| (1..=1_000_000).contains(count))
    })
    .or_unquoted(UnquotedType::Integer);

pub(super) const RATIO: ValueType<f64> =
    ValueType::new("a number from 0 to 1, such as `0.05`", |text| {
        let ratio: f64 = text.parse().map_err(|_| "is not a number")?;
        let in_range = (0.0..=1.0).contains(&ratio);
        in_range.then_some(ratio).ok_or("is out of range".into())
    })
    .or_unquoted(UnquotedType::Fraction);

/// A text that is sent in a header.
pub(super) const HEADER_VALUE: ValueType<String> = ValueType::new(
    "text in visible ASCII, since it is sent as a header",
    visible_ascii,
);

/// An OAuth parameter.
pub(super) const OAUTH_TEXT: ValueType<String> =
    ValueType::new("text in visible ASCII", visible_ascii);

/// A text that is compared, such as an issuer or the name of a claim.
pub(super) const EXACT_TEXT: ValueType<String> = ValueType::new(
    "text in visible ASCII, compared letter by letter",
    visible_ascii,
);

/// A file, usually of a secret.
pub(super) const FILE: ValueType<PathBuf> = ValueType::new(
    "the path of a file, with a slash, such as `./client_secret` or `/run/secrets/client_secret`",
    parse_path,
);

pub(super) const CALLERS_FILE: ValueType<PathBuf> = ValueType::new(
    "the path of a file, with a slash, such as `./callers.toml` or `/etc/usage-proxy/callers.toml`",
    parse_path,
);

pub(super) const PORTFOLIO_FILE: ValueType<PathBuf> = ValueType::new(
    "the path of a file, with a slash, such as `./portfolio.toml` or \
     `/etc/usage-proxy/portfolio.toml`",
    parse_path,
);

pub(super) const LOG_FILTER: ValueType<String> = ValueType::new(
    "directives as tracing's EnvFilter reads them, such as `info` or `info,usage_proxy=debug`",
    |text| {
        // EnvFilter cuts targets at the wrong places, or panics, where a directive is surrounded by
        // spaces or is not ASCII.
        let directives: Vec<_> = text.split(',').map(str::trim).collect();
        let filter = directives.join(",");
        if filter.is_empty() {
            return Err("is empty".into());
        }
        if !filter.is_ascii() || filter.contains(char::is_control) {
            return Err("has characters other than printable ASCII".into());
        }
        match EnvFilter::try_new(&filter) {
            Ok(_) => Ok(filter),
            Err(error) => Err(format!("is invalid ({error})")),
        }
    },
);

pub(super) const KEY_HASHES: ValueType<Vec<KeyHash>> = ValueType::new(
    "SHA-256 hashes of keys in 64 hexadecimal digits each, as `usage-proxy hash-key` prints them",
    |text| list_items(text).map(key_hash).collect(),
)
.or_unquoted(UnquotedType::List);

/// Reads a value that is one of a few words.
pub(super) fn choice<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "is none of these".into())
}

/// Reads a path, which must have a slash: a secret that someone wrote here by mistake has none as a
/// rule, and paths are printed.
fn parse_path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("is empty".into()),
        _ if text.contains(char::is_control) => Err("has control characters".into()),
        _ if !text.contains('/') => Err("has no slash".into()),
        _ => Ok(PathBuf::from(text)),
    }
}

/// Reads a duration of up to 3650 days in whole milliseconds: a longer one is a mistake, and an instant
/// plus this one is still an instant.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    const MAX: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
    if text.contains('M') || text.contains("month") {
        return Err("is in months; minutes are `m`".into());
    }
    match humantime::parse_duration(text) {
        Ok(duration) if duration.subsec_nanos() % 1_000_000 != 0 => {
            Err("is not in whole milliseconds".into())
        }
        Ok(duration) if duration > MAX => Err("is longer than 3650d".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("is not a duration ({error})")),
    }
}

/// Returns the items of a list that is one text, without the white space around them.
pub(super) fn list_items(text: &str) -> impl Iterator<Item = &str> {
    // Nothing at all is no item; a comma with nothing beside it is an empty one.
    let text = Some(text).filter(|text| !text.trim().is_empty());
    text.into_iter()
        .flat_map(|text| text.split(',').map(str::trim))
}

/// Never prints the item: it may be the key itself.
fn key_hash(text: &str) -> Result<KeyHash, String> {
    KeyHash::parse(text).map_err(|invalid| match invalid {
        InvalidKeyHash::PlainKey => "has a key itself, which must not be in configuration".into(),
        InvalidKeyHash::NotAHash => "has an item that is not the hash of a key".into(),
    })
}

/// Tells text that is not a number from a number out of range.
fn whole_number<T: FromStr>(text: &str, in_range: impl Fn(&T) -> bool) -> Result<T, String> {
    let digits = text.trim_start_matches(['-', '+']);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is not a whole number".into());
    }
    let number = text.parse().ok().filter(in_range);
    number.ok_or_else(|| "is out of range".into())
}

fn visible_ascii(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("is empty".into());
    }
    if text.trim() != text {
        return Err("begins or ends with white space".into());
    }
    match HeaderValue::from_str(text) {
        Ok(value) if value.to_str().is_ok() && !text.contains('\t') => Ok(text.to_owned()),
        _ => Err("has characters outside visible ASCII".into()),
    }
}
