//! The static files: those of the web page and of the documentation, and the description of the API.

use std::sync::LazyLock;

use super::{
    assets::StaticAsset,
    context::RequestContext,
    openapi::{self, OPENAPI_DOCUMENT},
    response::{ApiResponse, HandlerResult},
};
use crate::problem::Problem;

const CSS: &str = "text/css; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";
const SVG: &str = "image/svg+xml";

const OPENAPI_PATH: &str = "/openapi.json";

/// Allows the documentation its own scripts and styles and requests to this service only; no page may
/// frame it. Swagger UI has its icons in its stylesheet, as `data:` images.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files that are the same for every service.
static ASSETS: LazyLock<[StaticAsset; 8]> = LazyLock::new(|| {
    let docs = include_str!("docs/index.html");
    let docs = |path| StaticAsset::new(path, HTML, docs).with_content_security_policy(DOCS_POLICY);
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
    LazyLock::new(|| StaticAsset::new(OPENAPI_PATH, JSON, openapi::document_with_credentials()));

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

async fn respond(asset: &'static StaticAsset, context: &RequestContext) -> HandlerResult {
    let response = asset.respond(context.headers()).await?;
    Ok(ApiResponse::uncached(response))
}
