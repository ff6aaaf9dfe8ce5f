//! All customers on one page: totals, what is missing, and a row for each customer.

mod content;
mod missing;
mod rows;
mod trend;

use std::{collections::HashSet, sync::Arc};

use askama::Template;
use http::StatusCode;

use self::{
    content::{OverviewContent, OverviewInput},
    trend::TrendColumn,
};
use super::{
    customers::CustomerDirectory,
    frame::{PageFrame, respond},
    freshness::FreshnessNote,
    query::PageQuery,
};
use crate::{
    api::{context::AuthenticatedRequest, data, extract::parameter, response::HandlerResult},
    domain::{CustomerId, Portfolio},
    offload,
    render::{adoption, display_text},
    service::{TrendRequest, UsageAnswer},
    store::ProductFilter,
};

/// The customers on a page; more would be slow to load and to read.
const PAGE_LENGTH: usize = 100;

/// About the CPU work for a customer, in bytes of rendered usage.
const CUSTOMER_BYTES: usize = 400;

/// The page of all customers, or of those that were searched.
#[derive(Template)]
#[template(path = "api/page/overview.html", config = "src/askama.toml")]
struct OverviewPage {
    frame: PageFrame,
    heading: String,
    standing: FreshnessNote,
    content: OverviewContent,
    trends: TrendColumn,
    previous: Option<String>,
    next: Option<String>,
    groups: Vec<GroupChoice>,
    /// Parameters that the form of the groups keeps.
    kept: Vec<(&'static str, String)>,
    exports: Vec<ExportLink>,
}

/// The page of a caller that sees no customer.
#[derive(Template)]
#[template(path = "api/page/no_customers.html", config = "src/askama.toml")]
struct NoCustomersPage {
    frame: PageFrame,
    may_read_all: bool,
}

/// A group to choose.
struct GroupChoice {
    name: String,
    /// The name, safe to display.
    shown: String,
    is_chosen: bool,
}

/// The same data for a program.
struct ExportLink {
    href: String,
    text: &'static str,
    hint: &'static str,
    is_file: bool,
}

/// Shows the customers that match a search, or all of them.
pub(super) async fn show(
    request: &AuthenticatedRequest,
    query: &PageQuery,
    list: &UsageAnswer,
    directory: CustomerDirectory,
    found: Option<HashSet<CustomerId>>,
) -> HandlerResult {
    let frame = PageFrame::new(request, Some(query.search_form(directory.suggestions())));
    if directory.len() == 0 {
        let may_read_all = request.caller().may_read_all();
        let page = NoCustomersPage {
            frame,
            may_read_all,
        };
        request.api.metrics.record_served_age(list.cached.age);
        let response = respond(StatusCode::OK, page.render());
        return Ok(data::with_upstream_ids(response, list, None));
    }
    let usage = &request.api.usage;
    let portfolio = usage.portfolio().get();
    if let Some(group) = &query.group {
        parameter::group(group, &portfolio, request.caller())?;
    }
    let trace = || request.call_trace();
    let (caller, now) = (request.caller(), request.received_at);
    let answer = usage
        .fleet(query.date, request.cache_directive(), caller, trace, now)
        .await
        .map_err(|error| data::rejection(request, query.date, &error))?;
    let is_refreshed = request.api.refreshes_fleet;
    let input = OverviewInput {
        fleet: Arc::clone(&answer.usage),
        portfolio: Arc::clone(&portfolio),
        directory,
        found,
        query: query.clone(),
        is_refreshed,
    };
    let bytes = answer.usage.entries.len() * CUSTOMER_BYTES;
    let content = offload::run_cpu_bound(bytes, || input.content()).await;
    let check = usage.fleet_check(now);
    let standing =
        FreshnessNote::of_fleet(&answer, check, query.date, is_refreshed, content.counts);
    let trends = trends(request, &content, &portfolio).await;
    let page = OverviewPage::new(frame, query, standing, content, trends);
    let response = respond(StatusCode::OK, page.render());
    request.api.metrics.record_served_age(answer.age);
    Ok(match query.date {
        Some(date) => data::with_upstream_ids(response, &answer, Some(date)),
        None => data::with_upstream_ids(response, list, None),
    })
}

/// Returns the trends of the rows, from the store.
async fn trends(
    request: &AuthenticatedRequest,
    content: &OverviewContent,
    portfolio: &Portfolio,
) -> TrendColumn {
    let (usage, now) = (&request.api.usage, request.received_at);
    if usage.store().is_none() {
        return TrendColumn::without_store();
    }
    let Some(until) = content.processed_date else {
        return TrendColumn::without_dates();
    };
    let customers = content.shown.iter();
    let trends = TrendRequest {
        customers: customers
            .map(|customer| (customer.id, customer.fetched_at))
            .collect(),
        until,
        products: ProductFilter::without_excluded(portfolio),
        products_version: portfolio.version(),
    };
    match usage.recent_trends(trends, request.caller(), now).await {
        Some(stored) => TrendColumn::new(&content.shown, &stored),
        None => TrendColumn::without_store(),
    }
}

// === impl OverviewPage ===

impl OverviewPage {
    fn new(
        frame: PageFrame,
        query: &PageQuery,
        standing: FreshnessNote,
        content: OverviewContent,
        trends: TrendColumn,
    ) -> Self {
        let pages = &content.pages;
        Self {
            heading: heading(query),
            previous: (pages.number > 1).then(|| query.list_link(pages.number - 1)),
            next: (pages.number < pages.count).then(|| query.list_link(pages.number + 1)),
            groups: group_choices(query, &content.groups),
            kept: query.kept_parameters(&["customer", "date", "sort"]),
            exports: export_links(query),
            frame,
            standing,
            content,
            trends,
        }
    }

