//! An answer of Partner Center in every format.

use std::{
    error::Error,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, OnceLock},
};

use http::HeaderValue;
use jiff::Timestamp;

use super::{
    adoption::AdoptionView,
    attachment, chart, csv,
    csv_writer::{CsvReader, CsvSeparator},
    customers::{self, CustomerIndex, CustomerPageRequest, VisibleCustomers},
    document::{EncodedBody, RenderedDocument},
    format::{ChartTheme, ContentCoding, Format},
    simplified::{self, SimplifiedUsage},
};
use crate::domain::{
    CustomerId, CustomerList, DocumentSummary, LicenseUsage, Portfolio, ProcessedDate, aggregation,
};

/// One answer of Partner Center in every format that was requested so far.
#[derive(Clone, Debug, Default)]
pub struct Rendered {
    customer: Option<CustomerId>,
    processed_date: Option<ProcessedDate>,
    rows: usize,
    row_names_hash: u64,
    product_names_hash: u64,
    licenses_qualified: u64,
    lacks_customer_name: bool,
    /// For usage only, without the names of the portfolio.
    simplified: Option<RenderedDocument>,
    /// The simplified format as it is served, where the portfolio names or named these products.
    named: Option<Box<RenderedDocument>>,
    /// The version of the portfolio that the names are from.
    portfolio_version: u64,
    native: Option<RenderedDocument>,
    /// The formats that are rendered from the simplified one, by [`derived_index`].
    derived: [OnceLock<Box<DerivedDocument>>; 5],
    /// For the list of customers only.
    customers: Option<Arc<CustomerIndex>>,
}

/// A format that is rendered from the simplified one when it is first requested.
#[derive(Clone, Debug)]
struct DerivedDocument {
    document: RenderedDocument,
    /// `Content-Disposition` of a format that is saved as a file.
    disposition: Option<HeaderValue>,
}

/// A format could not be rendered.
#[derive(Debug, thiserror::Error)]
#[error("could not render {format:?}: {source}")]
pub struct RenderError {
    format: Format,
    source: Box<dyn Error + Send + Sync>,
}

const fn derived_index(format: Format) -> Option<usize> {
    match format {
        Format::Simplified | Format::Native => None,
        Format::Csv => Some(0),
        Format::Table => Some(1),
        Format::Chart(ChartTheme::Reader) => Some(2),
        Format::Chart(ChartTheme::Light) => Some(3),
        Format::Chart(ChartTheme::Dark) => Some(4),
    }
}

// === impl Rendered ===

impl Rendered {
    /// Renders usage in the formats that are always kept. `seen_at` becomes their `Last-Modified`.
    ///
    /// # Errors
    ///
    /// [`RenderError`] for a number that JSON does not have; [`LicenseUsage::new`] accepts none.
    pub fn new(
        snapshot: &LicenseUsage,
        native: Option<&[u8]>,
        seen_at: Timestamp,
    ) -> Result<Self, RenderError> {
        let simplified = simplified::render(snapshot).map_err(failed(Format::Simplified))?;
        let rows = snapshot.rows();
        let products = aggregation::products(snapshot);
        Ok(Self {
            customer: Some(snapshot.customer_id()),
            processed_date: snapshot.processed_date(),
            rows: rows.len(),
            row_names_hash: hash_names(
                rows.iter()
                    .map(|row| (&row.service_name, &row.product_name, &row.workload_name)),
            ),
            product_names_hash: hash_names(products.iter().map(|product| {
                let row = product.product;
                (&row.service_name, &row.product_name, &row.channel)
            })),
            licenses_qualified: products
                .iter()
                .map(|product| product.licenses_qualified)
                .sum(),
            lacks_customer_name: snapshot.customer_name().is_none(),
            simplified: Some(RenderedDocument::new(&simplified, seen_at)),
            native: native.map(|body| RenderedDocument::new(body, seen_at)),
            ..Self::default()
        })
    }

    /// Renders the partner's list of customers, which has the native format only. `seen_at` becomes
    /// its `Last-Modified`.
    pub fn of_customers(list: CustomerList, seen_at: Timestamp) -> Self {
        let rows = list.customers().len();
        let row_names_hash = hash_names(list.customers().iter().map(|listed| listed.entry.id));
        let (body, index) = customers::render(list);
        Self {
            rows,
            row_names_hash,
            native: Some(RenderedDocument::new(&body, seen_at)),
            customers: Some(Arc::new(index)),
            ..Self::default()
        }
    }

