//! The description of this API: OpenAPI 3.1, made from the handlers and the types that they serialise.

mod parameters;

use std::borrow::Cow;

use utoipa::OpenApi;

pub(super) use self::parameters::{OfCustomer, OfDate};
use super::{
    assets::{File, NO_PAGE},
    usage,
};

/// What the macros collect.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "usage-proxy",
        description = "License usage per customer, from Microsoft Partner Center."
    ),
    servers((url = "/", description = "The service that this document was fetched from.")),
    paths(usage::simplified, usage::native, file)
)]
struct Collected;

/// The document, laid out for people.
///
/// # Errors
///
/// None in practice: every part of it has a JSON form.
pub fn document() -> serde_json::Result<String> {
    serde_json::to_string_pretty(&Collected::openapi())
}

/// `GET /openapi.json`.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getOpenApi",
    responses((status = 200, description = "This document.", content_type = "application/json")),
)]
pub(super) fn file() -> File {
    let document = serde_json::to_vec(&Collected::openapi());
    File {
        path: "/openapi.json",
        content_type: "application/json",
        policy: NO_PAGE,
        body: Cow::Owned(document.unwrap_or_default()),
    }
}
