//! Whether an answer is one that the description of the API has.

use std::sync::LazyLock;

use http::Method;
use serde_json::Value;

use super::Reply;

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&usage_proxy::api::openapi_document().unwrap()).unwrap());

/// Headers that are HTTP's own business.
const OF_HTTP: [&str; 4] = ["content-type", "content-length", "date", "connection"];

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
    let response = &operation["responses"][reply.status.to_string()];
    assert!(response.is_object(), "{what} is not described");
    for name in reply.headers.keys().map(http::HeaderName::as_str) {
        let mut described = response["headers"].as_object().unwrap().keys();
        assert!(
            OF_HTTP.contains(&name) || described.any(|other| other.eq_ignore_ascii_case(name)),
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
