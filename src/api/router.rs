//! The routes of the API listener, in one list.
//!
//! A new route is one line here, its handler, and its path in `openapi.json`.

use axum::{
    Router,
    handler::Handler,
    routing::{MethodRouter, get},
};

use super::{
    context::RequestContext,
    customers,
    data::ParseDataRequest,
    documents, fleet, history, page,
    response::Rejection,
    route::{
        ALIASES,
        RouteKind::{self, BrowserData, Data, Page, StaticFile},
        RouteTable,
    },
    static_files, usage,
};
use crate::problem::Problem;

/// A line of the list.
struct RouteEntry {
    kind: RouteKind,
    pattern: &'static str,
    handler: MethodRouter,
    /// Reads a request whose answer may be a fresh hit.
    parse: Option<ParseDataRequest>,
}

/// Every route; those that are requested most often first.
fn entries() -> Vec<RouteEntry> {
    vec![
        entry(Data, "/v1/customers/{customer_id}/usage", usage::simplified)
            .cached(usage::parse_simplified),
        entry(
            Data,
            "/v1/customers/{customer_id}/analytics/licenses/usage",
            usage::native,
        )
        .cached(usage::parse_native),
        entry(
            BrowserData,
            "/v1/customers/{customer_id}/usage/chart.svg",
            usage::chart,
        )
        .cached(usage::parse_chart),
        entry(
            BrowserData,
            "/v1/customers/{customer_id}/usage/table.csv",
            usage::table,
        )
        .cached(usage::parse_table),
        entry(
            Data,
            "/v1/customers/{customer_id}/analytics/licenses/deployment",
            documents::deployment,
        )
        .cached(documents::parse_deployment),
        entry(
            Data,
            "/v1/analytics/licenses/usage",
            documents::partner_usage,
        )
        .cached(documents::parse_partner_usage),
        entry(
            Data,
            "/v1/analytics/licenses/deployment",
            documents::partner_deployment,
        )
        .cached(documents::parse_partner_deployment),
        entry(Data, "/v1/customers", customers::list),
        entry(Data, "/v1/usage", fleet::totals),
        entry(BrowserData, "/v1/usage/table.csv", fleet::totals_table),
        entry(Data, "/v1/usage/customers", fleet::customers),
        entry(
            BrowserData,
            "/v1/usage/customers/table.csv",
            fleet::customers_table,
        ),
        entry(Data, "/v1/usage/unused", fleet::unused),
        entry(
            BrowserData,
            "/v1/usage/unused/table.csv",
            fleet::unused_table,
        ),
        entry(
            Data,
            "/v1/customers/{customer_id}/usage/dates",
            history::dates,
        ),
        entry(
            BrowserData,
            "/v1/customers/{customer_id}/usage/dates/table.csv",
            history::dates_table,
        ),
        entry(
            Data,
            "/v1/customers/{customer_id}/usage/history",
            history::rows,
        ),
        entry(
            BrowserData,
            "/v1/customers/{customer_id}/usage/history/table.csv",
            history::rows_table,
        ),
        entry(
            BrowserData,
            "/v1/customers/{customer_id}/usage/history/chart.svg",
            history::chart,
        ),
        entry(
            Data,
            "/v1/customers/{customer_id}/usage/changes",
            history::changes,
        ),
        entry(
            BrowserData,
            "/v1/customers/{customer_id}/usage/changes/table.csv",
            history::changes_table,
        ),
        entry(Data, "/v1/usage/history", history::fleet),
        entry(
            BrowserData,
            "/v1/usage/history/table.csv",
            history::fleet_table,
        ),
        entry(Page, "/", page::page),
        entry(StaticFile, "/assets/{file}", static_files::file),
        entry(StaticFile, "/openapi.json", static_files::openapi),
        entry(StaticFile, "/docs", static_files::file),
        entry(StaticFile, "/docs/{file}", static_files::file),
    ]
}

/// The table of the routes.
pub(super) fn table() -> RouteTable {
    RouteTable::new(entries().iter().map(|entry| (entry.kind, entry.pattern)))
}

/// The parsers of the routes, by their index in the table.
pub(super) fn parsers() -> Vec<Option<ParseDataRequest>> {
    entries().iter().map(|entry| entry.parse).collect()
}

/// The router.
pub(super) fn router() -> Router {
    let mut router = Router::new().fallback(not_found);
    for entry in entries() {
        let handler = entry.handler.fallback(method_not_allowed);
        for (alias, _) in ALIASES.iter().filter(|(_, path)| *path == entry.pattern) {
            router = router.route(alias, handler.clone());
        }
        router = router.route(entry.pattern, handler);
    }
    router
}

fn entry<H, T>(kind: RouteKind, pattern: &'static str, handler: H) -> RouteEntry
where
    H: Handler<T, ()>,
    T: 'static,
{
    RouteEntry {
        kind,
        pattern,
        handler: get(handler),
        parse: None,
    }
}

async fn not_found(context: RequestContext) -> Rejection {
    Problem::not_found(context.path()).into()
}

async fn method_not_allowed(context: RequestContext) -> Rejection {
    Problem::method_not_allowed(context.method(), "GET, HEAD").into()
}

// === impl RouteEntry ===

impl RouteEntry {
    /// Lets the layer in front of the router answer fresh hits.
    fn cached(self, parse: ParseDataRequest) -> Self {
        Self {
            parse: Some(parse),
            ..self
        }
    }
}
