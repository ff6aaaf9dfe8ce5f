//! History: the dates, rows and changes of a customer, and the totals of all customers over time.
//!
//! It comes from the durable store and never from an upstream call, so an answer is rendered at each
//! request, and clients compare it by its `ETag`.

mod cursor;
mod query;

use std::{fmt::Display, sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode, header};

use self::{
    cursor::HistoryCursor,
    query::{HistoryRequest, HistoryView},
};
use super::{
    browser_headers,
    caching::{self, ResponseAudience, ResponseFreshness},
    context::AuthenticatedRequest,
    data::render_problem,
    extract::{self, parameter},
    negotiation, problem,
    response::{ApiResponse, HandlerResult, LogFields, Rejection},
    spans,
    unsent_budget::ApiBody,
};
use crate::{
    cache::{CacheResult, CacheStatus},
    domain::{CustomerId, DateRange, Portfolio, ProcessedDate, usage_changes},
    offload,
    problem::Problem,
    render::{
        ContentCoding, CsvReader, Format, RenderedDocument,
        history::{
            self as rendering, ChangeItem, DateItem, FleetDateItem, HistoryCounts, HistoryItem,
            HistoryName, HistoryTable, UsageTrend,
        },
    },
    service::{HistoryError, UsageService},
    store::{FleetHistoryQuery, HistoryPosition, HistoryQuery, HistoryRow, ProductFilter},
};

/// Clients may store an answer, and ask each time whether it is still the same: another date or
/// correction may have been stored a moment ago.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("private, no-cache");

/// About the bytes of a rendered row.
const ROW_BYTES: usize = 256;

/// A request for history, with the negotiated form of its answer.
struct HistoryCall<'a> {
    request: &'a AuthenticatedRequest,
    parameters: HistoryRequest,
    today: ProcessedDate,
    format: Format,
    coding: ContentCoding,
}

/// The rendered body of an answer.
struct HistoryBody {
    bytes: Vec<u8>,
    /// `Content-Disposition` of a table.
    disposition: Option<HeaderValue>,
}

/// `GET /v1/customers/{customer_id}/usage/dates`.
pub(super) async fn dates(request: AuthenticatedRequest) -> HandlerResult {
    respond_dates(&request, negotiation::SIMPLIFIED_FORMATS).await
}

/// `GET /v1/customers/{customer_id}/usage/dates/table.csv`.
pub(super) async fn dates_table(request: AuthenticatedRequest) -> HandlerResult {
    respond_dates(&request, negotiation::TABLE_FORMATS).await
}

/// `GET /v1/customers/{customer_id}/usage/history`.
pub(super) async fn rows(request: AuthenticatedRequest) -> HandlerResult {
    respond_rows(&request, negotiation::SIMPLIFIED_FORMATS).await
}

/// `GET /v1/customers/{customer_id}/usage/history/table.csv`.
pub(super) async fn rows_table(request: AuthenticatedRequest) -> HandlerResult {
    respond_rows(&request, negotiation::TABLE_FORMATS).await
}

/// `GET /v1/customers/{customer_id}/usage/history/chart.svg`.
pub(super) async fn chart(request: AuthenticatedRequest) -> HandlerResult {
    let customer = customer(&request)?;
    let call = HistoryCall::parse(&request, HistoryView::Rows, negotiation::CHART_FORMATS)?;
    let body = render_chart(&call, customer).await?;
    let mut response = call.send(body).await?;
    browser_headers::add_chart_headers(response.headers_mut());
    Ok(response)
}

/// `GET /v1/customers/{customer_id}/usage/changes`.
pub(super) async fn changes(request: AuthenticatedRequest) -> HandlerResult {
    respond_changes(&request, negotiation::SIMPLIFIED_FORMATS).await
}

/// `GET /v1/customers/{customer_id}/usage/changes/table.csv`.
pub(super) async fn changes_table(request: AuthenticatedRequest) -> HandlerResult {
    respond_changes(&request, negotiation::TABLE_FORMATS).await
}

