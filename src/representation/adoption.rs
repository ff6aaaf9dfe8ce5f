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
            processed_date: own.map(str::to_owned),
        }
    }

    fn of_all(workload: &simplified::Workload<'_>) -> Self {
        Self {
            name: displayable(&workload.workload_name),
            active: workload.licenses_active,
            qualified: workload.licenses_qualified,
            processed_date: None,
        }
    }

    /// Of what nothing qualified for there is no percentage: it is no 0.
    ///
    /// It is always that of the counts beside it: upstream cuts off the decimals of its own, so that
    /// the same counts would have another percentage in a product than over all products.
    #[expect(
        clippy::cast_precision_loss,
        reason = "nobody sees the 16th digit of a percentage"
    )]
    fn percent(&self) -> Option<f64> {
        let (active, qualified) = (self.active as f64, self.qualified as f64);
        (self.qualified > 0).then(|| 100.0 * active / qualified)
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
                format!("{whole}%")
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

    fn bar(active: u64, qualified: u64) -> Bar {
        Bar {
            name: "Exchange".into(),
            active,
            qualified,
            processed_date: None,
        }
    }

    #[test]
    fn a_share_says_no_more_than_is_so() {
        for (active, qualified, expected) in [
            (0, 8, "0%"),
            (1, 10_000, "<0.1%"),
            (1, 1_000, "0.1%"),
            (3, 8, "37.5%"),
            (2, 3, "66.7%"),
            (4, 5, "80%"),
            (999, 1_000, "99.9%"),
            (9_996, 10_000, ">99.9%"),
            (8, 8, "100%"),
            (4, 3, "133.3%"),
        ] {
            let share = bar(active, qualified).share();

            assert_eq!(share.as_deref(), Some(expected), "{active} of {qualified}");
        }
    }

    #[test]
    fn the_same_counts_have_the_same_share_whatever_upstream_says() {
        let simplified = br#"{"customerId":"c","customerName":null,"processedDate":"2017-03-09","products":[
            {"productName":"A","serviceName":"o365","licensesQualified":71,"workloads":[
                {"workloadName":"Exchange","licensesActive":20,"licensesQualified":71,"usagePercent":28.1,"processedDate":"2017-03-09"}]}],
            "workloads":[{"workloadName":"Exchange","licensesActive":20,"licensesQualified":71,"usagePercent":28.17}]}"#;

        let adoption = Adoption::of(simplified).unwrap();

        let (all, product) = (&adoption.workloads[0], &adoption.products[0].bars[0]);
        assert_eq!(all.share().as_deref(), Some("28.2%"));
        assert_eq!(product.share(), all.share());
    }

    #[test]
    fn of_nothing_there_is_no_share() {
        let bar = bar(0, 0);

        assert_eq!(bar.share(), None);
        assert_eq!(bar.length(), None);
        assert_eq!(bar.counts(), "no licences qualified");
    }

    #[test]
    fn a_bar_is_no_longer_than_its_track() {
        assert_eq!(bar(9, 8).length(), Some(100.0));
        assert_eq!(bar(9, 8).counts(), "9 of 8");
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
