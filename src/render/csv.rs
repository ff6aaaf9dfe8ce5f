//! CSV for programs and for spreadsheets.

use std::borrow::Cow;

use super::simplified::SimplifiedUsage;

/// The header line, with the names and the order of the simplified format.
const HEADER: [&str; 14] = [
    "customerId",
    "customerName",
    "processedDate",
    "productName",
    "productId",
    "serviceName",
    "serviceCode",
    "channel",
    "workloadName",
    "workloadCode",
    "licensesActive",
    "licensesQualified",
    "usagePercent",
    "reportedUsagePercent",
];

/// Tells Excel that the file is UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Renders the simplified format as CSV: one line per product and workload, with CRLF.
///
/// It reads the rendered format and not the rows, so that an entry does not keep both in memory. An
/// absent value is an empty field, never a zero.
pub(super) fn render(simplified: &[u8]) -> Result<Box<[u8]>, csv::Error> {
    write_csv(simplified, |text| Cow::Borrowed(text))
}

/// Renders the same for spreadsheets, with a byte-order mark and without formulas.
pub(super) fn render_for_spreadsheet(simplified: &[u8]) -> Result<Box<[u8]>, csv::Error> {
    let table = write_csv(simplified, |text| Cow::Owned(escape_formulas(text)))?;
    Ok([BYTE_ORDER_MARK, &table].concat().into_boxed_slice())
}

/// Puts an apostrophe before anything that a spreadsheet would run as a formula (OWASP, "CSV
/// Injection").
///
/// A formula starts a cell. If the spreadsheet's list separator is not ours, a cell may also start after
/// a separator or line break inside the text, even within quotes.
fn escape_formulas(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 1);
    let mut begins_cell = true;
    for character in text.chars() {
        if begins_cell && matches!(character, '=' | '+' | '-' | '@') {
            safe.push('\'');
        }
        begins_cell = match character {
            ',' | ';' | '\t' | '\n' | '\r' => true,
            '"' => begins_cell,
            _ => false,
        };
        safe.push(character);
    }
    safe
}

fn write_csv(
    simplified: &[u8],
    text: impl Fn(&str) -> Cow<'_, str>,
) -> Result<Box<[u8]>, csv::Error> {
    let optional =
        |value: &Option<Cow<'_, str>>| text(value.as_deref().unwrap_or_default()).into_owned();
    let usage: SimplifiedUsage<'_> =
        serde_json::from_slice(simplified).map_err(std::io::Error::from)?;
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    writer.write_record(HEADER)?;
    for product in &usage.products {
        for workload in &product.workloads {
            writer.write_record([
                &*usage.customer_id,
                &optional(&usage.customer_name),
                &workload.processed_date,
                &text(&product.product_name),
                &optional(&product.product_id),
                &text(&product.service_name),
                &optional(&product.service_code),
                &optional(&product.channel),
                &text(&workload.workload_name),
                &optional(&workload.workload_code),
                &workload.licenses_active.to_string(),
                &workload.licenses_qualified.to_string(),
                &format_number(workload.usage_percent),
                &format_number(workload.reported_usage_percent),
            ])?;
        }
    }
    let bytes = writer
        .into_inner()
        .map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(bytes.into_boxed_slice())
}

/// Formats a number as in JSON; empty if absent.
fn format_number(number: Option<f64>) -> String {
    number.map_or_else(String::new, |number| {
        serde_json::Value::from(number).to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_commas_and_quotes_stay_one_field() {
        let simplified = br#"{"customerId":"c","customerName":"Sm\u00edth, \"Co\"","processedDate":"2017-03-09","products":[
            {"productName":"A","serviceName":"o365","licensesQualified":3,"licensesUnused":2,"workloads":[
                {"workloadName":"Exchange","licensesActive":1,"licensesQualified":3,"usagePercent":33.3,"reportedUsagePercent":33.25,"processedDate":"2017-03-09"},
                {"workloadName":"Teams","licensesActive":0,"licensesQualified":0,"usagePercent":null,"processedDate":"2017-03-09"}]}],
            "workloads":[]}"#;

        let csv = String::from_utf8(render(simplified).unwrap().into_vec()).unwrap();

        assert_eq!(
            csv,
            "customerId,customerName,processedDate,productName,productId,serviceName,serviceCode,channel,\
             workloadName,workloadCode,licensesActive,licensesQualified,usagePercent,reportedUsagePercent\r\n\
             c,\"Smíth, \"\"Co\"\"\",2017-03-09,A,,o365,,,Exchange,,1,3,33.3,33.25\r\n\
             c,\"Smíth, \"\"Co\"\"\",2017-03-09,A,,o365,,,Teams,,0,0,,\r\n"
        );
    }

    #[test]
    fn formulas_are_escaped_only_in_the_spreadsheet_format() {
        for (name, shown) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "\t'=1"),
            ("\r=1", "\r'=1"),
            ("x;=cmd|' /C calc'!A0", "x;'=cmd|' /C calc'!A0"),
            ("a,-1;+2\t@3\n=4\r\n=5", "a,'-1;'+2\t'@3\n'=4\r\n'=5"),
            ("x;\"=1\"", "x;\"'=1\""),
            ("Contoso = 1", "Contoso = 1"),
            ("a-b, c; d", "a-b, c; d"),
        ] {
            let simplified = serde_json::json!({
                "customerId": "c", "customerName": name, "processedDate": "2017-03-09",
                "products": [{
                    "productName": "A", "serviceName": "o365", "licensesQualified": 3,
                    "licensesUnused": 2,
                    "workloads": [{
                        "workloadName": name, "licensesActive": 1, "licensesQualified": 3,
                        "usagePercent": -1.0, "processedDate": "2017-03-09",
                    }],
                }],
                "workloads": [],
            });
            let simplified = simplified.to_string();
            let names = |csv: &[u8]| {
                let mut reader = csv::Reader::from_reader(csv);
                let row = reader.records().next().unwrap().unwrap();
                [1, 8, 12].map(|column| row[column].to_owned())
            };

            let program = names(&render(simplified.as_bytes()).unwrap());
            let table = render_for_spreadsheet(simplified.as_bytes()).unwrap();
            let spreadsheet = names(table.strip_prefix(BYTE_ORDER_MARK).unwrap());

            assert_eq!(program, [name, name, "-1.0"]);
            assert_eq!(spreadsheet, [shown, shown, "-1.0"]);
        }
    }
}
