//! What a value may look like: how it is read, printed, and asked for.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, str::FromStr, time::Duration};

use http::HeaderValue;
use tracing_subscriber::EnvFilter;
use url::{Host, Url};

use super::{
    choices::{AuthKind, LogFormat, RequestLog},
    cors_origin::{self, CorsOrigin},
    duration,
    invalid_value::InvalidValue,
    size,
};
use crate::{
    access_key::{InvalidKeyHash, KeyHash},
    domain::UpstreamApi,
};

/// One form of value; many keys may share it.
pub(super) struct ValueType<T> {
    /// Completes "expected …".
    pub(super) expected: &'static str,
    pub(super) parse: fn(&str) -> Result<T, InvalidValue>,
    /// What `parse` reads back.
    pub(super) print: fn(&T) -> String,
    /// What TOML may give it as beside text in quotes.
    pub(super) unquoted: UnquotedKind,
}

/// What a value may be in TOML without quotes. The environment and flags know only text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnquotedKind {
    Nothing,
    /// `16`
    Integer,
    /// `0.25`, or an integer
    Fraction,
    /// `true` or `false`
    Boolean,
    /// `["a", "b"]`; as text, its items with commas between.
    List,
}

pub(super) const ADDRESS: ValueType<SocketAddr> = ValueType {
    expected: "an IP address and a port, such as `127.0.0.1:8080` or `[::1]:8080`",
    parse: |text| {
        text.parse()
            .map_err(|_| "is not an IP address with a port".into())
    },
    print: SocketAddr::to_string,
    unquoted: UnquotedKind::Nothing,
};

pub(super) const DURATION: ValueType<Duration> = ValueType {
    expected: "a duration such as `250ms`, `30s`, `15m`, `1h30m` or `7d`; `0s` turns it off",
    parse: duration::parse,
    print: duration::print,
    unquoted: UnquotedKind::Integer,
};

pub(super) const POSITIVE_DURATION: ValueType<Duration> = ValueType {
    expected: "a duration above zero, such as `250ms`, `30s`, `15m`, `1h30m` or `7d`",
    parse: |text| match duration::parse(text)? {
        Duration::ZERO => Err("is zero".into()),
        duration => Ok(duration),
    },
    print: duration::print,
    unquoted: UnquotedKind::Integer,
};

pub(super) const SIZE: ValueType<u64> = ValueType {
    expected: "a size above zero, such as `64KiB`, `256MiB`, `1GB` or a number of bytes",
    parse: positive_size,
    print: |bytes| size::print(*bytes),
    unquoted: UnquotedKind::Integer,
};

pub(super) const SIZE_IN_MEMORY: ValueType<usize> = ValueType {
    expected: SIZE.expected,
    parse: |text| usize::try_from(positive_size(text)?).map_err(|_| "is too large".into()),
    print: |bytes| u64::try_from(*bytes).map_or_else(|_| bytes.to_string(), size::print),
    unquoted: UnquotedKind::Integer,
};

pub(super) const BOOLEAN: ValueType<bool> = ValueType {
    expected: "`true` or `false`",
    parse: |text| text.parse().map_err(|_| "is none of these".into()),
    print: bool::to_string,
    unquoted: UnquotedKind::Boolean,
};

pub(super) const CONCURRENCY: ValueType<NonZeroUsize> = ValueType {
    expected: "a whole number from 1 to 10000",
    parse: |text| whole_number(text, |count: &NonZeroUsize| count.get() <= 10_000),
    print: NonZeroUsize::to_string,
    unquoted: UnquotedKind::Integer,
};

pub(super) const CONNECTIONS: ValueType<NonZeroUsize> = ValueType {
    expected: "a whole number from 1 to 1000000",
    parse: |text| whole_number(text, |count: &NonZeroUsize| count.get() <= 1_000_000),
    print: NonZeroUsize::to_string,
    unquoted: UnquotedKind::Integer,
};

pub(super) const RETRIES: ValueType<u32> = ValueType {
    expected: "a whole number from 0 to 100",
    parse: |text| whole_number(text, |count| *count <= 100),
    print: u32::to_string,
    unquoted: UnquotedKind::Integer,
};

