//! W3C Trace Context, the identity of a span across processes.
//!
//! See <https://www.w3.org/TR/trace-context/>.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{SpanContext, TraceContextExt as _, TraceFlags},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The longest `tracestate` that every party must accept (§3.3.1.5). Each span of a request keeps
/// it, so with a longer one callers could use up memory.
const MAX_TRACESTATE_CHARS: usize = 512;

/// The two headers as received.
struct TraceHeaders<'a> {
    traceparent: Option<&'a str>,
    /// Several headers form one list, in their order (§3.3).
    tracestate: Option<Cow<'a, str>>,
}

/// Returns the parent span of a request; `None` if it names none or several.
pub(super) fn extract(headers: &HeaderMap) -> Option<SpanContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let parent = parents.next()?;
    if parents.next().is_some() {
        return None;
    }
    let received = TraceHeaders {
        traceparent: parent.to_str().ok(),
        tracestate: tracestate(headers),
    };
    let found = TraceContextPropagator::new().extract_with_context(&Context::new(), &received);
    let context = found.span().span_context().clone();
    context.is_valid().then_some(context)
}

fn tracestate(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let lists = headers.get_all(TRACESTATE).iter();
    lists
        .filter_map(|list| list.to_str().ok())
        .map(Cow::Borrowed)
        .reduce(|all, list| Cow::Owned(format!("{all},{list}")))
        .filter(|all| all.len() <= MAX_TRACESTATE_CHARS)
}

/// Sets `traceparent` of a request that is about to be sent.
///
/// `tracestate` is not forwarded: it is private to the caller's vendors, and an intermediary may
/// omit it (§3.5).
pub fn inject(context: &SpanContext, headers: &mut HeaderMap) {
    let parent = format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        context.trace_flags() & TraceFlags::SAMPLED,
    );
    headers.remove(TRACESTATE);
    if let Ok(parent) = HeaderValue::try_from(parent) {
        headers.insert(TRACEPARENT, parent);
    }
}

/// Converts a parent to the SDK's type.
pub(super) fn parent_context(parent: Option<&SpanContext>) -> Context {
    match parent {
        Some(parent) => Context::new().with_remote_span_context(parent.clone()),
        None => Context::new(),
    }
}

// === impl TraceHeaders ===

impl Extractor for TraceHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.traceparent,
            "tracestate" => self.tracestate.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_parent_is_forwarded_with_its_tracestate() {
        for (state, expected) in [
            (&[][..], ""),
            (&[("tracestate", "a=1")], "a=1"),
            (&[("tracestate", "a=1"), ("tracestate", "b=2")], "a=1,b=2"),
            (&[("tracestate", "no list")], ""),
        ] {
            let received = headers(&[&[("traceparent", PARENT)], state].concat());

            let context = extract(&received).unwrap();

            assert!(context.is_remote());
            assert!(context.is_sampled());
            let mut sent = headers(&[("traceparent", "stale"), ("tracestate", "stale=1")]);
            inject(&context, &mut sent);
            assert_eq!(sent[TRACEPARENT], PARENT);
            assert!(!sent.contains_key(TRACESTATE));
            assert_eq!(context.trace_state().header(), expected);
        }
    }

    #[test]
    fn a_tracestate_that_is_too_long_is_dropped() {
        for (len, expected) in [(512, 512), (513, 0), (8_000, 0)] {
            let entries = ["a=", "b="].map(|key| key.to_owned() + &"v".repeat(253));
            let mut state = entries.join(",");
            state.push_str(&"v".repeat(len - state.len()));
            let mut received = headers(&[("traceparent", PARENT)]);
            received.insert(TRACESTATE, HeaderValue::try_from(state).unwrap());

            let context = extract(&received).unwrap();

            assert_eq!(context.trace_state().header().len(), expected, "{len}");
        }
    }

    #[test]
    fn invalid_or_repeated_traceparents_are_ignored() {
        for parents in [
            &[][..],
            &[("traceparent", "")],
            &[(
                "traceparent",
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            )],
            &[(
                "traceparent",
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )],
            &[("traceparent", PARENT), ("traceparent", PARENT)],
        ] {
            assert_eq!(extract(&headers(parents)), None, "{parents:?}");
        }
    }
}
