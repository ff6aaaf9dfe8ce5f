//! Tests of the portfolio file: a file in, errors or a portfolio out.

use std::{fs, path::Path};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{clock::SystemClock, domain::CustomerId};

const ID: &str = "4b9405b0-7788-4568-add1-99614e613b69";
const CUSTOMER: &str = "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04";

fn parsed(content: impl AsRef<[u8]>) -> Result<Portfolio, Vec<String>> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("portfolio.toml");
    fs::write(&path, content).unwrap();
    parser::parse(&path).content.map_err(|errors| {
        let folder = format!("{}/", folder.path().display());
        let lines = errors.to_string();
        let lines = lines.lines().map(|line| line.replace(&folder, ""));
        lines.collect()
    })
}

fn errors(content: impl AsRef<[u8]>) -> Vec<String> {
    parsed(content).expect_err("the file has errors")
}

#[test]
fn the_example_portfolio_file_is_valid() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/portfolio.toml");

    check_portfolio_file(&example).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn every_field_is_read() {
    let content = format!(
        "[[product]]\nid = \"{}\"\nname = \"Exchange 1\"\nprice = 3.4\ncurrency = \"EUR\"\n\
         [[product]]\nproduct = \"Power Bi (Free)\"\nexclude = true\n\
         [[group]]\nname = \"Key accounts\"\ncustomers = [\"{CUSTOMER}\"]\n",
        ID.to_uppercase()
    );

    let portfolio = parsed(content).unwrap();

    let by_id = portfolio
        .rule(Some(&ID.to_uppercase()), "any name")
        .unwrap();
    assert_eq!(by_id.display_name.as_deref(), Some("Exchange 1"));
    let price = by_id.price.as_ref().unwrap();
    assert_eq!((&*price.currency, price.ten_thousandths), ("EUR", 34_000));
    assert!(!by_id.exclude);
    let by_name = portfolio.rule(None, "POWER BI (FREE)").unwrap();
    assert!(by_name.exclude);
    assert_eq!((&by_name.display_name, &by_name.price), (&None, &None));
    assert!(portfolio.rule(None, "any name").is_none());
    let customer = CustomerId::parse(CUSTOMER).unwrap();
    let groups: Vec<_> = portfolio.groups_of(customer).collect();
    assert_eq!(groups, ["Key accounts"]);
}

#[test]
fn a_rule_by_id_wins_over_one_by_name() {
    let content = format!(
        "[[product]]\nproduct = \"A\"\nname = \"by name\"\n\
         [[product]]\nid = \"{ID}\"\nname = \"by id\"\n"
    );

    let portfolio = parsed(content).unwrap();

    let name = |id| portfolio.display_name(id, "A").map(|name| name.to_string());
    assert_eq!(name(Some(ID)).as_deref(), Some("by id"));
    assert_eq!(name(None).as_deref(), Some("by name"));
}

#[test]
fn prices_are_exact() {
    for (price, expected) in [
        ("0", 0),
        ("8", 80_000),
        ("8.7", 87_000),
        ("0.0001", 1),
        ("1_000.25", 10_002_500),
        ("1000000000", 10_000_000_000_000),
    ] {
        let content =
            format!("[[product]]\nproduct = \"A\"\nprice = {price}\ncurrency = \"EUR\"\n");

        let portfolio = parsed(content).unwrap_or_else(|errors| panic!("{price}: {errors:?}"));

        let rule = portfolio.rule(None, "A").unwrap();
        let read = rule.price.as_ref().unwrap().ten_thousandths;
        assert_eq!(read, expected, "{price}");
    }
}

#[test]
fn all_errors_are_reported_at_once_with_position_and_table() {
    let faults = errors(
        "colour = 1\n[[product]]\nproduct = \"A\"\nprize = 3\ncurrency = \"EUR\"\n\
         [[product]]\nname = \"B\"\n[[group]]\nname = \"\"\ncustomers = [\"x\"]\n",
    );

    let expected = [
        "portfolio.toml:1:1: colour: unknown; expected [[product]] or [[group]]",
        "portfolio.toml:2:1: product \"A\": has price or currency alone; expected both or none",
        "portfolio.toml:4:1: product \"A\": prize: unknown field; the nearest is price",
        "portfolio.toml:6:1: product \"B\": id or product: missing",
        "portfolio.toml:9:8: group \"\": name = \"\": is empty; expected the name of the group",
        "portfolio.toml:10:14: group \"\": customers = \"x\": is not a GUID; expected a list of GUIDs",
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, expected) in faults.iter().zip(expected) {
        assert!(fault.starts_with(expected), "{expected}\nin {faults:#?}");
    }
}