pub(super) const RATIO: ValueType<f64> = ValueType {
    expected: "a number from 0 to 1, such as `0.05`",
    parse: |text| {
        let ratio: f64 = text.parse().map_err(|_| "is not a number")?;
        let in_range = (0.0..=1.0).contains(&ratio);
        in_range.then_some(ratio).ok_or("is out of range".into())
    },
    print: f64::to_string,
    unquoted: UnquotedKind::Fraction,
};

pub(super) const ORIGINS: ValueType<Vec<CorsOrigin>> = ValueType {
    expected: "origins as browsers send them, such as `[\"https://dash.example.com\"]`, or as text \
               with commas between them",
    parse: |text| items(text).map(cors_origin::parse).collect(),
    print: |origins| {
        let origins: Vec<_> = origins.iter().map(CorsOrigin::as_str).collect();
        origins.join(",")
    },
    unquoted: UnquotedKind::List,
};

pub(super) const HOSTS: ValueType<Vec<Host>> = ValueType {
    expected: "host names or IP addresses as browsers send them, without ports, such as \
               `[\"usage.example.com\"]`, or as text with commas between them",
    parse: |text| items(text).map(host).collect(),
    print: |hosts| {
        let hosts: Vec<_> = hosts.iter().map(Host::to_string).collect();
        hosts.join(",")
    },
    unquoted: UnquotedKind::List,
};

pub(super) const KEY_HASHES: ValueType<Vec<KeyHash>> = ValueType {
    expected: "SHA-256 hashes of keys in 64 hexadecimal digits each, as `usage-proxy hash-key` \
               prints them",
    parse: |text| items(text).map(key_hash).collect(),
    print: |hashes| {
        let hashes: Vec<_> = hashes.iter().map(KeyHash::to_string).collect();
        hashes.join(",")
    },
    unquoted: UnquotedKind::List,
};

pub(super) const ENDPOINT: ValueType<Url> = ValueType {
    expected: "an `https://` URL with a host, perhaps a path, and nothing else; \
               `http://` only to this machine",
    parse: endpoint,
    print: |url| match url.path() {
        "/" => url.as_str().trim_end_matches('/').to_owned(),
        _ => url.to_string(),
    },
    unquoted: UnquotedKind::Nothing,
};

/// Where spans are sent: a base, since `/v1/traces` is the protocol's.
pub(super) const COLLECTOR: ValueType<Url> = ValueType {
    expected: "an `http://` or `https://` URL with a host, such as `http://127.0.0.1:4318`; \
               `/v1/traces` is added",
    parse: collector,
    print: ENDPOINT.print,
    unquoted: UnquotedKind::Nothing,
};

pub(super) const URL_PATH: ValueType<String> = ValueType {
    expected: "a path that begins with one `/`, without `..`, query or fragment",
    parse: url_path,
    print: String::clone,
    unquoted: UnquotedKind::Nothing,
};

pub(super) const HEADER_VALUE: ValueType<String> = ValueType {
    expected: "text in visible ASCII, since it is sent as a header",
    parse: header_value,
    print: String::clone,
    unquoted: UnquotedKind::Nothing,
};

/// An OAuth parameter: visible ASCII and single spaces, which every one of them fits.
pub(super) const OAUTH_TEXT: ValueType<String> = ValueType {
    expected: "text in visible ASCII",
    parse: header_value,
    print: String::clone,
    unquoted: UnquotedKind::Nothing,
};

/// What has to be met letter by letter, such as an issuer or the name of a claim.
pub(super) const EXACT_TEXT: ValueType<String> = ValueType {
    expected: "text in visible ASCII, compared letter by letter",
    parse: header_value,
    print: String::clone,
    unquoted: UnquotedKind::Nothing,
};

/// Where a document is that we trust; Entra ID wants a query for an application's own keys.
pub(super) const DOCUMENT: ValueType<Url> = ValueType {
    expected: "an `https://` URL, perhaps with a query; `http://` only to this machine",
    parse: document,
    print: Url::to_string,
    unquoted: UnquotedKind::Nothing,
};

