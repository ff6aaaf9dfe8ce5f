//! The parameters of requests for history.

use std::{collections::BTreeSet, num::NonZeroUsize};

use strum::{EnumString, IntoStaticStr, VariantArray};

use super::cursor::{CursorQuery, HistoryCursor};
use crate::{
    api::extract::{self, invalid_parameter, parameter},
    domain::{CustomerId, DateRange, ProcessedDate},
    problem::{Problem, ProblemKind},
    render::{ChartTheme, CsvReader, CsvSeparator, Format},
};

/// An answer of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HistoryView {
    /// The stored dates of a customer.
    Dates,
    /// The rows of a customer.
    Rows,
    /// The changes of a customer between two dates.
    Changes,
    /// The totals of all customers.
    Fleet,
}

/// The parameters of a request, as they were sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct HistoryRequest {
    pub(super) from: Option<ProcessedDate>,
    pub(super) to: Option<ProcessedDate>,
    pub(super) product: Option<String>,
    pub(super) workload: Option<String>,
    pub(super) limit: Option<NonZeroUsize>,
    pub(super) cursor: Option<String>,
    pub(super) customers: Option<BTreeSet<CustomerId>>,
    pub(super) group: Option<String>,
    pub(super) service: Option<String>,
    pub(super) channel: Option<String>,
    pub(super) constant_cohort: bool,
    pub(super) separator: CsvSeparator,
    pub(super) theme: ChartTheme,
}

/// A parameter.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, EnumString, IntoStaticStr, VariantArray,
)]
#[strum(serialize_all = "snake_case")]
enum HistoryParameter {
    From,
    To,
    Product,
    Workload,
    Limit,
    Cursor,
    Customer,
    Group,
    Service,
    Channel,
    Cohort,
    Separator,
    Theme,
}

/// The longest range.
const MAX_YEARS: i32 = 10;

// === impl HistoryRequest ===

impl HistoryRequest {
    /// The most rows of a page.
    pub(super) const MAX_LIMIT: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

    /// Reads the parameters of an answer in a negotiated format.
    pub(super) fn parse(
        query: Option<&str>,
        view: HistoryView,
        format: Format,
        today: ProcessedDate,
    ) -> Result<Self, Problem> {
        let mut request = Self::default();
        parameter::read_each(
            query,
            |parameter: &HistoryParameter| parameter.applies_to(view, format),
            HistoryParameter::Customer,
            |parameter, value| request.set(parameter, value, today),
        )?;
        if let (Some(from), Some(to)) = (request.from, request.to) {
            check_range(DateRange { from, to })?;
        }
        Ok(request)
    }

    /// Returns the range, by default of the last months.
    pub(super) fn range(&self, today: ProcessedDate) -> Result<DateRange, Problem> {
        let to = self.to.unwrap_or(today);
        let from = self
            .from
            .unwrap_or_else(|| to.months_before(ProcessedDate::RETENTION_MONTHS));
        let range = DateRange { from, to };
        check_range(range)?;
        Ok(range)
    }

    /// Returns the range, by default of all dates.
    pub(super) fn unlimited_range(&self) -> DateRange {
        DateRange {
            from: self.from.unwrap_or(DateRange::ALL.from),
            to: self.to.unwrap_or(DateRange::ALL.to),
        }
    }

    /// The rest of the query, for cursors.
    pub(super) fn cursor_query(&self, customer: CustomerId) -> CursorQuery<'_> {
        CursorQuery {
            customer,
            product: self.product.as_deref(),
            workload: self.workload.as_deref(),
        }
    }

    /// Returns the cursor. Its range must be the one that the request names, if it names any.
    pub(super) fn cursor(&self, customer: CustomerId) -> Result<Option<HistoryCursor>, Problem> {
        let Some(text) = &self.cursor else {
            return Ok(None);
        };
        let cursor = HistoryCursor::parse(text, self.cursor_query(customer));
        let is_same = |named: Option<ProcessedDate>, own| named.is_none_or(|named| named == own);
        let cursor = cursor.filter(|HistoryCursor { range, .. }| {
            is_same(self.from, range.from) && is_same(self.to, range.to)
        });
        cursor.map(Some).ok_or_else(cursor_problem)
    }

    /// The reader of a table in a negotiated format; `None` for other formats.
    pub(super) fn csv_reader(&self, format: Format) -> Option<CsvReader> {
        match format {
            Format::Csv => Some(CsvReader::Program),
            Format::Table => Some(CsvReader::Spreadsheet(self.separator)),
            Format::Simplified | Format::Native | Format::Chart(_) => None,
        }
    }

    fn set(
        &mut self,
        of: HistoryParameter,
        value: &str,
        today: ProcessedDate,
    ) -> Result<(), Problem> {
        let date = |value| extract::parse_date(of.into(), value, today).map(Some);
        match of {
            HistoryParameter::From => self.from = date(value)?,
            HistoryParameter::To => self.to = date(value)?,
            HistoryParameter::Product => self.product = Some(parameter::name(of.into(), value)?),
            HistoryParameter::Workload => self.workload = Some(parameter::name(of.into(), value)?),
            HistoryParameter::Service => self.service = Some(parameter::name(of.into(), value)?),
            HistoryParameter::Channel => self.channel = Some(parameter::name(of.into(), value)?),
            HistoryParameter::Limit => self.limit = Some(parameter::limit(value, Self::MAX_LIMIT)?),
            HistoryParameter::Cursor => self.cursor = Some(value.to_owned()),
            HistoryParameter::Customer => {
                let customer = parameter::customer(value)?;
                self.customers.get_or_insert_default().insert(customer);
            }
            HistoryParameter::Group => self.group = Some(value.to_owned()),
            HistoryParameter::Cohort => {
                if value != "constant" {
                    let expected = "expected constant, or none to count all customers of each date";
                    return Err(invalid_parameter("cohort", value, expected));
                }
                self.constant_cohort = true;
            }
            HistoryParameter::Separator => self.separator = parameter::separator(value)?,
            HistoryParameter::Theme => self.theme = extract::parse_theme(value)?,
        }
        Ok(())
    }
}

