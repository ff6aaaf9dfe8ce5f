//! Partner Center, as a source of usage, and of what else it tells of licenses and customers.
//!
//! A call goes through these files: [`PartnerCenter`] begins it; `insights`, `commercial`,
//! `customers` or `documents` says what to ask and, page by page, makes `attempts` of it. Each attempt waits until `restraint` lets
//! it (`throttle`, circuit), until there is a `token`, and until there is a place; then `client`
//! exchanges a request for an answer, and `error` says whether another attempt may help. `wire`
//! reads the answer, and `call` leaves one line in the log.

mod alarm;
mod attempts;
mod call;
mod client;
mod commercial;
mod customers;
mod documents;
mod error;
mod error_class;
mod insights;
mod metrics;
mod multi_factor;
#[cfg(test)]
mod outage;
mod paging;
pub mod probe;
mod recheck;
mod refusal;
mod request;
mod restraint;
mod silence;
mod spans;
#[cfg(test)]
mod support;
mod throttle;
mod token;
pub mod wire;

use std::{sync::Arc, time::Duration};

use url::Url;

pub use self::token::TokenStatus;
use self::{
    alarm::CredentialAlarm,
    attempts::Attempts,
    call::LogicalCall,
    client::{Exchange, HttpClient},
    documents::Document,
    error::{Meaning, UpstreamError},
    metrics::Metrics,
    restraint::Restraint,
    silence::Silence,
    token::Tokens,
    wire::Malformed,
};
use crate::{
    clock::SharedClock,
    config::UpstreamConfig,
    domain::{ProcessedDate, Subject, UpstreamApi},
    jitter::Jitter,
    observability::traces::Tracer,
    service::source::{
        AnswerContent, FetchFuture, SourceAnswer, SourceCall, SourceError, SourceErrorKind,
        UsageSource,
    },
    shutdown::Shutdown,
};

/// Partner Center behind its token endpoint: the [`UsageSource`] of the service.
///
/// It keeps its access token by itself, in a task that ends with the process. Proxies named in the
/// environment are not used.
#[derive(Debug)]
pub struct PartnerCenter {
    attempts: Attempts,
    tokens: Tokens,
    metrics: Metrics,
    base_url: Url,
    commercial_path: String,
    deadline: Duration,
    retries: u32,
    /// Only where insights is the source; nobody else minds its silence.
    silence: Option<Silence>,
    alarm: CredentialAlarm,
    clock: SharedClock,
    jitter: Jitter,
}

/// What [`PartnerCenter`] needs of the process around it.
#[derive(Debug)]
pub struct UpstreamDeps<'a> {
    /// Takes all decisions about time.
    pub clock: SharedClock,
    /// Spreads retries and token refreshes.
    pub jitter: Jitter,
    /// Runs the task that keeps the access token.
    pub shutdown: Shutdown,
    /// Where the metrics are registered.
    pub registry: &'a prometheus::Registry,
    /// Begins the traces of token requests; `None` where nothing is traced. Calls are part of their
    /// callers' traces.
    pub tracer: Option<Tracer>,
}

/// The upstream client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A configured value cannot stand in a header.
    #[error("{key}: expected visible characters that can stand in an HTTP header")]
    Header {
        /// The configuration key.
        key: &'static str,
    },
    /// The base URL is of a kind that has no paths.
    #[error("upstream.base_url: expected an http or https URL")]
    BaseUrl,
    /// TLS cannot be set up, for want of CA certificates for example.
    #[error("cannot make the HTTP client")]
    Client(#[from] reqwest::Error),
    /// Another component has a metric of the same name.
    #[error("cannot register the upstream's metrics")]
    Metrics(#[from] prometheus::Error),
}

/// How Partner Center and our credentials stand; plain data, for readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamStatus {
    /// Whether calls can be made, as far as credentials go.
    pub token: TokenStatus,
    /// What a person must do before the held token ends, where the next one was refused.
    pub trouble_ahead: Option<Arc<str>>,
    /// What a person must do since Partner Center says, asked by `ValidateMfa`, that the access token
    /// carries no multi-factor proof; `None` while it says that it does, or nothing.
    pub proof_missing: Option<&'static str>,
    /// What to do about an insights call that has gone silent; `None` while it speaks, is hardly
    /// asked yet, or is not the source.
    pub silent: Option<&'static str>,
}

// === impl PartnerCenter ===

impl PartnerCenter {
    /// Sets everything up, and begins to get the first access token at once.
    ///
    /// To be called within a tokio runtime, which the token's task runs on.
    ///
    /// # Errors
    ///
    /// [`AppStartError`] for what no attempt could mend. Credentials that cannot be read are no such
    /// thing: [`PartnerCenter::status`] tells of them, and they are read again.
    pub fn new(config: &UpstreamConfig, deps: UpstreamDeps<'_>) -> Result<Self, StartError> {
        let http = HttpClient::build(config, deps.clock.clone())?.traced(deps.tracer.clone());
        let calls = Arc::new(http.clone());
        Self::over(config, http, calls, deps)
    }

    /// Over a client for the token endpoint, and one for the calls.
    fn over(
        config: &UpstreamConfig,
        http: HttpClient,
        calls: Arc<dyn Exchange>,
        deps: UpstreamDeps<'_>,
    ) -> Result<Self, StartError> {
        if !matches!(config.base_url.scheme(), "http" | "https") {
            return Err(StartError::BaseUrl);
        }
        let headers = request::common_headers(config)?;
        let metrics = Metrics::register(deps.registry)?;
        let restraint = Arc::new(Restraint::new(deps.clock.clone()));
        restraint.register(deps.registry)?;
        // After all that can fail, since it begins to redeem credentials.
        let tokens = Tokens::start(config, &http, &metrics, &deps)?;
        let attempts = Attempts::new(
            config,
            headers,
            calls,
            tokens.clone(),
            restraint,
            metrics.clone(),
            &deps,
        );
        Ok(Self {
            attempts,
            tokens,
            metrics,
            base_url: config.base_url.clone(),
            commercial_path: config.commercial_path.clone(),
            deadline: config.deadline,
            retries: config.retries,
            silence: (config.source == UpstreamApi::Insights).then(Silence::default),
            alarm: CredentialAlarm::default(),
            clock: deps.clock,
            jitter: deps.jitter,
        })
    }

