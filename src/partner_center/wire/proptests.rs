use std::collections::BTreeSet;

use proptest::{prelude::*, sample::Index};

use serde_json::{Value, json};

use super::{
    tests::{CUSTOMER, commercial, commercial_row, customer, insights, row},
    *,
};
use crate::domain::{LicenseUsage, SharedTexts, UsageRow};
use crate::render::{ChartTheme, ContentCoding, Format, Rendered};

/// The values of a row as they were sent.
type DamagedResult = (String, String, String, u64, u64, Option<String>);

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        Just("items".to_owned()),
        Just("Value".to_owned()),
        Just("links".to_owned()),
        Just("licensesActive".to_owned()),
        Just("processedDateTime".to_owned()),
        ".{0,6}",
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn usage_row() -> impl Strategy<Value = UsageRow> {
    let text = ".{0,12}";
    let optional = prop::option::of(".{1,8}");
    (
        (optional.clone(), text, optional.clone(), text),
        (optional.clone(), optional, text),
        (0..1_u64 << 40, 0..1_u64 << 40),
        prop::option::of(0.0..100.0_f64),
        0..4_000_000_000_i64,
    )
        .prop_map(
            |(product, workload, seats, reported_usage_percent, second)| UsageRow {
                service_code: product.0.map(Into::into),
                service_name: product.1.into(),
                product_id: product.2.map(Into::into),
                product_name: product.3.into(),
                channel: workload.0.map(Into::into),
                workload_code: workload.1.map(Into::into),
                workload_name: workload.2.into(),
                licenses_active: seats.0,
                licenses_qualified: seats.1,
                reported_usage_percent,
                processed_at: ProcessedAt(Timestamp::from_second(second).unwrap()),
            },
        )
}

/// Rows that often agree in all or in part, and the same ones in another order.
fn rows_in_two_orders() -> impl Strategy<Value = (Vec<Value>, Vec<Value>)> {
    let name = prop::option::of("[AB]");
    let row = (name, "[AB]", "[xX]", 0..2_u64, 0..3_u64, 0..3_u32).prop_map(
        |(customer, workload, product, active, percent, hour)| {
            let mut row = row();
            row["customerName"] = json!(customer);
            row["workloadName"] = json!(workload);
            row["productId"] = json!(product);
            row["licensesActive"] = json!(active);
            row["usagePercent"] = json!(percent);
            row["processedDateTime"] = json!(format!("2017-03-09T{hour:02}:00:00Z"));
            row
        },
    );
    prop::collection::vec(row, 0..8)
        .prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle()))
}

fn sent(row: &UsageRow) -> Value {
    json!({
        "customerTenantId": CUSTOMER,
        "serviceCode": row.service_code,
        "serviceName": row.service_name,
        "productId": row.product_id,
        "productName": row.product_name,
        "channel": row.channel,
        "workloadCode": row.workload_code,
        "workloadName": row.workload_name,
        "licensesActive": row.licenses_active,
        "licensesQualified": row.licenses_qualified,
        "usagePercent": row.reported_usage_percent,
        "processedDateTime": row.processed_at.0.to_string(),
    })
}

