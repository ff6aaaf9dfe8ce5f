//! The parameters of requests for the usage of all customers.

use std::collections::HashSet;

use strum::{EnumString, IntoStaticStr, VariantArray, VariantNames};

use crate::{
    api::extract::{self, invalid_parameter, parameter},
    domain::{Caller, CustomerId, Portfolio, ProcessedDate},
    problem::{Problem, ProblemKind},
    render::{
        CsvReader, CsvSeparator, Format,
        fleet::{
            CursorExpired, FleetCursor, FleetFormat, FleetProductFilter, FleetQuery, FleetSort,
            FleetSortKey, FleetView, PercentBound,
        },
    },
};

/// The parameters of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FleetRequest {
    /// The processed date; `None` for the newest of each customer.
    pub(super) date: Option<ProcessedDate>,
    /// The customers; `None` for all.
    pub(super) customers: Option<HashSet<CustomerId>>,
    /// The group; `None` for all customers.
    pub(super) group: Option<String>,
    pub(super) query: FleetQuery,
    pub(super) format: FleetFormat,
}

/// A parameter.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, EnumString, IntoStaticStr, VariantArray,
)]
#[strum(serialize_all = "snake_case")]
enum FleetParameter {
    #[strum(serialize = "processedDate")]
    ProcessedDate,
    Customer,
    Group,
    Service,
    Product,
    Channel,
    MinUnused,
    Below,
    Sort,
    Currency,
    Limit,
    Cursor,
    Separator,
}

/// The values of parameters that are texts.
#[derive(Clone, Debug, Default)]
struct NameFilters {
    service: Option<String>,
    product: Option<String>,
    channel: Option<String>,
}

/// The problem of a cursor of another answer.
pub(super) fn cursor_problem(expired: CursorExpired) -> Problem {
    Problem::new(ProblemKind::CursorExpired, format!("cursor: {expired}"))
}

// === impl FleetRequest ===

impl FleetRequest {
    /// Reads the parameters of an answer in a negotiated format.
    pub(super) fn parse(
        query: Option<&str>,
        view: FleetView,
        format: Format,
        today: ProcessedDate,
    ) -> Result<Self, Problem> {
        let mut request = Self::without_parameters(view, format);
        let mut names = NameFilters::default();
        parameter::read_each(
            query,
            |parameter: &FleetParameter| parameter.applies_to(view, format),
            FleetParameter::Customer,
            |parameter, value| request.set(parameter, value, &mut names, today),
        )?;
        request.query.products = FleetProductFilter::new(
            names.service.as_deref(),
            names.product.as_deref(),
            names.channel.as_deref(),
        );
        Ok(request)
    }

    /// Returns the customers of the group, if the request names one.
    pub(super) fn group<'a>(
        &self,
        portfolio: &'a Portfolio,
        caller: &Caller,
    ) -> Result<Option<&'a HashSet<CustomerId>>, Problem> {
        let name = self.group.as_deref();
        name.map(|name| parameter::group(name, portfolio, caller))
            .transpose()
    }

    fn without_parameters(view: FleetView, format: Format) -> Self {
        let format = match format {
            Format::Csv => FleetFormat::Csv(CsvReader::Program),
            Format::Table => FleetFormat::Csv(CsvReader::Spreadsheet(CsvSeparator::default())),
            Format::Simplified | Format::Native | Format::Chart(_) => FleetFormat::Json,
        };
        let is_page = view != FleetView::Products && format == FleetFormat::Json;
        Self {
            date: None,
            customers: None,
            group: None,
            query: FleetQuery {
                limit: is_page.then_some(FleetQuery::DEFAULT_LIMIT),
                ..FleetQuery::all(view)
            },
            format,
        }
    }

    fn set(
        &mut self,
        of: FleetParameter,
        value: &str,
        names: &mut NameFilters,
        today: ProcessedDate,
    ) -> Result<(), Problem> {
        let query = &mut self.query;
        match of {
            FleetParameter::ProcessedDate => {
                let name = of.into();
                self.date = Some(extract::parse_date(name, value, today)?);
            }
            FleetParameter::Customer => {
                let customer = parameter::customer(value)?;
                self.customers.get_or_insert_default().insert(customer);
            }
            FleetParameter::Group => self.group = Some(value.to_owned()),
            FleetParameter::Service => names.service = Some(parameter::name(of.into(), value)?),
            FleetParameter::Product => names.product = Some(parameter::name(of.into(), value)?),
            FleetParameter::Channel => names.channel = Some(parameter::name(of.into(), value)?),
            FleetParameter::MinUnused => query.min_unused = parse_min_unused(value)?,
            FleetParameter::Below => {
                let below = PercentBound::parse(value);
                let below = below.map_err(|error| invalid_parameter("below", value, error))?;
                query.below = Some(below);
            }
            FleetParameter::Sort => query.sort = parse_sort(value)?,
            FleetParameter::Currency => query.currency = Some(parse_currency(value)?),
            FleetParameter::Limit => {
                query.limit = Some(parameter::limit(value, FleetQuery::MAX_LIMIT)?)
            }
            FleetParameter::Cursor => {
                query.cursor = Some(FleetCursor::parse(value).map_err(cursor_problem)?);
            }
            FleetParameter::Separator => {
                let separator = parameter::separator(value)?;
                self.format = FleetFormat::Csv(CsvReader::Spreadsheet(separator));
            }
        }
        Ok(())
    }
}

