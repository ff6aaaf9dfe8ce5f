mod past;
mod unused;

use std::{iter::successors, pin::pin, sync::Arc};

use askama::Template;
use http::StatusCode;

use self::{
    past::{Past, PastParts},
    unused::UnusedLicenses,
};
use super::{
    customers::{self, CustomerDirectory},
    frame::{PageFrame, SearchForm, respond},
    freshness::FreshnessNote,
    query::{self, PageQuery},
};
use crate::{
    api::{context::AuthenticatedRequest, data, response::HandlerResult, spans},
    domain::{CustomerId, Portfolio, ProcessedDate},
    offload,
    problem::FullBody,
    render::{
        ContentCoding, Format, Rendered,
        adoption::{self, AdoptionView},
    },
    service::{CacheDirective, UsageAnswer, UsageQuery},
    text::format_duration,
};

/// About the CPU work for a row of the past, in bytes of rendered usage.
const PAST_ROW_BYTES: usize = 256;

/// The most days without data that a link skips.
const MAX_SKIPPED_DAYS: usize = 31;

/// The page with the usage of a customer.
#[derive(Template)]
#[template(path = "api/page/usage.html", config = "src/askama.toml")]
struct UsagePage {
    frame: PageFrame,
    adoption: AdoptionView,
    when: String,
    counted: String,
    standing: FreshnessNote,
    note: Option<&'static str>,
    /// True if the page reloads until it has the names of customers.
    list_is_being_fetched: bool,
    dates: Vec<DateLink>,
    is_dated: bool,
    past: PastParts,
    unused: UnusedLicenses,
    json: String,
    table: String,
    chart: String,
    origin: String,
    wants_key: bool,
}

/// The state of the list of customers when the usage is ready.
enum CustomerListState {
    Loaded(CustomerDirectory),
    Fetching,
    Unavailable,
}

/// A link to another date of the same customer.
struct DateLink {
    href: String,
    rel: &'static str,
    text: String,
}

/// Shows the usage of a customer.
pub(super) async fn show(
    request: &AuthenticatedRequest,
    page_query: &PageQuery,
    customer: CustomerId,
) -> HandlerResult {
    let query = UsageQuery {
        customer_id: customer,
        format: Format::Simplified,
        date: page_query.date,
        directive: request.cache_directive(),
    };
    if let Some(span) = request.span() {
        spans::record_customer(span, customer);
    }
    let trace = || request.call_trace();
    // The page does not wait for the names of others, and does not refresh them with the numbers.
    let directive = match request.cache_directive() {
        CacheDirective::NoCache => CacheDirective::Any,
        other => other,
    };
    let (api, caller) = (&request.api, request.caller());
    let (answer, list) = join_if_ready(
        api.usage.answer(query, caller, trace, request.received_at),
        customers::list(request, directive),
    )
    .await;
    let answer = answer.map_err(|error| data::rejection(request, page_query.date, &error))?;
    let list_state = match list {
        Some(Ok(list)) => CustomerListState::Loaded(CustomerDirectory::new(&list, caller)),
        Some(Err(_)) => CustomerListState::Unavailable,
        None => CustomerListState::Fetching,
    };
    let shown = answer.cached.rendered.processed_date().or(page_query.date);
    let until = shown.unwrap_or(page_query.today);
    let past = api
        .usage
        .stored_past(customer, until, caller, request.received_at);
    let past = Past::from(past.await);
    let parts = UsagePageParts {
        frame: PageFrame::new(request, None),
        list_state,
        freshness_note: FreshnessNote::new(&answer, page_query.date, api.refreshes_fleet),
        query: page_query.clone(),
        adjacent_dates: match &past {
            Past::Stored(past) => {
                let [before, after] = past.neighbors(until);
                // The newest may not be stored yet.
                let newest = api.usage.newest_date(customer, request.received_at);
                [before, after.or(newest.filter(|newest| *newest > until))]
            }
            Past::NotStored | Past::Reading | Past::Unavailable => {
                possible_dates(request, customer, shown, page_query.today)
            }
        },
        past,
        portfolio: api.usage.portfolio().get(),
        customer,
        origin: request.origin(),
        wants_key: !caller.is_anonymous(),
    };
    let response = render_page(&answer, parts).await;
    api.metrics.record_served_age(answer.cached.age);
    Ok(data::with_upstream_ids(response, &answer, page_query.date))
}

/// Waits for the needed result, and returns the wanted one too if it is ready by then.
async fn join_if_ready<N, W>(
    needed: impl Future<Output = N>,
    wanted: impl Future<Output = W>,
) -> (N, Option<W>) {
    let (mut needed, mut wanted) = (pin!(needed), pin!(wanted));
    let mut ready = None;
    loop {
        tokio::select! {
            biased;
            wanted = &mut wanted, if ready.is_none() => ready = Some(wanted),
            needed = &mut needed => return (needed, ready),
        }
    }
}

/// Finds the dates before and after `shown` that may have data: Partner Center keeps them, they are not
/// newer than the newest date, and are not known to be absent.
fn possible_dates(
    request: &AuthenticatedRequest,
    customer: CustomerId,
    shown: Option<ProcessedDate>,
    today: ProcessedDate,
) -> [Option<ProcessedDate>; 2] {
    let oldest = today.months_before(ProcessedDate::RETENTION_MONTHS);
    let (usage, now) = (&request.api.usage, request.received_at);
    let newest = usage.newest_date(customer, now);
    let may_have_counts = |date: &ProcessedDate| !usage.is_known_absent(customer, *date, now);
    let before = successors(shown, |date| date.previous());
    let after = successors(shown, |date| date.next());
    [
        before
            .skip(1)
            .take(MAX_SKIPPED_DAYS)
            .take_while(|date| *date >= oldest)
            .find(may_have_counts),
        after
            .skip(1)
            .take(MAX_SKIPPED_DAYS)
            .take_while(|date| newest.is_some_and(|newest| *date <= newest))
            .find(may_have_counts),
    ]
}

