//! A call in progress, and its parameters.

use http::{Method, StatusCode, header::AUTHORIZATION, request::Parts};
use url::form_urlencoded;

use crate::simulator::{faults::Faults, record::SimulatedApi, reply::SimulatedReply};

/// The most rows that a check for a newer date asks for.
const MAX_CHECK_ROWS: usize = 1_000;

/// A call in progress, and its faults.
#[derive(Debug)]
pub(super) struct SimulatedCall {
    pub(super) api: SimulatedApi,
    pub(super) head: Parts,
    pub(super) faults: Faults,
}

/// A description of the error in a request.
#[derive(Debug)]
pub(super) struct BadRequestError(pub(super) String);

/// Finds the call of a request, with or without the prefix that some environments have.
pub(super) fn find_api(head: &Parts) -> SimulatedApi {
    let segments = segments(head.uri.path());
    match segments.as_slice() {
        _ if head.method != Method::GET => SimulatedApi::Other,
        ["customers"] => SimulatedApi::Customers,
        ["customers", _, "analytics", "licenses", "usage"] => SimulatedApi::Insights,
        ["customers", _, "analytics", "licenses", "deployment"] => SimulatedApi::Deployment,
        ["analytics", "licenses", "usage"] => SimulatedApi::PartnerUsage,
        ["analytics", "licenses", "deployment"] => SimulatedApi::PartnerDeployment,
        ["analytics", "commercial", "usage", "license"]
        | ["analytics", "commercial", "usage", "license", ""] => find_commercial_api(head),
        _ => SimulatedApi::Other,
    }
}

/// Distinguishes the uses of the commercial call.
fn find_commercial_api(head: &Parts) -> SimulatedApi {
    let number = |name| parameter(head, name).and_then(|value| value.parse::<usize>().ok());
    if parameter(head, "filter").is_some() {
        SimulatedApi::Commercial
    } else if number("skip").is_none() && number("top").is_some_and(|top| top <= MAX_CHECK_ROWS) {
        SimulatedApi::FleetCheck
    } else {
        SimulatedApi::FleetPage
    }
}

/// Returns the page of all customers' rows that a request is for, from 1 on; `None` for other calls.
pub(super) fn fleet_page(head: &Parts, page_size: usize) -> Option<usize> {
    if find_api(head) != SimulatedApi::FleetPage {
        return None;
    }
    let skip = parameter(head, "skip").and_then(|value| value.parse::<usize>().ok());
    Some(skip.unwrap_or(0) / page_size + 1)
}

/// Returns the first value of a query parameter.
fn parameter(head: &Parts, name: &str) -> Option<String> {
    parameters(head).find_map(|(key, value)| (key == name).then_some(value))
}

fn parameters(head: &Parts) -> impl Iterator<Item = (String, String)> + '_ {
    let query = head.uri.query().unwrap_or("");
    form_urlencoded::parse(query.as_bytes()).into_owned()
}

/// Returns the segments of a path after the version.
fn segments(path: &str) -> Vec<&str> {
    let path = path.strip_prefix("/partner").unwrap_or(path);
    let rest = path.strip_prefix("/v1/");
    rest.into_iter().flat_map(|rest| rest.split('/')).collect()
}

// === impl SimulatedCall ===

impl SimulatedCall {
    /// Returns the customer in the path.
    pub(super) fn customer(&self) -> &str {
        let segments = segments(self.head.uri.path());
        segments.get(1).copied().unwrap_or_default()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    pub(super) fn bearer_token(&self) -> Option<&str> {
        let (scheme, token) = self.header(AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    }

    /// Returns the first value of a query parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        parameter(&self.head, name)
    }

    pub(super) fn parameters(&self) -> impl Iterator<Item = (String, String)> + '_ {
        parameters(&self.head)
    }

    /// Returns a query parameter that is a whole number of at least `least`.
    pub(super) fn number(
        &self,
        name: &str,
        least: usize,
    ) -> Result<Option<usize>, BadRequestError> {
        let Some(text) = self.parameter(name) else {
            return Ok(None);
        };
        let number = text.parse().ok().filter(|number| *number >= least);
        number.map(Some).ok_or_else(|| {
            BadRequestError(format!(
                "{name} is '{text}': expected a whole number, at least {least}"
            ))
        })
    }
}

// === impl BadRequestError ===

impl From<BadRequestError> for SimulatedReply {
    fn from(BadRequestError(description): BadRequestError) -> Self {
        Self::error(StatusCode::BAD_REQUEST, "2100", &description)
    }
}
