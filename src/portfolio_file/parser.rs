//! Parses the portfolio file, and collects every error.

use std::{collections::HashSet, path::Path, sync::Arc};

use uuid::Uuid;

use crate::{
    domain::{CustomerId, LicensePrice, Portfolio, ProductRule, ProductSelector},
    tables_file::{
        FieldType, ParsedTables, TableField, TableKind, TableReader, parse_identifier, parse_tables,
    },
};

const PRODUCT_TABLE: TableKind = TableKind {
    name: "product",
    fields: &[
        ID.name,
        PRODUCT.name,
        NAME.name,
        PRICE.name,
        CURRENCY.name,
        EXCLUDE.name,
    ],
    labels: &[PRODUCT.name, ID.name, NAME.name],
};

const GROUP_TABLE: TableKind = TableKind {
    name: "group",
    fields: &[GROUP_NAME.name, CUSTOMERS.name],
    labels: &[GROUP_NAME.name],
};

const ID: TableField<String> = TableField {
    name: "id",
    expected: "the GUID of the product",
    value_type: FieldType::Text,
    parse: |text| {
        let id = Uuid::try_parse(text).map_err(|_| "is not a GUID".to_owned())?;
        Ok(id.hyphenated().to_string())
    },
    unique_by: Some(String::clone),
};

const PRODUCT: TableField<String> = TableField {
    name: "product",
    expected: "Microsoft's name of the product, such as `EXCHANGE ONLINE (PLAN 1)`",
    value_type: FieldType::Text,
    parse: parse_identifier,
    unique_by: Some(|name| name.to_lowercase()),
};

const NAME: TableField<String> = TableField {
    name: "name",
    expected: "the name that people know the product by",
    value_type: FieldType::Text,
    parse: parse_identifier,
    unique_by: None,
};

const PRICE: TableField<u64> = TableField {
    name: "price",
    expected: "the price of a license and month without quotes, from 0 to 1000000000, with at most \
               4 decimals, such as `8.70`",
    value_type: FieldType::Number,
    parse: parse_price,
    unique_by: None,
};

const CURRENCY: TableField<String> = TableField {
    name: "currency",
    expected: "the three capital letters of ISO 4217, such as `EUR`",
    value_type: FieldType::Text,
    parse: |text| {
        let is_code = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase());
        is_code
            .then(|| text.to_owned())
            .ok_or_else(|| "is not a currency".into())
    },
    unique_by: None,
};

const EXCLUDE: TableField<bool> = TableField {
    name: "exclude",
    expected: "`true` for a product that counts in no number of the fleet",
    value_type: FieldType::Boolean,
    parse: |text| Ok(text == "true"),
    unique_by: None,
};

const GROUP_NAME: TableField<String> = TableField {
    name: "name",
    expected: "the name of the group",
    value_type: FieldType::Text,
    parse: parse_identifier,
    unique_by: Some(String::clone),
};

const CUSTOMERS: TableField<CustomerId> = TableField {
    name: "customers",
    expected: "a list of GUIDs such as `4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04`",
    value_type: FieldType::Text,
    parse: |text| CustomerId::parse(text).map_err(|_| "is not a GUID".into()),
    unique_by: None,
};

/// A `[[product]]` of the file.
struct ProductEntry {
    /// The product's id, or Microsoft's name.
    key: ProductKey,
    rule: ProductRule,
}

enum ProductKey {
    Id(String),
    Name(String),
}

/// Reads and parses the file again.
pub(super) fn parse(path: &Path) -> ParsedTables<Portfolio> {
    parse_tables(path, |parser, document| {
        let mut portfolio = Portfolio::default();
        let Some(root) = parser.parse_root(document, &[&PRODUCT_TABLE, &GROUP_TABLE]) else {
            return portfolio;
        };
        for product in parser.parse_each(document, &root, &PRODUCT_TABLE, read_product) {
            let selector = match &product.key {
                ProductKey::Id(id) => ProductSelector::Id(id),
                ProductKey::Name(name) => ProductSelector::Name(name),
            };
            portfolio.add_rule(selector, product.rule);
        }
        for (name, customers) in parser.parse_each(document, &root, &GROUP_TABLE, read_group) {
            portfolio.add_group(name, customers);
        }
        portfolio
    })
}

fn read_product(mut table: TableReader<'_>) -> Option<ProductEntry> {
    table.require_one_of(&[ID.name, PRODUCT.name]);
    if table.has(PRICE.name) != table.has(CURRENCY.name) {
        table.push_table_error("has price or currency alone; expected both or none");
    }
    let by_id = table.read_one(&ID).map(ProductKey::Id);
    let by_name = table.read_one(&PRODUCT).map(ProductKey::Name);
    let display_name = table.read_one(&NAME).map(Arc::from);
    let (price, currency) = (table.read_one(&PRICE), table.read_one(&CURRENCY));
    let rule = ProductRule {
        display_name,
        price: price
            .zip(currency)
            .map(|(ten_thousandths, currency)| LicensePrice {
                currency: currency.into(),
                ten_thousandths,
            }),
        exclude: table.read_one(&EXCLUDE).unwrap_or_default(),
    };
    let key = by_id.or(by_name)?;
    Some(ProductEntry { key, rule })
}

fn read_group(mut table: TableReader<'_>) -> Option<(String, HashSet<CustomerId>)> {
    table.require_one_of(&[GROUP_NAME.name]);
    table.require_one_of(&[CUSTOMERS.name]);
    let name = table.read_one(&GROUP_NAME);
    let customers = table.read_list(&CUSTOMERS).into_iter().collect();
    Some((name?, customers))
}

/// Parses a price into ten-thousandths of the currency's unit.
fn parse_price(text: &str) -> Result<u64, String> {
    const MAX_DECIMALS: usize = 4;
    const MAX_UNITS: u64 = 1_000_000_000;

    let (units, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if units.starts_with('-') {
        return Err("is negative".into());
    }
    if units.is_empty() || !is_digits(units) || !is_digits(decimals) {
        return Err("is not a decimal number".into());
    }
    if decimals.len() > MAX_DECIMALS {
        return Err("has more than 4 decimals".into());
    }
    let number: u64 = format!("{units}{decimals:0<MAX_DECIMALS$}")
        .parse()
        .map_err(|_| "is out of range")?;
    if number > MAX_UNITS * 10_u64.pow(4) {
        return Err("is out of range".into());
    }
    Ok(number)
}
