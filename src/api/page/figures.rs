use std::cmp::Ordering;

use crate::render::{
    adoption::grouped,
    display_text,
    fleet::{CurrencyCost, UnusedCost},
};

/// The cost of unused licenses in one currency.
pub(super) struct CostFigure {
    /// Such as `EUR 173,400.50`.
    pub(super) amount: String,
    /// The unused licenses whose price is known.
    pub(super) priced: u64,
}

/// Returns the change of a number with its sign.
pub(super) fn signed_change(first: u64, last: u64) -> String {
    match last.cmp(&first) {
        Ordering::Less => format!("−{}", grouped(first - last)),
        Ordering::Equal => "±0".to_owned(),
        Ordering::Greater => format!("+{}", grouped(last - first)),
    }
}

/// Returns a figure for each currency.
pub(super) fn cost_figures(costs: &UnusedCost<'_>) -> Vec<CostFigure> {
    let figure = |(currency, cost): (&str, CurrencyCost)| CostFigure {
        amount: format!("{} {}", display_text(currency), grouped_amount(cost)),
        priced: cost.licenses_priced,
    };
    costs.iter().map(figure).collect()
}

/// Formats an amount with groups of digits, such as `173,400.50`.
fn grouped_amount(cost: CurrencyCost) -> String {
    let amount = cost.to_string();
    let Some((whole, decimals)) = amount.split_once('.') else {
        return amount;
    };
    let whole = whole.parse::<u128>().map_or(whole.to_owned(), grouped);
    format!("{whole}.{decimals}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_has_groups_of_digits_before_the_point() {
        for (ten_thousandths, expected) in [
            (0, "0.00"),
            (9_999_900, "999.99"),
            (1_734_005_000, "173,400.50"),
            (12_345_678_901_234_567_890, "1,234,567,890,123,456.789"),
        ] {
            let cost = CurrencyCost {
                ten_thousandths,
                licenses_priced: 1,
            };

            assert_eq!(grouped_amount(cost), expected);
        }
    }
}
