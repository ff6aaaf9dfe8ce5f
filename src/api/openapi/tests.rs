use std::collections::{BTreeSet, HashSet};

use serde_json::Value;
use utoipa::openapi::SecurityRequirement;

use super::*;
use crate::{api::router, problem::Kind};

fn document() -> Value {
    serde_json::to_value(build_description(Anonymous::Allowed)).unwrap()
}

fn operations(document: &Value) -> Vec<&Value> {
    let items = document["paths"].as_object().unwrap().values();
    items
        .flat_map(|item| item.as_object().unwrap().values())
        .collect()
}

#[test]
fn exactly_the_existing_routes_are_described() {
    let document = document();

    let described: BTreeSet<_> = document["paths"].as_object().unwrap().keys().collect();

    let routes: BTreeSet<_> = router::table()
        .iter()
        .filter(|route| !route.is_unmatched())
        .map(|route| route.pattern.to_owned())
        .collect();
    assert_eq!(described, routes.iter().collect());
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods: Vec<_> = item.as_object().unwrap().keys().collect();
        assert_eq!(methods, ["get"], "{path}");
    }
}

#[test]
fn every_problem_kind_is_described_under_its_status() {
    let document = document();

    for kind in Kind::OF_API {
        let (status, uri) = (kind.status().as_str().to_owned(), kind.uri());
        let told = operations(&document).iter().any(|operation| {
            let response = &operation["responses"][&status];
            let schema = &response["content"]["application/problem+json"]["schema"];
            let kinds = schema["allOf"][1]["properties"]["type"]["enum"].as_array();
            // The page shows problems as pages, which have no `type`.
            let is_shown = || {
                let item = format!("- `{}`:", kind.name());
                let description = response["description"].as_str().unwrap_or_default();
                operation["operationId"] == "getPage" && description.contains(&item)
            };
            kinds.is_some_and(|kinds| kinds.contains(&Value::from(uri.clone()))) || is_shown()
        });
        let introduced = document["info"]["description"]
            .as_str()
            .unwrap()
            .contains(&uri);

        assert!(told || introduced, "{uri} is not described with {status}");
    }
}

#[test]
fn the_page_is_described_as_not_cacheable() {
    let document = document();

    let page = &document["paths"]["/"]["get"];

    let parameters = page["parameters"].as_array().unwrap();
    let parameters: BTreeSet<_> = parameters
        .iter()
        .filter_map(|parameter| parameter["name"].as_str())
        .collect();
    let expected = "Cache-Control MS-CorrelationId X-Correlation-Id X-Request-Id customer date \
                    page traceparent";
    assert_eq!(parameters, expected.split(' ').collect());
    let headers = page["responses"]["200"]["headers"].as_object().unwrap();
    assert!(headers.contains_key("Content-Security-Policy"));
    for header in [
        "ETag",
        "Last-Modified",
        "Age",
        "Content-Disposition",
        "Content-Encoding",
    ] {
        assert!(!headers.contains_key(header), "{header}");
    }
}

#[test]
fn a_generated_client_has_a_name_for_every_operation() {
    let document = document();

    let mut names = HashSet::new();

    for operation in operations(&document) {
        let name = operation["operationId"].as_str().unwrap();
        assert!(names.insert(name), "{name} twice");
        assert!(name.starts_with("get"), "{name}");
        for told in ["summary", "tags"] {
            assert!(operation.get(told).is_some(), "{name} has no {told}");
        }
    }
}

#[test]
fn every_component_is_defined_and_referenced() {
    let document = document();
    let text = document.to_string();

    for section in ["schemas", "headers", "examples"] {
        for name in document["components"][section].as_object().unwrap().keys() {
            let reference = format!("\"#/components/{section}/{name}\"");
            assert!(text.contains(&reference), "nothing refers to {name}");
        }
    }
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer} is nowhere");
    }
}

#[test]
fn a_credential_is_required_when_callers_are_identified() {
    let allowed = build_description(Anonymous::Allowed).security.unwrap();
    let refused = build_description(Anonymous::Refused).security.unwrap();

    assert!(allowed[1..] == refused);
    assert!(allowed[0] == SecurityRequirement::default());
}
