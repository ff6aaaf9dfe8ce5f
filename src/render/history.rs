//! History as JSON and CSV: the same fields in both, and a line for each row.
//!
//! A date without data has no row. An absent value is `null` or an empty cell, never a zero.

mod trend;
mod trend_chart;

use http::HeaderValue;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

pub use self::{trend::UsageTrend, trend_chart::render_trend_chart};
use super::{
    attachment,
    csv_writer::{CsvReader, CsvWriter},
};
use crate::domain::{DateRange, ProcessedDate, UsageChange, UsagePercent, UsageRow};

/// A product in a workload, as rows of history name it.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryName<'a> {
    /// Microsoft's name of the product.
    pub product_name: &'a str,
    /// The name that people know it by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<&'a str>,
    /// GUID of the product, where upstream sent one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_id: Option<&'a str>,
    /// The service.
    pub service_name: &'a str,
    /// The sales channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<&'a str>,
    /// The workload.
    pub workload_name: &'a str,
}

/// The counts of a product in a workload on one date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryCounts {
    /// Seats that were used.
    pub licenses_active: u64,
    /// Seats that could have been used.
    pub licenses_qualified: u64,
}

/// One row of a customer's history.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryItem<'a> {
    #[serde(serialize_with = "serialize_date")]
    processed_date: ProcessedDate,
    #[serde(flatten)]
    name: HistoryName<'a>,
    #[serde(flatten)]
    counts: HistoryCounts,
    usage_percent: Option<f64>,
}

/// A stored date of a customer.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DateItem {
    /// The date.
    #[serde(serialize_with = "serialize_date")]
    pub processed_date: ProcessedDate,
    /// The arrival of the current content.
    #[serde(serialize_with = "serialize_time")]
    pub fetched_at: Timestamp,
    /// The last time when upstream sent the same.
    #[serde(serialize_with = "serialize_time")]
    pub confirmed_at: Timestamp,
    /// The number of corrections.
    pub corrections: u32,
}

/// A change of a product in a workload between two dates.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ChangeItem<'a> {
    change: &'static str,
    #[serde(flatten)]
    name: HistoryName<'a>,
    from: Option<HistoryCounts>,
    to: Option<HistoryCounts>,
}

/// The totals of the fleet on a date.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetDateItem {
    /// The date.
    #[serde(serialize_with = "serialize_date")]
    pub processed_date: ProcessedDate,
    /// The customers that have rows of this date and count.
    pub customers: u64,
    /// The sum of the seats of each product.
    pub licenses_qualified: u64,
    /// The sum of the active seats in each product's busiest workload.
    pub licenses_active: u64,
    /// The sum of the seats that no workload uses.
    pub licenses_unused: u64,
}

/// Items with the range that they are from, as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RangeDocument<'a, I> {
    #[serde(serialize_with = "serialize_date")]
    from: ProcessedDate,
    #[serde(serialize_with = "serialize_date")]
    to: ProcessedDate,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
    items: &'a [I],
    /// `None`: the answer has no pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<Option<&'a str>>,
}

/// Items alone, as JSON.
#[derive(Debug, Serialize)]
struct ItemsDocument<'a, I> {
    items: &'a [I],
}

/// A customer's history as CSV, written page by page.
#[derive(Debug)]
pub struct HistoryTable(CsvWriter);

/// Renders a page of history as JSON.
///
/// # Errors
///
/// None in practice: every value has a form in JSON.
pub fn history_json(
    range: DateRange,
    is_complete: bool,
    items: &[HistoryItem<'_>],
    next_cursor: Option<&str>,
) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&RangeDocument {
        complete: Some(is_complete),
        next_cursor: Some(next_cursor),
        ..RangeDocument::new(range, items)
    })
}

/// Renders stored dates as JSON.
///
/// # Errors
///
/// As [`history_json`].
pub fn dates_json(items: &[DateItem]) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&ItemsDocument { items })
}

/// Renders stored dates as CSV.
///
/// # Errors
///
/// None in practice: every line has as many cells as the header.
pub fn dates_table(items: &[DateItem], reader: CsvReader) -> csv::Result<Vec<u8>> {
    let mut table = CsvWriter::new(reader);
    table.write(["processedDate", "fetchedAt", "confirmedAt", "corrections"])?;
    for item in items {
        table.write([
            item.processed_date.to_string(),
            format_time(item.fetched_at),
            format_time(item.confirmed_at),
            item.corrections.to_string(),
        ])?;
    }
    table.finish()
}

