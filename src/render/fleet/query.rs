//! The queries of answers over all customers.

use std::{fmt, num::NonZeroUsize};

use strum::{EnumString, IntoStaticStr, VariantNames};

use super::page::FleetCursor;
use crate::domain::UsageRow;

/// An answer over all customers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum FleetView {
    /// Totals by service, product and workload.
    Products,
    /// A row for each customer.
    Customers,
    /// A row for each customer and product.
    Unused,
}

/// The part of an answer over all customers that is requested, apart from the customers that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetQuery {
    /// The answer.
    pub view: FleetView,
    /// The products that count.
    pub products: FleetProductFilter,
    /// The least number of unused licenses of a row.
    pub min_unused: u64,
    /// The percentage that a row must be below.
    pub below: Option<PercentBound>,
    /// The order of rows.
    pub sort: FleetSort,
    /// The currency to sort costs by, such as `EUR`; if absent, the first of each row.
    pub currency: Option<String>,
    /// The most rows; if absent, all.
    pub limit: Option<NonZeroUsize>,
    /// The end of the page before.
    pub cursor: Option<FleetCursor>,
}

/// The products that count: those that match all that is given. Letter case makes no difference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FleetProductFilter {
    service: Option<String>,
    product: Option<String>,
    channel: Option<String>,
}

/// The order of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FleetSort {
    /// The field to sort by.
    pub key: FleetSortKey,
    /// True for the opposite of the usual direction of the field.
    pub reversed: bool,
}

/// A field to sort by.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, EnumString, IntoStaticStr, VariantNames,
)]
#[strum(serialize_all = "lowercase")]
pub enum FleetSortKey {
    /// The customer's name, ascending.
    Name,
    /// The number of unused licenses, descending.
    #[default]
    Unused,
    /// The cost of the unused licenses, descending; rows without a cost come last.
    Cost,
    /// The percentage of active licenses, ascending; rows without one come last.
    Percent,
    /// The processed date, descending; rows without one come last.
    Date,
}

/// A percentage with up to four decimals, compared exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PercentBound {
    ten_thousandths: u64,
}

/// The text is not a percentage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a percentage such as 50 or 12.5, with at most 4 decimals and without a sign")]
pub struct InvalidPercentBound;

// === impl FleetQuery ===

impl FleetQuery {
    /// The largest number of rows in a page.
    pub const MAX_LIMIT: NonZeroUsize = NonZeroUsize::new(5_000).unwrap();

    /// The number of rows in a page of JSON if the caller names none.
    pub const DEFAULT_LIMIT: NonZeroUsize = NonZeroUsize::new(100).unwrap();

    /// The query for all rows of an answer.
    pub fn all(view: FleetView) -> Self {
        Self {
            view,
            products: FleetProductFilter::default(),
            min_unused: 0,
            below: None,
            sort: FleetSort::default(),
            currency: None,
            limit: None,
            cursor: None,
        }
    }
}

// === impl FleetView ===

impl FleetView {
    /// Its name in file names.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

// === impl FleetProductFilter ===

impl FleetProductFilter {
    /// Creates a filter of Microsoft's names. A service is also found by its code, a product by its id
    /// and its display name.
    pub fn new(service: Option<&str>, product: Option<&str>, channel: Option<&str>) -> Self {
        Self {
            service: service.map(str::to_lowercase),
            product: product.map(str::to_lowercase),
            channel: channel.map(str::to_lowercase),
        }
    }

    /// Returns true if the filter matches every product.
    pub fn matches_all(&self) -> bool {
        *self == Self::default()
    }

    /// Returns true if the product of a row counts.
    pub(super) fn matches(&self, row: &UsageRow, display_name: Option<&str>) -> bool {
        let any = |wanted: &Option<String>, names: &[Option<&str>]| {
            wanted.as_ref().is_none_or(|wanted| {
                let mut names = names.iter().flatten();
                names.any(|name| name.to_lowercase() == *wanted)
            })
        };
        any(
            &self.service,
            &[Some(&row.service_name), row.service_code.as_deref()],
        ) && any(
            &self.product,
            &[
                Some(&row.product_name),
                row.product_id.as_deref(),
                display_name,
            ],
        ) && any(&self.channel, &[row.channel.as_deref()])
    }
}

// === impl FleetSort ===

impl FleetSort {
    /// Reads a field, with `-` before it for the opposite direction; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (key, reversed) = match text.strip_prefix('-') {
            Some(key) => (key, true),
            None => (text, false),
        };
        let key = key.parse().ok()?;
        Some(Self { key, reversed })
    }
}

