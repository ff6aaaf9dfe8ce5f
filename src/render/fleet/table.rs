//! The answers as CSV.

use std::borrow::Cow;

use super::{
    super::csv_writer::{CsvReader, CsvWriter},
    fields::{FieldValue, FleetRow, UNUSED_COST},
};
use crate::domain::Portfolio;

/// Separates several names in one cell.
const NAME_SEPARATOR: &str = "|";

/// Renders rows as CSV with a header line: the fields of the rows, and a column for the cost in each
/// currency of the portfolio. So a query has the same columns whatever rows it finds.
pub(super) fn render<'a, R: FleetRow<'a>>(
    rows: &[R],
    portfolio: &Portfolio,
    reader: CsvReader,
) -> csv::Result<Vec<u8>> {
    let mut table = CsvWriter::new(reader);
    let currencies = portfolio.currencies();
    let names = R::NAMES.iter().map(|name| Cow::Borrowed(*name));
    let costs = currencies.iter();
    let costs = costs.map(|currency| format!("{UNUSED_COST}_{currency}").into());
    table.write(names.chain(costs).map(Cow::into_owned))?;
    for row in rows {
        let values = row.values().into_iter();
        let costs = currencies.iter().map(|currency| {
            let cost = row.unused_cost().and_then(|cost| cost.of(currency));
            table.number(cost.map_or_else(String::new, |cost| cost.to_string()))
        });
        let cells = values.map(|value| format_cell(value, &table)).chain(costs);
        let cells: Vec<_> = cells.collect();
        table.write(cells)?;
    }
    table.finish()
}

fn format_cell(value: FieldValue<'_>, table: &CsvWriter) -> String {
    let text = |text: &str| table.text(text).into_owned();
    match value {
        FieldValue::Text(value) => text(value.as_deref().unwrap_or_default()),
        FieldValue::Names(names) => text(&names.join(NAME_SEPARATOR)),
        FieldValue::Count(count) => count.map_or_else(String::new, |count| count.to_string()),
        FieldValue::Percent(percent) => {
            table.number(percent.map_or_else(String::new, |percent| percent.to_string()))
        }
    }
}
