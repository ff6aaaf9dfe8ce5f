use std::time::Duration;

use askama::Template;
use http::Response;

use super::{PageFrame, SearchForm, query, respond};
use crate::{
    api::context::RequestContext,
    problem::{FullBody, Problem, ProblemKind},
    text::format_duration,
};

/// A problem as a page: what happened, and what its reader can do.
#[derive(Template)]
#[template(path = "api/page/problem.html", config = "src/askama.toml")]
struct ProblemPage {
    frame: PageFrame,
    status: String,
    title: &'static str,
    detail: String,
    advice: &'static str,
    /// How long to wait, where anybody knows.
    wait: Option<String>,
    /// The newest of the customer, where there is something of another date.
    newest: Option<String>,
}

/// Shows a problem, with the headers that it has as a document.
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

/// What its reader can do about it.
fn reader_advice(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Unauthenticated => {
            "Load the page again: your browser asks for a user name and a password. The password is \
             your key; the user name may be anything. Whoever runs this service hands out keys."
        }
        ProblemKind::SeveralCredentials => "Send one credential, and no other.",
        ProblemKind::NotAllowed => {
            "Choose another customer. Whoever runs this service can give your key the right to this one."
        }
        ProblemKind::RateLimited => "Wait for a moment, and load the page again.",
        ProblemKind::CustomerId | ProblemKind::UnknownCustomer => {
            "Check the spelling, or choose from the list of all customers."
        }
        ProblemKind::NoRelationship => {
            "Choose another customer: the partner has none of Microsoft’s relationships with this one, \
             so Partner Center tells nothing of it."
        }
        ProblemKind::ProcessedDate => {
            "Choose a date up to today, or leave it empty for the newest."
        }
        ProblemKind::NothingProcessed => {
            "Choose another date, or leave it empty for the newest. Partner Center counts once a \
             day at most, some days late, and keeps no date for ever."
        }
        ProblemKind::UnknownParameter
        | ProblemKind::DuplicateParameter
        | ProblemKind::PageNumber
        | ProblemKind::MethodNotAllowed => "Start again from the list of all customers.",
        ProblemKind::Throttled
        | ProblemKind::CircuitOpen
        | ProblemKind::Unavailable
        | ProblemKind::Overloaded
        | ProblemKind::Interrupted
        | ProblemKind::TimedOut
        | ProblemKind::IssuerUnavailable => {
            "It is no fault of yours. Load the page again in a while; if that goes on, tell whoever \
             runs this service, with the request’s id below."
        }
        ProblemKind::NotCached => "Load the page again without only-if-cached.",
        _ => "Tell whoever runs this service, with the request’s id below.",
    }
}

/// A detail is written to be read within a document: lower case, no full stop.
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