/// The file of a secret. A path shows itself by its slash: a secret that was put here by mistake has
/// none as a rule, and would be printed wherever a path may be.
pub(super) const FILE: ValueType<PathBuf> = ValueType {
    expected: "the path of a file, with a slash, such as `./client_secret` or \
               `/run/secrets/client_secret`",
    parse: |text| match text {
        "" => Err("is empty".into()),
        _ if text.contains(char::is_control) => Err("holds control characters".into()),
        _ if !text.contains('/') => Err("is no path".into()),
        _ => Ok(PathBuf::from(text)),
    },
    print: |path| path.to_string_lossy().into_owned(),
    unquoted: UnquotedKind::Nothing,
};

pub(super) const LOG_FILTER: ValueType<String> = ValueType {
    expected: "directives as tracing's EnvFilter reads them, such as `info` or \
               `info,usage_proxy=debug`",
    parse: |text| {
        // EnvFilter cuts targets at the wrong places, or panics, where a directive is surrounded by
        // spaces or is not ASCII.
        let directives: Vec<_> = text.split(',').map(str::trim).collect();
        let filter = directives.join(",");
        if filter.is_empty() {
            return Err("is empty".into());
        }
        if !filter.is_ascii() || filter.contains(char::is_control) {
            return Err("holds other than printable ASCII characters".into());
        }
        match EnvFilter::try_new(&filter) {
            Ok(_) => Ok(filter),
            Err(error) => Err(format!("is refused ({error})").into()),
        }
    },
    print: String::clone,
    unquoted: UnquotedKind::Nothing,
};

pub(super) const SOURCE: ValueType<UpstreamApi> = ValueType {
    expected: "`insights` or `commercial`",
    parse: |text| choice(&UpstreamApi::OF_USAGE, UpstreamApi::as_str, text),
    print: |source| source.as_str().to_owned(),
    unquoted: UnquotedKind::Nothing,
};

pub(super) const AUTH_KIND: ValueType<AuthKind> = ValueType {
    expected: "`refresh_token`, `client_credentials` or `token_file`",
    parse: |text| choice(&AuthKind::ALL, AuthKind::as_str, text),
    print: |kind| kind.as_str().to_owned(),
    unquoted: UnquotedKind::Nothing,
};

pub(super) const LOG_FORMAT: ValueType<LogFormat> = ValueType {
    expected: "`json` or `text`",
    parse: |text| choice(&LogFormat::ALL, LogFormat::as_str, text),
    print: |format| format.as_str().to_owned(),
    unquoted: UnquotedKind::Nothing,
};

pub(super) const REQUEST_LOG: ValueType<RequestLog> = ValueType {
    expected: "`all`, `problems` or `off`",
    parse: |text| choice(&RequestLog::ALL, RequestLog::as_str, text),
    print: |requests| requests.as_str().to_owned(),
    unquoted: UnquotedKind::Nothing,
};

/// The items of a list that was given as text; white space around them is no part of them.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    // Nothing at all is no item; a comma with nothing beside it is an empty one.
    let text = Some(text).filter(|text| !text.trim().is_empty());
    text.into_iter()
        .flat_map(|text| text.split(',').map(str::trim))
}

/// The text of a list, as [`items`] takes it apart again.
pub(super) fn joined(items: &[String]) -> Result<String, InvalidValue> {
    if items.iter().any(|item| item.contains(',')) {
        return Err("has an item with a comma".into());
    }
    if items.iter().any(|item| item.trim().is_empty()) {
        return Err("has an empty item".into());
    }
    Ok(items.join(","))
}