/// Renders the changes between two dates as JSON.
///
/// # Errors
///
/// As [`history_json`].
pub fn changes_json(range: DateRange, items: &[ChangeItem<'_>]) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&RangeDocument::new(range, items))
}

/// Renders the changes between two dates as CSV.
///
/// # Errors
///
/// As [`dates_table`].
pub fn changes_table(
    range: DateRange,
    items: &[ChangeItem<'_>],
    reader: CsvReader,
) -> csv::Result<Vec<u8>> {
    let mut table = CsvWriter::new(reader);
    let dates = ["fromDate", "toDate", "change"].into_iter();
    let counts = [
        "fromLicensesActive",
        "fromLicensesQualified",
        "toLicensesActive",
        "toLicensesQualified",
    ];
    table.write(dates.chain(HistoryName::COLUMNS).chain(counts))?;
    for item in items {
        let dates = [range.from, range.to].map(|date| date.to_string());
        let counts = [item.from, item.to].map(|counts| {
            let count = |of: fn(HistoryCounts) -> u64| {
                counts.map_or_else(String::new, |counts| of(counts).to_string())
            };
            [
                count(|counts| counts.licenses_active),
                count(|counts| counts.licenses_qualified),
            ]
        });
        let cells = dates.into_iter().chain([item.change.to_owned()]);
        let cells = cells.chain(item.name.cells(&table));
        table.write(
            cells
                .chain(counts.into_iter().flatten())
                .collect::<Vec<_>>(),
        )?;
    }
    table.finish()
}

/// Renders the history of all customers as JSON.
///
/// # Errors
///
/// As [`history_json`].
pub fn fleet_history_json(
    range: DateRange,
    is_complete: bool,
    items: &[FleetDateItem],
) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&RangeDocument {
        complete: Some(is_complete),
        ..RangeDocument::new(range, items)
    })
}

/// Renders the history of all customers as CSV.
///
/// # Errors
///
/// As [`dates_table`].
pub fn fleet_history_table(items: &[FleetDateItem], reader: CsvReader) -> csv::Result<Vec<u8>> {
    let mut table = CsvWriter::new(reader);
    table.write([
        "processedDate",
        "customers",
        "licensesQualified",
        "licensesActive",
        "licensesUnused",
    ])?;
    for item in items {
        table.write([
            item.processed_date.to_string(),
            item.customers.to_string(),
            item.licenses_qualified.to_string(),
            item.licenses_active.to_string(),
            item.licenses_unused.to_string(),
        ])?;
    }
    table.finish()
}

/// Returns `Content-Disposition` of a table: its file name has the content, the customer's name and the
/// dates (RFC 6266 §4.3).
pub fn attachment(
    content: &str,
    customer_name: Option<&str>,
    dates: Option<DateRange>,
) -> HeaderValue {
    let name = customer_name.map(attachment::sanitize_file_name);
    let name = name.filter(|name| !name.is_empty());
    let dates = dates.map(|DateRange { from, to }| format!("{from}-{to}"));
    let parts = ["usage".to_owned(), content.to_owned()].into_iter();
    let parts: Vec<_> = parts.chain(name).chain(dates).collect();
    attachment::of_file(&format!("{}.csv", parts.join("-")))
}

fn serialize_date<S: Serializer>(date: &ProcessedDate, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(date)
}

fn serialize_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_time(*time))
}

/// In whole seconds.
fn format_time(time: Timestamp) -> String {
    let seconds = Timestamp::from_second(time.as_second());
    seconds.unwrap_or(time).to_string()
}

// === impl HistoryName ===

impl<'a> HistoryName<'a> {
    const COLUMNS: [&'static str; 6] = [
        "productName",
        "displayName",
        "productId",
        "serviceName",
        "channel",
        "workloadName",
    ];

    /// Returns the names of a row.
    pub fn of(row: &'a UsageRow, display_name: Option<&'a str>) -> Self {
        Self {
            product_name: &row.product_name,
            display_name,
            product_id: row.product_id.as_deref(),
            service_name: &row.service_name,
            channel: row.channel.as_deref(),
            workload_name: &row.workload_name,
        }
    }

    fn cells(&self, table: &CsvWriter) -> [String; 6] {
        [
            self.product_name,
            self.display_name.unwrap_or_default(),
            self.product_id.unwrap_or_default(),
            self.service_name,
            self.channel.unwrap_or_default(),
            self.workload_name,
        ]
        .map(|text| table.text(text).into_owned())
    }
}

