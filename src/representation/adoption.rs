//! Adoption, as people look at it: bars with counts beside them.
//!
//! The chart and the page show the same bars, so what a bar says and how long it is stands here.

mod unicode;

pub use self::unicode::displayable;
pub(super) use self::unicode::elided;
use super::simplified;

/// The most bars that are shown: more would be no picture any more.
const MOST_BARS: usize = 400;

/// A snapshot as bars. Its text is fit to be shown: it holds no control characters and nothing
/// that turns the direction of what stands around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Adoption {
    /// GUID.
    pub customer_id: String,
    /// The customer's name, or its GUID where nobody told the name.
    pub customer_name: String,
    /// The newest date of the rows, `YYYY-MM-DD`; `None` when there are none.
    pub processed_date: Option<String>,
    /// Each workload, summed over products.
    pub workloads: Vec<Bar>,
    /// Each product, by service and product.
    pub products: Vec<Product>,
    /// How many workloads of products there are beyond what is shown.
    pub left_out: usize,
}

/// One product with a bar for each workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// Its name.
    pub name: String,
    /// Its service, such as `o365`.
    pub service: String,
    /// Seats: the maximum over the workloads.
    pub qualified: u64,
    /// A bar for each workload.
    pub bars: Vec<Bar>,
}

/// One workload: how many of the licences that qualify are active.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// The workload's name.
    pub name: String,
    /// Seats that were used.
    pub active: u64,
    /// Seats that could have been used.
    pub qualified: u64,
    /// The upstream's adjusted percentage, or ours; `None` when nothing qualified.
    percent: Option<f64>,
    /// Its own processed date where that is not the snapshot's.
    pub processed_date: Option<String>,
}

// === impl Adoption ===

impl Adoption {
    /// Reads the simplified form. Of a product that does not fit whole, the first workloads are
    /// shown.
    ///
    /// # Errors
    ///
    /// Where it is not the simplified form.
    pub(super) fn of(simplified: &[u8]) -> serde_json::Result<Self> {
        let usage: simplified::Usage<'_> = serde_json::from_slice(simplified)?;
        let mut room = MOST_BARS;
        let mut left_out = 0;
        let mut shown = Vec::new();
        let date = usage.processed_date.as_deref();
        for product in &usage.products {
            let all = product.workloads.len();
            let bars = product.workloads.iter().take(room);
            let bars: Vec<_> = bars.map(|workload| Bar::of(workload, date)).collect();
            room -= bars.len();
            left_out += all - bars.len();
            if !bars.is_empty() {
                shown.push(Product {
                    name: displayable(&product.product_name),
                    service: displayable(&product.service_name),
                    qualified: product.licenses_qualified,
                    bars,
                });
            }
        }
        let name = usage.customer_name.as_deref().map(displayable);
        let name = name.filter(|name| !name.is_empty());
        Ok(Self {
            customer_name: name.unwrap_or_else(|| usage.customer_id.to_string()),
            customer_id: usage.customer_id.into_owned(),
            workloads: usage
                .workloads
                .iter()
                .take(MOST_BARS)
                .map(Bar::of_all)
                .collect(),
            processed_date: usage.processed_date,
            products: shown,
            left_out,
        })
    }
}

// === impl Bar ===

impl Bar {
    fn of(workload: &simplified::ProductWorkload<'_>, date: Option<&str>) -> Self {
        let own = Some(workload.processed_date.as_str()).filter(|own| Some(*own) != date);
        Self {
            name: displayable(&workload.workload_name),
            active: workload.licenses_active,
            qualified: workload.licenses_qualified,
            percent: workload.usage_percent,
            processed_date: own.map(str::to_owned),
        }
    }

    fn of_all(workload: &simplified::Workload<'_>) -> Self {
        Self {
            name: displayable(&workload.workload_name),
            active: workload.licenses_active,
            qualified: workload.licenses_qualified,
            percent: workload.usage_percent,
            processed_date: None,
        }
    }

    /// The percentage, where there are licences to take it of: a percentage of nothing is no 0.
    fn percent(&self) -> Option<f64> {
        self.percent.filter(|_| self.qualified > 0)
    }

    /// How long the bar is, 0 to 100; `None` when nothing qualified, and there is no bar.
    pub fn length(&self) -> Option<f64> {
        self.percent().map(|percent| percent.clamp(0.0, 100.0))
    }

    /// The percentage in words, such as `37.5%`. What is not all or nothing is never rounded to it.
    pub fn share(&self) -> Option<String> {
        self.percent().map(|percent| match percent {
            percent if percent > 0.0 && percent < 0.1 => "<0.1%".to_owned(),
            percent if percent > 99.9 && percent < 100.0 => ">99.9%".to_owned(),
            percent => {
                let rounded = format!("{percent:.1}");
                let whole = rounded.strip_suffix(".0").unwrap_or(&rounded);
                format!("{}%", whole.strip_prefix("-0").map_or(whole, |_| "0"))
            }
        })
    }

    /// The counts in words, such as `3 of 8`.
    pub fn counts(&self) -> String {
        match (self.active, self.qualified) {
            (0, 0) => return "no licences qualified".to_owned(),
            (active, 0) => return format!("{} active, none qualified", grouped(active)),
            _ => {}
        }
        format!("{} of {}", grouped(self.active), grouped(self.qualified))
    }
}

/// A number with its digits in groups, such as `12,345`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(active: u64, qualified: u64, percent: Option<f64>) -> Bar {
        Bar {
            name: "Exchange".into(),
            active,
            qualified,
            percent,
            processed_date: None,
        }
    }

    #[test]
    fn a_share_says_no_more_than_is_so() {
        for (percent, expected) in [
            (0.0, "0%"),
            (-0.0, "0%"),
            (0.01, "<0.1%"),
            (0.1, "0.1%"),
            (37.5, "37.5%"),
            (66.666, "66.7%"),
            (80.0, "80%"),
            (99.9, "99.9%"),
            (99.96, ">99.9%"),
            (100.0, "100%"),
            (133.3, "133.3%"),
        ] {
            let share = bar(3, 8, Some(percent)).share();

            assert_eq!(share.as_deref(), Some(expected), "{percent}");
        }
    }

    #[test]
    fn of_nothing_there_is_no_share_whatever_upstream_says() {
        for percent in [None, Some(0.0), Some(100.0)] {
            let bar = bar(0, 0, percent);

            assert_eq!(bar.share(), None);
            assert_eq!(bar.length(), None);
            assert_eq!(bar.counts(), "no licences qualified");
        }
    }

    #[test]
    fn a_bar_is_no_longer_than_its_track() {
        assert_eq!(bar(9, 8, Some(112.5)).length(), Some(100.0));
        assert_eq!(bar(9, 8, Some(112.5)).counts(), "9 of 8");
    }

    #[test]
    fn digits_stand_in_groups_of_three() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345, "12,345"),
            (9_223_372_036_854_775_807, "9,223,372,036,854,775,807"),
        ] {
            assert_eq!(grouped(number), expected);
        }
    }
}
