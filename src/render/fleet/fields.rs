//! The fields of rows, the same for JSON and CSV.

use std::borrow::Cow;

use serde::{
    Serialize, Serializer,
    ser::{Error, SerializeMap},
};
use serde_json::value::RawValue;

use super::cost::UnusedCost;
use crate::domain::UsagePercent;

/// The name of the field with the cost.
pub(super) const UNUSED_COST: &str = "unusedCost";

/// A row of an answer.
///
/// JSON has its fields as an object, CSV as a line. `unusedCost` comes last: in JSON a list by currency,
/// absent without a price; in CSV a column for each currency.
pub trait FleetRow<'a> {
    /// The names of the fields, without `unusedCost`.
    const NAMES: &'static [&'static str];

    /// The values, in the order of the names.
    fn values(&self) -> Vec<FieldValue<'a>>;

    /// The cost of the unused licenses; `None` where the row has none.
    fn unused_cost(&self) -> Option<&UnusedCost<'a>>;
}

/// The value of a field. An absent one is `null` in JSON and empty in CSV, never a zero.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum FieldValue<'a> {
    /// A text.
    Text(Option<Cow<'a, str>>),
    /// Several names.
    Names(Vec<&'a str>),
    /// A number of licenses, products or customers.
    Count(Option<u64>),
    /// A percentage.
    Percent(#[serde(serialize_with = "serialize_percent")] Option<UsagePercent>),
}

/// Writes rows as a list of objects.
pub(super) struct JsonRows<'r, R>(pub(super) &'r [R]);

/// Writes a row as an object.
struct JsonRow<'r, R>(&'r R);

/// An item of `unusedCost`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonCost<'a> {
    currency: &'a str,
    per_month: Box<RawValue>,
    licenses_priced: u64,
}

fn serialize_percent<S: Serializer>(
    percent: &Option<UsagePercent>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    percent.map(UsagePercent::as_f64).serialize(serializer)
}

// === impl JsonRows ===

impl<'a, R: FleetRow<'a>> Serialize for JsonRows<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(JsonRow))
    }
}

impl<'a, R: FleetRow<'a>> Serialize for JsonRow<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        for (name, value) in R::NAMES.iter().zip(self.0.values()) {
            object.serialize_entry(name, &value)?;
        }
        if let Some(cost) = self.0.unused_cost().filter(|cost| !cost.is_empty()) {
            object.serialize_entry(UNUSED_COST, cost)?;
        }
        object.end()
    }
}

// === impl UnusedCost ===

impl Serialize for UnusedCost<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let costs = self.iter().map(|(currency, cost)| {
            Ok(JsonCost {
                currency,
                per_month: RawValue::from_string(cost.to_string()).map_err(S::Error::custom)?,
                licenses_priced: cost.licenses_priced,
            })
        });
        let costs = costs.collect::<Result<Vec<_>, S::Error>>()?;
        costs.serialize(serializer)
    }
}
