//! A collector of traces: takes OTLP over HTTP, or fails to, as the test wants.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    },
    common::v1::{KeyValue, any_value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::{Message as _, bytes::Bytes};
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch};

use super::PATIENCE;

/// Listens until the test ends.
pub(crate) struct Collector {
    /// The value for `tracing.otlp_endpoint`.
    pub(crate) url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    exports: watch::Sender<Vec<Export>>,
    answer: Mutex<Answer>,
}

/// One request, as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Export {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The answer to it. Spans count as taken only with [`Answer::Take`].
    answer: Answer,
}

/// The answer to exports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answer {
    /// They are taken.
    #[default]
    Take,
    /// They are taken but for so many of their spans.
    TakeBut(i64),
    /// They are answered with this status.
    Status(u16),
    /// They are never answered.
    Never,
}

/// A span, as a backend would show it.
#[derive(Clone, Debug)]
pub(crate) struct Traced {
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for the first of its trace.
    pub(crate) parent: String,
    pub(crate) attributes: BTreeMap<String, Value>,
    pub(crate) events: Vec<(String, BTreeMap<String, Value>)>,
    /// Trace and span.
    pub(crate) links: Vec<(String, String)>,
    pub(crate) failed: bool,
    pub(crate) nanoseconds: u64,
    pub(crate) resource: BTreeMap<String, Value>,
}

// === impl Collector ===

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::<State>::default();
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { url, state }
    }

    /// Sets the answer to exports from now on.
    pub(crate) fn answer(&self, answer: Answer) {
        *self.state.answer.lock().unwrap() = answer;
    }

    /// Every request so far.
    pub(crate) fn exports(&self) -> Vec<Export> {
        self.state.exports.borrow().clone()
    }

    /// Waits until there were so many requests.
    pub(crate) async fn exported(&self, times: usize) {
        let mut exports = self.state.exports.subscribe();
        let enough = exports.wait_for(|exports| exports.len() >= times);
        let waited = tokio::time::timeout(PATIENCE, enough).await.is_ok();
        assert!(waited, "{} exports, not {times}", self.exports().len());
    }

    /// Every span that was taken.
    pub(crate) fn spans(&self) -> Vec<Traced> {
        self.exports().iter().flat_map(Export::taken).collect()
    }

    /// The only span of this name that was taken.
    #[track_caller]
    pub(crate) fn span(&self, name: &str) -> Traced {
        let found = self.named(name);
        let [span] = found.as_slice() else {
            panic!("one {name} was expected: {found:#?}");
        };
        span.clone()
    }

    /// The spans of this name that were taken, in the order they ended.
    pub(crate) fn named(&self, name: &str) -> Vec<Traced> {
        let all = self.spans().into_iter();
        all.filter(|span| span.name == name).collect()
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let answer = *state.answer.lock().unwrap();
    state.exports.send_modify(|exports| {
        exports.push(Export {
            path: head.uri.path().to_owned(),
            headers: head.headers,
            body,
            answer,
        });
    });
    let (status, rejected) = match answer {
        Answer::Take => (200, None),
        Answer::TakeBut(spans) => (200, Some(spans)),
        Answer::Status(status) => (status, None),
        Answer::Never => std::future::pending().await,
    };
    let partial_success = rejected.map(|rejected_spans| ExportTracePartialSuccess {
        rejected_spans,
        error_message: "as the test wants it".to_owned(),
    });
    let body = ExportTraceServiceResponse { partial_success }.encode_to_vec();
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    Ok(response)
}

// === impl Export ===

impl Export {
    fn taken(&self) -> Vec<Traced> {
        if self.answer != Answer::Take {
            return Vec::new();
        }
        self.spans()
    }

    /// The spans in it, taken or not.
    pub(crate) fn spans(&self) -> Vec<Traced> {
        let request = ExportTraceServiceRequest::decode(self.body.clone()).unwrap();
        let of_resources = request.resource_spans.into_iter().flat_map(|of_one| {
            let resource = attributes(of_one.resource.unwrap_or_default().attributes);
            let spans = of_one.scope_spans.into_iter();
            spans
                .flat_map(|of_scope| of_scope.spans)
                .map(move |span| Traced::new(span, resource.clone()))
        });
        of_resources.collect()
    }
}

// === impl Traced ===

impl Traced {
    fn new(span: Span, resource: BTreeMap<String, Value>) -> Self {
        Self {
            kind: span.kind(),
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            attributes: attributes(span.attributes),
            events: (span.events.into_iter())
                .map(|event| (event.name, attributes(event.attributes)))
                .collect(),
            links: (span.links.iter())
                .map(|link| (hex(&link.trace_id), hex(&link.span_id)))
                .collect(),
            failed: span
                .status
                .is_some_and(|status| status.code() == StatusCode::Error),
            nanoseconds: span.end_time_unix_nano - span.start_time_unix_nano,
            name: span.name,
            resource,
        }
    }

    /// An attribute; `null` where there is none.
    pub(crate) fn get(&self, name: &str) -> Value {
        self.attributes.get(name).cloned().unwrap_or_default()
    }

    /// Returns the `traceparent` that names this span as a sampled one.
    pub(crate) fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace, self.id)
    }
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, Value> {
    let attributes = pairs.into_iter().map(|pair| {
        let value = match pair.value.and_then(|value| value.value) {
            Some(any_value::Value::StringValue(text)) => text.into(),
            Some(any_value::Value::IntValue(number)) => number.into(),
            Some(any_value::Value::DoubleValue(number)) => number.into(),
            Some(any_value::Value::BoolValue(truth)) => truth.into(),
            other => panic!("{other:?} is nothing that we tell"),
        };
        (pair.key, value)
    });
    attributes.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