/// `GET /v1/usage/history`.
pub(super) async fn fleet(request: AuthenticatedRequest) -> HandlerResult {
    respond_fleet(&request, negotiation::SIMPLIFIED_FORMATS).await
}

/// `GET /v1/usage/history/table.csv`.
pub(super) async fn fleet_table(request: AuthenticatedRequest) -> HandlerResult {
    respond_fleet(&request, negotiation::TABLE_FORMATS).await
}

async fn respond_dates(request: &AuthenticatedRequest, formats: &[Format]) -> HandlerResult {
    let customer = customer(request)?;
    let call = HistoryCall::parse(request, HistoryView::Dates, formats)?;
    let range = call.parameters.unlimited_range();
    let stored = call.usage().stored_dates(customer, range, request.caller());
    let stored = stored.await.map_err(|error| call.rejection(error))?;
    let items: Vec<_> = stored
        .iter()
        .map(|stored| DateItem {
            processed_date: stored.date,
            fetched_at: stored.fetched_at,
            confirmed_at: stored.confirmed_at,
            corrections: stored.corrections,
        })
        .collect();
    let bytes = match call.csv_reader() {
        None => rendered(rendering::dates_json(&items)),
        Some(reader) => rendered(rendering::dates_table(&items, reader)),
    }?;
    let dates = stored.first().zip(stored.last());
    let dates = dates.map(|(first, last)| DateRange {
        from: first.date,
        to: last.date,
    });
    let disposition = call.disposition("dates", Some(customer), dates);
    call.send(HistoryBody { bytes, disposition }).await
}

async fn respond_rows(request: &AuthenticatedRequest, formats: &[Format]) -> HandlerResult {
    let customer = customer(request)?;
    let call = HistoryCall::parse(request, HistoryView::Rows, formats)?;
    let parameters = &call.parameters;
    let cursor = parameters.cursor(customer)?;
    let range = match &cursor {
        Some(cursor) => cursor.range,
        None => parameters.range(call.today)?,
    };
    let after = cursor.map(|cursor| cursor.after);
    let is_page = parameters.limit.is_some() || after.is_some();
    let bytes = match call.csv_reader() {
        Some(reader) if !is_page => whole_table(&call, customer, range, reader).await?,
        reader => page(&call, customer, range, after, reader).await?,
    };
    let disposition = call.disposition("history", Some(customer), Some(range));
    call.send(HistoryBody { bytes, disposition }).await
}

/// Renders a page of rows; without a reader as JSON.
async fn page(
    call: &HistoryCall<'_>,
    customer: CustomerId,
    range: DateRange,
    after: Option<HistoryPosition>,
    reader: Option<CsvReader>,
) -> Result<Vec<u8>, Rejection> {
    let portfolio = call.usage().portfolio().get();
    let query = HistoryQuery {
        limit: call.parameters.limit.unwrap_or(HistoryRequest::MAX_LIMIT),
        after,
        ..call.history_query(customer, range, &portfolio)
    };
    let (caller, now) = (call.request.caller(), call.request.received_at);
    let page = call.usage().history_page(query, caller, now).await;
    let page = page.map_err(|error| call.rejection(error))?;
    let next = page.next.map(|after| {
        let cursor = HistoryCursor { range, after };
        cursor.encode(call.parameters.cursor_query(customer))
    });
    let bytes = page.rows.len() * ROW_BYTES;
    let render = move || {
        let items = page.rows.iter().map(|row| item(row, &portfolio));
        let Some(reader) = reader else {
            let items: Vec<_> = items.collect();
            let json = rendering::history_json(range, page.is_complete, &items, next.as_deref());
            return rendered(json);
        };
        let table = || {
            let mut table = HistoryTable::new(reader)?;
            for item in items {
                table.add(&item)?;
            }
            table.finish()
        };
        rendered(table())
    };
    Ok(offload::run_cpu_bound(bytes, render).await?)
}

