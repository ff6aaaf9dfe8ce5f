use std::{error::Error, time::Duration};

use http::{StatusCode, header::ACCEPT};
use url::Url;

use super::key_set::KeySet;
use crate::{clock::SharedClock, config::JwtConfig, printable::to_printable_line};

/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// One fetch, to the last byte.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a document; Entra ID's has about 15,000.
const LONGEST_DOCUMENT: usize = 256 * 1024;

/// Where an issuer publishes its keys.
///
/// Redirects are not followed: whoever could send us elsewhere could send us to keys of their own.
/// Proxies are not taken from the environment, and reqwest's own retries are off.
#[derive(Debug)]
pub(super) struct JwksSource {
    http: reqwest::Client,
    config: JwtConfig,
    clock: SharedClock,
}

/// A fetch that brought no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JwksFetchError {
    #[error("no answer within {} seconds", FETCH_TIMEOUT.as_secs())]
    TimedOut,
    #[error("{0}")]
    Connection(String),
    #[error("status {}", .0.as_u16())]
    Status(StatusCode),
    #[error("the answer is longer than {LONGEST_DOCUMENT} bytes")]
    TooLong,
    #[error("the answer is no JWK Set")]
    Malformed,
    #[error("none of the keys is for signatures that are accepted")]
    NoKeys,
}

// === impl KeySource ===

impl JwksSource {
    /// # Errors
    ///
    /// When TLS cannot be set up, for want of CA certificates for example.
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

    /// Fetches the keys, once.
    ///
    /// # Errors
    ///
    /// [`JwksFetchError`]; a document without a single key that is of use is one, since a service that
    /// believes nobody is worth less than one that goes on believing the keys it has.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the fetch.
    pub(super) async fn fetch(&self) -> Result<KeySet, JwksFetchError> {
        let ends = self.clock.now() + FETCH_TIMEOUT;
        let document = tokio::select! {
            biased;
            document = self.fetch_document() => document?,
            () = self.clock.sleep_until(ends) => return Err(JwksFetchError::TimedOut),
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
            if document.len() + chunk.len() > LONGEST_DOCUMENT {
                return Err(JwksFetchError::TooLong);
            }
            document.extend_from_slice(&chunk);
        }
        Ok(document)
    }
}

// === impl FetchError ===

impl From<reqwest::Error> for JwksFetchError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::TimedOut;
        }
        let error = error.without_url();
        let first: &dyn Error = &error;
        // Dereferenced in full: a reference to an error is an error too, and has a shorter life.
        let chain = std::iter::successors(Some(first), |error| (**error).source());
        let causes: Vec<_> = chain.map(ToString::to_string).collect();
        Self::Connection(to_printable_line(&causes.join(": "), 500))
    }
}