// === impl HistoryCounts ===

impl HistoryCounts {
    /// Returns the counts of a row.
    pub fn of(row: &UsageRow) -> Self {
        Self {
            licenses_active: row.licenses_active,
            licenses_qualified: row.licenses_qualified,
        }
    }
}

// === impl HistoryItem ===

impl<'a> HistoryItem<'a> {
    /// Creates the row of a date.
    pub fn new(date: ProcessedDate, name: HistoryName<'a>, counts: HistoryCounts) -> Self {
        let percent = UsagePercent::new(counts.licenses_active, counts.licenses_qualified);
        Self {
            processed_date: date,
            name,
            counts,
            usage_percent: percent.map(UsagePercent::as_f64),
        }
    }
}

// === impl HistoryTable ===

impl HistoryTable {
    /// Begins a table with its header.
    ///
    /// # Errors
    ///
    /// As [`dates_table`].
    pub fn new(reader: CsvReader) -> csv::Result<Self> {
        let mut table = CsvWriter::new(reader);
        let counts = ["licensesActive", "licensesQualified", "usagePercent"];
        let names = ["processedDate"].into_iter().chain(HistoryName::COLUMNS);
        table.write(names.chain(counts))?;
        Ok(Self(table))
    }

    /// Adds a line.
    ///
    /// # Errors
    ///
    /// As [`dates_table`].
    pub fn add(&mut self, item: &HistoryItem<'_>) -> csv::Result<()> {
        let Self(table) = self;
        let counts = [
            item.counts.licenses_active.to_string(),
            item.counts.licenses_qualified.to_string(),
            table.decimal(item.usage_percent),
        ];
        let date = [item.processed_date.to_string()].into_iter();
        let names = item.name.cells(table);
        table.write(date.chain(names).chain(counts).collect::<Vec<_>>())
    }

    /// Returns the table.
    ///
    /// # Errors
    ///
    /// As [`dates_table`].
    pub fn finish(self) -> csv::Result<Vec<u8>> {
        self.0.finish()
    }
}

// === impl ChangeItem ===

impl<'a> ChangeItem<'a> {
    /// Creates the item of a change.
    pub fn new(change: &UsageChange<'a>, display_name: Option<&'a str>) -> Self {
        Self {
            change: change.name(),
            name: HistoryName::of(change.row(), display_name),
            from: change.from().map(HistoryCounts::of),
            to: change.to().map(HistoryCounts::of),
        }
    }
}

// === impl RangeDocument ===

impl<'a, I> RangeDocument<'a, I> {
    fn new(range: DateRange, items: &'a [I]) -> Self {
        Self {
            from: range.from,
            to: range.to,
            complete: None,
            items,
            next_cursor: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::csv_writer::CsvSeparator, *};
    use crate::domain::{samples, usage_changes};

    fn range() -> DateRange {
        DateRange {
            from: ProcessedDate::parse("2017-02-09").unwrap(),
            to: ProcessedDate::parse("2017-03-09").unwrap(),
        }
    }

    fn row(active: u64, qualified: u64) -> UsageRow {
        UsageRow {
            channel: Some("reseller".into()),
            product_name: "=E3".into(),
            licenses_active: active,
            licenses_qualified: qualified,
            ..samples::row()
        }
    }

    fn item(row: &UsageRow) -> HistoryItem<'_> {
        let name = HistoryName::of(row, Some("Office; E3"));
        HistoryItem::new(range().to, name, HistoryCounts::of(row))
    }

    fn parsed(json: &[u8]) -> Value {
        serde_json::from_slice(json).unwrap()
    }

    fn text(table: Vec<u8>) -> String {
        String::from_utf8(table).unwrap()
    }

    #[test]
    fn a_row_of_history_has_its_names_counts_and_percentage() {
        let (used, unqualified) = (row(3, 8), row(0, 0));

        let json = history_json(range(), true, &[item(&used), item(&unqualified)], None).unwrap();

        let names = json!({
            "processedDate": "2017-03-09", "productName": "=E3", "displayName": "Office; E3",
            "serviceName": "o365", "channel": "reseller", "workloadName": "Exchange",
            "licensesActive": 3, "licensesQualified": 8, "usagePercent": 37.5,
        });
        let mut nothing = names.clone();
        for (field, value) in [
            ("licensesActive", json!(0)),
            ("licensesQualified", json!(0)),
            ("usagePercent", Value::Null),
        ] {
            nothing[field] = value;
        }
        let expected = json!({
            "from": "2017-02-09", "to": "2017-03-09", "complete": true,
            "items": [names, nothing], "nextCursor": null,
        });
        assert_eq!(parsed(&json), expected);
    }

