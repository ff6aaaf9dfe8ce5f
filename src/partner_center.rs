//! Partner Center, as a source of usage, and of what else it tells of licenses and customers.
//!
//! A call goes through these files: [`PartnerCenter`] begins it; `insights`, `commercial`,
//! `customers` or `documents` says what to ask and, page by page, makes `attempt_runner` of it. Each attempt waits until `restraint` lets
//! it (`throttle`, circuit), until there is a `token`, and until there is a place; then `client`
//! exchanges a request for an answer, and `error` says whether another attempt may help. `wire`
//! reads the answer, and `call` leaves one line in the log.

mod attempts;
mod call;
mod commercial;
mod credential_alarm;
mod customers;
mod deps;
mod documents;
mod empty_responses;
mod error;
mod insights;
mod limits;
mod metrics;
mod multi_factor;
mod paging;
pub mod probe;
mod refusal;
mod request;
mod spans;
#[cfg(test)]
mod test_support;
mod throttle;
mod token;
pub mod wire;

use std::{sync::Arc, time::Duration};

use url::Url;

use self::{
    attempts::AttemptRunner,
    call::LogicalCall,
    credential_alarm::CredentialAlarm,
    empty_responses::EmptyResponseDetector,
    error::{RefusalMeaning, UpstreamError},
    limits::UpstreamLimits,
    metrics::UpstreamMetrics,
    token::{AccessTokenSource, RejectedToken},
    wire::MalformedResponse,
};
pub use self::{
    deps::{UpstreamDeps, UpstreamStartError},
    token::TokenStatus,
};
use crate::{
    clock::SharedClock,
    config::UpstreamConfig,
    domain::{ProcessedDate, Resource, UpstreamApi},
    jitter::Jitter,
    resilience::backoff::Backoff,
    service::source::{
        AnswerContent, CallTrace, FetchFuture, SourceAnswer, SourceCall, SourceError,
        SourceErrorKind, UsageSource,
    },
};

/// Partner Center behind its token endpoint: the [`UsageSource`] of the service.
///
/// It keeps its access token by itself, in a task that ends with the process. Proxies named in the
/// environment are not used.
#[derive(Debug)]
pub struct PartnerCenter {
    attempt_runner: AttemptRunner,
    tokens: AccessTokenSource,
    metrics: UpstreamMetrics,
    base_url: Url,
    commercial_path: String,
    deadline: Duration,
    retries: u32,
    /// Only where insights is the source; nobody else minds its silence.
    empty_responses: Option<EmptyResponseDetector>,
    credential_alarm: CredentialAlarm,
    clock: SharedClock,
    jitter: Jitter,
}

/// Pauses between checks; never less than [`SHORTEST_PAUSE`].
const BACKOFF: Backoff = match Backoff::new(Duration::from_secs(5), Duration::from_secs(5 * 60)) {
    Ok(backoff) => backoff,
    Err(_) => panic!("not a backoff"),
};
const SHORTEST_PAUSE: Duration = Duration::from_secs(5);

/// How Partner Center and our credentials stand; plain data, for readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamStatus {
    /// Whether calls can be made, as far as credentials go.
    pub token: TokenStatus,
    /// What a person must do before the held token ends, where the next one was refused.
    pub refresh_problem: Option<Arc<str>>,
    /// What a person must do since Partner Center says, asked by `ValidateMfa`, that the access token
    /// carries no multi-factor proof; `None` while it says that it does, or nothing.
    pub mfa_advice: Option<&'static str>,
    /// What to do about an insights call that has gone silent; `None` while it speaks, is hardly
    /// asked yet, or is not the source.
    pub empty_responses_advice: Option<&'static str>,
}

// === impl PartnerCenter ===

impl PartnerCenter {
    /// Sets everything up, and begins to get the first access token at once.
    ///
    /// To be called within a tokio runtime, which the token's task runs on.
    ///
    /// # Errors
    ///
    /// [`UpstreamStartError`] for what no attempt could mend. Credentials that cannot be read are no such
    /// thing: [`PartnerCenter::status`] tells of them, and they are read again.
    pub fn new(
        config: &UpstreamConfig,
        deps: UpstreamDeps<'_>,
    ) -> Result<Self, UpstreamStartError> {
        if !matches!(config.base_url.scheme(), "http" | "https") {
            return Err(UpstreamStartError::BaseUrl);
        }
        let http = request::http_client(config, deps.clock.clone())?;
        let headers = request::common_headers(config)?;
        let metrics = UpstreamMetrics::register(deps.registry)?;
        let restraint = Arc::new(UpstreamLimits::new(deps.clock.clone()));
        restraint.register(deps.registry)?;
        // After all that can fail, since it begins to redeem credentials.
        let tokens = AccessTokenSource::start(config, &http, &metrics, &deps)?;
        let attempts = AttemptRunner::new(
            config,
            headers,
            http,
            tokens.clone(),
            restraint,
            metrics.clone(),
            &deps,
        );
        Ok(Self {
            attempt_runner: attempts,
            tokens,
            metrics,
            base_url: config.base_url.clone(),
            commercial_path: config.commercial_path.clone(),
            deadline: config.deadline,
            retries: config.retries,
            empty_responses: (config.source == UpstreamApi::Insights)
                .then(EmptyResponseDetector::default),
            credential_alarm: CredentialAlarm::default(),
            clock: deps.clock,
            jitter: deps.jitter,
        })
    }