/// Something that may be done to an answer.
#[derive(Clone, Debug)]
enum DamageKind {
    /// A field of a row says something else.
    Replaced(Index, &'static str, Value),
    /// A field of a row is missing.
    Removed(Index, &'static str),
    /// A row is repeated.
    Repeated(Index),
    /// The collection says something else of itself.
    Said(&'static str, Value),
}

/// Something that may be done to the bytes of an answer.
#[derive(Clone, Debug)]
enum BodyDamage {
    Changed(Index, u8),
    Lost(Index, Index),
    Doubled(Index, Index),
    Ended(Index),
}

/// An answer as Microsoft documents it, harmed in a few places, and sometimes damaged besides.
fn spoiled_answer() -> impl Strategy<Value = Vec<u8>> {
    let rows = prop::collection::vec(prop_oneof![Just(row()), Just(commercial_row())], 0..4);
    let collection = prop::sample::select(vec!["items", "Value", "value"]);
    let harm = prop::collection::vec(harm(), 0..3);
    let damage = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec(damage(), 1..3),
    ];
    (rows, collection, harm, damage).prop_map(|(rows, collection, harm, damage)| {
        let mut answer = json!({ "totalCount": rows.len(), collection: rows });
        for harm in harm {
            harm.to(&mut answer, collection);
        }
        let mut bytes = answer.to_string().into_bytes();
        for damage in damage {
            damage.to(&mut bytes);
        }
        bytes
    })
}

fn harm() -> impl Strategy<Value = DamageKind> {
    let field = || prop::sample::select(FIELDS);
    let said = prop::sample::select(vec!["totalCount", "items", "Value", "links", "nextLink"]);
    prop_oneof![
        (any::<Index>(), field(), odd_value())
            .prop_map(|(row, field, value)| DamageKind::Replaced(row, field, value)),
        (any::<Index>(), field()).prop_map(|(row, field)| DamageKind::Removed(row, field)),
        any::<Index>().prop_map(DamageKind::Repeated),
        (said, odd_value()).prop_map(|(field, value)| DamageKind::Said(field, value)),
    ]
}

const FIELDS: &[&str] = &[
    "customerId",
    "customerTenantId",
    "customerName",
    "productId",
    "productName",
    "serviceName",
    "workloadName",
    "licensesActive",
    "licenseActive",
    "licensesQualified",
    "usagePercent",
    "processedDateTime",
];

/// Returns other values of a field, good and bad.
fn odd_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        json_value(),
        (0..10_u64).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "[0-9]{4}-[0-1][0-9]-[0-3][0-9](T[0-2][0-9]:00:00Z?)?".prop_map(Value::from),
        Just(json!(CUSTOMER)),
    ]
}

fn damage() -> impl Strategy<Value = BodyDamage> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| BodyDamage::Changed(at, byte)),
        (at(), at()).prop_map(|(from, to)| BodyDamage::Lost(from, to)),
        (at(), at()).prop_map(|(from, to)| BodyDamage::Doubled(from, to)),
        at().prop_map(BodyDamage::Ended),
    ]
}

// === impl DamageKind ===

impl DamageKind {
    fn to(self, answer: &mut Value, collection: &str) {
        if let Self::Said(field, value) = self {
            answer[field] = value;
            return;
        }
        let Some(rows) = answer[collection]
            .as_array_mut()
            .filter(|rows| !rows.is_empty())
        else {
            return;
        };
        match self {
            Self::Replaced(at, field, value) => {
                if let Value::Object(row) = at.get_mut(rows) {
                    row.insert(field.to_owned(), value);
                }
            }
            Self::Removed(at, field) => {
                if let Value::Object(row) = at.get_mut(rows) {
                    row.remove(field);
                }
            }
            Self::Repeated(at) => {
                let again = at.get(rows).clone();
                rows.push(again);
            }
            Self::Said(..) => {}
        }
    }
}

// === impl Damage ===

impl BodyDamage {
    fn to(self, bytes: &mut Vec<u8>) {
        let between = |a: Index, b: Index| {
            let (a, b) = (a.index(bytes.len() + 1), b.index(bytes.len() + 1));
            a.min(b)..a.max(b)
        };
        match self {
            Self::Changed(at, byte) if !bytes.is_empty() => *at.get_mut(bytes) = byte,
            Self::Changed(..) => {}
            Self::Lost(from, to) => {
                bytes.drain(between(from, to));
            }
            Self::Doubled(from, to) => {
                let piece = bytes[between(from, to)].to_vec();
                bytes.extend(piece);
            }
            Self::Ended(at) => bytes.truncate(at.index(bytes.len() + 1)),
        }
    }
}

fn values(row: &UsageRow) -> DamagedResult {
    (
        row.service_name.to_string(),
        row.product_name.to_string(),
        row.workload_name.to_string(),
        row.licenses_active,
        row.licenses_qualified,
        row.product_id.as_deref().map(str::to_owned),
    )
}

/// Returns the same as it was sent, read without any type of ours; `None` if it is no JSON because of
/// fields that are not read.
fn sent_under(collections: &[&str], body: &[u8]) -> Option<Vec<DamagedResult>> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let rows = collections
        .iter()
        .find_map(|name| answer.get(name)?.as_array());
    Some(rows.unwrap().iter().map(sent_in).collect())
}

