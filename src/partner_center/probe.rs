//! One look at the token endpoint and at Partner Center, for `usage-proxy doctor` and `consent`.
//!
//! It sends the requests of the service with the same code, and reports failures in the same words, but
//! each request once: retries, breaker and throttling would hide the cause of a problem.

use std::{
    fmt,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, DATE},
};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::{
    deps::UpstreamStartError,
    health::{MFA_ADVICE, is_mfa_compliant},
    metrics::{ErrorClass, UpstreamMetrics},
    refusal::{RefusalMeaning, parse_refusal},
    request,
    resources::ApiEndpoints,
    throttle,
    token::{GrantFailure, GrantedToken, OpenedTokens, TokenGrant},
    wire,
};
use crate::{
    clock::SharedClock,
    config::UpstreamConfig,
    domain::{CustomerId, Resource, SharedTexts, UpstreamApi},
    http_client::{self, ExchangeError, HttpClient, HttpReply},
    resilience::byte_budget::MemoryShare,
};

/// The most bytes of a reply whose content does not matter.
const MAX_GREETING: usize = 64 * 1024;

/// The shortest time for which an access token that replicas share is used.
const MIN_SHARED_LIFETIME: Duration = Duration::from_secs(60);

/// The advice about an access token without multi-factor proof.
pub const WITHOUT_PROOF: &str = MFA_ADVICE;

/// A client of the token endpoint and of Partner Center that makes single requests.
#[derive(Debug)]
pub struct UpstreamProbe {
    http: HttpClient,
    grant: TokenGrant,
    /// The headers of every call, with the question about multi-factor proof.
    headers: HeaderMap,
    endpoints: ApiEndpoints,
    config: UpstreamConfig,
}

/// A server that replied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReachedServer {
    /// The HTTP status.
    pub status: u16,
    /// The time from the name's lookup to the last byte.
    pub took: Duration,
    /// The time by which its clock is ahead of ours, to about a second; `None` where it sends no time.
    pub ahead: Option<SignedDuration>,
}

/// A failure, and what a person must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeFailure {
    /// The error, without secrets.
    pub said: String,
    /// The advice for a person; `None` if `said` has it.
    pub action: Option<String>,
    /// Partner Center only wants fewer calls.
    pub throttled: bool,
}

/// A new access token. It does not print.
pub struct ProbedToken {
    token: SecretString,
    /// Counted from the request; `None` if it is unknown.
    pub lifetime: Option<Duration>,
}

/// A call that was answered with data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// The data in a few words.
    pub said: String,
    /// The token's multi-factor proof, as far as Partner Center says.
    pub multi_factor: Option<bool>,
    /// The time from the request to the last byte.
    pub took: Duration,
}

/// The claims of a token of Microsoft Entra ID that matter here.
///
/// They are read to find mistakes and never to decide anything: Partner Center checks the signature. See
/// [access tokens](https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbedClaims {
    /// `aud`.
    pub audience: Option<String>,
    /// `exp`.
    pub expires_at: Option<Timestamp>,
    /// True if `amr` has `mfa`; `None` if the token does not say how its user signed in.
    pub multi_factor: Option<bool>,
    /// It is for an application alone, and for no user.
    pub app_only: bool,
}

#[derive(Deserialize)]
struct RawClaims {
    aud: Option<String>,
    exp: Option<i64>,
    amr: Option<Vec<Value>>,
    /// Only a token that a user consented to has it.
    scp: Option<Value>,
    /// `app` or `user`, where the application asks for the claim.
    idtyp: Option<String>,
}

// === impl UpstreamProbe ===

impl UpstreamProbe {
    /// Prepares what the service would. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`UpstreamStartError`], as at the start of the service.
    pub fn new(config: &UpstreamConfig, clock: SharedClock) -> Result<Self, UpstreamStartError> {
        let http = request::http_client(config, clock)?;
        let metrics = UpstreamMetrics::register(&prometheus::Registry::new())?;
        let mut headers = request::common_headers(config)?;
        headers.insert("validatemfa", HeaderValue::from_static("true"));
        Ok(Self {
            grant: TokenGrant::from_config(config, &http, None, &metrics, None),
            http,
            headers,
            endpoints: ApiEndpoints::new(config),
            config: config.clone(),
        })
    }

