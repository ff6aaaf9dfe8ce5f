//! Fetches the issuer's keys over HTTP.

use std::time::Duration;

use http::{StatusCode, header::ACCEPT};
use url::Url;

use super::key_set::KeySet;
use crate::{
    clock::SharedClock,
    config::JwtConfig,
    printable::{error_chain, to_printable_line},
};

/// The deadline for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The deadline for a whole fetch.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest document that is read, in bytes; Entra ID's has about 15,000.
const MAX_DOCUMENT: usize = 256 * 1024;

/// The URL at which an issuer publishes its keys, and a client to fetch them.
///
/// The client follows no redirect, which could lead to an attacker's keys, uses no proxy of the
/// environment, and does not retry.
#[derive(Debug)]
pub(super) struct JwksSource {
    http: reqwest::Client,
    config: JwtConfig,
    clock: SharedClock,
}

/// A failed fetch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JwksFetchError {
    #[error("no answer within {} seconds", FETCH_TIMEOUT.as_secs())]
    TimedOut,
    #[error("{0}")]
    Connection(String),
    #[error("status {}", .0.as_u16())]
    Status(StatusCode),
    #[error("the answer is longer than {MAX_DOCUMENT} bytes")]
    TooLong,
    #[error("the answer is not a JWK Set")]
    Malformed,
    #[error("none of the keys is for signatures that are accepted")]
    NoKeys,
}

// === impl JwksSource ===

impl JwksSource {
    /// # Errors
    ///
    /// Fails if TLS cannot be set up, for example because there are no CA certificates.
    pub(super) fn new(config: JwtConfig, clock: SharedClock) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("usage-proxy/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .pool_max_idle_per_host(0)
            .gzip(true)
            .build()?;
        Ok(Self {
            http,
            config,
            clock,
        })
    }

    pub(super) const fn url(&self) -> &Url {
        &self.config.jwks_url
    }

    /// Fetches the keys once.
    ///
    /// # Errors
    ///
    /// [`JwksFetchError`]. A document without a usable key is an error: the cached keys are more
    /// useful than none.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the fetch.
    pub(super) async fn fetch(&self) -> Result<KeySet, JwksFetchError> {
        let deadline = self.clock.now() + FETCH_TIMEOUT;
        let document = tokio::select! {
            biased;
            document = self.fetch_document() => document?,
            () = self.clock.sleep_until(deadline) => return Err(JwksFetchError::TimedOut),
        };
        let keys = KeySet::parse(&document, &self.config).ok_or(JwksFetchError::Malformed)?;
        if keys.len() == 0 {
            return Err(JwksFetchError::NoKeys);
        }
        Ok(keys)
    }

    async fn fetch_document(&self) -> Result<Vec<u8>, JwksFetchError> {
        let request = self.http.get(self.url().clone());
        let request = request.header(ACCEPT, "application/jwk-set+json, application/json");
        let mut response = request.send().await?;
        if response.status() != StatusCode::OK {
            return Err(JwksFetchError::Status(response.status()));
        }
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if document.len() + chunk.len() > MAX_DOCUMENT {
                return Err(JwksFetchError::TooLong);
            }
            document.extend_from_slice(&chunk);
        }
        Ok(document)
    }
}

// === impl JwksFetchError ===

impl JwksFetchError {
    /// Returns the value of the `result` label.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::TimedOut => "timed-out",
            Self::Connection(_) => "connection",
            Self::Status(_) => "status",
            Self::TooLong | Self::Malformed | Self::NoKeys => "malformed",
        }
    }
}

impl From<reqwest::Error> for JwksFetchError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::TimedOut;
        }
        let causes = error_chain(&error.without_url());
        Self::Connection(to_printable_line(&causes, 500))
    }
}