/// Renders all rows of a range as one table.
async fn whole_table(
    call: &HistoryCall<'_>,
    customer: CustomerId,
    range: DateRange,
    reader: CsvReader,
) -> Result<Vec<u8>, Rejection> {
    let portfolio = call.usage().portfolio().get();
    let query = call.history_query(customer, range, &portfolio);
    let table = rendered(HistoryTable::new(reader))?;
    let table = call
        .fold_rows(query, Ok(table), move |table: csv::Result<_>, row| {
            let mut table: HistoryTable = table?;
            table.add(&item(row, &portfolio))?;
            Ok(table)
        })
        .await?;
    Ok(rendered(table.and_then(HistoryTable::finish))?)
}

async fn render_chart(
    call: &HistoryCall<'_>,
    customer: CustomerId,
) -> Result<HistoryBody, Rejection> {
    let range = call.parameters.range(call.today)?;
    let stored = call
        .usage()
        .stored_dates(customer, range, call.request.caller());
    let stored = stored.await.map_err(|error| call.rejection(error))?;
    let dates = stored.iter().map(|stored| stored.date).collect();
    let portfolio = call.usage().portfolio().get();
    let query = call.history_query(customer, range, &portfolio);
    let trend = UsageTrend::new(range, dates);
    let trend = call
        .fold_rows(query, trend, move |mut trend, row| {
            trend.add(&item(row, &portfolio));
            trend
        })
        .await?;
    let name = call.customer_name(customer);
    let name = name.unwrap_or_else(|| customer.to_string());
    let bytes = rendering::render_trend_chart(&name, trend, call.parameters.theme);
    Ok(HistoryBody {
        bytes: rendered(bytes)?,
        disposition: None,
    })
}

async fn respond_changes(request: &AuthenticatedRequest, formats: &[Format]) -> HandlerResult {
    let customer = customer(request)?;
    let call = HistoryCall::parse(request, HistoryView::Changes, formats)?;
    let (from, to) = (call.parameters.from, call.parameters.to);
    let compared = call
        .usage()
        .compared_dates(customer, from, to, request.caller());
    let compared = compared.await.map_err(|error| call.rejection(error))?;
    let range = DateRange {
        from: compared.from,
        to: compared.to,
    };
    let (portfolio, reader) = (call.usage().portfolio().get(), call.csv_reader());
    let rows = compared.from_rows.len() + compared.to_rows.len();
    let render = move || {
        let changes = usage_changes(&compared.from_rows, &compared.to_rows);
        let changes = changes.iter().map(|change| {
            let row = change.row();
            let name = portfolio.display_name(row.product_id.as_deref(), &row.product_name);
            ChangeItem::new(change, name.map(|name| &**name))
        });
        let items: Vec<_> = changes.collect();
        match reader {
            None => rendered(rendering::changes_json(range, &items)),
            Some(reader) => rendered(rendering::changes_table(range, &items, reader)),
        }
    };
    let bytes = offload::run_cpu_bound(rows * ROW_BYTES, render).await?;
    let disposition = call.disposition("changes", Some(customer), Some(range));
    call.send(HistoryBody { bytes, disposition }).await
}

async fn respond_fleet(request: &AuthenticatedRequest, formats: &[Format]) -> HandlerResult {
    let call = HistoryCall::parse(request, HistoryView::Fleet, formats)?;
    let range = call.parameters.range(call.today)?;
    let query = call.fleet_query(range)?;
    let (caller, now) = (request.caller(), request.received_at);
    let history = call.usage().fleet_history(query, caller, now).await;
    let history = history.map_err(|error| call.fleet_rejection(error))?;
    let items: Vec<_> = history
        .totals
        .iter()
        .map(|totals| FleetDateItem {
            processed_date: totals.date,
            customers: totals.customers,
            licenses_qualified: totals.licenses_qualified,
            licenses_active: totals.licenses_active,
            licenses_unused: totals.licenses_unused,
        })
        .collect();
    let bytes = match call.csv_reader() {
        None => rendered(rendering::fleet_history_json(
            range,
            history.is_complete,
            &items,
        )),
        Some(reader) => rendered(rendering::fleet_history_table(&items, reader)),
    }?;
    let disposition = call.disposition("history", None, Some(range));
    call.send(HistoryBody { bytes, disposition }).await
}