    pub(super) fn http(&self) -> &HttpClient {
        &self.http
    }

    /// Sends a request without credentials, to see whether the server can be reached.
    ///
    /// # Errors
    ///
    /// [`ProbeFailure`] if there is no reply.
    pub async fn reach(&self, url: &Url) -> Result<ReachedServer, ProbeFailure> {
        let request = reqwest::Request::new(Method::GET, url.clone());
        let (reply, took) = self.exchange(request, MAX_GREETING).await?;
        let wall = self.http.clock().wall_time();
        Ok(ReachedServer {
            status: reply.status.as_u16(),
            took,
            ahead: clock_difference(&reply.headers, wall, took),
        })
    }

    /// Uses the tokens that replicas share, and changes none of them: the file of the refresh token is only
    /// read, and what a redemption returns is not stored. Returns their access token, if it is valid for a
    /// while.
    pub fn share(&mut self, stored: Option<OpenedTokens>) -> Option<ProbedToken> {
        let (refresh_token, access_token) = match stored {
            Some(stored) => (stored.refresh_token.ok().flatten(), stored.access_token),
            None => (None, None),
        };
        self.grant.share(refresh_token);
        let access_token = access_token.filter(|access| access.remaining > MIN_SHARED_LIFETIME)?;
        Some(ProbedToken {
            token: access_token.token,
            lifetime: Some(access_token.remaining),
        })
    }

    /// Gets an access token as the service does. A rotated refresh token is written to its file before
    /// anything else.
    ///
    /// # Errors
    ///
    /// [`ProbeFailure`] says what a person must do, in the words of `/readyz`.
    pub async fn obtain(&mut self) -> Result<ProbedToken, ProbeFailure> {
        Ok(self.grant.obtain(None).await?.into())
    }

    /// Returns whether a rotated refresh token cannot be written to its file. Tries once more before.
    pub async fn has_unsaved(&mut self) -> bool {
        if self.grant.has_unsaved() {
            self.grant.save().await;
        }
        self.grant.has_unsaved()
    }

    /// Makes one call: for a customer's newest usage, or for a page with one customer.
    ///
    /// # Errors
    ///
    /// [`ProbeFailure`] says what a person must do, in the words of the service's own log. With it comes
    /// whether the token has multi-factor proof, if Partner Center says so.
    pub async fn call(
        &self,
        token: &ProbedToken,
        customer: Option<CustomerId>,
    ) -> Result<ProbeAnswer, (ProbeFailure, Option<bool>)> {
        let without_proof = |failure| (failure, None);
        let request = self.request(token, customer).map_err(without_proof)?;
        let (reply, took) = self
            .exchange(request, self.config.max_body)
            .await
            .map_err(without_proof)?;
        let multi_factor = is_mfa_compliant(&reply.headers);
        if reply.status != StatusCode::OK {
            let (failure, class) = self.explain_refusal(&reply, token);
            let is_missing = class == ErrorClass::ProofMissing;
            return Err((
                failure,
                if is_missing {
                    Some(false)
                } else {
                    multi_factor
                },
            ));
        }
        let said = self.describe(&reply, customer);
        match said {
            Ok(said) => Ok(ProbeAnswer {
                said,
                multi_factor,
                took,
            }),
            Err(said) => Err((ProbeFailure::new(said), multi_factor)),
        }
    }

    fn request(
        &self,
        token: &ProbedToken,
        customer: Option<CustomerId>,
    ) -> Result<reqwest::Request, ProbeFailure> {
        let url = match customer {
            Some(customer) => {
                let resource = Resource::newest_usage(customer, self.config.source);
                self.endpoints.url(resource)
            }
            None => self.endpoints.customers(1),
        };
        let authorization = http_client::bearer(&token.token).map_err(|_| {
            ProbeFailure::new("the access token has characters that a header cannot hold")
        })?;
        let mut request = reqwest::Request::new(Method::GET, url);
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.insert(AUTHORIZATION, authorization);
        for id in ["ms-requestid", "ms-correlationid"] {
            headers.insert(id, request::guid(Uuid::new_v4()));
        }
        Ok(request)
    }