    #[test]
    fn the_table_of_history_has_the_same_fields() {
        let row = row(3, 8);
        let table = |reader| {
            let mut table = HistoryTable::new(reader).unwrap();
            table.add(&item(&row)).unwrap();
            text(table.finish().unwrap())
        };

        assert_eq!(
            table(CsvReader::Program),
            "processedDate,productName,displayName,productId,serviceName,channel,workloadName,\
             licensesActive,licensesQualified,usagePercent\r\n\
             2017-03-09,=E3,Office; E3,,o365,reseller,Exchange,3,8,37.5\r\n"
        );
        assert!(
            table(CsvReader::Spreadsheet(CsvSeparator::Semicolon))
                .ends_with("2017-03-09;'=E3;\"Office; E3\";;o365;reseller;Exchange;3;8;37,5\r\n")
        );
    }

    #[test]
    fn a_change_has_the_counts_of_both_dates() {
        let (from, to) = ([row(3, 8)], [row(2, 9)]);
        let shrunk = usage_changes(&from, &to);
        let added = usage_changes(&[], &to);
        let changes = shrunk.iter().chain(&added);
        let items: Vec<_> = changes
            .map(|change| ChangeItem::new(change, None))
            .collect();

        let json = parsed(&changes_json(range(), &items).unwrap());

        assert_eq!(json["from"], "2017-02-09");
        assert_eq!(
            json["items"][0],
            json!({
                "change": "shrunk", "productName": "=E3", "serviceName": "o365",
                "channel": "reseller", "workloadName": "Exchange",
                "from": { "licensesActive": 3, "licensesQualified": 8 },
                "to": { "licensesActive": 2, "licensesQualified": 9 },
            })
        );
        assert_eq!(json["items"][1]["change"], "added");
        assert_eq!(json["items"][1]["from"], Value::Null);
        assert_eq!(
            text(changes_table(range(), &items, CsvReader::Program).unwrap()),
            "fromDate,toDate,change,productName,displayName,productId,serviceName,channel,workloadName,\
             fromLicensesActive,fromLicensesQualified,toLicensesActive,toLicensesQualified\r\n\
             2017-02-09,2017-03-09,shrunk,=E3,,,o365,reseller,Exchange,3,8,2,9\r\n\
             2017-02-09,2017-03-09,added,=E3,,,o365,reseller,Exchange,,,2,9\r\n"
        );
    }

    #[test]
    fn a_stored_date_has_its_times_and_corrections() {
        let items = [DateItem {
            processed_date: range().to,
            fetched_at: "2017-03-10T05:00:00Z".parse().unwrap(),
            confirmed_at: "2017-03-12T05:00:00.123Z".parse().unwrap(),
            corrections: 1,
        }];

        assert_eq!(
            parsed(&dates_json(&items).unwrap()),
            json!({ "items": [{
                "processedDate": "2017-03-09", "fetchedAt": "2017-03-10T05:00:00Z",
                "confirmedAt": "2017-03-12T05:00:00Z", "corrections": 1,
            }] })
        );
        assert_eq!(
            text(dates_table(&items, CsvReader::Program).unwrap()),
            "processedDate,fetchedAt,confirmedAt,corrections\r\n\
             2017-03-09,2017-03-10T05:00:00Z,2017-03-12T05:00:00Z,1\r\n"
        );
    }

    #[test]
    fn the_totals_of_a_date_are_the_same_in_json_and_csv() {
        let items = [FleetDateItem {
            processed_date: range().to,
            customers: 2,
            licenses_qualified: 9,
            licenses_active: 4,
            licenses_unused: 5,
        }];

        assert_eq!(
            parsed(&fleet_history_json(range(), false, &items).unwrap()),
            json!({
                "from": "2017-02-09", "to": "2017-03-09", "complete": false,
                "items": [{
                    "processedDate": "2017-03-09", "customers": 2, "licensesQualified": 9,
                    "licensesActive": 4, "licensesUnused": 5,
                }],
            })
        );
        assert_eq!(
            text(fleet_history_table(&items, CsvReader::Program).unwrap()),
            "processedDate,customers,licensesQualified,licensesActive,licensesUnused\r\n\
             2017-03-09,2,9,4,5\r\n"
        );
    }
}