    fn grouped(&self, number: &u64) -> String {
        adoption::grouped(*number)
    }

    fn width(&self, share: &f64) -> String {
        format!("{share:.1}")
    }
}

fn heading(query: &PageQuery) -> String {
    let searched = display_text(&query.customer);
    let group = query.group.as_deref().map(display_text);
    match (&*searched, group) {
        ("", None) => "All customers".to_owned(),
        ("", Some(group)) => format!("Customers in {group}"),
        (searched, None) => format!("Customers like “{searched}”"),
        (searched, Some(group)) => format!("Customers like “{searched}” in {group}"),
    }
}

fn group_choices(query: &PageQuery, groups: &[String]) -> Vec<GroupChoice> {
    let choice = |name: &String| GroupChoice {
        name: name.clone(),
        shown: display_text(name),
        is_chosen: query.group.as_ref() == Some(name),
    };
    groups.iter().map(choice).collect()
}

/// Returns links to the API's answers about the same customers. It has no search by name.
fn export_links(query: &PageQuery) -> Vec<ExportLink> {
    if !query.customer.is_empty() {
        return Vec::new();
    }
    let link = |path: &str, text, hint| {
        let mut parameters = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in query.kept_parameters(&["date", "group", "sort"]) {
            let name = if name == "date" {
                "processedDate"
            } else {
                name
            };
            parameters.append_pair(name, &value);
        }
        let parameters = parameters.finish();
        let mark = if parameters.is_empty() { "" } else { "?" };
        ExportLink {
            href: format!("{path}{mark}{parameters}"),
            text,
            hint,
            is_file: path.ends_with(".csv"),
        }
    };
    vec![
        link(
            "/v1/usage/customers/table.csv",
            "Customers as CSV",
            "for a spreadsheet, a line for each customer",
        ),
        link(
            "/v1/usage/unused/table.csv",
            "Unused licences as CSV",
            "a line for each customer and product",
        ),
        link("/v1/usage/customers", "JSON", "for a program, in pages"),
    ]
}