    /// How things stand; never waits.
    pub fn status(&self) -> UpstreamStatus {
        UpstreamStatus {
            token: self.tokens.status(),
            trouble_ahead: self.tokens.trouble_ahead(),
            proof_missing: self.attempts.multi_factor().advice(),
            silent: self.silence.as_ref().and_then(Silence::advice),
        }
    }

    async fn call(&self, call: SourceCall) -> Result<SourceAnswer, SourceError> {
        let memory = self.attempts.memory();
        let now = self.clock.now();
        let mut call = LogicalCall::begin(call, now, self.deadline, self.retries, memory);
        let told = self.ask(&mut call).await;
        let told = told.and_then(|content| self.not_of_the_future(content));
        let now = self.clock.now();
        match told {
            Ok(content) => {
                self.listen(&call, &content);
                self.alarm.clear(call.api());
                call.log(now, Ok(()), false);
                Ok(SourceAnswer {
                    content,
                    call_ids: call.ids,
                    memory: Some(call.memory),
                })
            }
            Err(error) => {
                self.metrics.call_failed(call.api(), error.class());
                if let UpstreamError::OtherCustomer(_) = error {
                    self.metrics.tenant_mismatches.inc();
                }
                let told = error
                    .clone()
                    .into_source(now, call.last_status(), call.sent_ids());
                let told = match call.subject() {
                    Subject::Customer(_) => told,
                    Subject::Partner => of_the_partner(told),
                };
                let meaning = error.meaning();
                if meaning.is_some_and(Meaning::is_about_customer) {
                    self.alarm.clear(call.api());
                }
                // What the token endpoint refuses is in the log already.
                let alarm = meaning.is_some_and(Meaning::is_about_credentials)
                    && self.alarm.raise(call.api());
                call.log(now, Err((told.kind, &error)), alarm);
                Err(told)
            }
        }
    }

    async fn ask(&self, call: &mut LogicalCall) -> Result<AnswerContent, UpstreamError> {
        let (attempts, base_url) = (&self.attempts, &self.base_url);
        match (call.api(), call.subject()) {
            (UpstreamApi::Insights, Subject::Customer(customer)) => {
                insights::fetch(attempts, base_url, customer, call).await
            }
            (UpstreamApi::Commercial, Subject::Customer(customer)) => {
                let path = &self.commercial_path;
                commercial::fetch(attempts, base_url, path, customer, call).await
            }
            (UpstreamApi::Customers, Subject::Partner) => {
                customers::fetch(attempts, base_url, call).await
            }
            (UpstreamApi::Deployment, Subject::Customer(customer)) => {
                let document = Document::Deployment(customer);
                documents::fetch(attempts, base_url, document, call).await
            }
            (UpstreamApi::PartnerUsage, Subject::Partner) => {
                documents::fetch(attempts, base_url, Document::PartnerUsage, call).await
            }
            (UpstreamApi::PartnerDeployment, Subject::Partner) => {
                documents::fetch(attempts, base_url, Document::PartnerDeployment, call).await
            }
            (api, subject) => {
                let api = api.as_str();
                Err(Malformed(format!("there is no {api} call about {subject:?}")).into())
            }
        }
    }

    /// A date after today would stay a customer's newest until it came. Clocks may differ by a day.
    fn not_of_the_future(&self, content: AnswerContent) -> Result<AnswerContent, UpstreamError> {
        let tomorrow = self.clock.wall_time() + Duration::from_secs(24 * 60 * 60);
        match content.processed_date() {
            Some(date) if date > ProcessedDate::from_timestamp(tomorrow) => Err(Malformed(
                format!("processedDateTime: is {date}, expected no date after today"),
            )
            .into()),
            _ => Ok(content),
        }
    }

    fn listen(&self, call: &LogicalCall, content: &AnswerContent) {
        if let AnswerContent::Usage {
            usage: snapshot, ..
        } = content
            && snapshot.contradictions() > 0
        {
            let rows = snapshot.contradictions();
            self.metrics.contradictions.inc_by(rows as u64);
            tracing::warn!(
                api = call.api().as_str(),
                customer.id = %snapshot.customer_id(),
                rows,
                "Partner Center sent different counts for the same product, workload and instant; \
                 the larger counts are used"
            );
        }
        if let (
            UpstreamApi::Insights,
            Some(silence),
            AnswerContent::Usage {
                usage: snapshot, ..
            },
        ) = (call.api(), &self.silence, content)
        {
            silence.heard(snapshot);
        }
    }
}

/// A refusal of what is the partner's own is about no customer: it settles nothing.
fn of_the_partner(told: SourceError) -> SourceError {
    match told.kind {
        SourceErrorKind::UnknownCustomer | SourceErrorKind::NoRelationship => SourceError {
            kind: SourceErrorKind::Rejected,
            detail: "Partner Center refuses this call about the partner: a person must check that \
                     the application of upstream.auth is allowed it"
                .into(),
            ..told
        },
        _ => told,
    }
}

impl UsageSource for PartnerCenter {
    fn fetch(&self, call: SourceCall) -> FetchFuture<'_> {
        Box::pin(self.call(call))
    }
}

#[cfg(test)]
mod tests;
