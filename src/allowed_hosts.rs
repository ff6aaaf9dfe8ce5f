//! The hosts that a listener answers to, so that no web page reaches it by DNS rebinding.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, Uri, header};
use url::Host;

use crate::problem::{Problem, ProblemKind};
use crate::text::excerpt;

/// The hosts that a listener on the loopback answers to where it identifies no callers.
///
/// A web page can make its own name resolve to 127.0.0.1 and then reads, as its own origin, all
/// that a service on the visitor's machine answers. The browser still names the page's host.
#[derive(Clone, Debug)]
pub struct AllowedHosts {
    /// Configured ones, beside those of the loopback.
    names: Vec<String>,
}

// === impl AllowedHosts ===

impl AllowedHosts {
    /// The loopback's own hosts, and these.
    pub fn new(names: &[Host]) -> Self {
        Self {
            names: names.iter().map(Host::to_string).collect(),
        }
    }

    /// Checks the host of a request, whatever its port. One without a host, which HTTP/1.0 allows,
    /// passes: browsers always send it.
    ///
    /// # Errors
    ///
    /// A [`Problem`] where the listener does not serve that host (RFC 9110 §15.5.20).
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        match request_host(uri, headers) {
            Some(host) if !is_common_loopback_host(host) && !self.allows(host_name(host)) => {
                Err(misdirected_problem(host))
            }
            _ => Ok(()),
        }
    }

    fn allows(&self, name: &str) -> bool {
        is_loopback_name(name) || self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// HTTP/2 has the host in its target, and so has the absolute form, where `Host` says the same.
fn request_host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => {
            let host = headers.get(header::HOST)?;
            Some(host.to_str().unwrap_or_default())
        }
    }
}

/// Recognizes what nearly every request names, without parsing it: a hit pays for this check.
fn is_common_loopback_host(host: &str) -> bool {
    ["127.0.0.1", "localhost"].into_iter().any(|usual| {
        host.strip_prefix(usual)
            .is_some_and(|rest| match rest.as_bytes() {
                [] => true,
                [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
                _ => false,
            })
    })
}

/// The host without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Returns true where no name server resolves a host: an address, or a name that is reserved for
/// the loopback (RFC 6761 §6.3).
fn is_loopback_name(name: &str) -> bool {
    let bracketed = || name.strip_prefix('[')?.strip_suffix(']');
    if let Some(address) = bracketed() {
        let address = address.parse::<Ipv6Addr>();
        return address.is_ok_and(|address| address.to_canonical().is_loopback());
    }
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        return address.is_loopback();
    }
    let top = name.rsplit_once('.').map_or(name, |(_, top)| top);
    top.eq_ignore_ascii_case("localhost")
}

fn misdirected_problem(host: &str) -> Problem {
    Problem::new(
        ProblemKind::MisdirectedRequest,
        format!(
            "the Host is {:?}; expected localhost or a loopback address, or a host that \
             server.allowed_hosts names, since this listener identifies no callers",
            excerpt(host)
        ),
    )
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn allowed(target: &str, host: Option<&str>) -> bool {
        let names = ["usage.example.com", "192.0.2.7", "[2001:db8::7]"];
        let hosts = AllowedHosts::new(&names.map(|name| Host::parse(name).unwrap()));
        let mut request = Request::builder().uri(target);
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        {
            let request = request.body(()).unwrap();
            hosts.check(request.uri(), request.headers()).is_ok()
        }
    }

    #[test]
    fn the_loopback_and_configured_hosts_are_allowed_on_any_port() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "usage.localhost:80",
            "127.0.0.1:8080",
            "127.255.255.254",
            "[::1]",
            "[::1]:8080",
            "[0:0:0:0:0:0:0:1]:",
            "[::ffff:127.0.0.1]:8080",
            "usage.example.com",
            "Usage.Example.Com:8443",
            "192.0.2.7:8080",
            "[2001:db8::7]:8080",
        ] {
            assert!(allowed("/", Some(host)), "{host}");
            let target = format!("http://{}/", host.trim_end_matches(':'));
            assert!(allowed(&target, None), "{target}");
        }
        assert!(allowed("/", None), "HTTP/1.0 may do without");
    }

    #[test]
    fn any_other_host_is_rejected() {
        for host in [
            "",
            ":8080",
            "rebind.example",
            "localhost.rebind.example",
            "rebind-localhost",
            "localhost.",
            "usage.example.com.rebind.example",
            "a.usage.example.com",
            "127.0.0.1.rebind.example",
            "127.1",
            "128.0.0.1",
            "0.0.0.0",
            "[::]",
            "[::2]:8080",
            "::1",
            "[::1].rebind.example",
            "[::1",
            "localhost:8080:80",
            "localhost:http",
            "user@localhost",
        ] {
            assert!(!allowed("/", Some(host)), "{host}");
        }
        for target in ["http://rebind.example/", "http://user@localhost/"] {
            assert!(!allowed(target, None), "{target}");
        }
    }
}
