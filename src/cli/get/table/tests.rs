use http::HeaderMap;
use serde_json::json;

use super::*;

const STYLE: TerminalStyle = TerminalStyle {
    is_terminal: true,
    columns: 72,
    has_unicode: true,
    has_color: false,
};

fn usage(product: &str) -> UsageReply {
    let workload = |name: &str, active: u64, qualified: u64, date: &str| {
        json!({"workloadName": name, "licensesActive": active, "licensesQualified": qualified,
               "usagePercent": 99.0, "processedDate": date})
    };
    let usage = json!({
        "customerId": "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04",
        "customerName": "DT DEMO CSP CUSTOMER 005",
        "processedDate": "2017-03-09",
        "products": [{
            "productName": product,
            "serviceName": "o365",
            "channel": "reseller",
            "licensesQualified": 2_000,
            "workloads": [
                workload("Exchange", 1_250, 2_000, "2017-03-09"),
                workload("Teams", 3, 2_000, "2017-03-08"),
                workload("Yammer", 0, 0, "2017-03-09"),
            ],
        }],
        "workloads": [{"workloadName": "Exchange", "licensesActive": 2_084,
                       "licensesQualified": 2_000, "usagePercent": 99.0}],
    });
    serde_json::from_value(usage).unwrap()
}

fn rendered(usage: &UsageReply, look: TerminalStyle) -> String {
    let mut headers = HeaderMap::new();
    headers.insert("cache-status", "usage-proxy; hit; ttl=720".parse().unwrap());
    headers.insert("age", "180".parse().unwrap());
    render(usage, &ReplyFreshness::from_headers(&headers), look)
}

#[test]
fn the_table_shows_usage_per_product_and_in_total() {
    let table = rendered(&usage("EXCHANGE ONLINE (PLAN 1)"), STYLE);

    assert_eq!(
        table,
        "\
DT DEMO CSP CUSTOMER 005
4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04
Counts of 2017-03-09.
Checked 3 min ago, next check in 12 min. Microsoft's newest count is of
2017-03-09.

Product                   Active  Qualified    Used
EXCHANGE ONLINE (PLAN 1)               2000
  Exchange                  1250       2000   62.5%  ███████████▉·······
  Teams (2017-03-08)           3       2000    0.2%  ···················
  Yammer                       0          0       -

All products
  Exchange                  2084       2000  104.2%  ███████████████████
"
    );
}

#[test]
fn products_of_the_same_name_show_a_distinction() {
    let mut usage = usage("E3");
    let mut other = usage.products[0].clone();
    other.channel = Some("direct".to_owned());
    usage.products.push(other);

    let table = rendered(&usage, STYLE);

    let titles: Vec<_> = table
        .lines()
        .skip_while(|line| !line.starts_with("E3"))
        .collect();
    assert_eq!(titles[1], "reseller", "{table}");
    assert_eq!(titles[6], "direct", "{table}");
}

#[test]
fn a_total_over_several_dates_shows_the_oldest_date() {
    let mut usage = usage("E3");
    usage.oldest_processed_date = Some("2017-03-08".to_owned());
    usage.workloads[0].oldest_processed_date = Some("2017-03-08".to_owned());

    let table = rendered(&usage, STYLE);

    assert!(
        table.contains("\nCounts of 2017-03-08 to 2017-03-09.\n"),
        "{table}"
    );
    assert!(
        table.contains("\n  Exchange (oldest 2017-03-08) "),
        "{table}"
    );
}

#[test]
fn an_ascii_terminal_gets_only_ascii() {
    let table = rendered(
        &usage("EXCHANGE ONLINE (PLAN 1)"),
        TerminalStyle {
            has_unicode: false,
            columns: 60,
            ..STYLE
        },
    );

    assert!(table.is_ascii(), "{table}");
    assert!(table.contains("62.5%  ######...."), "{table}");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let names = ["漢字".repeat(30), "EXCHANGE ".repeat(12), "k".to_owned()];
    for columns in 40..130 {
        for name in &names {
            let look = TerminalStyle { columns, ..STYLE };

            let table = rendered(&usage(name), look);

            for line in table.lines() {
                assert!(display_width(line) <= columns, "{columns}: {line:?}");
            }
        }
    }
}

#[test]
fn control_characters_in_names_are_removed() {
    let table = rendered(&usage("Plan\u{1b}]0;owned\u{7}\u{202e}\n1"), STYLE);

    let controls = |character: &char| character.is_control() && *character != '\n';
    assert_eq!(table.chars().find(controls), None);
    assert!(table.contains("Plan?]0;owned???1"), "{table}");
}

#[test]
fn a_customer_without_licenses_is_not_an_error() {
    let mut usage = usage("x");
    usage.products.clear();
    usage.workloads.clear();
    usage.processed_date = None;

    let table = rendered(&usage, STYLE);

    assert!(table.contains("No licences are counted"), "{table}");
    assert!(!table.contains("Counts of"), "{table}");
}