    /// Takes a document that is served as it was received. `seen_at` becomes its `Last-Modified`.
    pub fn of_document(
        customer: Option<CustomerId>,
        summary: &DocumentSummary,
        body: &[u8],
        seen_at: Timestamp,
    ) -> Self {
        Self {
            customer,
            processed_date: summary.processed_date(),
            rows: summary.rows().len(),
            row_names_hash: hash_names(summary.rows().iter()),
            native: Some(RenderedDocument::new(body, seen_at)),
            ..Self::default()
        }
    }

    /// Returns the same usage with a customer's name that its rows do not have. `seen_at` becomes the
    /// `Last-Modified` of the formats with the name. Other answers do not change.
    ///
    /// This may take milliseconds of CPU: call it off the async threads.
    ///
    /// # Errors
    ///
    /// [`RenderError`] if the simplified format cannot be read back.
    pub fn with_customer_name(&self, name: &str, seen_at: Timestamp) -> Result<Self, RenderError> {
        let Some(simplified) = &self.simplified else {
            return Ok(self.clone());
        };
        let body = simplified::with_customer_name(simplified.identity.body(), name)
            .map_err(failed(Format::Simplified))?;
        Ok(Self {
            lacks_customer_name: false,
            simplified: Some(RenderedDocument::new(&body, seen_at)),
            named: None,
            portfolio_version: 0,
            derived: Default::default(),
            ..self.clone()
        })
    }

    /// Returns the same answer with the names of a portfolio in all formats but the native one. Other
    /// answers than usage have no names of products.
    ///
    /// This may take milliseconds of CPU: call it off the async threads.
    ///
    /// # Errors
    ///
    /// [`RenderError`] if the simplified format cannot be read back.
    pub fn with_portfolio(&self, portfolio: &Portfolio) -> Result<Self, RenderError> {
        let unchanged = Self {
            portfolio_version: portfolio.version(),
            ..self.clone()
        };
        let Some(simplified) = &self.simplified else {
            return Ok(unchanged);
        };
        let body = simplified::with_display_names(simplified.identity.body(), portfolio)
            .map_err(failed(Format::Simplified))?;
        let body = body.as_deref().unwrap_or(simplified.identity.body());
        let shown = self.shown().map(|document| document.identity.body());
        if shown == Some(body) {
            return Ok(unchanged);
        }
        let changed_at = simplified.modified_at().max(portfolio.changed_at());
        Ok(Self {
            // Without names too, where there were some before: the change has its own time.
            named: Some(Box::new(RenderedDocument::new(body, changed_at))),
            derived: Default::default(),
            ..unchanged
        })
    }

    /// The [version](Portfolio::version) of the portfolio whose names it has; 0 without one.
    pub fn portfolio_version(&self) -> u64 {
        self.portfolio_version
    }

    /// Takes from an `earlier` answer of the same resource and date every format whose content did
    /// not change, with its validator, its `Last-Modified` and its compressed bodies.
    #[must_use]
    pub fn reusing_unchanged(mut self, earlier: &Self) -> Self {
        if let (Some(simplified), Some(before)) = (&mut self.simplified, &earlier.simplified)
            && simplified.has_same_content(before)
        {
            *simplified = before.clone();
            self.named = earlier.named.clone();
            self.portfolio_version = earlier.portfolio_version;
            self.derived = earlier.derived.clone();
        }
        if let (Some(native), Some(before)) = (&mut self.native, &earlier.native)
            && native.has_same_content(before)
        {
            *native = before.clone();
        }
        self
    }

    /// Returns true if every format has the same content as in an `earlier` answer.
    pub fn is_unchanged_from(&self, earlier: &Self) -> bool {
        let same =
            |now: &Option<RenderedDocument>, before: &Option<RenderedDocument>| match (now, before)
            {
                (Some(now), Some(before)) => now.has_same_content(before),
                (None, None) => true,
                _ => false,
            };
        same(&self.native, &earlier.native) && same(&self.simplified, &earlier.simplified)
    }

    /// The size in bytes of the largest format that others are rendered from.
    pub fn largest_source_bytes(&self) -> usize {
        let sizes = self
            .sources()
            .map(|document| document.identity.body().len());
        sizes.max().unwrap_or_default()
    }

    /// The customer of the answer, if it has one.
    pub fn customer(&self) -> Option<CustomerId> {
        self.customer
    }

    /// The customers in the list of customers.
    pub fn customers(&self) -> Option<&CustomerIndex> {
        self.customers.as_deref()
    }