/// One host, spelled as browsers spell it.
fn host(text: &str) -> Result<Host, InvalidValue> {
    let has_port = || {
        let (_, port) = text.rsplit_once(':')?;
        (!text.ends_with(']')).then(|| port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match text {
        "" => return Err("has an empty item".into()),
        _ if text.contains('*') => return Err("has `*`; name each host".into()),
        _ if text.contains('/') => return Err("has an item that is a URL or a path".into()),
        _ if has_port() == Some(true) => {
            return Err("has an item with a port, which does not matter: leave it out".into());
        }
        _ => {}
    }
    let host =
        Host::parse(text).map_err(|error| format!("has an item that is no host ({error})"))?;
    let spelled = host.to_string();
    if text != spelled {
        return Err(format!("has an item that browsers send as {spelled:?}").into());
    }
    Ok(host)
}

/// Never told of what it is: it may be the key itself.
fn key_hash(text: &str) -> Result<KeyHash, InvalidValue> {
    KeyHash::parse(text).map_err(|invalid| match invalid {
        InvalidKeyHash::PlainKey => "has a key itself, which never stands in configuration".into(),
        InvalidKeyHash::NotAHash => "has an item that is no hash of a key".into(),
    })
}

/// Tells text that is no number from a number that is too small or too large.
fn whole_number<T: FromStr>(text: &str, in_range: impl Fn(&T) -> bool) -> Result<T, InvalidValue> {
    let digits = text.trim_start_matches(['-', '+']);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is not a whole number".into());
    }
    let number = text.parse().ok().filter(in_range);
    number.ok_or_else(|| "is out of range".into())
}

fn positive_size(text: &str) -> Result<u64, InvalidValue> {
    match size::parse(text)? {
        0 => Err("is zero".into()),
        bytes => Ok(bytes),
    }
}

/// Where credentials are sent: never in clear, except on this very machine.
fn endpoint(text: &str) -> Result<Url, InvalidValue> {
    let url = private_url(text, "would send credentials in clear to another machine")?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or fragment".into());
    }
    Ok(url)
}

/// Where something is read that decides about trust: whoever could change it on the way would.
fn document(text: &str) -> Result<Url, InvalidValue> {
    let url = private_url(
        text,
        "would take from another machine what anybody could change",
    )?;
    if url.fragment().is_some() {
        return Err("has a fragment".into());
    }
    Ok(url)
}

/// In clear to other machines too: a collector is mostly a neighbour, and spans hold no secrets. With
/// credentials of its own, `rules` has more to say.
fn collector(text: &str) -> Result<Url, InvalidValue> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is neither http nor https".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or fragment".into());
    }
    if url.path().trim_end_matches('/').ends_with("/v1/traces") {
        return Err("ends in `/v1/traces`".into());
    }
    Ok(url)
}

fn private_url(text: &str, in_clear: &'static str) -> Result<Url, InvalidValue> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
    let host = url.host().ok_or("has no host")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password".into());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&host) => Ok(url),
        "http" => Err(in_clear.into()),
        _ => Err("is neither http nor https".into()),
    }
}

/// Whether what is sent there can be read on the way.
pub(super) fn is_in_clear(url: &Url) -> bool {
    url.scheme() == "http" && !url.host().is_some_and(|host| is_loopback(&host))
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

/// Nothing that could change the host, climb out of the base URL, or end the path.
fn url_path(text: &str) -> Result<String, InvalidValue> {
    if !text.starts_with('/') {
        return Err("does not begin with `/`".into());
    }
    if text.starts_with("//") {
        return Err("begins with `//`, which would name another host".into());
    }
    if text.contains(['?', '#']) {
        return Err("has a query or fragment".into());
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("climbs with `.` or `..`".into());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@".contains(c);
    if !text.chars().all(plain) {
        return Err("holds characters that a path would have to escape".into());
    }
    Ok(text.to_owned())
}

fn header_value(text: &str) -> Result<String, InvalidValue> {
    if text.is_empty() {
        return Err("is empty".into());
    }
    if text.trim() != text {
        return Err("begins or ends with white space".into());
    }
    match HeaderValue::from_str(text) {
        Ok(value) if value.to_str().is_ok() && !text.contains('\t') => Ok(text.to_owned()),
        _ => Err("holds characters outside visible ASCII".into()),
    }
}

fn choice<T: Copy>(
    all: &[T],
    name: impl Fn(T) -> &'static str,
    text: &str,
) -> Result<T, InvalidValue> {
    all.iter()
        .copied()
        .find(|value| name(*value) == text)
        .ok_or_else(|| "is none of these".into())
}