/// The problem of a cursor of another query.
fn cursor_problem() -> Problem {
    Problem::new(
        ProblemKind::CursorExpired,
        "cursor: expected the nextCursor of the page before, with the parameters of that page; leave \
         it out for the first page",
    )
}

/// Checks that a range ends after its beginning, and is not too long.
fn check_range(DateRange { from, to }: DateRange) -> Result<(), Problem> {
    if from > to {
        let expected = format!("expected a date up to the end of the range, {to}");
        return Err(invalid_parameter("from", &from.to_string(), expected));
    }
    if from < to.months_before(12 * MAX_YEARS) {
        let expected =
            format!("expected a date at most {MAX_YEARS} years before the end of the range, {to}");
        return Err(invalid_parameter("from", &from.to_string(), expected));
    }
    Ok(())
}

// === impl HistoryParameter ===

impl HistoryParameter {
    fn applies_to(self, view: HistoryView, format: Format) -> bool {
        match self {
            Self::From | Self::To => true,
            Self::Product => matches!(view, HistoryView::Rows | HistoryView::Fleet),
            Self::Workload => view == HistoryView::Rows,
            Self::Limit | Self::Cursor => {
                view == HistoryView::Rows && !matches!(format, Format::Chart(_))
            }
            Self::Customer | Self::Group | Self::Service | Self::Channel | Self::Cohort => {
                view == HistoryView::Fleet
            }
            Self::Separator => format == Format::Table,
            Self::Theme => matches!(format, Format::Chart(_)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::samples;

    fn date(text: &str) -> ProcessedDate {
        ProcessedDate::parse(text).unwrap()
    }

    fn today() -> ProcessedDate {
        date("2026-11-29")
    }

    fn parse_as(query: &str, view: HistoryView, format: Format) -> Result<HistoryRequest, Problem> {
        HistoryRequest::parse(Some(query), view, format, today())
    }

    fn range(query: &str) -> Result<(String, String), Problem> {
        let request = parse_as(query, HistoryView::Rows, Format::Simplified)?;
        let range = request.range(today())?;
        Ok((range.from.to_string(), range.to.to_string()))
    }

    #[test]
    fn a_range_is_by_default_of_the_last_thirteen_months() {
        for (query, from, to) in [
            ("", "2025-10-29", "2026-11-29"),
            ("to=2026-01-31", "2024-12-31", "2026-01-31"),
            ("from=2026-11-01", "2026-11-01", "2026-11-29"),
            ("from=2026-11-01&to=2026-11-01", "2026-11-01", "2026-11-01"),
            ("from=2016-11-29", "2016-11-29", "2026-11-29"),
        ] {
            assert_eq!(
                range(query).unwrap(),
                (from.to_owned(), to.to_owned()),
                "{query}"
            );
        }
    }

    #[test]
    fn an_invalid_parameter_is_named_with_what_was_expected() {
        for (query, kind, detail) in [
            (
                "from=",
                "processed-date",
                "from is \"\"; expected a calendar date",
            ),
            (
                "from=2026-02-30",
                "processed-date",
                "from is \"2026-02-30\"",
            ),
            ("to=yesterday", "processed-date", "to is \"yesterday\""),
            (
                "to=2026-11-30",
                "processed-date",
                "to is 2026-11-30; expected a date up to today",
            ),
            (
                "from=2026-11-30",
                "processed-date",
                "from is 2026-11-30; expected a date up to today",
            ),
            (
                "from=2026-11-02&to=2026-11-01",
                "invalid-parameter",
                "from is \"2026-11-02\"; expected a date up to",
            ),
            (
                "from=2016-11-28",
                "invalid-parameter",
                "from is \"2016-11-28\"; expected a date at most 10 years before",
            ),
            (
                "from=2000-01-01&to=2010-01-02",
                "invalid-parameter",
                "at most 10 years before the end of the range, 2010-01-02",
            ),
            (
                "from=2026-11-01&from=2026-11-02",
                "duplicate-parameter",
                "the query has from more than once",
            ),
            (
                "product=a&product=b",
                "duplicate-parameter",
                "the query has product more than once",
            ),
            (
                "product=",
                "invalid-parameter",
                "product is \"\"; expected a name",
            ),
            (
                "workload=",
                "invalid-parameter",
                "workload is \"\"; expected a name",
            ),
            (
                "limit=0",
                "invalid-parameter",
                "limit is \"0\"; expected a whole number from 1 to 10000",
            ),
            ("limit=10001", "invalid-parameter", "limit is \"10001\""),
            ("limit=", "invalid-parameter", "limit is \"\""),
            (
                "processedDate=2026-11-01",
                "unknown-parameter",
                "expected from, to, product, workload, limit, cursor, or none",
            ),
            (
                "From=2026-11-01",
                "unknown-parameter",
                "the query has \"From\"",
            ),
        ] {
            let problem = range(query).unwrap_err();

            assert_eq!(problem.name(), kind, "{query}");
            assert!(
                problem.detail().contains(detail),
                "{query}: {}",
                problem.detail()
            );
        }
    }

    #[test]
    fn each_answer_has_its_own_parameters() {
        for (view, format, query, is_known) in [
            (
                HistoryView::Dates,
                Format::Simplified,
                "from=2026-11-01",
                true,
            ),
            (HistoryView::Dates, Format::Simplified, "product=E3", false),
            (
                HistoryView::Dates,
                Format::Simplified,
                "separator=semicolon",
                false,
            ),
            (
                HistoryView::Dates,
                Format::Table,
                "separator=semicolon",
                true,
            ),
            (HistoryView::Dates, Format::Table, "separator=tab", false),
            (
                HistoryView::Rows,
                Format::Chart(ChartTheme::Reader),
                "theme=dark",
                true,
            ),
            (
                HistoryView::Rows,
                Format::Chart(ChartTheme::Reader),
                "limit=5",
                false,
            ),
            (HistoryView::Rows, Format::Csv, "limit=5", true),
            (HistoryView::Rows, Format::Simplified, "theme=dark", false),
            (
                HistoryView::Rows,
                Format::Simplified,
                "cohort=constant",
                false,
            ),
            (
                HistoryView::Changes,
                Format::Simplified,
                "to=2026-11-01",
                true,
            ),
            (
                HistoryView::Changes,
                Format::Simplified,
                "workload=Teams",
                false,
            ),
            (
                HistoryView::Fleet,
                Format::Simplified,
                "cohort=constant&service=o365&channel=x",
                true,
            ),
            (HistoryView::Fleet, Format::Simplified, "cohort=all", false),
            (HistoryView::Fleet, Format::Simplified, "cohort=", false),
            (
                HistoryView::Fleet,
                Format::Simplified,
                "customer=contoso",
                false,
            ),
            (HistoryView::Fleet, Format::Simplified, "service=", false),
            (HistoryView::Fleet, Format::Simplified, "limit=5", false),
        ] {
            let request = parse_as(query, view, format);

            assert_eq!(request.is_ok(), is_known, "{view:?} {query}: {request:?}");
        }
    }

    #[test]
    fn customers_may_be_repeated() {
        let (one, other) = (samples::customer(), "00000000-0000-4000-8000-000000000001");
        let query = format!("customer={one}&customer={other}&customer={{{one}}}");

        let request = parse_as(&query, HistoryView::Fleet, Format::Simplified).unwrap();

        assert_eq!(request.customers.unwrap().len(), 2);
    }

    #[test]
    fn a_cursor_continues_its_own_query_whatever_the_day() {
        let customer = samples::customer();
        let first = parse_as("product=E3", HistoryView::Rows, Format::Simplified).unwrap();
        let cursor = HistoryCursor {
            range: first.range(today()).unwrap(),
            after: crate::store::HistoryPosition {
                date: date("2026-11-01"),
                row: (1, 2),
            },
        };
        let text = cursor.encode(first.cursor_query(customer));
        let next = |query: &str| {
            let query = format!("{query}&cursor={text}");
            let tomorrow = date("2026-11-30");
            let request = HistoryRequest::parse(
                Some(&query),
                HistoryView::Rows,
                Format::Simplified,
                tomorrow,
            );
            request.and_then(|request| request.cursor(customer))
        };

        assert_eq!(next("product=E3").unwrap(), Some(cursor.clone()));
        assert_eq!(
            next("product=E3&to=2026-11-29").unwrap(),
            Some(cursor.clone())
        );
        for query in [
            "",
            "product=E5",
            "product=E3&from=2026-01-01",
            "product=E3&to=2026-11-30",
        ] {
            assert_eq!(next(query).unwrap_err().name(), "cursor-expired", "{query}");
        }
    }
}
