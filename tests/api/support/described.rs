//! Compares answers with the description of the API.

use std::sync::LazyLock;

use http::Method;
use serde_json::Value;
use usage_proxy::api::OPENAPI_DOCUMENT;

use super::Reply;

pub(crate) static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(OPENAPI_DOCUMENT).unwrap());

/// Headers that OpenAPI leaves to HTTP, and those that the introduction describes.
const OF_EVERY_OPERATION: [&str; 6] = [
    "content-type",
    "content-length",
    "date",
    "connection",
    "access-control-allow-origin",
    "access-control-expose-headers",
];

/// Asserts that the description has this answer: its status, media type, headers, and the kind of
/// problem that it is. Nothing is said of paths that no route has, and of methods but the two that
/// every route has, which are answered with 405.
#[track_caller]
pub(crate) fn assert_described(method: &Method, target: &str, reply: &Reply) {
    let path = target.split('?').next().unwrap();
    let Some(item) = item(path) else { return };
    let operation = match *method {
        // The introduction says that HEAD is answered as GET is.
        Method::GET | Method::HEAD => &item["get"],
        _ if reply.status == 405 => &item["get"],
        _ => return,
    };
    let what = format!("{method} {target}: {}", reply.status);
    let responses = operation["responses"].as_object().unwrap();
    let range = format!("{}XX", reply.status / 100);
    let response = responses
        .get(&reply.status.to_string())
        .or_else(|| responses.get(&range));
    let response = resolve(response.unwrap_or_else(|| panic!("{what} is not described")));
    for name in reply.headers.keys().map(http::HeaderName::as_str) {
        let mut described = response["headers"].as_object().unwrap().keys();
        assert!(
            OF_EVERY_OPERATION.contains(&name)
                || described.any(|other| other.eq_ignore_ascii_case(name)),
            "{what}: {name} is not described"
        );
    }
    if reply.body.is_empty() {
        return;
    }
    let media_type = reply.header("content-type").split(';').next().unwrap();
    let content = &response["content"][media_type];
    assert!(content.is_object(), "{what}: {media_type} is not described");
    if media_type == "application/problem+json" {
        let kinds = &content["schema"]["allOf"][1]["properties"]["type"]["enum"];
        let kind = &reply.json()["type"];
        assert!(
            kinds.as_array().unwrap().contains(kind),
            "{what}: {kind} is not described"
        );
    }
}

/// The part of the document that a `$ref` names, or else the value itself.
pub(crate) fn resolve(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(&reference[1..]).unwrap(),
        None => value,
    }
}

/// Asserts that the schema of an answer in JSON describes it.
#[track_caller]
pub(crate) fn assert_matches_description(reply: &Reply) {
    let target = reply.request.split_once(' ').unwrap().1;
    let path = target.split('?').next().unwrap();
    let response = resolve(&item(path).unwrap()["get"]["responses"]["200"]);
    let schema = &response["content"]["application/json"]["schema"];
    assert_matches_schema(path, &reply.json(), schema);
}

/// Asserts that the schema describes every member of a value, and that no required one is missing.
#[track_caller]
pub(crate) fn assert_matches_schema(name: &str, value: &Value, schema: &'static Value) {
    let schema = resolve(schema);
    match value {
        Value::Object(members) => {
            for (member, value) in members {
                let described = &schema["properties"][member];
                assert!(described.is_object(), "{name}: {member} is not described");
                assert_matches_schema(member, value, described);
            }
            for member in schema["required"].as_array().into_iter().flatten() {
                let member = member.as_str().unwrap();
                assert!(members.contains_key(member), "{name}: {member} is missing");
            }
        }
        Value::Array(items) => {
            for item in items {
                assert_matches_schema(name, item, &schema["items"]);
            }
        }
        _ => {}
    }
}

fn item(path: &str) -> Option<&'static Value> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    paths.get(path).or_else(|| {
        let mut paths = paths.iter();
        let (_, item) = paths.find(|(pattern, _)| fits(pattern, path))?;
        Some(item)
    })
}

fn fits(pattern: &str, path: &str) -> bool {
    let (pattern, path) = (pattern.split('/'), path.split('/'));
    pattern.clone().count() == path.clone().count()
        && pattern
            .zip(path)
            .all(|(pattern, segment)| pattern.starts_with('{') || pattern == segment)
}
