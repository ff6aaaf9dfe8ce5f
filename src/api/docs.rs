//! The API, to be read and tried in a browser: Swagger UI, embedded whole.

use std::{borrow::Cow, sync::Arc};

use utoipa::{
    IntoParams,
    openapi::path::{Parameter, ParameterIn},
};

use super::{
    assets::{NO_CONTENT_POLICY, StaticFile},
    schema::{ABOUT, FileHeaders, FileProblems, FolderProblems, file_beneath},
};

/// A file of this page's, in the path.
struct DocsFileParams;

/// Scripts and styles are our own files and no others, requests go to this service alone, and no
/// page may frame it. Swagger UI keeps its icons in its stylesheet, as `data:` images.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /docs`, with a slash after it or without.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "getDocumentation",
    tag = ABOUT,
    summary = "This API, to be read and tried in a browser",
    params(FileHeaders),
    responses(
        (status = 200, description = "A page.", body = String, content_type = "text/html"),
        (status = 304, description = "The client has it already."),
        FileProblems,
    ),
    security(()),
)]
pub(super) fn pages() -> [StaticFile; 2] {
    let page = include_bytes!("docs/index.html").as_slice();
    ["/docs", "/docs/"].map(|path| StaticFile {
        path,
        content_type: "text/html; charset=utf-8",
        content_security_policy: PAGE_POLICY,
        body: Cow::Borrowed(page),
    })
}

/// `GET /docs/{file}`.
#[utoipa::path(
    get,
    path = "/docs/{file}",
    operation_id = "getDocumentationFile",
    tag = ABOUT,
    summary = "What that page is made of",
    params(DocsFileParams, FileHeaders),
    responses(
        (status = 200, description = "A script or a stylesheet.", content(
            (String = "text/javascript"),
            (String = "text/css"),
        )),
        (status = 304, description = "The client has it already."),
        FolderProblems,
    ),
    security(()),
)]
pub(super) fn files() -> [StaticFile; 3] {
    let start = include_bytes!("docs/start.js").as_slice();
    [
        file("/docs/start.js", SCRIPT, Cow::Borrowed(start)),
        file(
            "/docs/swagger-ui-bundle.js",
            SCRIPT,
            swagger_ui_file("swagger-ui-bundle.js"),
        ),
        file(
            "/docs/swagger-ui.css",
            "text/css; charset=utf-8",
            swagger_ui_file("swagger-ui.css"),
        ),
    ]
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

fn file(path: &'static str, content_type: &'static str, body: Cow<'static, [u8]>) -> StaticFile {
    StaticFile {
        path,
        content_type,
        content_security_policy: NO_CONTENT_POLICY,
        body,
    }
}

/// A file of Swagger UI's, as it was published.
fn swagger_ui_file(name: &str) -> Cow<'static, [u8]> {
    // The configuration goes into one of its files, which is none of those that we serve.
    let unused = Arc::new(utoipa_swagger_ui::Config::default());
    match utoipa_swagger_ui::serve(name, unused) {
        Ok(Some(file)) => file.bytes,
        Ok(None) | Err(_) => Cow::Borrowed(&[]),
    }
}

// === impl OfFile ===

impl IntoParams for DocsFileParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let paths = files().map(|file| file.path);
        vec![file_beneath("/docs/", &paths)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_page_refers_only_to_our_own_existing_files() {
        let [page, _] = pages();
        let page = str::from_utf8(&page.body).unwrap();
        let files = files();

        let loaded: Vec<_> = page
            .split(['"'])
            .filter(|text| text.starts_with("/docs/"))
            .collect();

        assert_eq!(loaded.len(), files.len());
        for file in &files {
            assert!(loaded.contains(&file.path), "{}", file.path);
            assert!(!file.body.is_empty(), "{}", file.path);
        }
        assert!(!page.contains("//"), "{page}");
    }
}