#[test]
fn a_bad_value_is_rejected_in_every_field() {
    let product = "[[product]]\nproduct = \"A\"\n";
    for (content, reason) in [
        ("[[product]]\nid = \"7\"\n", "is not a GUID"),
        ("[[product]]\nid = 7\n", "is not text in quotes"),
        ("[[product]]\nproduct = \"\"\n", "is empty"),
        (
            "[[product]]\nproduct = \" A\"\n",
            "begins or ends with a space",
        ),
        (
            &format!("{product}id = \"{ID}\"\n"),
            "has id and product; expected one of them",
        ),
        (&format!("{product}name = \"\"\n"), "is empty"),
        (
            &format!("{product}price = 1\n"),
            "has price or currency alone",
        ),
        (
            &format!("{product}price = -1\ncurrency = \"EUR\"\n"),
            "price = -1: is negative",
        ),
        (
            &format!("{product}price = 1.23456\ncurrency = \"EUR\"\n"),
            "has more than 4 decimals",
        ),
        (
            &format!("{product}price = 1e3\ncurrency = \"EUR\"\n"),
            "is not a decimal number",
        ),
        (
            &format!("{product}price = inf\ncurrency = \"EUR\"\n"),
            "is not a decimal number",
        ),
        (
            &format!("{product}price = nan\ncurrency = \"EUR\"\n"),
            "is not a decimal number",
        ),
        (
            &format!("{product}price = 0x10\ncurrency = \"EUR\"\n"),
            "is not a decimal number",
        ),
        (
            &format!("{product}price = 1000000000.01\ncurrency = \"EUR\"\n"),
            "is out of range",
        ),
        (
            &format!("{product}price = 99999999999999999999\ncurrency = \"EUR\"\n"),
            "is out of range",
        ),
        (
            &format!("{product}price = \"1\"\ncurrency = \"EUR\"\n"),
            "is not a number without quotes",
        ),
        (
            &format!("{product}price = 1\ncurrency = \"eur\"\n"),
            "is not a currency",
        ),
        (
            &format!("{product}price = 1\ncurrency = \"€\"\n"),
            "is not a currency",
        ),
        (
            &format!("{product}exclude = \"true\"\n"),
            "is not true or false without quotes",
        ),
        (
            &format!("{product}{product}"),
            "product: is already used at portfolio.toml:2:11",
        ),
        (
            &format!("{product}[[product]]\nproduct = \"a\"\n"),
            "is already used",
        ),
        (
            &format!(
                "[[product]]\nid = \"{ID}\"\n[[product]]\nid = \"{{{}}}\"\n",
                ID.to_uppercase()
            ),
            "id: is already used",
        ),
        ("[[group]]\nname = \"A\"\n", "customers: missing"),
        ("[[group]]\nname = \"A\"\ncustomers = []\n", "is empty"),
        (
            &format!("[[group]]\ncustomers = [\"{CUSTOMER}\"]\n"),
            "name: missing",
        ),
        (
            &format!("[[group]]\nname = \"A\"\ncustomers = [\"{CUSTOMER}\"]\n").repeat(2),
            "name: is already used",
        ),
        ("", "names no product or group"),
        ("product = []", "is not a list of tables"),
        ("[group]\nname = \"A\"", "is not a list of tables"),
        ("[[product]\n", "not TOML"),
    ] {
        let faults = errors(content);

        assert_eq!(faults.len(), 1, "{content}: {faults:?}");
        assert!(faults[0].contains(reason), "{content}: {faults:?}");
    }
}

#[test]
fn the_version_grows_with_the_content_only() {
    let current = CurrentPortfolio::default();
    let clock: SharedClock = Arc::new(SystemClock);
    let named = |name: &str| {
        let content = format!("[[product]]\nproduct = \"A\"\nname = \"{name}\"\n");
        parsed(content).unwrap()
    };
    assert_eq!((current.version(), current.get().version()), (0, 0));

    for (name, version) in [("a", 1), ("a", 1), ("b", 2)] {
        current.replace(named(name), &clock);

        assert_eq!(
            (current.version(), current.get().version()),
            (version, version)
        );
    }
    let name = current.get().display_name(None, "A").unwrap().to_string();
    assert_eq!(name, "b");
}

proptest! {
    #![proptest_config(crate::proptest_support::proptest_config())]

    #[test]
    fn any_text_is_parsed_or_rejected(
        text in "(\\[\\[(product|group)\\]\\]\n|[a-z]{1,9} = |\\[?\"[^\"]{0,9}\"\\]?\n|[0-9.]{1,6}\n|.{0,9}|\n){0,12}"
    ) {
        if let Err(errors) = parsed(&text) {
            prop_assert!(!errors.is_empty());
        }
    }
}