    async fn exchange(
        &self,
        request: reqwest::Request,
        max_body: usize,
    ) -> Result<(HttpReply, Duration), ProbeFailure> {
        let clock = self.http.clock();
        let sent_at: Instant = clock.now();
        let deadline = sent_at + self.config.attempt_timeout;
        let mut memory = MemoryShare::unshared(max_body);
        let reply = self.http.exchange(request, &mut memory, deadline).await?;
        Ok((reply, clock.now().saturating_duration_since(sent_at)))
    }

    /// Describes the data of a reply, or why it is none.
    fn describe(&self, reply: &HttpReply, customer: Option<CustomerId>) -> Result<String, String> {
        if reply.unread.is_some() {
            let max = self.config.max_body;
            return Err(format!(
                "the answer has more than {max} bytes (upstream.max_body)"
            ));
        }
        let Some(customer) = customer else {
            return match wire::decode_customers(&reply.body) {
                Ok(_) => Ok("the list of customers".to_owned()),
                Err(error) => Err(format!("the answer is no list of customers: {error}")),
            };
        };
        let rows = if self.config.source == UpstreamApi::Commercial {
            let mut texts = SharedTexts::default();
            let page = wire::decode_commercial(&reply.body, customer, &mut texts);
            page.map(|page| page.items.len())
        } else {
            wire::decode_insights(&reply.body, customer).map(|usage| usage.rows().len())
        };
        match rows.map_err(|error| error.to_string())? {
            0 => Ok(
                "no rows of usage: the customer has no such licences, or the call has gone silent"
                    .to_owned(),
            ),
            1 => Ok("1 row of usage".to_owned()),
            rows => Ok(format!("{rows} rows of usage")),
        }
    }

    fn explain_refusal(
        &self,
        reply: &HttpReply,
        token: &ProbedToken,
    ) -> (ProbeFailure, ErrorClass) {
        let refusal = parse_refusal(reply, Some(token.token.expose_secret()));
        let mut said = format!("answered {}", refusal.status);
        for (label, part) in [
            (", code ", &refusal.code),
            (": ", &refusal.description),
            (", request id ", &refusal.request_id),
        ] {
            if let Some(part) = part {
                said.push_str(label);
                said.push_str(part);
            }
        }
        let meaning = RefusalMeaning::of(&refusal);
        let throttled = reply.status == StatusCode::TOO_MANY_REQUESTS;
        let action = if throttled {
            let wait = throttle::retry_after(&reply.headers, self.http.clock().wall_time())
                .map_or("a while".to_owned(), |wait| format!("{} s", wait.as_secs()));
            format!(
                "Partner Center wants fewer calls: ask again in {wait}, raise cache.fresh_for, \
                 lower upstream.max_concurrency"
            )
        } else {
            meaning.advice.to_owned()
        };
        let failure = ProbeFailure {
            said,
            action: Some(action),
            throttled,
        };
        (failure, meaning.class)
    }
}

/// Returns the time by which the clock that wrote `Date` is ahead of ours, which showed `now` at the end
/// of the reply.
fn clock_difference(headers: &HeaderMap, now: Timestamp, took: Duration) -> Option<SignedDuration> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let date = Timestamp::try_from(httpdate::parse_http_date(date).ok()?).ok()?;
    // It was written somewhere between request and reply, and cut to a second.
    let ours = now - SignedDuration::try_from(took / 2).ok()?;
    Some(date.duration_since(ours) + SignedDuration::from_millis(500))
}

// === impl ProbedToken ===

impl ProbedToken {
    /// Returns the claims of the token, if they can be read.
    pub fn claims(&self) -> Option<ProbedClaims> {
        ProbedClaims::parse(self.token.expose_secret())
    }
}