impl fmt::Display for FleetSort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.reversed { "-" } else { "" };
        let key: &str = self.key.into();
        write!(f, "{sign}{key}")
    }
}

// === impl PercentBound ===

impl PercentBound {
    const DECIMALS: usize = 4;
    const ONE_PERCENT: u64 = 10_000;

    /// Reads a decimal number.
    ///
    /// # Errors
    ///
    /// [`InvalidPercentBound`] for anything else than digits, and for over four decimals.
    pub fn parse(text: &str) -> Result<Self, InvalidPercentBound> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |digits: &str| {
            let mut bytes = digits.bytes();
            !digits.is_empty() && bytes.all(|byte| byte.is_ascii_digit())
        };
        if !is_number(whole) || !is_number(decimals) || decimals.len() > Self::DECIMALS {
            return Err(InvalidPercentBound);
        }
        let parse = |digits: &str| digits.parse::<u64>().map_err(|_| InvalidPercentBound);
        let fraction = parse(&format!("{decimals:0<width$}", width = Self::DECIMALS))?;
        let ten_thousandths = parse(whole)?
            .checked_mul(Self::ONE_PERCENT)
            .and_then(|whole| whole.checked_add(fraction))
            .ok_or(InvalidPercentBound)?;
        Ok(Self { ten_thousandths })
    }

    /// Returns true if `active` ÷ `qualified` is less than this; never where nothing qualified.
    pub fn exceeds(self, active: u64, qualified: u64) -> bool {
        const HUNDRED_PERCENT: u128 = 100 * PercentBound::ONE_PERCENT as u128;
        let share = u128::from(active) * HUNDRED_PERCENT;
        qualified > 0 && share < u128::from(self.ten_thousandths) * u128::from(qualified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sort_field_may_have_a_minus() {
        let by = |key, reversed| Some(FleetSort { key, reversed });

        assert_eq!(FleetSort::parse("name"), by(FleetSortKey::Name, false));
        assert_eq!(FleetSort::parse("-unused"), by(FleetSortKey::Unused, true));
        for text in ["cost", "-percent"] {
            assert_eq!(FleetSort::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "-", "--name", "Name", "name ", "+name", "price"] {
            assert_eq!(FleetSort::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_percentage_is_compared_exactly() {
        for (bound, active, qualified, is_below) in [
            ("50", 1, 2, false),
            ("50.0001", 1, 2, true),
            ("33.3333", 1, 3, false),
            ("33.3334", 1, 3, true),
            // Shown as 99.9 and 50.0.
            ("99.95", 99_999, 100_000, false),
            ("50", 499_999, 1_000_000, true),
            ("0", 0, 1, false),
            ("100", 0, 0, false),
            ("120", 119, 100, true),
            ("184467440737095", u64::MAX, u64::MAX, true),
        ] {
            let below = PercentBound::parse(bound).unwrap();

            assert_eq!(
                below.exceeds(active, qualified),
                is_below,
                "{active} of {qualified} below {bound}"
            );
        }
    }

    #[test]
    fn text_that_is_no_percentage_is_rejected() {
        for text in [
            "",
            "-1",
            "+1",
            "50%",
            "50,5",
            "50.",
            ".5",
            "1e2",
            "0.00001",
            "NaN",
            "٥",
            " 5",
            "99999999999999999999",
            "18446744073709551",
        ] {
            assert_eq!(
                PercentBound::parse(text),
                Err(InvalidPercentBound),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_product_is_found_by_name_id_and_display_name() {
        let row = UsageRow {
            service_code: Some("EX".into()),
            product_id: Some("6FD2C87F-B296-42F0-B197-1E91E994B900".into()),
            product_name: "OFFICE 365 ENTERPRISE E3".into(),
            channel: Some("Reseller".into()),
            ..crate::domain::samples::row()
        };
        let matches = |service, product, channel| {
            FleetProductFilter::new(service, product, channel).matches(&row, Some("Büro E3"))
        };

        assert!(matches(None, None, None));
        assert!(matches(
            Some("O365"),
            Some("Office 365 Enterprise E3"),
            Some("RESELLER")
        ));
        assert!(matches(
            Some("ex"),
            Some("6fd2c87f-b296-42f0-b197-1e91e994b900"),
            None
        ));
        assert!(matches(None, Some("BÜRO E3"), None));
        assert!(!matches(Some("crm"), Some("BÜRO E3"), None));
        assert!(!matches(None, Some("E3"), None));
        assert!(!matches(None, None, Some("direct")));
    }
}
