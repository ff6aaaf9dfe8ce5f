//! The static files of the page and of the documentation, and the description of this API.

use std::sync::LazyLock;

use super::{
    assets::{self, StaticAsset, StaticAssets},
    context::RequestContext,
    docs, openapi, page,
    response::{ApiResponse, HandlerResult},
    schema::Anonymous,
};
use crate::{offload, problem::Problem};

/// The files, which are the same for every caller and for every service of this process.
static ASSETS: LazyLock<StaticAssets> = LazyLock::new(|| {
    let files = docs::pages().into_iter();
    StaticAssets::new(files.chain(docs::files()).chain(page::files()))
});

/// About what the description of this API takes.
const OPENAPI_BYTES: usize = 256 * 1024;

/// The description of an API without and with credentials. Making one takes some 20 MiB for a moment,
/// so each is made when it is first requested.
static OPENAPI_DOCUMENTS: [LazyLock<StaticAsset>; 2] = [
    LazyLock::new(|| StaticAsset::new(openapi::file(Anonymous::Allowed))),
    LazyLock::new(|| StaticAsset::new(openapi::file(Anonymous::Refused))),
];

/// Returns true where a request needs no credential. Only the very paths of the files are public: a
/// path beside them is authenticated first, as every other.
pub(super) fn is_public(context: &RequestContext) -> bool {
    context.route.is_static()
        && (context.path() == openapi::PATH || ASSETS.find(context.path()).is_some())
}

/// `GET /assets/{file}`, `GET /docs` and `GET /docs/{file}`.
pub(super) async fn file(context: RequestContext) -> HandlerResult {
    let asset = ASSETS.find(context.path());
    let asset = asset.ok_or_else(|| Problem::not_found(context.path()))?;
    respond(asset, &context).await
}

/// `GET /openapi.json`.
pub(super) async fn openapi(context: RequestContext) -> HandlerResult {
    let anonymous = context.api.authenticator.anonymous();
    let asset = offload::run_cpu_bound(OPENAPI_BYTES, move || document(anonymous)).await;
    respond(asset, &context).await
}

async fn respond(asset: &'static StaticAsset, context: &RequestContext) -> HandlerResult {
    let response = assets::respond(asset, context.headers()).await?;
    Ok(ApiResponse::uncached(response))
}

fn document(anonymous: Anonymous) -> &'static StaticAsset {
    let [open, closed] = &OPENAPI_DOCUMENTS;
    LazyLock::force(match anonymous {
        Anonymous::Allowed => open,
        Anonymous::Refused => closed,
    })
}