    /// Returns the result of [`Self::visible_customers`] if it is cached.
    pub fn cached_visible_customers(
        &self,
        may_see: impl Fn(CustomerId) -> bool,
        page: Option<&CustomerPageRequest>,
        coding: ContentCoding,
    ) -> Option<VisibleCustomers> {
        let index = self.customers.as_ref()?;
        index.cached_visible(may_see, page, coding)
    }

    /// Renders the part of the list of customers that a caller may see, in a coding; once for
    /// concurrent requests. `Ok(None)` if this is not the list of customers.
    ///
    /// This may take milliseconds of CPU: call it off the async threads.
    ///
    /// # Errors
    ///
    /// [`RenderError`] if compression failed.
    pub fn visible_customers(
        &self,
        may_see: impl Fn(CustomerId) -> bool,
        page: Option<&CustomerPageRequest>,
        coding: ContentCoding,
    ) -> Result<Option<VisibleCustomers>, RenderError> {
        let (Some(index), Some(whole)) = (&self.customers, &self.native) else {
            return Ok(None);
        };
        let visible = index.visible(may_see, page, whole);
        if let VisibleCustomers::Part(document) = &visible {
            document.render(coding).map_err(failed(Format::Native))?;
        }
        Ok(Some(visible))
    }

    /// Returns true for usage without a customer's name.
    pub fn lacks_customer_name(&self) -> bool {
        self.lacks_customer_name
    }

    /// The newest date of the rows, if there are any.
    pub fn processed_date(&self) -> Option<ProcessedDate> {
        self.processed_date
    }

    /// The number of rows from Partner Center.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A hash of the services, products and workloads of the rows, without counts and dates. It is
    /// only comparable within this process.
    pub fn row_names_hash(&self) -> u64 {
        self.row_names_hash
    }

    /// A hash of the products, without workloads, counts and dates; 0 for other answers than usage.
    /// It is only comparable within this process.
    pub fn product_names_hash(&self) -> u64 {
        self.product_names_hash
    }

    /// The sum of `licensesQualified` over the products; 0 for other answers than usage.
    pub fn licenses_qualified(&self) -> u64 {
        self.licenses_qualified
    }

    /// Returns true if the answer has the native format.
    pub fn has_native(&self) -> bool {
        self.native.is_some()
    }

    /// Returns `Content-Disposition` of a format that is saved as a file, if it is ready.
    pub fn disposition(&self, format: Format) -> Option<&HeaderValue> {
        self.derived(format)?.get()?.disposition.as_ref()
    }

    /// Returns a format in a coding, if both are ready.
    pub fn ready(
        &self,
        format: Format,
        coding: ContentCoding,
    ) -> Option<(&RenderedDocument, &EncodedBody)> {
        let document = self.document(format)?;
        Some((document, document.ready(coding)?))
    }

    /// Renders a format in a coding, once. `Ok(None)` if the answer cannot have the format: the native
    /// one where it was not sent, any other where this is not usage.
    ///
    /// This may take milliseconds of CPU: call it off the async threads.
    ///
    /// # Errors
    ///
    /// [`RenderError`] if rendering or compression failed.
    pub fn render(
        &self,
        format: Format,
        coding: ContentCoding,
    ) -> Result<Option<(&RenderedDocument, &EncodedBody)>, RenderError> {
        self.derive(format)
            .map_err(|source| RenderError { format, source })?;
        let Some(document) = self.document(format) else {
            return Ok(None);
        };
        let encoded = document.render(coding).map_err(failed(format))?;
        Ok(Some((document, encoded)))
    }

    /// Returns the usage for the web page, which is not cached: as bars, and as it was before its
    /// rendering, without times of day. `Ok(None)` if this is not usage.
    ///
    /// This may take milliseconds of CPU: call it off the async threads.
    ///
    /// # Errors
    ///
    /// If the simplified format cannot be read back.
    pub fn adoption(&self) -> serde_json::Result<Option<(AdoptionView, LicenseUsage)>> {
        let Some(simplified) = self.shown() else {
            return Ok(None);
        };
        let simplified: SimplifiedUsage<'_> = serde_json::from_slice(simplified.identity.body())?;
        let usage = simplified.to_usage()?;
        Ok(Some((AdoptionView::new(&simplified), usage)))
    }

    /// The memory in bytes of everything that was rendered so far.
    pub fn weight(&self) -> usize {
        let sources = self.sources().map(RenderedDocument::weight);
        let derived = self.derived.iter().filter_map(OnceLock::get);
        let derived = derived.map(|derived| {
            let disposition = derived.disposition.as_ref().map_or(0, HeaderValue::len);
            derived.document.weight() + disposition + size_of::<DerivedDocument>()
        });
        let customers = self
            .customers
            .as_ref()
            .map_or(0, |index| index.weight() + size_of::<CustomerIndex>());
        let named = self.named.as_ref().map_or(0, |named| size_of_val(&**named));
        size_of::<Self>() + named + sources.sum::<usize>() + derived.sum::<usize>() + customers
    }