/// The content of the page beside the usage itself.
struct UsagePageParts {
    frame: PageFrame,
    list_state: CustomerListState,
    freshness_note: FreshnessNote,
    query: PageQuery,
    /// The dates before and after the shown one: stored ones, or else [`possible_dates`].
    adjacent_dates: [Option<ProcessedDate>; 2],
    past: Past,
    portfolio: Arc<Portfolio>,
    customer: CustomerId,
    origin: String,
    wants_key: bool,
}

async fn render_page(answer: &UsageAnswer, parts: UsagePageParts) -> http::Response<FullBody> {
    let rendered = Arc::clone(&answer.cached.rendered);
    let bytes = rendered
        .ready(Format::Simplified, ContentCoding::Identity)
        .map_or(0, |(_, encoded)| encoded.body().len());
    let searched = parts
        .list_state
        .directory()
        .map(CustomerDirectory::search_bytes);
    let bytes = bytes + searched.unwrap_or_default() + parts.past.rows() * PAST_ROW_BYTES;
    let rendered = offload::run_cpu_bound(bytes, move || parts.render_page(&rendered)).await;
    respond(StatusCode::OK, rendered)
}

// === impl UsagePageParts ===

impl UsagePageParts {
    fn render_page(self, rendered: &Rendered) -> askama::Result<String> {
        let adoption = rendered.adoption().map_err(askama::Error::custom)?;
        let (mut adoption, usage) = adoption.ok_or(askama::Error::Fmt)?;
        let directory = self.list_state.directory();
        if adoption.customer_name == adoption.customer_id
            && let Some(name) = directory.and_then(|directory| directory.name(self.customer))
        {
            adoption.customer_name = name;
        }
        let date = rendered.processed_date();
        let query = self
            .query
            .date
            .map_or_else(String::new, |date| format!("?processedDate={date}"));
        let resource = format!("/v1/customers/{}/usage", self.customer);
        let (today, portfolio) = (self.query.today, &*self.portfolio);
        let page = UsagePage {
            past: PastParts::new(&self.past, &usage, date, today, portfolio),
            unused: UnusedLicenses::new(&usage, portfolio),
            when: date.map_or_else(|| "no data".to_owned(), |date| date.to_string()),
            counted: self.count_date_sentence(date),
            dates: self.date_links(),
            is_dated: self.query.date.is_some(),
            json: format!("{resource}{query}"),
            table: format!("{resource}/table.csv{query}"),
            chart: format!("{resource}/chart.svg{query}"),
            adoption,
            note: self.list_state.note(),
            list_is_being_fetched: matches!(self.list_state, CustomerListState::Fetching),
            frame: PageFrame {
                form: Some(self.search_form()),
                ..self.frame
            },
            standing: self.freshness_note,
            origin: self.origin,
            wants_key: self.wants_key,
        };
        page.render()
    }

    fn search_form(&self) -> SearchForm {
        match self.list_state.directory() {
            Some(directory) => PageQuery {
                customer: directory.search_label(self.customer),
                ..self.query.clone()
            }
            .search_form(directory.suggestions()),
            None => self.query.search_form(Vec::new()),
        }
    }

    /// The sentence about the date of Microsoft's count, which is not the time of the last check.
    fn count_date_sentence(&self, date: Option<ProcessedDate>) -> String {
        let Some(date) = date else {
            return "Microsoft has no counts for this customer.".to_owned();
        };
        let past = self.query.today.start().duration_since(date.start());
        let past = past.unsigned_abs();
        match past.as_secs() / 86_400 {
            0 => format!("Counts of {date}, today."),
            1 => format!("Counts of {date}, yesterday."),
            _ => format!("Counts of {date}, {} ago.", format_duration(past)),
        }
    }

    fn date_links(&self) -> Vec<DateLink> {
        let link = |date: ProcessedDate, rel, text: String| DateLink {
            href: query::customer_link(self.customer, Some(date)),
            rel,
            text,
        };
        let [earlier, later] = self.adjacent_dates;
        let earlier = earlier.map(|date| link(date, "prev", format!("Earlier: {date}")));
        let later = later.map(|date| link(date, "next", format!("Later: {date}")));
        let newest = self.query.date.map(|_| DateLink {
            href: query::customer_link(self.customer, None),
            rel: "",
            text: "Newest".to_owned(),
        });
        [earlier, later, newest].into_iter().flatten().collect()
    }
}

// === impl CustomerListState ===

impl CustomerListState {
    fn directory(&self) -> Option<&CustomerDirectory> {
        match self {
            Self::Loaded(directory) => Some(directory),
            Self::Fetching | Self::Unavailable => None,
        }
    }

    fn note(&self) -> Option<&'static str> {
        match self {
            Self::Loaded(_) => None,
            Self::Fetching => {
                Some("The list of customers is being fetched. This page reloads by itself.")
            }
            Self::Unavailable => Some(
                "The list of customers is not available right now. You can open other customers by \
                 their id.",
            ),
        }
    }
}

// === impl UsagePage ===

impl UsagePage {
    fn width(&self, length: &f64) -> String {
        format!("{length:.1}")
    }

    fn grouped(&self, number: &u64) -> String {
        adoption::grouped(*number)
    }
}
