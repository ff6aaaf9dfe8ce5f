//! The description of the API: OpenAPI 3.1, written by hand in `openapi.json`.

/// The description of an API that needs no credential.
pub const OPENAPI_DOCUMENT: &str = include_str!("openapi.json");

/// The alternative to a credential in the security requirements of the document.
const NO_CREDENTIAL: &str = "    {},\n";

/// Returns the description of an API that identifies callers.
pub(super) fn document_with_credentials() -> String {
    OPENAPI_DOCUMENT.replacen(NO_CREDENTIAL, "", 1)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use serde_json::{Value, json};

    use super::*;
    use crate::{api::router, problem::ProblemKind};

    fn document() -> Value {
        serde_json::from_str(OPENAPI_DOCUMENT).unwrap()
    }

    fn operations(document: &Value) -> Vec<&Value> {
        let items = document["paths"].as_object().unwrap().values();
        items.map(|item| &item["get"]).collect()
    }

    #[test]
    fn the_described_paths_are_the_routes() {
        let document = document();
        let paths = document["paths"].as_object().unwrap();

        let table = router::table();
        let routes = table.iter().filter(|route| !route.is_unmatched());
        let patterns: BTreeSet<_> = routes.map(|route| route.pattern).collect();

        let described: BTreeSet<_> = paths.keys().map(String::as_str).collect();
        assert_eq!(described, patterns);
        for (path, item) in paths {
            let methods: Vec<_> = item.as_object().unwrap().keys().collect();
            assert_eq!(methods, ["get"], "{path}");
        }
    }

    #[test]
    fn the_described_problem_types_are_the_kinds_of_the_api() {
        let document = document();

        let types = &document["components"]["schemas"]["Problem"]["properties"]["type"]["oneOf"];

        let types = types.as_array().unwrap().iter();
        let described: Vec<_> = types.map(|kind| kind["const"].as_str().unwrap()).collect();
        let kinds: Vec<_> = ProblemKind::OF_API.iter().map(|kind| kind.uri()).collect();
        assert_eq!(described, kinds);
    }

    #[test]
    fn every_problem_kind_is_described_under_its_status() {
        let document = document();
        let of_operations = operations(&document)
            .into_iter()
            .flat_map(|operation| operation["responses"].as_object().unwrap());
        let of_operations: HashSet<_> = of_operations
            .filter_map(|(status, response)| Some((status.as_str(), response["$ref"].as_str()?)))
            .collect();
        let introduction = document["info"]["description"].as_str().unwrap();

        for kind in ProblemKind::OF_API {
            let (status, uri) = (kind.status(), kind.uri());
            let is_described = of_operations.iter().any(|(described, reference)| {
                let response = document.pointer(&reference[1..]).unwrap();
                let problem = &response["content"]["application/problem+json"];
                let types = &problem["schema"]["allOf"][1]["properties"]["type"]["enum"];
                // The web page shows a problem as a page, which has no `type`.
                let of_page = format!("`{}` ({})", kind.name(), status.as_str());
                (*described == status.as_str() && types.as_array().unwrap().contains(&json!(uri)))
                    || response["description"].as_str().unwrap().contains(&of_page)
            });
            assert!(
                is_described || introduction.contains(&uri),
                "{uri}, {status}"
            );
        }
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_a_summary_and_a_tag() {
        let document = document();
        let mut names = HashSet::new();

        for operation in operations(&document) {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name), "{name} twice");
            assert!(name.starts_with("get"), "{name}");
            assert!(operation["summary"].is_string(), "{name}");
            assert!(
                document["tags"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|tag| tag["name"] == operation["tags"][0])
            );
        }
    }

    #[test]
    fn every_component_is_defined_and_referenced() {
        let document = document();

        for section in ["parameters", "responses", "headers", "schemas", "examples"] {
            for name in document["components"][section].as_object().unwrap().keys() {
                let reference = format!("\"#/components/{section}/{name}\"");
                assert!(OPENAPI_DOCUMENT.contains(&reference), "{name} is not used");
            }
        }
        for reference in OPENAPI_DOCUMENT.split("\"$ref\": \"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer} is missing");
        }
    }

    #[test]
    fn a_credential_is_required_when_callers_are_identified() {
        let open = document()["security"].take();
        let document: Value = serde_json::from_str(&document_with_credentials()).unwrap();

        let (anonymous, credentials) = open.as_array().unwrap().split_first().unwrap();
        assert_eq!(*anonymous, json!({}));
        assert_eq!(document["security"], json!(credentials));
    }
}
