//! The client of `get` for a running proxy.

use std::{fs, net::IpAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Certificate, Client};
use secrecy::SecretString;
use url::{Host, Url};

use super::{
    super::{CliError, eprint_line},
    problem::ProxyProblem,
};
use crate::{
    http_client,
    resilience::byte_budget::MemoryShare,
    text::{root_cause, to_printable_line},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The same as the proxy's own limit (`server.request_timeout`).
const TIMEOUT: Duration = Duration::from_secs(60);

/// The limit of an answer in bytes; a customer's has thousands.
const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

/// The address of the proxy, and the credentials for it.
#[derive(Debug, Args)]
pub(in crate::cli) struct ProxyArgs {
    /// URL of the proxy's API listener.
    #[arg(
        long,
        value_name = "URL",
        env = "USAGE_PROXY_URL",
        default_value = "http://127.0.0.1:8080",
        value_parser = base_url
    )]
    url: Url,
    /// File with the key.
    #[arg(long, value_name = "FILE", env = "USAGE_PROXY_KEY_FILE")]
    pub(super) key_file: Option<PathBuf>,
    /// File with the CA certificates (PEM) for the proxy's certificate, instead of this machine's.
    #[arg(long, value_name = "FILE", env = "USAGE_PROXY_CA_FILE")]
    ca_file: Option<PathBuf>,
}

/// A client of one proxy.
#[derive(Debug)]
pub(super) struct ProxyClient {
    http: Client,
    url: Url,
    /// The value of `Authorization`, marked sensitive.
    authorization: Option<HeaderValue>,
}

/// An answer of the proxy.
#[derive(Debug)]
pub(super) struct ProxyReply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

// === impl ProxyClient ===

impl ProxyClient {
    pub(super) fn new(args: &ProxyArgs, key: Option<SecretString>) -> Result<Self, CliError> {
        let http = http_client::builder()
            .user_agent(concat!("usage-proxy-get/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT);
        let http = match (&args.ca_file, args.url.scheme()) {
            (Some(file), _) => http.tls_certs_only(certificates(file)?),
            // Without TLS none is needed, and this machine may have none.
            (None, "http") => http.tls_certs_only([]),
            (None, _) => http,
        };
        let authorization = key.as_ref().map(authorization).transpose()?;
        if authorization.is_some() && args.url.scheme() == "http" && !is_loopback_url(&args.url) {
            eprint_line(
                "warning: the key is sent without encryption; --url https://… would hide it",
            );
        }
        Ok(Self {
            http: http
                .build()
                .map_err(|error| CliError::other(cause_of(&error)))?,
            url: args.url.clone(),
            authorization,
        })
    }

    /// Returns the URL for messages.
    pub(super) fn display_url(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Gets a path.
    pub(super) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        accept: &'static str,
    ) -> Result<ProxyReply, CliError> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.http.get(url).header(header::ACCEPT, accept);
        if !query.is_empty() {
            request = request.query(query);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let unreachable = |error| self.unreachable_error(&error);
        let mut response = request.send().await.map_err(unreachable)?;
        let mut memory = MemoryShare::unshared(MAX_REPLY_BYTES);
        let body = http_client::read_body(&mut response, &mut memory)
            .await
            .map_err(unreachable)?;
        let too_long =
            |_| CliError::other(format!("{} does not stop answering", self.display_url()));
        Ok(ProxyReply {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body: body.map_err(too_long)?,
        })
    }

    fn unreachable_error(&self, error: &reqwest::Error) -> CliError {
        let name = self.display_url();
        if error.is_timeout() {
            return CliError::other(format!("{name} does not answer in time"));
        }
        let advice = if self.url.scheme() == "https" {
            "; check --url, and --ca-file if its certificate is of a CA of your own"
        } else {
            "; is it running, and is --url right? `usage-proxy demo` starts one to try"
        };
        CliError::other(format!(
            "{name} cannot be reached: {}{advice}",
            cause_of(error)
        ))
    }
}

// === impl ProxyReply ===

impl ProxyReply {
    /// Returns the reply if it has data.
    pub(super) fn successful(self) -> Result<Self, CliError> {
        match self.status {
            StatusCode::OK => Ok(self),
            _ => Err(ProxyProblem::from_reply(&self).into_error()),
        }
    }
}

fn certificates(file: &PathBuf) -> Result<Vec<Certificate>, CliError> {
    let unusable = |cause: String| {
        CliError::usage(format!(
            "--ca-file: {}: {cause}; expected CA certificates in PEM",
            file.display()
        ))
    };
    let pem = fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let certificates =
        Certificate::from_pem_bundle(&pem).map_err(|error| unusable(cause_of(&error)))?;
    if certificates.is_empty() {
        return Err(unusable("no certificate in it".to_owned()));
    }
    Ok(certificates)
}

fn authorization(key: &SecretString) -> Result<HeaderValue, CliError> {
    http_client::bearer(key)
        .map_err(|_| CliError::usage("--key-file: expected visible characters on one line"))
}

fn cause_of(error: &reqwest::Error) -> String {
    to_printable_line(&root_cause(error).to_string(), 300)
}

fn is_loopback_url(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn base_url(text: &str) -> Result<Url, String> {
    let expected = || "expected a URL such as https://usage.example.com".to_owned();
    let url = Url::parse(text).map_err(|_| expected())?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(expected());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "expected no password in it: a key goes into a file, see --key-file".to_owned(),
        );
    }
    Ok(url)
}