    fn sources(&self) -> impl Iterator<Item = &RenderedDocument> {
        let always = [&self.simplified, &self.native].into_iter().flatten();
        always.chain(self.named.as_deref())
    }

    /// The simplified format as it is served, and others are derived from.
    fn shown(&self) -> Option<&RenderedDocument> {
        self.named.as_deref().or(self.simplified.as_ref())
    }

    /// Renders a format from the simplified one, unless it is ready or there is
    /// nothing to derive it from.
    fn derive(&self, format: Format) -> Result<(), Box<dyn Error + Send + Sync>> {
        let (Some(simplified), Some(slot)) = (self.shown(), self.derived(format)) else {
            return Ok(());
        };
        if slot.get().is_some() {
            return Ok(());
        }
        let source = simplified.identity.body();
        let (body, disposition) = match format {
            Format::Csv => (csv::render(source, CsvReader::Program)?, None),
            Format::Table => (
                csv::render(source, CsvReader::Spreadsheet(CsvSeparator::default()))?,
                Some(attachment::disposition(source)?),
            ),
            Format::Chart(theme) => (chart::render(source, theme)?, None),
            Format::Simplified | Format::Native => return Ok(()),
        };
        slot.get_or_init(|| {
            Box::new(DerivedDocument {
                document: RenderedDocument::new(&body, simplified.modified_at()),
                disposition,
            })
        });
        Ok(())
    }

    fn derived(&self, format: Format) -> Option<&OnceLock<Box<DerivedDocument>>> {
        self.derived.get(derived_index(format)?)
    }

    fn document(&self, format: Format) -> Option<&RenderedDocument> {
        match format {
            Format::Simplified => self.shown(),
            Format::Native => self.native.as_ref(),
            Format::Csv | Format::Table | Format::Chart(_) => {
                Some(&self.derived(format)?.get()?.document)
            }
        }
    }
}

fn failed<E: Into<Box<dyn Error + Send + Sync>>>(format: Format) -> impl FnOnce(E) -> RenderError {
    move |source| RenderError {
        format,
        source: source.into(),
    }
}

fn hash_names(rows: impl Iterator<Item = impl Hash>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for row in rows {
        row.hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{UsageRow, samples};

    fn snapshot(seats: u64) -> LicenseUsage {
        let row = UsageRow {
            product_name: "EXCHANGE ONLINE (PLAN 1)".into(),
            channel: Some("reseller".into()),
            licenses_qualified: seats,
            reported_usage_percent: Some(0.0),
            ..samples::row()
        };
        let customer = samples::customer();
        LicenseUsage::new(customer, Some("DEMO".into()), vec![row]).unwrap()
    }

    fn rendered_usage(seats: u64, native: &'static [u8], seen_at: i64) -> Rendered {
        let seen_at = Timestamp::from_second(seen_at).unwrap();
        Rendered::new(&snapshot(seats), Some(native), seen_at).unwrap()
    }

    #[test]
    fn the_same_content_keeps_its_validator_and_modification_time() {
        let first = rendered_usage(5, b"{}", 1);
        first
            .render(Format::Simplified, ContentCoding::Gzip)
            .unwrap();

        let second = rendered_usage(5, b"{}", 99).reusing_unchanged(&first);

        let (document, encoded) = second
            .ready(Format::Simplified, ContentCoding::Gzip)
            .unwrap();
        assert_eq!(document.modified_at().as_second(), 1);
        assert_eq!(encoded.last_modified(), "Thu, 01 Jan 1970 00:00:01 GMT");
    }

    #[test]
    fn only_the_changed_format_has_a_new_modification_time() {
        let first = rendered_usage(5, b"{}", 1);

        let second = rendered_usage(5, b"{ }", 99).reusing_unchanged(&first);

        let modified = |form| second.document(form).unwrap().modified_at().as_second();
        assert_eq!(modified(Format::Simplified), 1);
        assert_eq!(modified(Format::Native), 99);
        assert!(!second.is_unchanged_from(&first));
    }

    #[test]
    fn formats_rendered_later_add_to_the_weight() {
        let rendered = rendered_usage(5, b"{}", 1);
        let before = rendered.weight();

        rendered.render(Format::Csv, ContentCoding::Zstd).unwrap();

        assert!(rendered.weight() > before);
    }
}
