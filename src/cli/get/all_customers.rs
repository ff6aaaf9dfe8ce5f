//! The usage of all customers: a line for each customer and product.

use bytes::Bytes;
use console::Style;
use http::StatusCode;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    super::{
        CliError, eprint_line, print_text,
        terminal::{TerminalStyle, align_left, align_right, display_width, sanitize},
    },
    OutputFormat, print_body,
    problem::ProxyProblem,
    proxy_client::ProxyClient,
};
use crate::domain::{ProcessedDate, UsagePercent};

/// The rows of a page; the most that the proxy gives.
const PAGE_ROWS: &str = "5000";

/// The times that the pages are read again because the data changed between two of them.
const MAX_READS: usize = 5;

/// Failed customers that are named.
const MAX_NAMED: usize = 20;

/// Columns below which no text is cut.
const MIN_TEXT_WIDTH: usize = 8;

const GAP: &str = "  ";

/// The usage of all customers, as the proxy has it.
pub(super) struct FleetReply {
    totals: TotalsReply,
    rows: FleetReplyRows,
}

/// The rows, as they are printed.
enum FleetReplyRows {
    Table(Vec<UnusedItem>),
    Sent(Bytes),
}

/// The fields of `/v1/usage` that are printed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TotalsReply {
    processed_date: Option<String>,
    customers: CustomersByStatus,
    failed: Vec<FailedCustomerReply>,
    totals: UsageSums,
}

/// The number of customers by the state of their data.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomersByStatus {
    total: u64,
    current: u64,
    stale: u64,
    empty: u64,
    failed: u64,
    not_fetched: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FailedCustomerReply {
    customer_id: String,
    customer_name: Option<String>,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct UsageSums {
    licenses_qualified: u64,
    licenses_active: u64,
    licenses_unused: u64,
    #[serde(default)]
    unused_cost: Vec<MonthlyCost>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MonthlyCost {
    currency: String,
    per_month: serde_json::Number,
}

/// A customer and product of `/v1/usage/unused`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct UnusedItem {
    customer_id: String,
    customer_name: Option<String>,
    display_name: String,
    busiest_workload: Option<String>,
    #[serde(flatten)]
    sums: UsageSums,
}

/// A page of `/v1/usage/unused`, and all pages together.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct UnusedPage<T> {
    #[serde(flatten)]
    header: Map<String, Value>,
    items: Vec<T>,
    next_cursor: Option<String>,
}

/// The cells of a line: three texts, then numbers.
type TableLine = [String; 8];

/// Gets the totals, and the rows in a format.
pub(super) async fn fetch(
    proxy: &ProxyClient,
    date: Option<ProcessedDate>,
    format: OutputFormat,
) -> Result<FleetReply, CliError> {
    let date = date.map(|date| date.to_string());
    let date: Vec<_> = date
        .iter()
        .map(|date| ("processedDate", date.as_str()))
        .collect();
    let totals = proxy
        .get(&["v1", "usage"], &date, "application/json")
        .await?;
    let rows = match format {
        OutputFormat::Table => FleetReplyRows::Table(all_pages(proxy, &date).await?.items),
        OutputFormat::Json => {
            let all = all_pages::<Value>(proxy, &date).await?;
            let body = serde_json::to_vec(&all).map_err(CliError::other)?;
            FleetReplyRows::Sent(body.into())
        }
        OutputFormat::Csv => {
            let reply = proxy
                .get(&["v1", "usage", "unused"], &date, format.media_type())
                .await?;
            FleetReplyRows::Sent(reply.successful()?.body)
        }
    };
    Ok(FleetReply {
        totals: parse(&totals.successful()?.body)?,
        rows,
    })
}

/// Gets all pages, all of one state of the data.
async fn all_pages<T: DeserializeOwned>(
    proxy: &ProxyClient,
    date: &[(&str, &str)],
) -> Result<UnusedPage<T>, CliError> {
    for _ in 0..MAX_READS {
        if let Some(all) = read_pages(proxy, date).await? {
            return Ok(all);
        }
    }
    Err(CliError::other(
        "the data changes while it is read; run the same command again",
    ))
}

