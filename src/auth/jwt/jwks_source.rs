//! Fetches the issuer's keys over HTTP.

use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header::ACCEPT};
use reqwest::Request;
use url::Url;

use super::key_set::KeySet;
use crate::{
    clock::SharedClock,
    config::JwtConfig,
    http_client::{self, ExchangeError, HttpClient},
    resilience::byte_budget::MemoryShare,
};

/// The deadline for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The deadline for a whole fetch.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest document that is read, in bytes; Entra ID's has about 15,000.
const MAX_DOCUMENT: usize = 256 * 1024;

/// The URL at which an issuer publishes its keys, and a client to fetch them.
#[derive(Debug)]
pub(super) struct JwksSource {
    http: HttpClient,
    config: JwtConfig,
}

/// A failed fetch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JwksFetchError {
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
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
        let http = http_client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(0)
            .gzip(true);
        Ok(Self {
            http: HttpClient::build(http, clock)?,
            config,
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
        let mut request = Request::new(Method::GET, self.url().clone());
        let accepted = HeaderValue::from_static("application/jwk-set+json, application/json");
        request.headers_mut().insert(ACCEPT, accepted);
        let mut memory = MemoryShare::unshared(MAX_DOCUMENT);
        let deadline = self.http.clock().now() + FETCH_TIMEOUT;
        let reply = self.http.exchange(request, &mut memory, deadline).await?;
        if reply.status != StatusCode::OK {
            return Err(JwksFetchError::Status(reply.status));
        }
        if reply.unread.is_some() {
            return Err(JwksFetchError::TooLong);
        }
        let keys = KeySet::parse(&reply.body, &self.config).ok_or(JwksFetchError::Malformed)?;
        if keys.len() == 0 {
            return Err(JwksFetchError::NoKeys);
        }
        Ok(keys)
    }
}

// === impl JwksFetchError ===

impl JwksFetchError {
    /// Returns the value of the `result` label.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Exchange(ExchangeError::TimedOut) => "timed-out",
            Self::Exchange(ExchangeError::Connection(_) | ExchangeError::Undecodable(_)) => {
                "connection"
            }
            Self::Status(_) => "status",
            Self::TooLong | Self::Malformed | Self::NoKeys => "malformed",
        }
    }
}
