//! Adoption as bars with counts, for both the chart and the web page.

use super::{display_text::display_text, simplified};
use crate::domain::{ProductDetails, UsagePercent, distinctions};

/// The most bars in a picture.
const MAX_BARS: usize = 400;

/// Usage as bars. Its text is safe to display: see [`display_text`].
#[derive(Clone, Debug, PartialEq)]
pub struct AdoptionView {
    /// The GUID of the customer.
    pub customer_id: String,
    /// The name of the customer, or else its GUID.
    pub customer_name: String,
    /// The newest date of the rows, `YYYY-MM-DD`; `None` without rows.
    pub processed_date: Option<String>,
    /// The oldest date of the rows, if they have several dates.
    pub oldest_processed_date: Option<String>,
    /// The workloads, summed over products.
    pub workloads: Vec<AdoptionBar>,
    /// The products, sorted by service and product.
    pub products: Vec<AdoptionProduct>,
    /// The number of workloads of products that are not shown.
    pub left_out: usize,
}

/// A product with a bar for each workload.
#[derive(Clone, Debug, PartialEq)]
pub struct AdoptionProduct {
    /// The name of the product: that of the portfolio, else Microsoft's.
    pub name: String,
    /// Microsoft's name, where the portfolio has another.
    pub microsoft_name: Option<String>,
    /// The difference from other products of the same name, such as the channel.
    pub distinction: Option<String>,
    /// The service, such as `o365`.
    pub service: String,
    /// The maximum of the qualified licenses over the workloads.
    pub qualified: u64,
    /// The qualified licenses that the busiest workload does not use.
    pub unused: u64,
    /// The bars of the workloads.
    pub bars: Vec<AdoptionBar>,
}

/// The share of active licenses in a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct AdoptionBar {
    /// The name of the workload.
    pub name: String,
    /// Licenses that were used.
    pub active: u64,
    /// Licenses that could have been used.
    pub qualified: u64,
    /// The date of the counts, in words, if it differs from that of the usage.
    pub dated: Option<String>,
}

// === impl AdoptionView ===

impl AdoptionView {
    /// The dates of the rows, such as `2017-03-07 to 2017-03-09`; `None` without rows.
    pub fn dates(&self) -> Option<String> {
        let newest = self.processed_date.as_ref()?;
        Some(match &self.oldest_processed_date {
            Some(oldest) => format!("{oldest} to {newest}"),
            None => newest.clone(),
        })
    }

    /// Reads the simplified format, up to the most bars.
    ///
    /// # Errors
    ///
    /// If it is not the simplified format.
    pub(super) fn from_simplified(simplified: &[u8]) -> serde_json::Result<Self> {
        let usage = serde_json::from_slice(simplified)?;
        Ok(Self::new(&usage))
    }

    /// Takes the numbers of the simplified format, up to the most bars.
    pub(super) fn new(usage: &simplified::SimplifiedUsage<'_>) -> Self {
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
                    name: display_text(product.shown_name()),
                    microsoft_name: product
                        .display_name
                        .is_some()
                        .then(|| display_text(&product.product_name)),
                    distinction,
                    service: display_text(&product.service_name),
                    qualified: product.licenses_qualified,
                    unused: product.licenses_unused,
                    bars,
                });
            }
        }
        let name = usage.customer_name.as_deref().map(display_text);
        let name = name.filter(|name| !name.is_empty());
        Self {
            customer_name: name.unwrap_or_else(|| usage.customer_id.to_string()),
            customer_id: usage.customer_id.to_string(),
            workloads: usage
                .workloads
                .iter()
                .take(MAX_BARS)
                .map(AdoptionBar::from_total)
                .collect(),
            oldest_processed_date: usage.oldest_processed_date.clone(),
            processed_date: usage.processed_date.clone(),
            products: shown,
            left_out,
        }
    }
}

/// Distinguishes products whose names look the same.
fn product_distinctions(products: &[simplified::SimplifiedProduct<'_>]) -> Vec<Option<String>> {
    let details = products.iter().map(|product| ProductDetails {
        name: display_text(product.shown_name()),
        microsoft_name: &product.product_name,
        channel: product.channel.as_deref(),
        service: &product.service_name,
        id: product.product_id.as_deref(),
    });
    let distinctions = distinctions(&details.collect::<Vec<_>>()).into_iter();
    distinctions
        .map(|distinction| distinction.map(|text| display_text(&text)))
        .collect()
}

// === impl AdoptionBar ===

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

    fn from_total(workload: &simplified::SimplifiedWorkload<'_>) -> Self {
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

    /// The percentage of the counts; `None` if no license qualified.
    pub fn percent(&self) -> Option<UsagePercent> {
        UsagePercent::new(self.active, self.qualified)
    }

    /// The length of the bar, 0 to 100; `None` if no license qualified, so there is no bar.
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

/// Formats a number with groups of digits, such as `12,345`.
pub fn grouped(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
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
            (0_u64, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345, "12,345"),
            (9_223_372_036_854_775_807, "9,223,372,036,854,775,807"),
        ] {
            assert_eq!(grouped(number), expected);
        }
    }
}
