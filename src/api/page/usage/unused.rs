use std::cmp::Reverse;

use crate::{
    api::page::figures::{CostFigure, cost_figures},
    domain::{LicenseUsage, Portfolio, ProductDetails, distinctions},
    render::{
        adoption::grouped,
        display_text,
        fleet::{LicenseSums, SelectedProduct},
    },
};

/// The most products of the table.
const MAX_PRODUCTS: usize = 20;

/// The unused licenses of a customer, with their cost. Its text is safe to display: see [`display_text`].
pub(super) struct UnusedLicenses {
    /// The products with unused licenses, most unused first.
    pub(super) products: Vec<UnusedProduct>,
    /// The number of products that are not shown.
    pub(super) left_out: usize,
    /// The sums over all products.
    pub(super) total: UnusedFigures,
}

/// A product with unused licenses.
pub(super) struct UnusedProduct {
    pub(super) name: String,
    /// The difference from other products of the same name.
    pub(super) distinction: Option<String>,
    /// True if it counts in no answer over several customers.
    pub(super) is_excluded: bool,
    pub(super) figures: UnusedFigures,
}

/// The unused licenses of some products.
pub(super) struct UnusedFigures {
    pub(super) unused: u64,
    pub(super) qualified: u64,
    pub(super) costs: Vec<CostFigure>,
}

// === impl UnusedLicenses ===

impl UnusedLicenses {
    pub(super) fn new(usage: &LicenseUsage, portfolio: &Portfolio) -> Self {
        let all: Vec<_> = SelectedProduct::of_usage(usage, portfolio).collect();
        let details: Vec<_> = all.iter().map(details).collect();
        let named = all.iter().zip(distinctions(&details));
        let mut products: Vec<_> = named
            .map(|(product, distinction)| UnusedProduct {
                name: display_text(product.display_name()),
                distinction: distinction.map(|text| display_text(&text)),
                is_excluded: product.is_excluded(),
                figures: UnusedFigures::of([product]),
            })
            .filter(|product| product.figures.unused > 0)
            .collect();
        products.sort_by_key(|product| Reverse(product.figures.unused));
        let left_out = products.len().saturating_sub(MAX_PRODUCTS);
        products.truncate(MAX_PRODUCTS);
        Self {
            products,
            left_out,
            total: UnusedFigures::of(&all),
        }
    }
}

fn details<'a>(product: &SelectedProduct<'a>) -> ProductDetails<'a> {
    let row = product.usage.product;
    ProductDetails {
        name: display_text(product.display_name()),
        microsoft_name: product.product_name(),
        channel: row.channel.as_deref(),
        service: &row.service_name,
        id: row.product_id.as_deref(),
    }
}

// === impl UnusedFigures ===

impl UnusedFigures {
    fn of<'s, 'a: 's>(products: impl IntoIterator<Item = &'s SelectedProduct<'a>>) -> Self {
        let sums = LicenseSums::of(products);
        Self {
            unused: sums.licenses_unused,
            qualified: sums.licenses_qualified,
            costs: cost_figures(&sums.unused_cost),
        }
    }

    /// Such as `5 of 8`.
    pub(super) fn counts(&self) -> String {
        format!("{} of {}", grouped(self.unused), grouped(self.qualified))
    }
}
