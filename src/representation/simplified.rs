use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{Snapshot, UsageRow, aggregate};

/// The simplified form: what dashboards are promised, whatever Microsoft sends.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Usage<'a> {
    /// The GUID of the customer's tenant.
    #[serde(borrow)]
    #[schema(format = "uuid")]
    pub(super) customer_id: Cow<'a, str>,
    /// What the customer is called; null where no row told it.
    #[serde(borrow)]
    #[schema(required)]
    pub(super) customer_name: Option<Cow<'a, str>>,
    /// The newest date of the rows, `YYYY-MM-DD`; null when there are none.
    #[schema(required, format = Date)]
    pub(super) processed_date: Option<String>,
    /// In the order of service, product and workload, whatever order Partner Center chose.
    #[serde(borrow)]
    pub(super) products: Vec<Product<'a>>,
    /// What the products have of each workload, summed.
    #[serde(borrow)]
    pub(super) workloads: Vec<Workload<'a>>,
}

/// One product, its workloads beneath it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Product<'a> {
    /// What the product is called.
    #[serde(borrow)]
    pub(super) product_name: Cow<'a, str>,
    /// The product's id, where Partner Center told it.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) product_id: Option<Cow<'a, str>>,
    /// What the service is called, such as `o365`.
    #[serde(borrow)]
    pub(super) service_name: Cow<'a, str>,
    /// The service's code, where Partner Center told it.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) service_code: Option<Cow<'a, str>>,
    /// How the licence was sold, such as `reseller`, where Partner Center told it.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) channel: Option<Cow<'a, str>>,
    /// Seats: the maximum over the workloads.
    pub(super) licenses_qualified: u64,
    /// The product's workloads; a seat counts in each of them.
    #[serde(borrow)]
    pub(super) workloads: Vec<ProductWorkload<'a>>,
}

/// One product's usage in one workload.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProductWorkload<'a> {
    /// What the workload is called.
    #[serde(borrow)]
    pub(super) workload_name: Cow<'a, str>,
    /// The workload's code, where Partner Center told it.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) workload_code: Option<Cow<'a, str>>,
    /// Seats in use.
    pub(super) licenses_active: u64,
    /// Seats that could be.
    pub(super) licenses_qualified: u64,
    /// Percent: the upstream's adjusted one where it sent one, else ours, null when nothing qualified.
    #[schema(required)]
    pub(super) usage_percent: Option<f64>,
    /// The date of this row, `YYYY-MM-DD`.
    #[schema(format = Date)]
    pub(super) processed_date: String,
}

/// One workload, summed over products.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Workload<'a> {
    /// What the workload is called.
    #[serde(borrow)]
    pub(super) workload_name: Cow<'a, str>,
    /// Seats in use.
    pub(super) licenses_active: u64,
    /// Seats that could be.
    pub(super) licenses_qualified: u64,
    /// Percent, 0 to 100; null when nothing qualified.
    #[schema(required)]
    pub(super) usage_percent: Option<f64>,
}

pub(super) fn render(snapshot: &Snapshot) -> serde_json::Result<Box<[u8]>> {
    let usage = Usage {
        customer_id: Cow::Owned(snapshot.customer_id().to_string()),
        customer_name: snapshot.customer_name().map(Cow::Borrowed),
        processed_date: snapshot.processed_date().map(|date| date.to_string()),
        products: aggregate::products(snapshot)
            .into_iter()
            .map(Product::from)
            .collect(),
        workloads: aggregate::workloads(snapshot)
            .into_iter()
            .map(Workload::from)
            .collect(),
    };
    serde_json::to_vec(&usage).map(Vec::into_boxed_slice)
}

// === impl Product ===

impl<'a> From<aggregate::ProductUsage<'a>> for Product<'a> {
    fn from(usage: aggregate::ProductUsage<'a>) -> Self {
        let product = usage.product;
        Self {
            product_name: Cow::Borrowed(&product.product_name),
            product_id: product.product_id.as_deref().map(Cow::Borrowed),
            service_name: Cow::Borrowed(&product.service_name),
            service_code: product.service_code.as_deref().map(Cow::Borrowed),
            channel: product.channel.as_deref().map(Cow::Borrowed),
            licenses_qualified: usage.licenses_qualified,
            workloads: usage
                .workloads
                .into_iter()
                .map(ProductWorkload::from)
                .collect(),
        }
    }
}

// === impl ProductWorkload ===

impl<'a> From<&'a UsageRow> for ProductWorkload<'a> {
    fn from(row: &'a UsageRow) -> Self {
        Self {
            workload_name: Cow::Borrowed(&row.workload_name),
            workload_code: row.workload_code.as_deref().map(Cow::Borrowed),
            licenses_active: row.licenses_active,
            licenses_qualified: row.licenses_qualified,
            usage_percent: row.usage_percent_or_ratio(),
            processed_date: row.processed_at.date().to_string(),
        }
    }
}

// === impl Workload ===

impl<'a> From<aggregate::WorkloadUsage<'a>> for Workload<'a> {
    fn from(usage: aggregate::WorkloadUsage<'a>) -> Self {
        Self {
            workload_name: Cow::Borrowed(usage.workload_name),
            licenses_active: usage.licenses_active,
            licenses_qualified: usage.licenses_qualified,
            usage_percent: usage.usage_percent(),
        }
    }
}
