//! A call in progress, and its parameters.

use http::{Method, StatusCode, header::AUTHORIZATION, request::Parts};
use url::form_urlencoded;

use crate::simulator::{faults::Faults, record::SimulatedApi, reply::SimulatedReply};

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
        | ["analytics", "commercial", "usage", "license", ""] => SimulatedApi::Commercial,
        _ => SimulatedApi::Other,
    }
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
        let mut parameters = self.parameters();
        parameters.find_map(|(key, value)| (key == name).then_some(value))
    }

    pub(super) fn parameters(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let query = self.head.uri.query().unwrap_or("");
        form_urlencoded::parse(query.as_bytes()).into_owned()
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