fn sent_in(row: &Value) -> DamagedResult {
    let text = |field: &str| row[field].as_str().unwrap().to_owned();
    let active = [&row["licensesActive"], &row["licenseActive"]];
    (
        text("serviceName"),
        text("productName"),
        text("workloadName"),
        active.into_iter().find_map(Value::as_u64).unwrap(),
        row["licensesQualified"].as_u64().unwrap(),
        row["productId"].as_str().map(str::to_owned),
    )
}

/// Returns the names of the rows, each once.
fn names(rows: &[DamagedResult]) -> BTreeSet<[String; 4]> {
    let names = |(service, product, workload, _, _, id): &DamagedResult| {
        let id = id.as_deref().unwrap_or_default().to_ascii_lowercase();
        [service.clone(), product.clone(), workload.clone(), id]
    };
    rows.iter().map(names).collect()
}

proptest! {
    #![proptest_config(crate::proptest_support::proptest_config())]

    #[test]
    fn any_bytes_are_decoded_or_refused(body: Vec<u8>) {
        drop(decode_insights(&body, customer()));
        drop(decode_commercial(&body, customer(), &mut SharedTexts::default()));
    }

    #[test]
    fn any_json_is_decoded_or_refused(value in json_value()) {
        let body = value.to_string();
        drop(decode_insights(body.as_bytes(), customer()));
        drop(decode_commercial(body.as_bytes(), customer(), &mut SharedTexts::default()));
    }

    #[test]
    fn only_sent_values_are_decoded(body in spoiled_answer()) {
        if let Ok(snapshot) = decode_insights(&body, customer()) {
            let decoded: Vec<_> = snapshot.rows().iter().map(values).collect();

            if let Some(sent) = sent_under(&["items"], &body) {
                prop_assert!(decoded.iter().all(|row| sent.contains(row)));
                prop_assert_eq!(names(&decoded), names(&sent));
            }
        }
        if let Ok(page) = decode_commercial(&body, customer(), &mut SharedTexts::default()) {
            let decoded: Vec<_> = page.items.iter().map(|item| values(&item.row)).collect();

            if let Some(sent) = sent_under(&["items", "Value", "value"], &body) {
                prop_assert_eq!(decoded, sent);
            }
        }
    }

    #[test]
    fn a_fault_is_one_short_line(body in spoiled_answer()) {
        for fault in [
            decode_insights(&body, customer()).err(),
            decode_commercial(&body, customer(), &mut SharedTexts::default()).err(),
        ].into_iter().flatten() {
            let text = fault.to_string();
            prop_assert!((1..=300).contains(&text.chars().count()), "{}", text);
            prop_assert!(!text.chars().any(char::is_control), "{:?}", text);
        }
    }

    #[test]
    fn the_order_of_rows_changes_neither_bytes_nor_validators((one, other) in rows_in_two_orders()) {
        let [one, other] = [one, other].map(|rows| {
            let snapshot = insights(rows).unwrap();
            Rendered::new(&snapshot, None, Timestamp::UNIX_EPOCH).unwrap()
        });

        for form in [Format::Simplified, Format::Csv, Format::Table, Format::Chart(ChartTheme::Reader)] {
            let [one, other] = [&one, &other].map(|prepared| {
                prepared.render(form, ContentCoding::Identity).unwrap().unwrap().1
            });
            prop_assert_eq!(one.body(), other.body());
            prop_assert_eq!(one.etag(), other.etag());
        }
    }

    #[test]
    fn a_valid_answer_decodes_to_the_same_rows(rows in prop::collection::vec(usage_row(), 0..8)) {
        let sent: Vec<_> = rows.iter().map(sent).collect();

        let snapshot = insights(sent.clone()).unwrap();
        let page = commercial(&json!({ "Value": sent })).unwrap();

        prop_assert_eq!(&snapshot, &LicenseUsage::new(customer(), None, rows.clone()).unwrap());
        let decoded: Vec<_> = page.items.into_iter().map(|item| item.row).collect();
        prop_assert_eq!(decoded, rows);
    }
}
