//! Real answers: `tests/api/openapi.rs` asks the service for each, and compares.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;
use utoipa::openapi::{RefOr, example::Example};

use crate::problem::Kind;

/// Microsoft's own example customer, which the stand-in knows.
pub(super) const CUSTOMER: &str = "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04";

/// The date of Microsoft's own example.
pub(super) const DATE: &str = "2017-03-09";

/// By operation and media type: what a 200 brings.
const ANSWERS: [(&str, &str, &str); 9] = [
    (
        "getCustomerUsage",
        "application/json",
        include_str!("examples/usage.json"),
    ),
    (
        "getCustomerUsage",
        "text/csv",
        include_str!("examples/usage.csv"),
    ),
    (
        "getNativeCustomerUsage",
        "application/json",
        include_str!("examples/native.json"),
    ),
    (
        "getCustomers",
        "application/json",
        include_str!("examples/customers.json"),
    ),
    (
        "getNativeCustomerDeployment",
        "application/json",
        include_str!("examples/deployment.json"),
    ),
    (
        "getNativePartnerUsage",
        "application/json",
        include_str!("examples/partner_usage.json"),
    ),
    (
        "getNativePartnerDeployment",
        "application/json",
        include_str!("examples/partner_deployment.json"),
    ),
    (
        "getCustomerUsageTable",
        "text/csv",
        include_str!("examples/usage.csv"),
    ),
    (
        "getCustomerUsageChart",
        "image/svg+xml",
        include_str!("examples/chart.svg"),
    ),
];

/// By the name of their kind.
static PROBLEMS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("examples/problems.json")).unwrap_or_default()
});

/// What a 200 of an operation brings in a media type.
pub(in crate::api) fn answer(operation: &str, media_type: &str) -> Option<Value> {
    let mut answers = ANSWERS.iter();
    let (_, _, text) = answers.find(|(of, form, _)| *of == operation && *form == media_type)?;
    match media_type {
        "application/json" => serde_json::from_str(text).ok(),
        _ => Some(Value::from(*text)),
    }
}

/// A problem document of a kind, where it takes no broken client or server to be had.
pub(super) fn problem(kind: Kind) -> Option<&'static Value> {
    PROBLEMS.get(kind.name())
}

/// Every problem document, to be referred to.
pub(in crate::api) fn problems() -> impl Iterator<Item = (String, RefOr<Example>)> {
    let kinds = Kind::OF_API.iter();
    kinds.filter_map(|kind| {
        let mut example = Example::new();
        example.summary = kind.title().to_owned();
        example.value = Some(problem(*kind)?.clone());
        Some((kind.name().to_owned(), example.into()))
    })
}
