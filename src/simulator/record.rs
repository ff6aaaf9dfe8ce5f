//! What the stand-in was asked, in the order it arrived.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use http::{HeaderMap, Method, StatusCode, request::Parts};
use tokio::sync::watch;

/// Requests that are remembered; of more, the oldest are forgotten, but still counted.
const MAX_RECORDED: usize = 10_000;

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SimulatedApi {
    /// The token endpoint or the authorization endpoint, of either version.
    Token,
    /// One customer's usage.
    Insights,
    /// Usage of any customers and date.
    Commercial,
    /// The list of customers.
    Customers,
    /// One customer's deployment.
    Deployment,
    /// Usage, over all customers.
    PartnerUsage,
    /// Deployment, over all customers.
    PartnerDeployment,
    /// Something that Partner Center does not have here: answered with 404.
    Other,
}

/// A request as it arrived, and how it was answered.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// Counts all requests from 0 on, also over [`SimulatorHandle::clear_requests`].
    ///
    /// [`SimulatorHandle::clear_requests`]: super::SimulatorHandle::clear_requests
    pub sequence: u64,
    /// What it was for.
    pub api: SimulatedApi,
    /// Its method.
    pub method: Method,
    /// Its path, still percent-encoded.
    pub path: String,
    /// Its query, still percent-encoded.
    pub query: Option<String>,
    /// Names in lower case and values, in the order they were received.
    pub headers: Vec<(String, String)>,
    /// How it was answered; `None` while it is held, and when its caller left before that.
    pub status: Option<StatusCode>,
}

/// Remembers requests and tells who waits for them.
#[derive(Debug)]
pub(super) struct RequestRecorder {
    history: Mutex<RequestHistory>,
    counts: watch::Sender<RequestCounts>,
}

#[derive(Debug, Default)]
struct RequestHistory {
    next_sequence: u64,
    requests: VecDeque<RecordedRequest>,
}

/// Requests since the last clearing, one number an API.
type RequestCounts = [usize; SimulatedApi::ALL.len()];

// === impl SimulatedApi ===

impl SimulatedApi {
    /// Every one.
    pub(super) const ALL: [Self; 8] = [
        Self::Token,
        Self::Insights,
        Self::Commercial,
        Self::Customers,
        Self::Deployment,
        Self::PartnerUsage,
        Self::PartnerDeployment,
        Self::Other,
    ];

    /// How it is asked.
    pub(super) fn request_lines(self) -> &'static [&'static str] {
        match self {
            Self::Token => &[
                "POST /{tenant}/oauth2/token",
                "POST /{tenant}/oauth2/v2.0/token",
                "GET /{tenant}/oauth2/authorize",
                "GET /{tenant}/oauth2/v2.0/authorize",
            ],
            Self::Insights => &["GET /v1/customers/{id}/analytics/licenses/usage"],
            Self::Commercial => &[
                "GET /v1/analytics/commercial/usage/license/?top=&skip=&filter=&processedDateTime=",
            ],
            Self::Customers => &["GET /v1/customers?size=N"],
            Self::Deployment => &["GET /v1/customers/{id}/analytics/licenses/deployment"],
            Self::PartnerUsage => &["GET /v1/analytics/licenses/usage"],
            Self::PartnerDeployment => &["GET /v1/analytics/licenses/deployment"],
            Self::Other => &[],
        }
    }

    /// Its name in the control surface.
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Insights => "insights",
            Self::Commercial => "commercial",
            Self::Customers => "customers",
            Self::Deployment => "deployment",
            Self::PartnerUsage => "partner-usage",
            Self::PartnerDeployment => "partner-deployment",
            Self::Other => "other",
        }
    }

    /// Whether it is a call of Partner Center's own, rather than of its identity provider.
    pub(super) fn is_partner_center(self) -> bool {
        !matches!(self, Self::Token | Self::Other)
    }

    /// Whether an application alone is refused. `allow_app_only` lets it make the commercial call.
    pub(super) fn requires_user(self, allow_app_only: bool) -> bool {
        match self {
            Self::Insights | Self::Deployment | Self::PartnerUsage | Self::PartnerDeployment => {
                true
            }
            Self::Commercial => !allow_app_only,
            Self::Token | Self::Customers | Self::Other => false,
        }
    }

    #[expect(clippy::indexing_slicing, reason = "there is a number for each")]
    fn count_in(self, arrivals: &RequestCounts) -> usize {
        arrivals[self as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "there is a number for each")]
    fn count_in_mut(self, arrivals: &mut RequestCounts) -> &mut usize {
        &mut arrivals[self as usize]
    }
}

// === impl RecordedRequest ===

impl RecordedRequest {
    /// The first value of a header; `name` in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(held, _)| held.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

// === impl Recorder ===

impl RequestRecorder {
    pub(super) fn new() -> Self {
        Self {
            history: Mutex::default(),
            counts: watch::Sender::new(RequestCounts::default()),
        }
    }

    /// Remembers a request; its sequence number is for [`RequestRecorder::record_status`].
    pub(super) fn record_request(&self, api: SimulatedApi, head: &Parts) -> u64 {
        let sequence = self.lock_history().push(api, head);
        self.counts
            .send_modify(|arrivals| *api.count_in_mut(arrivals) += 1);
        sequence
    }

    /// Remembers how a request was answered.
    pub(super) fn record_status(&self, sequence: u64, status: StatusCode) {
        if let Some(request) = self.lock_history().find(sequence) {
            request.status = Some(status);
        }
    }

    pub(super) fn requests(&self) -> Vec<RecordedRequest> {
        self.lock_history().requests.iter().cloned().collect()
    }

    pub(super) fn clear(&self) {
        self.lock_history().requests.clear();
        self.counts.send_replace(RequestCounts::default());
    }

    pub(super) fn count(&self, api: SimulatedApi) -> usize {
        api.count_in(&self.counts.borrow())
    }

    /// Completes once `n` requests of `api` have arrived since the last clearing.
    pub(super) async fn wait_for(&self, api: SimulatedApi, n: usize) {
        let mut arrivals = self.counts.subscribe();
        // The sender is ours, so the channel outlives the wait and there is no error to tell.
        drop(
            arrivals
                .wait_for(|arrivals| api.count_in(arrivals) >= n)
                .await,
        );
    }

    fn lock_history(&self) -> MutexGuard<'_, RequestHistory> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Log ===

impl RequestHistory {
    fn push(&mut self, api: SimulatedApi, head: &Parts) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        if self.requests.len() == MAX_RECORDED {
            self.requests.pop_front();
        }
        self.requests.push_back(RecordedRequest {
            sequence,
            api,
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            headers: header_pairs(&head.headers),
            status: None,
        });
        sequence
    }

    fn find(&mut self, sequence: u64) -> Option<&mut RecordedRequest> {
        let first = self.requests.front()?.sequence;
        let index = usize::try_from(sequence.checked_sub(first)?).ok()?;
        self.requests.get_mut(index)
    }
}

fn header_pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect()
}
