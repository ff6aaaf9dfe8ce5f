//! What the stand-in was asked, in the order it arrived.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use http::{HeaderMap, Method, StatusCode, request::Parts};
use tokio::sync::watch;

/// Requests that are remembered; of more, the oldest are forgotten, but still counted.
const REMEMBERED: usize = 10_000;

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
pub(super) struct Recorder {
    log: Mutex<Log>,
    arrivals: watch::Sender<Arrivals>,
}

#[derive(Debug, Default)]
struct Log {
    next_sequence: u64,
    requests: VecDeque<RecordedRequest>,
}

/// Requests since the last clearing, one number an API.
type Arrivals = [usize; SimulatedApi::ALL.len()];

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
    pub(super) fn requests(self) -> &'static [&'static str] {
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
    pub(super) fn is_call(self) -> bool {
        !matches!(self, Self::Token | Self::Other)
    }

    /// Whether an application alone is refused. `allow_app_only` lets it make the commercial call.
    pub(super) fn wants_a_user(self, allow_app_only: bool) -> bool {
        match self {
            Self::Insights | Self::Deployment | Self::PartnerUsage | Self::PartnerDeployment => {
                true
            }
            Self::Commercial => !allow_app_only,
            Self::Token | Self::Customers | Self::Other => false,
        }
    }

    #[expect(clippy::indexing_slicing, reason = "there is a number for each")]
    fn of(self, arrivals: &Arrivals) -> usize {
        arrivals[self as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "there is a number for each")]
    fn of_mut(self, arrivals: &mut Arrivals) -> &mut usize {
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

impl Recorder {
    pub(super) fn new() -> Self {
        Self {
            log: Mutex::default(),
            arrivals: watch::Sender::new(Arrivals::default()),
        }
    }

    /// Remembers a request; its sequence number is for [`Recorder::answered`].
    pub(super) fn arrived(&self, api: SimulatedApi, head: &Parts) -> u64 {
        let sequence = self.log().push(api, head);
        self.arrivals
            .send_modify(|arrivals| *api.of_mut(arrivals) += 1);
        sequence
    }

    /// Remembers how a request was answered.
    pub(super) fn answered(&self, sequence: u64, status: StatusCode) {
        if let Some(request) = self.log().find(sequence) {
            request.status = Some(status);
        }
    }

    pub(super) fn requests(&self) -> Vec<RecordedRequest> {
        self.log().requests.iter().cloned().collect()
    }

    pub(super) fn clear(&self) {
        self.log().requests.clear();
        self.arrivals.send_replace(Arrivals::default());
    }

    pub(super) fn count(&self, api: SimulatedApi) -> usize {
        api.of(&self.arrivals.borrow())
    }

    /// Completes once `n` requests of `api` have arrived since the last clearing.
    pub(super) async fn wait_for(&self, api: SimulatedApi, n: usize) {
        let mut arrivals = self.arrivals.subscribe();
        // The sender is ours, so the channel outlives the wait and there is no error to tell.
        drop(arrivals.wait_for(|arrivals| api.of(arrivals) >= n).await);
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Log ===

impl Log {
    fn push(&mut self, api: SimulatedApi, head: &Parts) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        if self.requests.len() == REMEMBERED {
            self.requests.pop_front();
        }
        self.requests.push_back(RecordedRequest {
            sequence,
            api,
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            headers: pairs(&head.headers),
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

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect()
}
