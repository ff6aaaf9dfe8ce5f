//! Adoption, as people look at it: bars with counts beside them.
//!
//! The chart and the page show the same bars, so what a bar says and how long it is stands here.

use super::{display_text::display_text, simplified};
use crate::domain::{ProductDetails, UsagePercent, distinctions};

/// The most bars that are shown: more would be no picture any more.
const MAX_BARS: usize = 400;

/// A snapshot as bars. Its text is fit to be shown: it holds no control characters and nothing
/// that turns the direction of what stands around it.
#[derive(Clone, Debug, PartialEq)]
pub struct AdoptionView {
    /// GUID.
    pub customer_id: String,
    /// The customer's name, or its GUID where nobody told the name.
    pub customer_name: String,
    /// The newest date of the rows, `YYYY-MM-DD`; `None` when there are none.
    pub processed_date: Option<String>,
    /// The oldest date of the rows, where they are of several.
    pub oldest_processed_date: Option<String>,
    /// Each workload, summed over products.
    pub workloads: Vec<AdoptionBar>,
    /// Each product, by service and product.
    pub products: Vec<AdoptionProduct>,
    /// How many workloads of products there are beyond what is shown.
    pub left_out: usize,
}

/// One product with a bar for each workload.
#[derive(Clone, Debug, PartialEq)]
pub struct AdoptionProduct {
    /// Its name.
    pub name: String,
    /// What tells it apart from other products of that name, such as its channel.
    pub distinction: Option<String>,
    /// Its service, such as `o365`.
    pub service: String,
    /// Seats: the maximum over the workloads.
    pub qualified: u64,
    /// A bar for each workload.
    pub bars: Vec<AdoptionBar>,
}

/// One workload: how many of the licences that qualify are active.
#[derive(Clone, Debug, PartialEq)]
pub struct AdoptionBar {
    /// The workload's name.
    pub name: String,
    /// Seats that were used.
    pub active: u64,
    /// Seats that could have been used.
    pub qualified: u64,
    /// The date of its counts, in words, where it is not the snapshot's.
    pub dated: Option<String>,
}

// === impl Adoption ===

impl AdoptionView {
    /// The dates of the rows, from the oldest to the newest; `None` when there are none.
    pub fn dates(&self) -> Option<String> {
        let newest = self.processed_date.as_ref()?;
        Some(match &self.oldest_processed_date {
            Some(oldest) => format!("{oldest} to {newest}"),
            None => newest.clone(),
        })
    }

    /// Reads the simplified form. Of a product that does not fit whole, the first workloads are
    /// shown.
    ///
    /// # Errors
    ///
    /// Where it is not the simplified form.
    pub(super) fn from_simplified(simplified: &[u8]) -> serde_json::Result<Self> {
        let usage: simplified::Usage<'_> = serde_json::from_slice(simplified)?;
        let mut room = MAX_BARS;
        let mut left_out = 0;
        let mut shown = Vec::new();
        let date = usage.processed_date.as_deref();
        let distinctions = product_distinctions(&usage.products);
        for (product, distinction) in usage.products.iter().zip(distinctions) {
            let all = product.workloads.len();
            let bars = product.workloads.iter().take(room);
            let bars: Vec<_> = bars
                .map(|workload| AdoptionBar::from_workload(workload, date))
                .collect();
            room -= bars.len();
            left_out += all - bars.len();
            if !bars.is_empty() {
                shown.push(AdoptionProduct {
                    name: display_text(&product.product_name),
                    distinction,
                    service: display_text(&product.service_name),
                    qualified: product.licenses_qualified,
                    bars,
                });
            }
        }
        let name = usage.customer_name.as_deref().map(display_text);
        let name = name.filter(|name| !name.is_empty());
        Ok(Self {
            customer_name: name.unwrap_or_else(|| usage.customer_id.to_string()),
            customer_id: usage.customer_id.into_owned(),
            workloads: usage
                .workloads
                .iter()
                .take(MAX_BARS)
                .map(AdoptionBar::from_total)
                .collect(),
            oldest_processed_date: usage.oldest_processed_date,
            processed_date: usage.processed_date,
            products: shown,
            left_out,
        })
    }
}

/// Distinguishes products whose names look the same.
fn product_distinctions(products: &[simplified::Product<'_>]) -> Vec<Option<String>> {
    let details = products.iter().map(|product| ProductDetails {
        name: display_text(&product.product_name),
        channel: product.channel.as_deref(),
        service: &product.service_name,
        id: product.product_id.as_deref(),
    });
    let distinctions = distinctions(&details.collect::<Vec<_>>()).into_iter();
    distinctions
        .map(|distinction| distinction.map(|text| display_text(&text)))
        .collect()
}

// === impl Bar ===

impl AdoptionBar {
    fn from_workload(workload: &simplified::ProductWorkload<'_>, date: Option<&str>) -> Self {
        let own = Some(workload.processed_date.as_str()).filter(|own| Some(*own) != date);
        Self {
            name: display_text(&workload.workload_name),
            active: workload.licenses_active,
            qualified: workload.licenses_qualified,
            dated: own.map(|date| format!("processed {date}")),
        }
    }

    fn from_total(workload: &simplified::Workload<'_>) -> Self {
        Self {
            name: display_text(&workload.workload_name),
            active: workload.licenses_active,
            qualified: workload.licenses_qualified,
            dated: workload
                .oldest_processed_date
                .as_ref()
                .map(|date| format!("oldest count {date}")),
        }
    }

    /// The percentage of the counts beside it; `None` when nothing qualified.
    pub fn percent(&self) -> Option<UsagePercent> {
        UsagePercent::new(self.active, self.qualified)
    }

    /// How long the bar is, 0 to 100; `None` when nothing qualified, and there is no bar.
    pub fn length(&self) -> Option<f64> {
        self.percent().map(|percent| percent.as_f64().min(100.0))
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

    fn bar(active: u64, qualified: u64) -> AdoptionBar {
        AdoptionBar {
            name: "Exchange".into(),
            active,
            qualified,
            dated: None,
        }
    }

    #[test]
    fn zero_qualified_has_no_percentage_and_no_bar() {
        let bar = bar(0, 0);

        assert_eq!(bar.percent(), None);
        assert_eq!(bar.length(), None);
        assert_eq!(bar.counts(), "no licences qualified");
    }

    #[test]
    fn a_bar_is_no_longer_than_its_track() {
        assert_eq!(bar(9, 8).length(), Some(100.0));
        assert_eq!(bar(9, 8).counts(), "9 of 8");
    }

    #[test]
    fn digits_are_grouped_by_three() {
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
