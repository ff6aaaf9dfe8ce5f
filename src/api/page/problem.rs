use std::time::Duration;

use askama::Template;
use http::Response;

use super::{
    frame::{PageFrame, SearchForm, respond},
    query,
};
use crate::{
    api::context::RequestContext,
    problem::{FullBody, Problem, ProblemKind},
    text::format_duration,
};

/// The page that explains a problem and its remedy.
#[derive(Template)]
#[template(path = "api/page/problem.html", config = "src/askama.toml")]
struct ProblemPage {
    frame: PageFrame,
    status: String,
    title: &'static str,
    detail: String,
    advice: &'static str,
    /// `Retry-After` in words.
    wait: Option<String>,
    /// The link to the newest usage, if only the date has no data.
    newest: Option<String>,
}

/// Returns the page of a problem, with the headers of the problem document.
pub(in crate::api) fn problem_page(
    context: &RequestContext,
    problem: &Problem,
) -> Response<FullBody> {
    let kind = problem.kind();
    let query = context.query();
    let may_choose = !matches!(
        kind,
        ProblemKind::Unauthenticated | ProblemKind::SeveralCredentials
    );
    let form = may_choose.then(|| SearchForm::from_invalid_query(query));
    let page = ProblemPage {
        frame: PageFrame::new(context, form),
        status: format!("{} {}", kind.status().as_u16(), kind.name()),
        title: kind.title(),
        detail: to_sentence(problem.detail()),
        advice: reader_advice(kind),
        newest: match kind {
            ProblemKind::NothingProcessed => query::newest_link(query),
            _ => None,
        },
        wait: problem
            .retry_after()
            .map(|seconds| format_duration(Duration::from_secs(seconds))),
    };
    let mut response = respond(kind.status(), page.render());
    for (name, value) in problem.headers() {
        response.headers_mut().append(name, value.clone());
    }
    response
}

/// Returns the remedy for the reader of the page.
fn reader_advice(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Unauthenticated => {
            "Load the page again: your browser asks for a user name and a password. The password is \
             your key; the user name may be anything. The operator of this service issues keys."
        }
        ProblemKind::SeveralCredentials => "Send only one credential.",
        ProblemKind::NotAllowed => {
            "Choose another customer. The operator of this service can give your key access to this one."
        }
        ProblemKind::RateLimited => "Wait a moment, then load the page again.",
        ProblemKind::CustomerId | ProblemKind::UnknownCustomer => {
            "Check the spelling, or choose from the list of all customers."
        }
        ProblemKind::NoRelationship => {
            "Choose another customer. The partner has no relationship with this one, so Partner Center \
             returns no data for it."
        }
        ProblemKind::ProcessedDate => {
            "Choose a date up to today, or leave it empty for the newest."
        }
        ProblemKind::NothingProcessed => {
            "Choose another date, or leave it empty for the newest. Partner Center counts at most once a \
             day, publishes some days later, and does not keep old dates."
        }
        ProblemKind::UnknownParameter
        | ProblemKind::DuplicateParameter
        | ProblemKind::InvalidParameter
        | ProblemKind::PageNumber
        | ProblemKind::MethodNotAllowed => "Start again from the list of all customers.",
        ProblemKind::Throttled
        | ProblemKind::CircuitOpen
        | ProblemKind::Unavailable
        | ProblemKind::Overloaded
        | ProblemKind::Interrupted
        | ProblemKind::TimedOut
        | ProblemKind::IssuerUnavailable => {
            "This is not your fault. Load the page again later. If the problem remains, send the request \
             id below to the operator of this service."
        }
        ProblemKind::NotCached => "Load the page again without only-if-cached.",
        _ => "Send the request id below to the operator of this service.",
    }
}

/// Makes a sentence of a detail, which has no capital letter and no full stop.
fn to_sentence(detail: &str) -> String {
    let mut characters = detail.chars();
    match characters.next() {
        None => String::new(),
        Some(first) => {
            let stop = if detail.ends_with('.') { "" } else { "." };
            format!("{}{}{stop}", first.to_uppercase(), characters.as_str())
        }
    }
}
