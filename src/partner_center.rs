//! Partner Center, the source of usage, customers and documents.
//!
//! A call goes through these files: [`PartnerCenter`] starts it as a `call`, and `resources` knows the
//! URL and the pages of its resource. `attempts` gets each page: it waits for `limits` (throttles,
//! circuit breakers) and for a `token`, sends a `request`, and retries. `wire` decodes the pages;
//! `refusal` reads replies that are errors, and `error` says what they mean for the service.

mod attempts;
mod call;
pub mod consent;
mod deps;
mod error;
mod health;
mod limits;
mod metrics;
mod paging;
pub mod probe;
mod refusal;
mod request;
mod resources;
mod spans;
mod throttle;
mod token;
pub mod wire;

use std::{
    slice,
    sync::Arc,
    time::{Duration, Instant},
};

use self::{
    attempts::AttemptRunner,
    call::LogicalCall,
    error::UpstreamError,
    health::{CredentialAlarm, EmptyResponseDetector},
    metrics::UpstreamMetrics,
    resources::ApiEndpoints,
    token::{AccessTokenSource, RejectedToken},
    wire::MalformedResponse,
};
pub use self::{
    deps::{SharedTokenStore, UpstreamDeps, UpstreamStartError},
    limits::UpstreamPause,
    token::{LOCKED_ADVICE, OpenedTokens, TokenAccount, TokenStatus},
};
use crate::{
    clock::SharedClock,
    config::UpstreamConfig,
    domain::{LicenseUsage, ProcessedDate, UpstreamApi},
    jitter::Jitter,
    resilience::backoff::Backoff,
    service::source::{
        AnswerContent, CallTrace, FetchFuture, SourceAnswer, SourceCall, SourceError,
        SourceErrorKind, UsageSource,
    },
};

/// Partner Center behind its token endpoint: the [`UsageSource`] of the service.
///
/// A task of its own keeps the access token fresh, and ends with the process.
#[derive(Debug)]
pub struct PartnerCenter {
    runner: AttemptRunner,
    tokens: AccessTokenSource,
    metrics: UpstreamMetrics,
    endpoints: ApiEndpoints,
    deadline: Duration,
    retries: u32,
    /// `None` where insights is not the source.
    empty_responses: Option<EmptyResponseDetector>,
    credential_alarm: CredentialAlarm,
    clock: SharedClock,
    jitter: Jitter,
}

/// The pauses between checks of a rejected token; never less than [`MIN_PAUSE`].
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(5 * 60));
const MIN_PAUSE: Duration = Duration::from_secs(5);

/// The state of Partner Center and our credentials, for readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamStatus {
    /// The state of the access token.
    pub token: TokenStatus,
    /// The advice for a person, if the token after the current one was refused.
    pub refresh_problem: Option<Arc<str>>,
    /// The advice for a person, if Partner Center says that the token has no multi-factor proof.
    pub mfa_advice: Option<&'static str>,
    /// The advice about an insights call that has gone silent, if it is the source.
    pub empty_responses_advice: Option<&'static str>,
}

// === impl PartnerCenter ===

