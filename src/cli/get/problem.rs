//! Problem documents, as people read them.

use serde::Deserialize;

use super::{
    super::{CliError, advice, terminal::sanitize},
    proxy_client::ProxyReply,
};

/// Why there is no usage.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ProxyProblem {
    #[serde(rename = "type")]
    kind: String,
    title: Option<String>,
    detail: Option<String>,
    request_id: Option<String>,
    upstream: Option<ProblemUpstream>,
    /// Who was found by the name that was asked for.
    #[serde(skip)]
    customer: Option<String>,
    #[serde(skip)]
    status: u16,
    /// Seconds until asking again may help.
    #[serde(skip)]
    retry_after: Option<u64>,
}

/// How Partner Center refused.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProblemUpstream {
    status: u16,
    code: Option<String>,
    description: Option<String>,
    request_id: Option<String>,
    correlation_id: Option<String>,
}

// === impl Told ===

impl ProxyProblem {
    /// What an answer other than 200 says; one that is no problem document tells its status.
    pub(super) fn from_reply(reply: &ProxyReply) -> Self {
        let told: Self = serde_json::from_slice(&reply.body).unwrap_or_default();
        let retry_after = reply.headers.get(http::header::RETRY_AFTER);
        Self {
            status: reply.status.as_u16(),
            retry_after: retry_after
                .and_then(|seconds| seconds.to_str().ok())
                .and_then(|seconds| seconds.trim().parse().ok()),
            ..told
        }
    }

    /// Adds the customer that was found by its name, such as `Contoso (GUID)`.
    pub(super) fn with_customer(self, customer: Option<String>) -> Self {
        Self { customer, ..self }
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

    /// Title and detail, then a line for each thing that helps.
    fn text(&self) -> String {
        let title = self
            .title
            .as_deref()
            .unwrap_or("no answer of a usage-proxy; check --url");
        let mut lines = vec![format!("{title} ({})", self.status)];
        lines.extend(self.detail.clone());
        let name = self.kind.rsplit(':').next().unwrap_or_default();
        let labelled = [
            ("customer", self.customer.clone()),
            ("what to do", advice::for_problem(name).map(str::to_owned)),
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

// === impl Upstream ===

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
