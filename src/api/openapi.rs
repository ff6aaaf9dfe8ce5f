//! The description of this API: OpenAPI 3.1, made from the handlers, the types that they serialise
//! and the table of problems.
//!
//! Handlers say what is their own: path, parameters, bodies, problems. What answers have in common
//! is added here by rule: headers, examples, credentials. HEAD is described once, in the introduction:
//! an operation of its own would double every entry of the documentation and of generated clients.

use std::borrow::Cow;

use utoipa::{
    Modify, OpenApi,
    openapi::{self, RefOr, Response, path::PathItem},
};

use super::{
    assets::{NO_CONTENT_POLICY, StaticFile},
    customers, docs, documents, page,
    schema::{self, ABOUT, Anonymous, FileHeaders, FileProblems, SHOWN, Subject, USAGE},
    usage,
};
use crate::problem::Problem;

/// What the macros collect.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "usage-proxy",
        description = include_str!("openapi/introduction.md"),
    ),
    servers((url = "/", description = "The service that this document was fetched from.")),
    tags(
        (name = USAGE, description = "License usage per customer and processed date."),
        (name = SHOWN, description = "The same, to be looked at in a browser."),
        (name = ABOUT, description = "This API, described. Everybody may read it."),
    ),
    paths(
        customers::list,
        usage::simplified,
        usage::chart,
        usage::table,
        usage::native,
        documents::deployment,
        documents::partner_usage,
        documents::partner_deployment,
        page::page,
        page::files,
        file,
        docs::pages,
        docs::files,
    ),
    components(schemas(Problem)),
    modifiers(&CommonResponses),
)]
struct ApiDescription;

/// Adds what answers have in common.
struct CommonResponses;

/// The document, laid out for people.
///
/// # Errors
///
/// None in practice: every part of it has a JSON form.
pub fn document() -> serde_json::Result<String> {
    serde_json::to_string_pretty(&build_description(Anonymous::Allowed))
}

/// The path of the document.
pub(super) const PATH: &str = "/openapi.json";

/// `GET /openapi.json`.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getOpenApi",
    tag = ABOUT,
    summary = "This document",
    params(FileHeaders),
    responses(
        (status = 200, description = "OpenAPI 3.1.", body = serde_json::Value, content_type = "application/json"),
        (status = 304, description = "The client has it already."),
        FileProblems,
    ),
    security(()),
)]
pub(super) fn file(anonymous: Anonymous) -> StaticFile {
    let document = serde_json::to_vec(&build_description(anonymous));
    StaticFile {
        path: PATH,
        content_type: "application/json",
        content_security_policy: NO_CONTENT_POLICY,
        body: Cow::Owned(document.unwrap_or_default()),
    }
}

fn build_description(anonymous: Anonymous) -> openapi::OpenApi {
    let mut document = ApiDescription::openapi();
    document.security = Some(schema::requirements(anonymous));
    document
}

// === impl Common ===

impl Modify for CommonResponses {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.headers.extend(schema::headers());
        components.examples.extend(schema::problem_examples());
        components.security_schemes.extend(schema::schemes());
        for item in document.paths.paths.values_mut() {
            add_common_responses(item);
        }
    }
}

/// Adds to the GET of a path what every GET has.
fn add_common_responses(item: &mut PathItem) {
    let Some(get) = &mut item.get else { return };
    let is = |of: &str| get.tags.iter().flatten().any(|tag| tag == of);
    let subject = if is(ABOUT) {
        Subject::File
    } else if get.operation_id.as_deref() == Some("getPage") {
        Subject::Page
    } else if is(SHOWN) {
        Subject::Shown
    } else {
        Subject::Data
    };
    let name = get.operation_id.clone().unwrap_or_default();
    for (status, response) in &mut get.responses.responses {
        let RefOr::T(response) = response else {
            continue;
        };
        schema::dress(response, subject, status);
        if status == "200" {
            add_examples(response, &name);
        }
    }
}

fn add_examples(response: &mut Response, operation: &str) {
    for (media_type, content) in &mut response.content {
        if let RefOr::T(content) = content {
            content.example = schema::answer_example(operation, media_type);
        }
    }
}

#[cfg(test)]
mod tests;
