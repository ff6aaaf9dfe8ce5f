//! The types of values that are about the network: addresses, hosts, origins, URLs.

use std::net::SocketAddr;

use http::HeaderValue;
use url::{Host, Url};

use super::value_type::{UnquotedType, ValueType, list_items};

/// An origin as browsers send it: scheme, host, and the port unless it is the scheme's default
/// (RFC 6454 §6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsOrigin(HeaderValue);

impl CorsOrigin {
    /// Returns the value of the headers `Origin` and `Access-Control-Allow-Origin`.
    pub fn header_value(&self) -> &HeaderValue {
        &self.0
    }
}

/// Returns true if only this machine can reach an address, written as IPv4 or as IPv6.
pub fn is_loopback_address(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

pub(super) const ADDRESS: ValueType<SocketAddr> = ValueType::new(
    "an IP address and a port, such as `127.0.0.1:8080` or `[::1]:8080`",
    |text| {
        text.parse()
            .map_err(|_| "is not an IP address with a port".into())
    },
);

pub(super) const ORIGINS: ValueType<Vec<CorsOrigin>> = ValueType::new(
    "origins as browsers send them, such as `[\"https://dash.example.com\"]`, or as text with \
     commas between them",
    |text| list_items(text).map(origin).collect(),
)
.or_unquoted(UnquotedType::List);

pub(super) const HOSTS: ValueType<Vec<Host>> = ValueType::new(
    "host names or IP addresses as browsers send them, without ports, such as \
     `[\"usage.example.com\"]`, or as text with commas between them",
    |text| list_items(text).map(host).collect(),
)
.or_unquoted(UnquotedType::List);

/// A URL that credentials are sent to: only with TLS, or to this machine.
pub(super) const ENDPOINT: ValueType<Url> = ValueType::new(
    "an `https://` URL with a host, perhaps a path, and nothing else; `http://` only to this \
     machine",
    |text| {
        let url = private_url(
            text,
            "would send credentials unencrypted to another machine",
        )?;
        reject_query_and_fragment(url)
    },
);

/// The base URL of a collector; `/v1/traces` is added. It may be reached without TLS: spans have no
/// secrets. `rules` checks the credentials that may go with it.
pub(super) const COLLECTOR: ValueType<Url> = ValueType::new(
    "an `http://` or `https://` URL with a host, such as `http://127.0.0.1:4318`; `/v1/traces` is \
     added",
    |text| {
        let url = reject_query_and_fragment(http_url(text)?)?;
        if url.path().trim_end_matches('/').ends_with("/v1/traces") {
            return Err("ends in `/v1/traces`".into());
        }
        Ok(url)
    },
);

/// A document that we trust; Entra ID needs a query for an application's own keys.
pub(super) const DOCUMENT: ValueType<Url> = ValueType::new(
    "an `https://` URL, perhaps with a query; `http://` only to this machine",
    |text| {
        let url = private_url(
            text,
            "would read from another machine what anybody could change",
        )?;
        if url.fragment().is_some() {
            return Err("has a fragment".into());
        }
        Ok(url)
    },
);

/// A path that cannot change the host or leave the base URL.
pub(super) const URL_PATH: ValueType<String> = ValueType::new(
    "a path that begins with one `/`, without `..`, query or fragment",
    |text| {
        let unescaped = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@".contains(c);
        if !text.starts_with('/') {
            Err("does not begin with `/`".into())
        } else if text.starts_with("//") {
            Err("begins with `//`, which would name another host".into())
        } else if text.contains(['?', '#']) {
            Err("has a query or fragment".into())
        } else if text.split('/').any(|segment| matches!(segment, "." | "..")) {
            Err("has the segment `.` or `..`".into())
        } else if !text.chars().all(unescaped) {
            Err("has characters that must be escaped in a path".into())
        } else {
            Ok(text.to_owned())
        }
    },
);

/// Returns true if others can read what is sent to a URL.
pub(super) fn is_unencrypted(url: &Url) -> bool {
    url.scheme() == "http" && !url.host().is_some_and(|host| is_loopback_host(&host))
}

/// Reads an origin as browsers spell it: another spelling would never match.
fn origin(text: &str) -> Result<CorsOrigin, String> {
    match text {
        "" => return Err("has an empty item".into()),
        "null" => return Err("has `null`, which any sandboxed page or local file sends".into()),
        _ if text.contains('*') => return Err("has `*`, which would allow every web page".into()),
        _ if text.contains('@') => return Err("has a user name or password".into()),
        _ => {}
    }
    let url =
        Url::parse(text).map_err(|error| format!("has an item that is not a URL ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("has an item that is neither http nor https".into());
    }
    let spelled = url.origin().ascii_serialization();
    if text != spelled {
        return Err(format!("has an item that browsers send as {spelled:?}"));
    }
    HeaderValue::from_str(&spelled)
        .map(CorsOrigin)
        .map_err(|_| "has characters outside visible ASCII".into())
}

/// Reads a host as browsers spell it.
fn host(text: &str) -> Result<Host, String> {
    let is_number = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.rsplit_once(':').filter(|_| !text.ends_with(']'));
    match text {
        "" => return Err("has an empty item".into()),
        _ if text.contains('*') => return Err("has `*`; name each host".into()),
        _ if text.contains('/') => return Err("has an item that is a URL or a path".into()),
        _ if port.is_some_and(|(_, port)| is_number(port)) => {
            return Err("has an item with a port, which is ignored: leave it out".into());
        }
        _ => {}
    }
    let host =
        Host::parse(text).map_err(|error| format!("has an item that is not a host ({error})"))?;
    let spelled = host.to_string();
    if text != spelled {
        return Err(format!("has an item that browsers send as {spelled:?}"));
    }
    Ok(host)
}

fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is neither http nor https".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user name or password".into());
    }
    Ok(url)
}

fn private_url(text: &str, danger: &str) -> Result<Url, String> {
    let url = http_url(text)?;
    if is_unencrypted(&url) {
        return Err(danger.into());
    }
    Ok(url)
}

fn reject_query_and_fragment(url: Url) -> Result<Url, String> {
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or fragment".into());
    }
    Ok(url)
}

fn is_loopback_host(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}