/// Returns `None` if the data changed between two pages.
async fn read_pages<T: DeserializeOwned>(
    proxy: &ProxyClient,
    date: &[(&str, &str)],
) -> Result<Option<UnusedPage<T>>, CliError> {
    let mut all: Option<UnusedPage<T>> = None;
    loop {
        let mut query = date.to_vec();
        query.push(("limit", PAGE_ROWS));
        let cursor = all.as_ref().and_then(|all| all.next_cursor.clone());
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let reply = proxy
            .get(&["v1", "usage", "unused"], &query, "application/json")
            .await?;
        if reply.status == StatusCode::BAD_REQUEST
            && ProxyProblem::from_reply(&reply).is("cursor-expired")
        {
            return Ok(None);
        }
        let page: UnusedPage<T> = parse(&reply.successful()?.body)?;
        let all = match &mut all {
            None => all.insert(page),
            Some(all) => {
                all.items.extend(page.items);
                all.next_cursor = page.next_cursor;
                all
            }
        };
        if all.next_cursor.is_none() {
            break;
        }
    }
    Ok(all)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, CliError> {
    serde_json::from_slice(body).map_err(|error| {
        CliError::other(format!(
            "not an answer of a usage-proxy: {error}; check --url"
        ))
    })
}

// === impl FleetReply ===

impl FleetReply {
    /// Prints the rows, and what is missing on standard error.
    pub(super) fn print(&self) -> Result<(), CliError> {
        for line in self.totals.missing() {
            eprint_line(line);
        }
        if !self.totals.has_any() {
            return Err(CliError::other(
                "the proxy has no usage of any customer yet; with fleet.refresh it fetches all by itself, \
                 else ask for a customer",
            ));
        }
        match &self.rows {
            FleetReplyRows::Table(items) => {
                let table = render(&self.totals, items, TerminalStyle::of_stdout());
                print_text(table.as_bytes())
            }
            FleetReplyRows::Sent(body) => print_body(body),
        }
    }
}

// === impl TotalsReply ===

impl TotalsReply {
    fn has_any(&self) -> bool {
        let CustomersByStatus {
            total,
            current,
            stale,
            empty,
            ..
        } = self.customers;
        total == 0 || current + stale + empty > 0 || self.totals.licenses_qualified > 0
    }

    fn heading(&self) -> String {
        let count = of_customers(self.customers.total);
        match &self.processed_date {
            Some(date) => format!("{count}. The newest counts are of {}.", sanitize(date)),
            None => format!("{count}."),
        }
    }

    /// Returns a line for each kind of customer that is missing or not current.
    fn missing(&self) -> Vec<String> {
        let counted = &self.customers;
        let date = self.processed_date.as_deref().unwrap_or_default();
        let mut lines = Vec::new();
        if counted.not_fetched > 0 {
            lines.push(format!(
                "not fetched yet: {}",
                of_customers(counted.not_fetched)
            ));
        }
        if counted.stale > 0 {
            lines.push(format!(
                "without rows of {}: {}, with an older date each",
                sanitize(date),
                of_customers(counted.stale)
            ));
        }
        if counted.failed > 0 {
            lines.push(format!("failed: {}", of_customers(counted.failed)));
            lines.extend(self.failed.iter().take(MAX_NAMED).map(|failed| {
                let name = failed.customer_name.as_deref().unwrap_or_default();
                let (id, reason) = (&failed.customer_id, &failed.reason);
                sanitize(&format!("  {id}  {name}: {reason}"))
            }));
            if let Some(more) = self.failed.len().checked_sub(MAX_NAMED + 1) {
                lines.push(format!("  and {} more", more + 1));
            }
        }
        lines
    }
}

fn of_customers(count: u64) -> String {
    match count {
        1 => "1 customer".to_owned(),
        _ => format!("{count} customers"),
    }
}

fn render(totals: &TotalsReply, items: &[UnusedItem], look: TerminalStyle) -> String {
    let rows = items.iter().map(|item| {
        let customer = item.customer_name.as_deref();
        let customer = customer.filter(|name| !name.is_empty());
        item.sums.line([
            customer.unwrap_or(&item.customer_id),
            &item.display_name,
            item.busiest_workload.as_deref().unwrap_or_default(),
        ])
    });
    let has_cost = !totals.totals.unused_cost.is_empty();
    let header = [
        "Customer",
        "Product",
        "Busiest workload",
        "Qualified",
        "Active",
        "Unused",
        "Used",
        if has_cost { "Cost a month" } else { "" },
    ]
    .map(str::to_owned);
    let sums = totals.totals.line(["All", "", ""]);
    let lines: Vec<TableLine> = std::iter::once(header).chain(rows).chain([sums]).collect();
    let columns = if look.is_terminal {
        look.columns
    } else {
        usize::MAX
    };
    let widths = column_widths(&lines, columns);
    let styled = |(index, line): (usize, &TableLine)| {
        let style = match index {
            0 => Style::new().dim(),
            _ if index == lines.len() - 1 => Style::new().bold(),
            _ => Style::new(),
        };
        look.styled(&style, &format_line(line, &widths, look)) + "\n"
    };
    let table: String = lines.iter().enumerate().map(styled).collect();
    format!("{}\n\n{table}", totals.heading())
}

/// Fits the widths to the longest cells. Where a line is longer than the terminal, texts are cut.
fn column_widths(lines: &[TableLine], columns: usize) -> [usize; 8] {
    let mut widths = [0; 8];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = display_width(cell).max(*width);
        }
    }
    loop {
        let used = widths.iter().filter(|width| **width > 0);
        let total: usize = used.map(|width| width + GAP.len()).sum();
        let [customer, product, workload, ..] = &mut widths;
        // The workload says least.
        let cut = if *workload > MIN_TEXT_WIDTH {
            workload
        } else {
            customer.max(product)
        };
        if total <= columns.saturating_add(GAP.len()) || *cut <= MIN_TEXT_WIDTH {
            return widths;
        }
        *cut -= 1;
    }
}

fn format_line(line: &TableLine, widths: &[usize; 8], look: TerminalStyle) -> String {
    let cells = line.iter().zip(widths).enumerate();
    let cells = cells.map(|(index, (cell, width))| match index {
        0..3 => align_left(&look.truncate(cell, *width), *width),
        _ => align_right(cell, *width),
    });
    cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
}

// === impl UsageSums ===

impl UsageSums {
    fn line(&self, texts: [&str; 3]) -> TableLine {
        let percent = UsagePercent::new(self.licenses_active, self.licenses_qualified);
        let percent = percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent}%"));
        let costs: Vec<_> = self.unused_cost.iter().map(MonthlyCost::text).collect();
        let [customer, product, workload] = texts.map(sanitize);
        [
            customer,
            product,
            workload,
            self.licenses_qualified.to_string(),
            self.licenses_active.to_string(),
            self.licenses_unused.to_string(),
            percent,
            costs.join(" + "),
        ]
    }
}

// === impl MonthlyCost ===

impl MonthlyCost {
    /// Formats the amount as it was sent, with two decimals at least.
    fn text(&self) -> String {
        let amount = self.per_month.to_string();
        let decimals = amount
            .split_once('.')
            .map_or(0, |(_, decimals)| decimals.len());
        let padding = match decimals {
            0 => ".00",
            1 => "0",
            _ => "",
        };
        sanitize(&format!("{amount}{padding} {}", self.currency))
    }
}
