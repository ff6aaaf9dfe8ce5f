//! The simplified format: our own JSON, described in `api/openapi.json`.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize, de};

use crate::domain::{
    CustomerId, LicenseUsage, Portfolio, ProcessedAt, ProcessedDate, UsagePercent, UsageRow,
    aggregation,
};

/// The simplified format. `schemas/Usage` of the API's description explains its fields.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SimplifiedUsage<'a> {
    #[serde(borrow)]
    pub(super) customer_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) customer_name: Option<Cow<'a, str>>,
    pub(super) processed_date: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) oldest_processed_date: Option<String>,
    #[serde(borrow)]
    pub(super) products: Vec<SimplifiedProduct<'a>>,
    #[serde(borrow)]
    pub(super) workloads: Vec<SimplifiedWorkload<'a>>,
}

/// A product with its workloads.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SimplifiedProduct<'a> {
    #[serde(borrow)]
    pub(super) product_name: Cow<'a, str>,
    /// The name of the portfolio.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(super) display_name: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(super) product_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) service_name: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(super) service_code: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(super) channel: Option<Cow<'a, str>>,
    pub(super) licenses_qualified: u64,
    pub(super) licenses_unused: u64,
    #[serde(borrow)]
    pub(super) workloads: Vec<ProductWorkload<'a>>,
}

/// The usage of a product in a workload.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProductWorkload<'a> {
    #[serde(borrow)]
    pub(super) workload_name: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(super) workload_code: Option<Cow<'a, str>>,
    pub(super) licenses_active: u64,
    pub(super) licenses_qualified: u64,
    pub(super) usage_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reported_usage_percent: Option<f64>,
    pub(super) processed_date: String,
}

/// A workload, summed over the products.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SimplifiedWorkload<'a> {
    #[serde(borrow)]
    pub(super) workload_name: Cow<'a, str>,
    pub(super) licenses_active: u64,
    pub(super) licenses_qualified: u64,
    pub(super) usage_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) oldest_processed_date: Option<String>,
}

pub(super) fn render(snapshot: &LicenseUsage) -> serde_json::Result<Box<[u8]>> {
    let newest = snapshot.processed_date();
    let older = |date: &ProcessedDate| Some(*date) < newest;
    let usage = SimplifiedUsage {
        customer_id: Cow::Owned(snapshot.customer_id().to_string()),
        customer_name: snapshot.customer_name().map(Cow::Borrowed),
        processed_date: newest.map(|date| date.to_string()),
        oldest_processed_date: snapshot
            .oldest_processed_date()
            .filter(older)
            .map(|date| date.to_string()),
        products: aggregation::products(snapshot)
            .into_iter()
            .map(SimplifiedProduct::from)
            .collect(),
        workloads: aggregation::workloads(snapshot)
            .into_iter()
            .map(|usage| SimplifiedWorkload {
                workload_name: Cow::Borrowed(usage.workload_name),
                licenses_active: usage.licenses_active,
                licenses_qualified: usage.licenses_qualified,
                usage_percent: usage_percent(usage.licenses_active, usage.licenses_qualified),
                oldest_processed_date: Some(usage.oldest_processed_date)
                    .filter(older)
                    .map(|date| date.to_string()),
            })
            .collect(),
    };
    serde_json::to_vec(&usage).map(Vec::into_boxed_slice)
}

/// Renders the format again with a customer's name that the rows do not have.
pub(super) fn with_customer_name(simplified: &[u8], name: &str) -> serde_json::Result<Vec<u8>> {
    let mut usage: SimplifiedUsage<'_> = serde_json::from_slice(simplified)?;
    usage.customer_name = Some(Cow::Borrowed(name));
    serde_json::to_vec(&usage)
}

/// Renders the format again with the names of the portfolio; `None` if it names none of the products.
pub(super) fn with_display_names(
    simplified: &[u8],
    portfolio: &Portfolio,
) -> serde_json::Result<Option<Vec<u8>>> {
    let mut usage: SimplifiedUsage<'_> = serde_json::from_slice(simplified)?;
    for product in &mut usage.products {
        let name = portfolio.display_name(product.product_id.as_deref(), &product.product_name);
        product.display_name = name.map(|name| Cow::Borrowed(&**name));
    }
    let is_named = |product: &SimplifiedProduct<'_>| product.display_name.is_some();
    if !usage.products.iter().any(is_named) {
        return Ok(None);
    }
    serde_json::to_vec(&usage).map(Some)
}

fn usage_percent(active: u64, qualified: u64) -> Option<f64> {
    UsagePercent::new(active, qualified).map(UsagePercent::as_f64)
}

// === impl SimplifiedUsage ===

impl SimplifiedUsage<'_> {
    /// Returns the usage that it was rendered from.
    pub(super) fn to_usage(&self) -> serde_json::Result<LicenseUsage> {
        let customer = CustomerId::parse(&self.customer_id).map_err(de::Error::custom)?;
        let products = self.products.iter();
        let rows = products.flat_map(|product| {
            let workloads = product.workloads.iter();
            workloads.map(|workload| product.row(workload))
        });
        let rows = rows.collect::<serde_json::Result<_>>()?;
        let name = self.customer_name.as_deref().map(str::to_owned);
        LicenseUsage::new(customer, name, rows).map_err(de::Error::custom)
    }
}

// === impl SimplifiedProduct ===

impl SimplifiedProduct<'_> {
    /// The name for people: that of the portfolio, else Microsoft's.
    pub(super) fn shown_name(&self) -> &str {
        self.display_name.as_deref().unwrap_or(&self.product_name)
    }

    fn row(&self, workload: &ProductWorkload<'_>) -> serde_json::Result<UsageRow> {
        let text = |text: &Option<Cow<'_, str>>| text.as_deref().map(Arc::from);
        let date = ProcessedDate::parse(&workload.processed_date).map_err(de::Error::custom)?;
        Ok(UsageRow {
            service_code: text(&self.service_code),
            service_name: (*self.service_name).into(),
            product_id: text(&self.product_id),
            product_name: (*self.product_name).into(),
            channel: text(&self.channel),
            workload_code: text(&workload.workload_code),
            workload_name: (*workload.workload_name).into(),
            licenses_active: workload.licenses_active,
            licenses_qualified: workload.licenses_qualified,
            reported_usage_percent: workload.reported_usage_percent,
            processed_at: ProcessedAt(date.start()),
        })
    }
}

impl<'a> From<aggregation::ProductUsage<'a>> for SimplifiedProduct<'a> {
    fn from(usage: aggregation::ProductUsage<'a>) -> Self {
        let product = usage.product;
        Self {
            product_name: Cow::Borrowed(&product.product_name),
            display_name: None,
            product_id: product.product_id.as_deref().map(Cow::Borrowed),
            service_name: Cow::Borrowed(&product.service_name),
            service_code: product.service_code.as_deref().map(Cow::Borrowed),
            channel: product.channel.as_deref().map(Cow::Borrowed),
            licenses_qualified: usage.licenses_qualified,
            licenses_unused: usage.licenses_unused(),
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
            usage_percent: usage_percent(row.licenses_active, row.licenses_qualified),
            reported_usage_percent: row.reported_usage_percent,
            processed_date: row.processed_at.date().to_string(),
        }
    }
}
