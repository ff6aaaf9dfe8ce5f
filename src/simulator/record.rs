//! The requests that the simulator received, in their order.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use http::{HeaderMap, Method, StatusCode, request::Parts};
use tokio::sync::watch;

/// The number of recorded requests. Beyond it the oldest are deleted, but still counted.
const MAX_RECORDED: usize = 10_000;

/// The call that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SimulatedApi {
    /// The token endpoint or the authorization endpoint, of either version.
    Token,
    /// One customer's usage.
    Insights,
    /// Usage of one customer and date, from the commercial call.
    Commercial,
    /// A page of the usage of all customers, from the commercial call.
    FleetPage,
    /// The first rows of all customers, from the commercial call: a check for a newer date.
    FleetCheck,
    /// The list of customers.
    Customers,
    /// One customer's deployment.
    Deployment,
    /// Usage, over all customers.
    PartnerUsage,
    /// Deployment, over all customers.
    PartnerDeployment,
    /// Any other path, answered with 404.
    Other,
}

/// A request as it arrived, and the status of its answer.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// Counts all requests from 0 on, also cleared ones.
    sequence: u64,
    /// Its call.
    pub api: SimulatedApi,
    /// Its method.
    pub method: Method,
    /// Its path, still percent-encoded.
    pub path: String,
    /// Its query, still percent-encoded.
    pub query: Option<String>,
    /// Names in lower case and values, in the order they were received.
    pub headers: Vec<(String, String)>,
    /// The status of the answer; `None` while it is on hold, or if its caller left before.
    pub status: Option<StatusCode>,
}

/// Records requests and wakes the tests that wait for them.
#[derive(Debug, Default)]
pub(super) struct RequestRecorder {
    history: Mutex<RequestHistory>,
    counts: watch::Sender<RequestCounts>,
}

#[derive(Debug, Default)]
struct RequestHistory {
    next_sequence: u64,
    requests: VecDeque<RecordedRequest>,
}

/// The number of requests of each API since the last clearing.
type RequestCounts = HashMap<SimulatedApi, usize>;

// === impl SimulatedApi ===

impl SimulatedApi {
    /// Returns true for a call of Partner Center itself, not of its identity provider.
    pub(super) fn is_partner_center(self) -> bool {
        !matches!(self, Self::Token | Self::Other)
    }

    /// Returns true if an application alone is rejected. `allow_app_only` permits the commercial
    /// call.
    pub(super) fn requires_user(self, allow_app_only: bool) -> bool {
        match self {
            Self::Insights | Self::Deployment | Self::PartnerUsage | Self::PartnerDeployment => {
                true
            }
            Self::Commercial | Self::FleetPage | Self::FleetCheck => !allow_app_only,
            Self::Token | Self::Customers | Self::Other => false,
        }
    }
}

// === impl RecordedRequest ===

impl RecordedRequest {
    /// Returns the first value of a header; `name` in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

// === impl RequestRecorder ===

impl RequestRecorder {
    /// Records a request, and returns its number for [`RequestRecorder::record_status`].
    pub(super) fn record_request(&self, api: SimulatedApi, head: &Parts) -> u64 {
        let sequence = self.lock_history().push(api, head);
        self.counts
            .send_modify(|counts| *counts.entry(api).or_default() += 1);
        sequence
    }

    /// Records the status of the answer.
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
        count_of(api, &self.counts.borrow())
    }

    /// Waits until `n` requests of `api` have arrived since the last clearing.
    pub(super) async fn wait_for(&self, api: SimulatedApi, n: usize) {
        let mut counts = self.counts.subscribe();
        // There is no error: the sender is ours, so the channel outlives the wait.
        drop(counts.wait_for(|counts| count_of(api, counts) >= n).await);
    }

    fn lock_history(&self) -> MutexGuard<'_, RequestHistory> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl RequestHistory ===

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

fn count_of(api: SimulatedApi, counts: &RequestCounts) -> usize {
    counts.get(&api).copied().unwrap_or_default()
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
