//! The cost of licenses that nobody uses, in exact numbers.

use std::{collections::BTreeMap, fmt};

use crate::domain::LicensePrice;

/// The monthly cost of unused licenses, by currency. Amounts of different currencies are never added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnusedCost<'a>(BTreeMap<&'a str, CurrencyCost>);

/// The monthly cost of unused licenses in one currency.
///
/// It prints as a decimal number with two decimals, or with more where the price has more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CurrencyCost {
    /// The amount in ten-thousandths of the currency's unit.
    pub ten_thousandths: u128,
    /// The unused licenses whose price is known.
    pub licenses_priced: u64,
}

// === impl UnusedCost ===

impl<'a> UnusedCost<'a> {
    /// Adds so many unused licenses of a price.
    pub fn add(&mut self, price: &'a LicensePrice, licenses: u64) {
        let price_of_one = u128::from(price.ten_thousandths);
        self.add_cost(
            &price.currency,
            CurrencyCost {
                ten_thousandths: price_of_one.saturating_mul(licenses.into()),
                licenses_priced: licenses,
            },
        );
    }

    /// Adds another cost.
    pub fn merge(&mut self, other: &Self) {
        for (currency, cost) in other.iter() {
            self.add_cost(currency, cost);
        }
    }

    /// Returns the cost in a currency; `None` where nothing is priced in it.
    pub fn of(&self, currency: &str) -> Option<CurrencyCost> {
        self.0.get(currency).copied()
    }

    /// Returns the cost in the first currency, in alphabetical order.
    pub fn first(&self) -> Option<CurrencyCost> {
        self.0.values().next().copied()
    }

    /// The costs with their currencies, in alphabetical order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, CurrencyCost)> {
        self.0.iter().map(|(currency, cost)| (*currency, *cost))
    }

    /// Returns true where no price is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add_cost(&mut self, currency: &'a str, cost: CurrencyCost) {
        let sum = self.0.entry(currency).or_default();
        sum.ten_thousandths = sum.ten_thousandths.saturating_add(cost.ten_thousandths);
        sum.licenses_priced = sum.licenses_priced.saturating_add(cost.licenses_priced);
    }
}

// === impl CurrencyCost ===

impl fmt::Display for CurrencyCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNIT: u128 = 10_000;
        let (whole, fraction) = (self.ten_thousandths / UNIT, self.ten_thousandths % UNIT);
        match (fraction % 100, fraction % 10) {
            (0, _) => write!(f, "{whole}.{:02}", fraction / 100),
            (_, 0) => write!(f, "{whole}.{:03}", fraction / 10),
            _ => write!(f, "{whole}.{fraction:04}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(currency: &str, ten_thousandths: u64) -> LicensePrice {
        LicensePrice {
            currency: currency.into(),
            ten_thousandths,
        }
    }

    #[test]
    fn an_amount_has_two_decimals_unless_the_price_has_more() {
        for (ten_thousandths, expected) in [
            (0, "0.00"),
            (1_734_005_000, "173400.50"),
            (100, "0.01"),
            (125_000, "12.50"),
            (125, "0.0125"),
            (120, "0.012"),
            (1, "0.0001"),
        ] {
            let cost = CurrencyCost {
                ten_thousandths,
                licenses_priced: 1,
            };
            assert_eq!(cost.to_string(), expected);
        }
    }

    #[test]
    fn currencies_are_never_added() {
        let (euro, zloty) = (price("EUR", 125_000), price("PLN", 500_000));
        let mut sum = UnusedCost::default();
        let mut other = UnusedCost::default();
        sum.add(&zloty, 2);
        sum.add(&euro, 3);
        other.add(&euro, 1);

        sum.merge(&other);

        let costs: Vec<_> = sum
            .iter()
            .map(|(currency, cost)| (currency, cost.to_string(), cost.licenses_priced))
            .collect();
        assert_eq!(
            costs,
            [
                ("EUR", "50.00".to_owned(), 4),
                ("PLN", "100.00".to_owned(), 2)
            ]
        );
        assert_eq!(sum.first(), sum.of("EUR"));
        assert_eq!(sum.of("USD"), None);
    }

    #[test]
    fn a_price_without_unused_licenses_costs_nothing() {
        let euro = price("EUR", 125_000);
        let mut sum = UnusedCost::default();
        assert!(sum.is_empty());

        sum.add(&euro, 0);

        assert_eq!(sum.of("EUR").unwrap().to_string(), "0.00");
    }
}