    /// How things stand; never waits.
    pub fn status(&self) -> UpstreamStatus {
        UpstreamStatus {
            token: self.tokens.status(),
            refresh_problem: self.tokens.refresh_problem(),
            mfa_advice: self.attempt_runner.multi_factor().advice(),
            empty_responses_advice: self
                .empty_responses
                .as_ref()
                .and_then(EmptyResponseDetector::advice),
        }
    }

    /// Repeats the call that was refused, with backoff, for as long as Partner Center refuses the
    /// access token and `is_needed` says so. Never completes.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons a check under way and leaves nothing behind.
    pub async fn recheck_refused_token(&self, is_needed: impl Fn() -> bool) {
        loop {
            self.tokens.until_rejected().await;
            let mut checks = 0_u32;
            while let Some(disowned) = self.tokens.rejected() {
                let pause = BACKOFF.delay(checks, self.jitter.fraction());
                let pause = pause.max(SHORTEST_PAUSE);
                self.clock.sleep_until(self.clock.now() + pause).await;
                if is_needed() {
                    checks = checks.saturating_add(1);
                    self.recheck_once(disowned).await;
                }
            }
        }
    }

    /// The call itself takes note of how it ended.
    async fn recheck_once(&self, disowned: RejectedToken) {
        let asked_at = self.clock.now();
        if disowned.may_need_renewal {
            let deadline = asked_at + self.deadline;
            drop(self.tokens.renew(disowned.generation, deadline).await);
        }
        let call = SourceCall {
            resource: disowned.resource,
            trace: CallTrace::default(),
            requested_at: asked_at,
        };
        drop(self.call(call).await);
    }

    async fn call(&self, call: SourceCall) -> Result<SourceAnswer, SourceError> {
        let memory = self.attempt_runner.memory();
        let now = self.clock.now();
        let mut call = LogicalCall::begin(call, now, self.deadline, self.retries, memory);
        let told = self.fetch_content(&mut call).await;
        let told = told.and_then(|content| self.check_not_future(content));
        let now = self.clock.now();
        match told {
            Ok(content) => {
                self.observe(&call, &content);
                self.credential_alarm.clear(call.api());
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
                let told = match call.customer() {
                    Some(_) => told,
                    None => partner_wide_error(told),
                };
                let meaning = error.meaning();
                if meaning.is_some_and(RefusalMeaning::is_about_customer) {
                    self.credential_alarm.clear(call.api());
                }
                // What the token endpoint refuses is in the log already.
                let alarm = meaning.is_some_and(RefusalMeaning::is_about_credentials)
                    && self.credential_alarm.raise(call.api());
                call.log(now, Err((told.kind, &error)), alarm);
                Err(told)
            }
        }
    }

    async fn fetch_content(&self, call: &mut LogicalCall) -> Result<AnswerContent, UpstreamError> {
        let (attempts, base_url) = (&self.attempt_runner, &self.base_url);
        match call.call.resource {
            Resource::InsightsUsage(customer) => {
                insights::fetch(attempts, base_url, customer, call).await
            }
            Resource::CommercialUsage(customer, date) => {
                let path = &self.commercial_path;
                commercial::fetch(attempts, base_url, path, (customer, date), call).await
            }
            Resource::Customers => customers::fetch(attempts, base_url, call).await,
            Resource::Deployment(customer) => {
                let path = format!("/v1/customers/{customer}/analytics/licenses/deployment");
                documents::fetch(attempts, base_url, &path, call).await
            }
            Resource::PartnerUsage => {
                documents::fetch(attempts, base_url, "/v1/analytics/licenses/usage", call).await
            }
            Resource::PartnerDeployment => {
                let path = "/v1/analytics/licenses/deployment";
                documents::fetch(attempts, base_url, path, call).await
            }
        }
    }

    /// A date after today would stay a customer's newest until it came. Clocks may differ by a day.
    fn check_not_future(&self, content: AnswerContent) -> Result<AnswerContent, UpstreamError> {
        let tomorrow = self.clock.wall_time() + Duration::from_secs(24 * 60 * 60);
        match content.processed_date() {
            Some(date) if date > ProcessedDate::from_timestamp(tomorrow) => Err(MalformedResponse(
                format!("processedDateTime: is {date}, expected no date after today"),
            )
            .into()),
            _ => Ok(content),
        }
    }

    fn observe(&self, call: &LogicalCall, content: &AnswerContent) {
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
        ) = (call.api(), &self.empty_responses, content)
        {
            silence.observe(snapshot);
        }
    }
}

/// A refusal of what is the partner's own is about no customer: it settles nothing.
fn partner_wide_error(told: SourceError) -> SourceError {
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