impl PartnerCenter {
    /// Creates the client, and starts to get the first access token at once. Call it within a tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// [`UpstreamStartError`] for errors that a retry cannot fix. Credentials that cannot be read are
    /// not among them: [`PartnerCenter::status`] reports them, and they are read again.
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
        // Last, because it starts to redeem credentials.
        let tokens = AccessTokenSource::start(config, &http, &metrics, &deps);
        let is_insights = config.source == UpstreamApi::Insights;
        Ok(Self {
            runner: AttemptRunner::new(
                config,
                headers,
                http,
                tokens.clone(),
                metrics.clone(),
                &deps,
            ),
            tokens,
            metrics,
            endpoints: ApiEndpoints::new(config),
            deadline: config.deadline,
            retries: config.retries,
            empty_responses: is_insights.then(EmptyResponseDetector::default),
            credential_alarm: CredentialAlarm::default(),
            clock: deps.clock,
            jitter: deps.jitter,
        })
    }

    /// Completes when a reply has asked for a pause.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn throttled(&self) {
        self.runner.limits().throttled.notified().await;
    }

    /// Returns the pauses that replies asked for and that are not over, and their ends.
    pub fn own_pauses(&self) -> Vec<(UpstreamPause, Instant)> {
        self.runner.limits().own_pauses()
    }

    /// Obeys a pause that a reply to another process asked for.
    pub fn obey_pause(&self, pause: UpstreamPause, remaining: Duration) {
        self.runner.limits().obey_pause(pause, remaining);
    }

    /// Divides the retries among so many processes.
    pub fn set_replicas(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.runner.limits().retries.set_processes(count);
    }

    /// Returns the current state.
    pub fn status(&self) -> UpstreamStatus {
        let empty_responses = self.empty_responses.as_ref();
        UpstreamStatus {
            token: self.tokens.status(),
            refresh_problem: self.tokens.refresh_problem(),
            mfa_advice: self.runner.multi_factor().advice(),
            empty_responses_advice: empty_responses.and_then(EmptyResponseDetector::advice),
        }
    }

    /// Repeats the call that was refused, with backoff, for as long as Partner Center rejects the access
    /// token and `is_needed` returns true. Never completes.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts a check in progress and leaves nothing behind.
    pub async fn recheck_refused_token(&self, is_needed: impl Fn() -> bool) {
        loop {
            self.tokens.until_rejected().await;
            let mut checks = 0_u32;
            while let Some(rejected) = self.tokens.rejected() {
                let pause = BACKOFF.delay(checks, self.jitter.fraction());
                let pause = pause.max(MIN_PAUSE);
                self.clock.sleep_until(self.clock.now() + pause).await;
                if is_needed() {
                    checks = checks.saturating_add(1);
                    self.recheck_once(rejected).await;
                }
            }
        }
    }

    /// The outcome is recorded by the call itself.
    async fn recheck_once(&self, rejected: RejectedToken) {
        let now = self.clock.now();
        if rejected.may_need_renewal {
            let deadline = now + self.deadline;
            drop(self.tokens.renew(rejected.generation, deadline).await);
        }
        let call = SourceCall {
            resource: rejected.resource,
            trace: CallTrace::default(),
            requested_at: now,
        };
        drop(self.call(call).await);
    }

    async fn call(&self, call: SourceCall) -> Result<SourceAnswer, SourceError> {
        let memory = self.runner.memory();
        let now = self.clock.now();
        let mut call = LogicalCall::new(call, now, self.deadline, self.retries, memory);
        let fetched = resources::fetch(&self.runner, &self.endpoints, &mut call).await;
        let checked = fetched.and_then(|content| self.check_not_future(content));
        let now = self.clock.now();
        match checked {
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
            Err(error) => Err(self.fail(&call, &error)),
        }
    }

    /// Records the failure of a call, and returns it for the service.
    fn fail(&self, call: &LogicalCall, error: &UpstreamError) -> SourceError {
        let (api, now) = (call.api(), self.clock.now());
        self.metrics.record_error(api, error.class());
        if matches!(error, UpstreamError::Malformed(malformed) if malformed.is_of_other_customer) {
            self.metrics.tenant_mismatches.inc();
        }
        let mut source_error = error.to_source(now, call.last_status(), call.sent_ids());
        let is_about_customer = matches!(
            source_error.kind,
            SourceErrorKind::UnknownCustomer | SourceErrorKind::NoRelationship
        );
        if call.customer().is_none() && is_about_customer {
            // A refusal that is about a customer says nothing about the partner's own data.
            source_error.kind = SourceErrorKind::Rejected;
            source_error.detail =
                "Partner Center refuses this call about the partner: a person must \
                                   check that the application of upstream.auth is allowed it"
                    .into();
        }
        let meaning = error.meaning();
        if meaning.is_some_and(|meaning| meaning.is_about_customer()) {
            self.credential_alarm.clear(api);
        }
        // Refusals of the token endpoint are in the log already.
        let is_about_credentials = meaning.is_some_and(|meaning| meaning.is_about_credentials());
        let alarm = is_about_credentials && self.credential_alarm.raise(api);
        call.log(now, Err((source_error.kind, error)), alarm);
        source_error
    }

    /// Rejects a date after today: it would remain a customer's newest date until that day. Clocks may
    /// differ by a day.
    fn check_not_future(&self, content: AnswerContent) -> Result<AnswerContent, UpstreamError> {
        let tomorrow = self.clock.wall_time() + Duration::from_secs(24 * 60 * 60);
        match content.processed_date() {
            Some(date) if date > ProcessedDate::from_timestamp(tomorrow) => {
                Err(MalformedResponse::new(format!(
                    "processedDateTime: is {date}, expected no date after today"
                ))
                .into())
            }
            _ => Ok(content),
        }
    }

    fn observe(&self, call: &LogicalCall, content: &AnswerContent) {
        let usages = match content {
            AnswerContent::Usage { usage, .. } => slice::from_ref(usage),
            AnswerContent::Fleet(usages) => usages,
            AnswerContent::FleetDate(_)
            | AnswerContent::Customers(_)
            | AnswerContent::Document { .. } => &[],
        };
        let rows: usize = usages.iter().map(LicenseUsage::contradictions).sum();
        if rows > 0 {
            self.metrics.contradictions.inc_by(rows as u64);
            tracing::warn!(
                api = call.api().as_str(),
                customer.id = call.customer().map(tracing::field::display),
                rows,
                "Partner Center sent different counts for the same product, workload and instant; \
                 the larger counts are used"
            );
        }
        if call.api() == UpstreamApi::Insights
            && let Some(detector) = &self.empty_responses
            && let AnswerContent::Usage { usage, .. } = content
        {
            detector.observe(usage);
        }
    }
}

impl UsageSource for PartnerCenter {
    fn fetch(&self, call: SourceCall) -> FetchFuture<'_> {
        Box::pin(self.call(call))
    }

    fn update_gauges(&self) {
        self.runner.update_gauges();
        self.tokens.update_gauges();
    }
}

#[cfg(test)]
mod tests;
