//! Problem documents, as text.

use serde::Deserialize;

use super::{
    super::{CliError, terminal::sanitize},
    proxy_client::ProxyReply,
};

/// A problem document of the proxy.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ProxyProblem {
    #[serde(rename = "type")]
    kind: String,
    title: Option<String>,
    detail: Option<String>,
    request_id: Option<String>,
    upstream: Option<ProblemUpstream>,
    /// The customer that was found by its name.
    #[serde(skip)]
    customer: Option<String>,
    #[serde(skip)]
    status: u16,
    /// Seconds until a retry may succeed.
    #[serde(skip)]
    retry_after: Option<u64>,
}

/// Partner Center's refusal.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProblemUpstream {
    status: u16,
    code: Option<String>,
    description: Option<String>,
    request_id: Option<String>,
    correlation_id: Option<String>,
}

// === impl ProxyProblem ===

impl ProxyProblem {
    /// Reads an answer other than 200; without a problem document, only its status is known.
    pub(super) fn from_reply(reply: &ProxyReply) -> Self {
        let document: Self = serde_json::from_slice(&reply.body).unwrap_or_default();
        let retry_after = reply.headers.get(http::header::RETRY_AFTER);
        Self {
            status: reply.status.as_u16(),
            retry_after: retry_after
                .and_then(|seconds| seconds.to_str().ok())
                .and_then(|seconds| seconds.trim().parse().ok()),
            ..document
        }
    }

    /// Adds the customer that was found by its name, such as `Contoso (GUID)`.
    pub(super) fn with_customer(self, customer: Option<String>) -> Self {
        Self { customer, ..self }
    }

    /// Returns whether it is the problem of this name.
    pub(super) fn is(&self, name: &str) -> bool {
        self.kind.ends_with(&format!(":{name}"))
    }

    pub(super) fn into_error(self) -> CliError {
        let is_wrong_use = self.status == 400;
        let text = self.text();
        if is_wrong_use {
            CliError::usage(text)
        } else {
            CliError::other(text)
        }
    }

    /// Formats title and detail, then a line for each thing that helps.
    fn text(&self) -> String {
        let title = self
            .title
            .as_deref()
            .unwrap_or("not an answer of a usage-proxy; check --url");
        let mut lines = vec![format!("{title} ({})", self.status)];
        lines.extend(self.detail.clone());
        let name = self.kind.rsplit(':').next().unwrap_or_default();
        let labelled = [
            ("customer", self.customer.clone()),
            ("what to do", advice(name).map(str::to_owned)),
            (
                "ask again in",
                self.retry_after.map(|seconds| format!("{seconds} s")),
            ),
            (
                "Partner Center",
                self.upstream.as_ref().map(ProblemUpstream::text),
            ),
            ("request id", self.request_id.clone()),
        ];
        let labelled = labelled
            .into_iter()
            .filter_map(|(label, text)| Some((label, text?)));
        lines.extend(labelled.map(|(label, text)| format!("{label}: {text}")));
        lines
            .iter()
            .map(|line| sanitize(line))
            .collect::<Vec<_>>()
            .join("\n  ")
    }
}

// === impl ProblemUpstream ===

impl ProblemUpstream {
    fn text(&self) -> String {
        let mut text = self.status.to_string();
        for (label, part) in [
            (", code ", &self.code),
            (", ", &self.description),
            (", request id ", &self.request_id),
            (", correlation id ", &self.correlation_id),
        ] {
            if let Some(part) = part {
                text.push_str(label);
                text.push_str(part);
            }
        }
        text
    }
}

/// Returns what to do about a problem, if its own detail does not say it.
fn advice(name: &str) -> Option<&'static str> {
    let (_, advice) = PROBLEM_ADVICE.iter().find(|(known, _)| *known == name)?;
    Some(advice)
}

/// The advice of the troubleshooting table of `deploy/README.md`, and for callers.
const PROBLEM_ADVICE: &[(&str, &str)] = &[
    (
        "unauthenticated",
        "--key-file names the file with your key; `usage-proxy hash-key` makes one",
    ),
    (
        "not-allowed",
        "the owner of the callers file can give this caller the customer",
    ),
    (
        "credentials-refused",
        "`usage-proxy doctor --config FILE`, where the proxy runs and with its file, says what a person must do",
    ),
    (
        "unknown-customer",
        "check the id: it is the customer's Microsoft 365 tenant",
    ),
    (
        "nothing-processed",
        "Partner Center has no data of that date: it lags by days, and keeps no date for ever",
    ),
    (
        "throttled",
        "Raise `cache.fresh_for`, lower `upstream.max_concurrency`",
    ),
    (
        "overloaded",
        "Ask for fewer customers at once, or raise `upstream.max_concurrency`",
    ),
    (
        "rejected",
        "check `upstream.base_url` and `upstream.commercial_path`",
    ),
    (
        "unavailable",
        "Partner Center is down or slow, and no usable data is cached",
    ),
    (
        "timed-out",
        "Partner Center is down or slow, and no usable data is cached",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATING: &str = include_str!("../../../deploy/README.md");

    /// Error codes whose advice is in the troubleshooting table.
    const IN_TROUBLESHOOTING: [&str; 6] = [
        "nothing-processed",
        "throttled",
        "overloaded",
        "rejected",
        "unavailable",
        "timed-out",
    ];

    #[test]
    fn the_troubleshooting_table_gives_the_same_advice() {
        let table = OPERATING.split("### By error code").nth(1).unwrap();

        for name in IN_TROUBLESHOOTING {
            let advice = advice(name).unwrap();
            let row = table.lines().find(|row| {
                row.starts_with('|') && row.contains(&format!("`{name}`")) && row.contains(advice)
            });

            assert!(row.is_some(), "no row says of `{name}`: {advice}");
        }
    }
}