/// The customer that the path names.
fn customer(request: &AuthenticatedRequest) -> Result<CustomerId, Problem> {
    let customer = extract::customer_id(request.customer_segment())?;
    if let Some(span) = request.span() {
        spans::record_customer(span, customer);
    }
    Ok(customer)
}

fn item<'a>(row: &'a HistoryRow, portfolio: &'a Portfolio) -> HistoryItem<'a> {
    let display_name = portfolio.display_name(row.product_id.as_deref(), &row.product_name);
    let name = HistoryName {
        product_name: &row.product_name,
        display_name: display_name.map(|name| &**name),
        product_id: row.product_id.as_deref(),
        service_name: &row.service_name,
        channel: row.channel.as_deref(),
        workload_name: &row.workload_name,
    };
    let counts = HistoryCounts {
        licenses_active: row.licenses_active,
        licenses_qualified: row.licenses_qualified,
    };
    HistoryItem::new(row.position.date, name, counts)
}

/// Logs why something could not be rendered.
fn rendered<T>(result: Result<T, impl Display>) -> Result<T, Problem> {
    result.map_err(|error| {
        tracing::error!(%error, "history could not be rendered");
        render_problem()
    })
}

// === impl HistoryCall ===

impl<'a> HistoryCall<'a> {
    fn parse(
        request: &'a AuthenticatedRequest,
        view: HistoryView,
        formats: &[Format],
    ) -> Result<Self, Problem> {
        let (headers, today) = (request.headers(), request.today());
        let format = negotiation::negotiate_format(headers, formats)?;
        Ok(Self {
            request,
            parameters: HistoryRequest::parse(request.query(), view, format, today)?,
            today,
            format,
            coding: negotiation::negotiate_coding(headers)?,
        })
    }

