use std::collections::HashSet;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::domain::{LicenseUsage, ProcessedAt, UsageRow, samples};

/// The names that identify a line, and its seats.
type CsvLine = (String, String, String, u64, u64);

/// Names that meet each other, and that CSV and JSON have to take care of.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[AB]",
        1 => prop::sample::select(vec!["", ",", "\"", "a\r\nb", "=1+1", "\u{feff}", "ż, \"x\"", "\\", "\u{0}"])
            .prop_map(str::to_owned),
        1 => ".{0,8}",
    ]
}

fn row() -> impl Strategy<Value = UsageRow> {
    let code = || prop::option::of(name());
    let percent = prop_oneof![Just(0.0), Just(-0.0), 0.0..100.0_f64];
    let days = (0..3_i64).prop_map(|day| Timestamp::from_second(1_500_000_000 + 86_400 * day));
    (
        (code(), name(), code(), name(), code(), code(), name()),
        (0..4_u64, 0..4_u64),
        prop::option::of(percent),
        days,
    )
        .prop_map(|(names, seats, reported_usage_percent, at)| UsageRow {
            service_code: names.0.map(Into::into),
            service_name: names.1.into(),
            product_id: names.2.map(Into::into),
            product_name: names.3.into(),
            channel: names.4.map(Into::into),
            workload_code: names.5.map(Into::into),
            workload_name: names.6.into(),
            licenses_active: seats.0,
            licenses_qualified: seats.1,
            reported_usage_percent,
            processed_at: ProcessedAt(at.unwrap()),
        })
}

/// Rows, and the same ones in another order.
fn rows_in_two_orders() -> impl Strategy<Value = (Vec<UsageRow>, Vec<UsageRow>)> {
    prop::collection::vec(row(), 0..12)
        .prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle()))
}

fn rendered_rows(rows: Vec<UsageRow>) -> Rendered {
    let snapshot = LicenseUsage::new(samples::customer(), Some("DEMO".into()), rows).unwrap();
    Rendered::new(&snapshot, None, Timestamp::UNIX_EPOCH).unwrap()
}

fn body(rendered: &Rendered, form: Format) -> Vec<u8> {
    let (_, encoded) = rendered
        .render(form, ContentCoding::Identity)
        .unwrap()
        .unwrap();
    encoded.body().to_vec()
}

/// The lines of the CSV form, read by its header.
fn lines(csv: &[u8]) -> Vec<CsvLine> {
    let mut reader = ::csv::Reader::from_reader(csv);
    let names = reader.headers().unwrap().clone();
    let column = |name: &str| names.iter().position(|column| column == name).unwrap();
    let seats = |text: &str| text.parse().unwrap();
    reader
        .records()
        .map(|record| {
            let record = record.unwrap();
            (
                record[column("serviceName")].to_owned(),
                record[column("productName")].to_owned(),
                record[column("workloadName")].to_owned(),
                seats(&record[column("licensesActive")]),
                seats(&record[column("licensesQualified")]),
            )
        })
        .collect()
}

proptest! {
    #![proptest_config(crate::proptest_support::proptest_config())]

    #[test]
    fn the_same_data_is_the_same_bytes((rows, shuffled) in rows_in_two_orders()) {
        let (one, other) = (rendered_rows(rows), rendered_rows(shuffled));

        for form in [Format::Simplified, Format::Csv] {
            let texts = [&one, &other].map(|rendered| String::from_utf8(body(rendered, form)).unwrap());
            prop_assert_eq!(&texts[0], &texts[1]);
        }
        prop_assert!(other.is_unchanged_from(&one));
    }

    #[test]
    fn every_csv_line_comes_from_a_row(rows in prop::collection::vec(row(), 0..12)) {
        let expected: HashSet<CsvLine> = rows
            .iter()
            .map(|row| {
                let names = (row.service_name.to_string(), row.product_name.to_string(), row.workload_name.to_string());
                (names.0, names.1, names.2, row.licenses_active, row.licenses_qualified)
            })
            .collect();
        let rendered = rendered_rows(rows);

        let lines = lines(&body(&rendered, Format::Csv));

        for line in &lines {
            prop_assert!(expected.contains(line), "{:?}", line);
        }
        let json: serde_json::Value = serde_json::from_slice(&body(&rendered, Format::Simplified)).unwrap();
        let products = json["products"].as_array().unwrap().iter();
        let in_json: usize = products.map(|product| product["workloads"].as_array().unwrap().len()).sum();
        prop_assert_eq!(lines.len(), in_json);
        prop_assert_eq!(lines.is_empty(), expected.is_empty());
    }
}
