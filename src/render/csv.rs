//! CSV for programs and for spreadsheets.

use std::borrow::Cow;

use super::{
    csv_writer::{CsvReader, CsvWriter},
    simplified::SimplifiedUsage,
};

/// The header line, with the names and the order of the simplified format.
const HEADER: [&str; 15] = [
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
    // Last, so that columns that are read by their number stay.
    "displayName",
];

/// Renders the simplified format as CSV: one line per product and workload.
///
/// It reads the rendered format and not the rows, so that an entry does not keep both in memory.
pub(super) fn render(simplified: &[u8], reader: CsvReader) -> Result<Box<[u8]>, csv::Error> {
    let usage: SimplifiedUsage<'_> =
        serde_json::from_slice(simplified).map_err(std::io::Error::from)?;
    let mut table = CsvWriter::new(reader);
    let optional = |table: &CsvWriter, value: &Option<Cow<'_, str>>| {
        let text = value.as_deref().unwrap_or_default();
        table.text(text).into_owned()
    };
    table.write(HEADER)?;
    for product in &usage.products {
        for workload in &product.workloads {
            table.write([
                &*usage.customer_id,
                &optional(&table, &usage.customer_name),
                &workload.processed_date,
                &table.text(&product.product_name),
                &optional(&table, &product.product_id),
                &table.text(&product.service_name),
                &optional(&table, &product.service_code),
                &optional(&table, &product.channel),
                &table.text(&workload.workload_name),
                &optional(&table, &workload.workload_code),
                &workload.licenses_active.to_string(),
                &workload.licenses_qualified.to_string(),
                &table.decimal(workload.usage_percent),
                &table.decimal(workload.reported_usage_percent),
                &optional(&table, &product.display_name),
            ])?;
        }
    }
    table.finish().map(Vec::into_boxed_slice)
}

#[cfg(test)]
mod tests {
    use super::{super::csv_writer::CsvSeparator, *};

    #[test]
    fn names_with_commas_and_quotes_stay_one_field() {
        let simplified = br#"{"customerId":"c","customerName":"Sm\u00edth, \"Co\"","processedDate":"2017-03-09","products":[
            {"productName":"A","displayName":"Plan A","serviceName":"o365","licensesQualified":3,"licensesUnused":2,"workloads":[
                {"workloadName":"Exchange","licensesActive":1,"licensesQualified":3,"usagePercent":33.3,"reportedUsagePercent":33.25,"processedDate":"2017-03-09"},
                {"workloadName":"Teams","licensesActive":0,"licensesQualified":0,"usagePercent":null,"processedDate":"2017-03-09"}]}],
            "workloads":[]}"#;

        let csv =
            String::from_utf8(render(simplified, CsvReader::Program).unwrap().into_vec()).unwrap();

        assert_eq!(
            csv,
            "customerId,customerName,processedDate,productName,productId,serviceName,serviceCode,channel,\
             workloadName,workloadCode,licensesActive,licensesQualified,usagePercent,reportedUsagePercent,displayName\r\n\
             c,\"Smíth, \"\"Co\"\"\",2017-03-09,A,,o365,,,Exchange,,1,3,33.3,33.25,Plan A\r\n\
             c,\"Smíth, \"\"Co\"\"\",2017-03-09,A,,o365,,,Teams,,0,0,,,Plan A\r\n"
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

            let program = names(&render(simplified.as_bytes(), CsvReader::Program).unwrap());
            let reader = CsvReader::Spreadsheet(CsvSeparator::Comma);
            let table = render(simplified.as_bytes(), reader).unwrap();
            let spreadsheet = names(table.strip_prefix("\u{feff}".as_bytes()).unwrap());

            assert_eq!(program, [name, name, "-1.0"]);
            assert_eq!(spreadsheet, [shown, shown, "-1.0"]);
        }
    }
}