    fn usage(&self) -> &'a UsageService {
        &self.request.api.usage
    }

    /// The reader of a table; `None` for other formats.
    fn csv_reader(&self) -> Option<CsvReader> {
        self.parameters.csv_reader(self.format)
    }

    fn customer_name(&self, customer: CustomerId) -> Option<String> {
        let now = self.request.received_at;
        self.usage().known_customer_name(customer, now)
    }

    /// The query for all rows of the requested product and workload.
    fn history_query(
        &self,
        customer: CustomerId,
        range: DateRange,
        portfolio: &Portfolio,
    ) -> HistoryQuery {
        HistoryQuery {
            customer,
            range,
            products: products_called(self.parameters.product.as_deref(), portfolio),
            workload: self.parameters.workload.clone(),
            after: None,
            limit: HistoryRequest::MAX_LIMIT,
        }
    }

    /// Reads all rows of a query, and adds each to a value.
    async fn fold_rows<A: Send + 'static>(
        &self,
        query: HistoryQuery,
        mut value: A,
        add: impl Fn(A, &HistoryRow) -> A + Send + Sync + 'static,
    ) -> Result<A, Rejection> {
        let add = Arc::new(add);
        let reader = self.usage().read_history(query, self.request.caller());
        let mut reader = reader.await.map_err(|error| self.rejection(error))?;
        let failed = |error| self.rejection(error);
        while let Some(rows) = reader.next_rows().await.map_err(failed)? {
            let add = Arc::clone(&add);
            let bytes = rows.len() * ROW_BYTES;
            value = offload::run_cpu_bound(bytes, move || {
                rows.iter().fold(value, |value, row| add(value, row))
            })
            .await;
        }
        Ok(value)
    }

    /// The query for the totals of the customers and products that count.
    fn fleet_query(&self, range: DateRange) -> Result<FleetHistoryQuery, Rejection> {
        let parameters = &self.parameters;
        let caller = self.request.caller();
        let mut wanted = parameters.customers.iter().flatten();
        if wanted.any(|customer| !caller.may_read(*customer)) {
            return Err(self.fleet_rejection(HistoryError::NotAllowed));
        }
        let portfolio = self.usage().portfolio().get();
        let group = parameters.group.as_deref();
        let group = group.map(|name| parameter::group(name, &portfolio, caller));
        let group = group.transpose()?;
        let customers = match (&parameters.customers, group) {
            (None, None) => None,
            (Some(wanted), None) => Some(wanted.iter().copied().collect()),
            (None, Some(group)) => Some(group.iter().copied().collect()),
            (Some(wanted), Some(group)) => {
                let both = wanted.iter().filter(|customer| group.contains(*customer));
                Some(both.copied().collect())
            }
        };
        let texts = |text: &Option<String>| text.iter().cloned().collect();
        Ok(FleetHistoryQuery {
            range,
            customers,
            products: ProductFilter {
                products: products_called(parameters.product.as_deref(), &portfolio),
                services: texts(&parameters.service),
                channels: texts(&parameters.channel),
                ..ProductFilter::without_excluded(&portfolio)
            },
            constant_cohort: parameters.constant_cohort,
        })
    }

    /// `Content-Disposition`, if the answer is a table for spreadsheets.
    fn disposition(
        &self,
        content: &str,
        customer: Option<CustomerId>,
        dates: Option<DateRange>,
    ) -> Option<HeaderValue> {
        if self.format != Format::Table {
            return None;
        }
        let name = customer.map(|customer| {
            let name = self.customer_name(customer);
            name.unwrap_or_else(|| customer.to_string())
        });
        Some(rendering::attachment(content, name.as_deref(), dates))
    }

    fn rejection(&self, error: HistoryError) -> Rejection {
        if let HistoryError::NotAllowed = error {
            self.request.api.metrics.access.not_allowed.inc();
        }
        problem::from_history_error(&error).into()
    }

    fn fleet_rejection(&self, error: HistoryError) -> Rejection {
        match error {
            HistoryError::NotAllowed => {
                self.request.api.metrics.access.not_allowed.inc();
                problem::not_allowed("this caller may not read the usage of these customers").into()
            }
            error => self.rejection(error),
        }
    }

    async fn send(&self, body: HistoryBody) -> HandlerResult {
        let HistoryBody { bytes, disposition } = body;
        let (format, coding) = (self.format, self.coding);
        let seen_at = self.request.api.clock.wall_time();
        let cost = bytes.len() * coding.compression_cost();
        let document = offload::run_cpu_bound(cost, move || {
            let document = RenderedDocument::new(&bytes, seen_at);
            document.render(coding)?;
            Ok::<_, std::io::Error>(document)
        });
        let document = rendered(document.await)?;
        let encoded = document.ready(coding).ok_or_else(render_problem)?;
        let freshness = ResponseFreshness {
            age: Duration::ZERO,
            cache_control: &CACHE_CONTROL,
        };
        let headers = self.request.headers();
        let audience = if self.request.caller().is_anonymous() {
            ResponseAudience::EveryoneUndated
        } else {
            ResponseAudience::SingleCaller
        };
        let ready = (&document, encoded);
        let mut response = caching::respond(headers, freshness, audience, format, coding, ready);
        if response.status() == StatusCode::OK
            && let Some(disposition) = disposition
        {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_DISPOSITION, disposition);
        }
        Ok(ApiResponse {
            http: response.map(ApiBody::from),
            cache_status: CacheStatus {
                detail: Some("store"),
                ..CacheStatus::HIT
            },
            log_fields: LogFields {
                cache_result: Some(CacheResult::Hit),
                ..LogFields::default()
            },
        })
    }
}

/// Returns Microsoft's names and ids of a product; empty for all products.
fn products_called(product: Option<&str>, portfolio: &Portfolio) -> Vec<String> {
    let called = product.map(|product| {
        let own = portfolio.products_called(product).map(str::to_owned);
        own.chain([product.to_owned()])
    });
    called.into_iter().flatten().collect()
}