fn parse_min_unused(value: &str) -> Result<u64, Problem> {
    let expected = "expected a whole number of licenses, such as 5";
    parameter::digits(value).ok_or_else(|| invalid_parameter("min_unused", value, expected))
}

/// Reads the order of rows.
pub(in crate::api) fn parse_sort(value: &str) -> Result<FleetSort, Problem> {
    FleetSort::parse(value).ok_or_else(|| {
        let keys = FleetSortKey::VARIANTS.join(", ");
        let expected = format!("expected one of {keys}, or one of them after -");
        invalid_parameter("sort", value, expected)
    })
}

fn parse_currency(value: &str) -> Result<String, Problem> {
    let is_code = value.len() == 3 && value.bytes().all(|byte| byte.is_ascii_uppercase());
    if !is_code {
        let expected = "expected the three capital letters of ISO 4217, such as EUR";
        return Err(invalid_parameter("currency", value, expected));
    }
    Ok(value.to_owned())
}

// === impl FleetParameter ===

impl FleetParameter {
    fn applies_to(self, view: FleetView, format: Format) -> bool {
        match self {
            Self::ProcessedDate
            | Self::Customer
            | Self::Group
            | Self::Service
            | Self::Product
            | Self::Channel => true,
            Self::MinUnused
            | Self::Below
            | Self::Sort
            | Self::Currency
            | Self::Limit
            | Self::Cursor => view != FleetView::Products,
            Self::Separator => format == Format::Table,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn parse_as(query: &str, view: FleetView, format: Format) -> Result<FleetRequest, Problem> {
        let today = ProcessedDate::parse("2026-11-29").unwrap();
        FleetRequest::parse(Some(query), view, format, today)
    }

    fn parse(query: &str) -> FleetRequest {
        parse_as(query, FleetView::Customers, Format::Simplified).unwrap()
    }

    #[test]
    fn an_invalid_parameter_is_named_with_what_was_expected() {
        for (query, kind, detail) in [
            (
                "top=10",
                "unknown-parameter",
                "the query has \"top\"; expected processedDate, customer, group",
            ),
            (
                "separator=semicolon",
                "unknown-parameter",
                "sort, currency, limit, cursor, or none",
            ),
            (
                "processed_date=2026-11-25",
                "unknown-parameter",
                "the query has \"processed_date\"",
            ),
            ("Sort=name", "unknown-parameter", "the query has \"Sort\""),
            (
                "sort=name&sort=name",
                "duplicate-parameter",
                "the query has sort more than once",
            ),
            (
                "group=a&group=b",
                "duplicate-parameter",
                "the query has group more than once",
            ),
            (
                "cursor=&cursor=",
                "cursor-expired",
                "cursor: expected the nextCursor",
            ),
            (
                "processedDate=",
                "processed-date",
                "processedDate is \"\"; expected a calendar date",
            ),
            (
                "processedDate=2026-11-31",
                "processed-date",
                "expected a calendar date",
            ),
            (
                "processedDate=2026-11-30",
                "processed-date",
                "expected a date up to today",
            ),
            (
                "customer=",
                "customer-id",
                "customer is \"\"; expected a GUID",
            ),
            (
                "customer=contoso",
                "customer-id",
                "customer is \"contoso\"; expected a GUID",
            ),
            (
                "service=",
                "invalid-parameter",
                "service is \"\"; expected a name",
            ),
            (
                "product=",
                "invalid-parameter",
                "product is \"\"; expected a name",
            ),
            (
                "channel=",
                "invalid-parameter",
                "channel is \"\"; expected a name",
            ),
            (
                "min_unused=",
                "invalid-parameter",
                "min_unused is \"\"; expected a whole number",
            ),
            ("min_unused=-1", "invalid-parameter", "min_unused is \"-1\""),
            (
                "min_unused=1.5",
                "invalid-parameter",
                "min_unused is \"1.5\"",
            ),
            (
                "below=",
                "invalid-parameter",
                "below is \"\"; expected a percentage",
            ),
            ("below=50%25", "invalid-parameter", "below is \"50%\""),
            (
                "sort=",
                "invalid-parameter",
                "sort is \"\"; expected one of name, unused, cost, percent, date",
            ),
            ("sort=price", "invalid-parameter", "sort is \"price\""),
            (
                "currency=",
                "invalid-parameter",
                "currency is \"\"; expected the three capital",
            ),
            ("currency=eur", "invalid-parameter", "currency is \"eur\""),
            (
                "limit=",
                "invalid-parameter",
                "limit is \"\"; expected a whole number from 1 to 5000",
            ),
            ("limit=0", "invalid-parameter", "limit is \"0\""),
            ("limit=5001", "invalid-parameter", "limit is \"5001\""),
            ("limit=%2B5", "invalid-parameter", "limit is \"+5\""),
            (
                "cursor=",
                "cursor-expired",
                "cursor: expected the nextCursor",
            ),
            (
                "cursor=AAAA",
                "cursor-expired",
                "cursor: expected the nextCursor",
            ),
        ] {
            let problem = parse_as(query, FleetView::Customers, Format::Simplified).unwrap_err();

            assert_eq!(problem.name(), kind, "{query}");
            assert!(
                problem.detail().contains(detail),
                "{query}: {}",
                problem.detail()
            );
        }
    }

    #[test]
    fn parameters_of_rows_are_unknown_for_totals() {
        let of_totals = |query| parse_as(query, FleetView::Products, Format::Simplified);

        for query in [
            "min_unused=1",
            "below=50",
            "sort=name",
            "currency=EUR",
            "limit=1",
            "cursor=",
        ] {
            let problem = of_totals(query).unwrap_err();
            assert_eq!(problem.name(), "unknown-parameter", "{query}");
            let ends = problem
                .detail()
                .ends_with("service, product, channel, or none");
            assert!(ends, "{}", problem.detail());
        }
        assert!(of_totals("processedDate=2026-11-25&group=North&service=o365").is_ok());
    }

    #[test]
    fn only_a_table_has_a_separator() {
        let table = |query| parse_as(query, FleetView::Products, Format::Table);

        assert!(parse_as("separator=comma", FleetView::Products, Format::Csv).is_err());
        assert!(table("separator=tab").is_err());
        assert!(table("separator=").is_err());
        for (query, separator) in [
            ("", CsvSeparator::Comma),
            ("separator=comma", CsvSeparator::Comma),
            ("separator=semicolon", CsvSeparator::Semicolon),
        ] {
            let format = FleetFormat::Csv(CsvReader::Spreadsheet(separator));
            assert_eq!(table(query).unwrap().format, format);
        }
    }

    #[test]
    fn json_has_a_hundred_rows_and_csv_all() {
        let limit = |query, view, format| parse_as(query, view, format).unwrap().query.limit;
        let rows = FleetView::Unused;

        assert_eq!(limit("", rows, Format::Simplified), NonZeroUsize::new(100));
        assert_eq!(limit("", rows, Format::Csv), None);
        assert_eq!(limit("", rows, Format::Table), None);
        assert_eq!(
            limit("limit=5000", rows, Format::Table),
            NonZeroUsize::new(5_000)
        );
        assert_eq!(limit("", FleetView::Products, Format::Simplified), None);
    }

    #[test]
    fn customers_may_be_repeated() {
        let one = "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04";
        let other = "00000000-0000-4000-8000-000000000001";

        let customers = parse(&format!(
            "customer={one}&customer={other}&customer={{{one}}}"
        ));

        assert_eq!(customers.customers.unwrap().len(), 2);
        assert_eq!(parse("").customers, None);
    }

    #[test]
    fn a_group_is_unknown_to_callers_that_may_read_none_of_its_customers() {
        use crate::domain::{CallerScope, CustomerAccess, ScopeSet, samples};

        let mut portfolio = Portfolio::default();
        portfolio.add_group("North".into(), HashSet::from([samples::customer()]));
        portfolio.add_group("Empty".into(), HashSet::new());
        let caller = |customers: &[CustomerId]| {
            let customers = customers.iter().copied().collect::<HashSet<_>>();
            let scopes = ScopeSet::from_iter([CallerScope::UsageRead]);
            Caller::new("portal", CustomerAccess::Only(customers.into()), scopes)
        };
        let (one, none) = (caller(&[samples::customer()]), caller(&[]));
        let is_known = |group: &str, caller: &Caller| {
            let request = parse(&format!("group={group}"));
            request.group(&portfolio, caller).is_ok()
        };

        for (group, everyone, by_one, by_none) in [
            ("North", true, true, false),
            ("Empty", true, false, false),
            ("north", false, false, false),
            ("", false, false, false),
        ] {
            assert_eq!(is_known(group, &Caller::anonymous()), everyone, "{group}");
            assert_eq!(is_known(group, &one), by_one, "{group}");
            assert_eq!(is_known(group, &none), by_none, "{group}");
        }
    }
}