impl From<GrantedToken> for ProbedToken {
    fn from(obtained: GrantedToken) -> Self {
        Self {
            token: obtained.token,
            lifetime: obtained.lifetime,
        }
    }
}

impl fmt::Debug for ProbedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbedToken")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

// === impl ProbedClaims ===

impl ProbedClaims {
    /// Parses a JWT; `None` for any other token, which may be as good.
    fn parse(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
        let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
        let raw: RawClaims = serde_json::from_slice(&payload).ok()?;
        let is_mfa = |method: &Value| method.as_str() == Some("mfa");
        Some(Self {
            audience: raw.aud,
            expires_at: raw.exp.and_then(|at| Timestamp::from_second(at).ok()),
            multi_factor: raw.amr.map(|methods| methods.iter().any(is_mfa)),
            app_only: match raw.idtyp.as_deref() {
                Some(kind) => kind == "app",
                None => raw.scp.is_none(),
            },
        })
    }
}

// === impl ProbeFailure ===

impl ProbeFailure {
    fn new(said: impl Into<String>) -> Self {
        Self {
            said: said.into(),
            action: None,
            throttled: false,
        }
    }
}

impl From<GrantFailure> for ProbeFailure {
    fn from(failure: GrantFailure) -> Self {
        Self {
            throttled: false,
            said: failure.cause,
            action: Some(failure.detail.to_string()),
        }
    }
}

impl From<ExchangeError> for ProbeFailure {
    fn from(error: ExchangeError) -> Self {
        let (said, action) = match error {
            ExchangeError::TimedOut => ("did not answer in time".to_owned(), SLOW),
            ExchangeError::Connection(cause) => {
                let action = connection_advice(&cause);
                (cause, action)
            }
            ExchangeError::Undecodable(cause) => (
                cause,
                "something on the way changes answers: check for a proxy that does",
            ),
        };
        Self {
            said,
            action: Some(action.to_owned()),
            throttled: false,
        }
    }
}

const SLOW: &str =
    "something on the way drops packets, or is slow: check the firewall and the route";

/// Returns what to do about a failed connection, by words in its cause.
fn connection_advice(cause: &str) -> &'static str {
    let cause = cause.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| cause.contains(word));
    if says(&["certificate", "unknownissuer"]) {
        "the certificate is not trusted here: install the CA certificates (ca-certificates), set the \
         clock, or have the proxy that inspects TLS let this host through"
    } else if says(&["dns", "lookup", "resolve"]) {
        "the name cannot be resolved: check it, and this machine's DNS"
    } else if says(&["refused"]) {
        "nothing listens there, or a firewall refuses: check host and port"
    } else {
        SLOW
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(payload: &Value) -> ProbedClaims {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(payload.to_string());
        ProbedClaims::parse(&format!("e30.{payload}.c2ln")).unwrap()
    }

    #[test]
    fn a_users_token_tells_how_the_user_signed_in() {
        let with = claims(&json!({"aud": "a", "exp": 0, "scp": "x", "amr": ["pwd", "mfa"]}));
        let without = claims(&json!({"scp": "x", "amr": ["pwd"]}));
        let silent = claims(&json!({"scp": "x"}));

        assert_eq!(with.multi_factor, Some(true));
        assert_eq!(with.audience.as_deref(), Some("a"));
        assert_eq!(with.expires_at, Some(Timestamp::UNIX_EPOCH));
        assert_eq!(without.multi_factor, Some(false));
        assert_eq!(silent.multi_factor, None);
        assert!(!with.app_only);
    }

    #[test]
    fn an_applications_token_has_no_scopes_or_says_so() {
        assert!(claims(&json!({"roles": ["x"]})).app_only);
        assert!(claims(&json!({"idtyp": "app", "scp": "x"})).app_only);
        assert!(!claims(&json!({"idtyp": "user"})).app_only);
    }

    #[test]
    fn a_token_of_another_kind_tells_nothing() {
        for token in ["", "opaque", "a.b", "a.b.c", "..", "e30.bm9uZQ.x"] {
            assert_eq!(ProbedClaims::parse(token), None, "{token}");
        }
    }
}
