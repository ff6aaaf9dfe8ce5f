//! The static files: those of the web page and of the documentation, and the description of the API.

use std::sync::LazyLock;

use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
        REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
    },
};
use jiff::Timestamp;

use super::{
    caching,
    context::RequestContext,
    negotiation,
    openapi::{self, OPENAPI_DOCUMENT},
    response::{ApiResponse, HandlerResult},
};
use crate::{
    offload,
    problem::{FullBody, Problem},
    render::{ContentCoding, RenderedDocument},
};

/// A file that is embedded in the program, compressed at most once in each coding.
struct StaticAsset {
    path: &'static str,
    content_type: &'static str,
    content_security_policy: &'static str,
    document: RenderedDocument,
}

const CSS: &str = "text/css; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";
const SVG: &str = "image/svg+xml";

const OPENAPI_PATH: &str = "/openapi.json";

/// Allows nothing to be loaded, and no page to frame the file.
const NO_CONTENT_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Allows the documentation its own scripts and styles and requests to this service only; no page may
/// frame it. Swagger UI has its icons in its stylesheet, as `data:` images.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The headers of every file.
///
/// A browser looks for a newer file after five minutes, which costs little with a validator, so a new
/// release is seen that soon.
const COMMON_HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=300"),
    ),
    (VARY, HeaderValue::from_static("accept-encoding")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// The files that are the same for every service.
static ASSETS: LazyLock<[StaticAsset; 8]> = LazyLock::new(|| {
    let docs = include_str!("docs/index.html");
    let docs = |path| StaticAsset {
        content_security_policy: DOCS_POLICY,
        ..StaticAsset::new(path, HTML, docs)
    };
    let css = include_str!("docs/swagger-ui/swagger-ui.css");
    let bundle = include_str!("docs/swagger-ui/swagger-ui-bundle.js");
    [
        StaticAsset::new("/assets/page.css", CSS, include_str!("page/page.css")),
        StaticAsset::new("/assets/page.js", JAVASCRIPT, include_str!("page/page.js")),
        StaticAsset::new("/assets/icon.svg", SVG, include_str!("page/icon.svg")),
        docs("/docs"),
        docs("/docs/"),
        StaticAsset::new("/docs/start.js", JAVASCRIPT, include_str!("docs/start.js")),
        StaticAsset::new("/docs/swagger-ui.css", CSS, css),
        StaticAsset::new("/docs/swagger-ui-bundle.js", JAVASCRIPT, bundle),
    ]
});

/// The description of an API that needs no credential.
static OPENAPI: LazyLock<StaticAsset> =
    LazyLock::new(|| StaticAsset::new(OPENAPI_PATH, JSON, OPENAPI_DOCUMENT));

/// The description of an API that identifies callers.
static OPENAPI_WITH_CREDENTIALS: LazyLock<StaticAsset> =
    LazyLock::new(|| StaticAsset::new(OPENAPI_PATH, JSON, &openapi::document_with_credentials()));

/// Returns true if a request needs no credential. Only the exact paths of the files are public: every
/// other path is authenticated first.
pub(super) fn is_public(context: &RequestContext) -> bool {
    context.route.is_static() && (context.path() == OPENAPI_PATH || find(context.path()).is_some())
}

/// `GET /assets/{file}`, `GET /docs` and `GET /docs/{file}`.
pub(super) async fn file(context: RequestContext) -> HandlerResult {
    let asset = find(context.path()).ok_or_else(|| Problem::not_found(context.path()))?;
    respond(asset, &context).await
}

/// `GET /openapi.json`.
pub(super) async fn openapi(context: RequestContext) -> HandlerResult {
    let asset = if context.api.authenticator.allows_anonymous() {
        &OPENAPI
    } else {
        &OPENAPI_WITH_CREDENTIALS
    };
    respond(asset, &context).await
}

fn find(path: &str) -> Option<&'static StaticAsset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

/// Answers a request for a file, with any query.
///
/// # Cancel safety
///
/// Dropping the future does not stop a compression; its result is kept.
async fn respond(asset: &'static StaticAsset, context: &RequestContext) -> HandlerResult {
    let coding = negotiation::negotiate_coding(context.headers())?;
    let encoded = match asset.document.ready(coding) {
        Some(encoded) => encoded,
        None => {
            let identity = asset.document.ready(ContentCoding::Identity);
            let bytes = identity.map_or(0, |identity| identity.body().len());
            let compress = move || asset.document.render(coding);
            let encoded = offload::run_cpu_bound(bytes * coding.compression_cost(), compress).await;
            encoded.map_err(|error| {
                tracing::error!(path = asset.path, %error, "a file could not be compressed");
                Problem::internal()
            })?
        }
    };
    let mut response = Response::new(FullBody::default());
    let headers = response.headers_mut();
    headers.insert(ETAG, encoded.etag());
    headers.extend(COMMON_HEADERS);
    let policy = HeaderValue::from_static(asset.content_security_policy);
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    if caching::matches_if_none_match(context.headers(), encoded.etag_bytes()) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(ApiResponse::uncached(response));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    if let Some(token) = coding.token() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(token));
    }
    *response.body_mut() = FullBody::new(encoded.to_body());
    Ok(ApiResponse::uncached(response))
}

// === impl StaticAsset ===

impl StaticAsset {
    fn new(path: &'static str, content_type: &'static str, body: &str) -> Self {
        Self {
            path,
            content_type,
            content_security_policy: NO_CONTENT_POLICY,
            document: RenderedDocument::new(body.as_bytes(), Timestamp::UNIX_EPOCH),
        }
    }
}
