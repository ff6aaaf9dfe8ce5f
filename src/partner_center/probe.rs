//! One look at the token endpoint and at Partner Center, for a person who asks what is wrong.
//!
//! It sends what the service sends, by the same code, and tells failures in the same words; but each
//! thing once, without retries, breaker and pacing, which would only hide what is looked for.

mod claims;
mod consent;

use std::{
    fmt,
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, DATE},
};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

pub use self::{
    claims::ProbedClaims,
    consent::{ConsentFlow, ConsentResult, SignInError, SignInRequest},
};
use super::{
    UpstreamStartError, commercial,
    error::RefusalMeaning,
    insights::{self, below},
    metrics::UpstreamMetrics,
    multi_factor::{MISSING, told_by},
    refusal, request, throttle,
    token::{GrantFailure, ObtainedToken, TokenGrant},
    wire,
};
use crate::{
    clock::SharedClock,
    config::UpstreamConfig,
    domain::{CustomerId, UpstreamApi},
    http_client::{self, ExchangeError, HttpClient, HttpReply},
    resilience::memory_pool::MemoryShare,
};

/// Bytes of an answer that only has to come.
const LONGEST_GREETING: usize = 64 * 1024;

/// The token endpoint and Partner Center, to be looked at.
#[derive(Debug)]
pub struct UpstreamProbe {
    http: HttpClient,
    grant: TokenGrant,
    /// What every call says, and that it wants to know of multi-factor proof.
    headers: HeaderMap,
    config: UpstreamConfig,
    clock: SharedClock,
}

/// Something answered there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReachedServer {
    /// HTTP status, whatever it means.
    pub status: u16,
    /// From the name's lookup to the last byte.
    pub took: Duration,
    /// How far their clock is ahead of ours, to about a second; `None` where they tell no time.
    pub ahead: Option<SignedDuration>,
}

/// What went wrong, and what a person must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeFailure {
    /// What happened: no secret.
    pub said: String,
    /// What to do; `None` where `said` says it.
    pub action: Option<String>,
    /// Partner Center only wants fewer calls.
    pub throttled: bool,
}

/// An access token as it came; it does not print.
pub struct ProbedToken {
    token: SecretString,
    /// From when it was asked for; `None` where nobody said.
    pub lifetime: Option<Duration>,
}

/// A call that was answered with data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// What came, in a few words.
    pub said: String,
    /// Whether Partner Center says that the token carries multi-factor proof; `None` where it says
    /// nothing.
    pub multi_factor: Option<bool>,
    /// How long it took.
    pub took: Duration,
}

/// What to do about an access token without multi-factor proof.
pub const WITHOUT_PROOF: &str = MISSING;

// === impl Probe ===

impl UpstreamProbe {
    /// Sets up what the service would; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`UpstreamStartError`], as the service's start would fail.
    pub fn new(config: &UpstreamConfig, clock: SharedClock) -> Result<Self, UpstreamStartError> {
        let http = request::http_client(config, clock.clone())?;
        let metrics = UpstreamMetrics::register(&prometheus::Registry::new())?;
        let mut headers = request::common_headers(config)?;
        headers.insert("validatemfa", HeaderValue::from_static("true"));
        Ok(Self {
            grant: TokenGrant::from_config(config, &http, None, &metrics),
            http,
            headers,
            config: config.clone(),
            clock,
        })
    }

    /// Sends a request without credentials: whatever comes back, the way there is open.
    ///
    /// # Errors
    ///
    /// [`ProbeFailure`] where nothing comes back.
    pub async fn reach(&self, url: &Url) -> Result<ReachedServer, ProbeFailure> {
        let begun = self.clock.now();
        let request = reqwest::Request::new(Method::GET, url.clone());
        let answer = self.exchange(request, LONGEST_GREETING, begun).await?;
        let took = self.clock.now().saturating_duration_since(begun);
        Ok(ReachedServer {
            status: answer.status.as_u16(),
            took,
            ahead: ahead(&answer.headers, self.clock.wall_time(), took),
        })
    }

    /// Gets an access token as the service does: a refresh token that comes with it is written to its
    /// file before anything else.
    ///
    /// # Errors
    ///
    /// [`ProbeFailure`] says what a person must do, in the words of `/readyz`.
    pub async fn obtain(&mut self) -> Result<ProbedToken, ProbeFailure> {
        let ObtainedToken {
            token, lifetime, ..
        } = self.grant.obtain().await?;
        Ok(ProbedToken { token, lifetime })
    }

    /// Whether a refresh token that came is in memory alone: its file could not be written. Tries
    /// once more before it says so.
    pub async fn has_unsaved(&mut self) -> bool {
        if self.grant.has_unsaved() {
            self.grant.save().await;
        }
        self.grant.has_unsaved()
    }

    /// Makes one call: of a customer's newest usage, or of a page with one customer.
    ///
    /// # Errors
    ///
    /// [`ProbeFailure`] says what a person must do, in the words of the service's own log.
    pub async fn call(
        &self,
        token: &ProbedToken,
        customer: Option<CustomerId>,
    ) -> Result<ProbeAnswer, (ProbeFailure, Option<bool>)> {
        let request = self
            .request(token, customer)
            .map_err(|trouble| (trouble, None))?;
        let begun = self.clock.now();
        let answer = self
            .exchange(request, self.config.max_body, begun)
            .await
            .map_err(|trouble| (trouble, None))?;
        let took = self.clock.now().saturating_duration_since(begun);
        let multi_factor = told_by(&answer.headers);
        match self.judge(&answer, token, customer) {
            Ok(said) => Ok(ProbeAnswer {
                said,
                multi_factor,
                took,
            }),
            Err((trouble, RefusalMeaning::ProofMissing)) => Err((trouble, Some(false))),
            Err((trouble, _)) => Err((trouble, multi_factor)),
        }
    }

    fn request(
        &self,
        token: &ProbedToken,
        customer: Option<CustomerId>,
    ) -> Result<reqwest::Request, ProbeFailure> {
        let base = &self.config.base_url;
        let url = match (customer, self.config.source) {
            (Some(customer), UpstreamApi::Insights) => insights::url(base, customer),
            (Some(customer), UpstreamApi::Commercial) => {
                commercial::url(&below(base, &self.config.commercial_path), customer, None)
            }
            // No other call can be configured as the source.
            _ => {
                let mut url = below(base, "/v1/customers");
                url.set_query(Some("size=1"));
                url
            }
        };
        let authorization = http_client::bearer(&token.token)
            .map_err(|_| ProbeFailure::new("the access token cannot stand in a header"))?;
        let mut request = reqwest::Request::new(Method::GET, url);
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.insert(AUTHORIZATION, authorization);
        for id in ["ms-requestid", "ms-correlationid"] {
            if let Ok(value) = HeaderValue::try_from(uuid::Uuid::new_v4().to_string()) {
                headers.insert(id, value);
            }
        }
        Ok(request)
    }

    /// What an answer says, or why it says nothing, and what that means.
    fn judge(
        &self,
        answer: &HttpReply,
        token: &ProbedToken,
        customer: Option<CustomerId>,
    ) -> Result<String, (ProbeFailure, RefusalMeaning)> {
        if answer.status == StatusCode::OK && answer.unread.is_some() {
            let most = self.config.max_body;
            let said = format!("the answer has more than {most} bytes (upstream.max_body)");
            return Err((ProbeFailure::new(said), RefusalMeaning::Rejected));
        }
        if answer.status == StatusCode::OK {
            let source = self.config.source;
            return said_by(answer, source, customer)
                .map_err(|fault| (ProbeFailure::new(fault), RefusalMeaning::Rejected));
        }
        let refusal = refusal::parse_refusal(answer, Some(token.token.expose_secret()));
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
        let throttled = answer.status == StatusCode::TOO_MANY_REQUESTS;
        let action = if throttled {
            let wait = throttle::retry_after(&answer.headers, self.clock.wall_time());
            throttled_for(wait)
        } else {
            meaning.sentence().to_owned()
        };
        let trouble = ProbeFailure {
            said,
            action: Some(action),
            throttled,
        };
        Err((trouble, meaning))
    }

    async fn exchange(
        &self,
        request: reqwest::Request,
        max_body: usize,
        begun: Instant,
    ) -> Result<HttpReply, ProbeFailure> {
        let ends = begun + self.config.attempt_timeout;
        let mut memory = MemoryShare::unshared(max_body);
        Ok(self.http.exchange(request, &mut memory, ends).await?)
    }
}

/// What the data of an answer is, or that it is none.
fn said_by(
    answer: &HttpReply,
    source: UpstreamApi,
    customer: Option<CustomerId>,
) -> Result<String, String> {
    let body = &answer.body;
    match (customer, source) {
        (Some(customer), UpstreamApi::Insights) => wire::decode_insights(body, customer)
            .map(|snapshot| rows(snapshot.rows().len()))
            .map_err(|fault| fault.to_string()),
        (Some(customer), UpstreamApi::Commercial) => wire::decode_commercial(body, customer)
            .map(|page| rows(page.rows.len()))
            .map_err(|fault| fault.to_string()),
        _ => wire::decode_customers(body)
            .map(|_| "the list of customers".to_owned())
            .map_err(|fault| format!("what answers is no list of customers: {fault}")),
    }
}

fn rows(count: usize) -> String {
    match count {
        0 => "no rows of usage: the customer has no such licences, or the call has gone silent"
            .to_owned(),
        1 => "1 row of usage".to_owned(),
        _ => format!("{count} rows of usage"),
    }
}

fn throttled_for(wait: Option<Duration>) -> String {
    let wait = wait.map_or_else(
        || "a while".to_owned(),
        |wait| format!("{} s", wait.as_secs()),
    );
    format!(
        "Partner Center wants fewer calls: ask again in {wait}, raise cache.fresh_for, lower upstream.max_concurrency"
    )
}

/// How far the clock that wrote `Date` is ahead of ours, which showed `now` when all had come.
fn ahead(headers: &HeaderMap, now: Timestamp, took: Duration) -> Option<SignedDuration> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let date = Timestamp::try_from(httpdate::parse_http_date(date).ok()?).ok()?;
    // Written somewhere between question and answer, and cut to a second.
    let ours = now - SignedDuration::try_from(took / 2).ok()?;
    Some(date.duration_since(ours) + SignedDuration::from_millis(500))
}

// === impl ProbedToken ===

impl ProbedToken {
    /// What the token says of itself, where it is one that can be read.
    pub fn claims(&self) -> Option<ProbedClaims> {
        ProbedClaims::of(self.token.expose_secret())
    }
}

impl fmt::Debug for ProbedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbedToken")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

// === impl Trouble ===

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
                let action = action_on(&cause);
                (cause, action)
            }
            ExchangeError::Undecodable(cause) => (cause, FOREIGN),
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

const FOREIGN: &str = "something on the way changes answers: check for a proxy that does";

/// By what a cause says; the system's own words differ from one to the next.
fn action_on(cause: &str) -> &'static str {
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
