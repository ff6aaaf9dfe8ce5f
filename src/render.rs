//! Every form of one snapshot, rendered once and compressed at most once.
//!
//! Bodies and the header values that go with them are made when an entry is stored, or when a
//! rarer form is first asked for; handing them out copies nothing.

pub mod adoption;
mod attachment;
mod chart;
mod compression;
mod csv;
pub mod customers;
mod simplified;
mod validator;

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use http::HeaderValue;
use jiff::Timestamp;

use self::{
    adoption::AdoptionView,
    customers::{CustomerIndex, CustomerPageRequest, VisibleCustomers},
};
pub(crate) use self::{
    compression::compress,
    validator::{etag_for_coding, strong_etag},
};
use crate::domain::{
    CustomerId, CustomerList, DocumentSummary, LicenseUsage, ProcessedDate, aggregation,
};

/// What a snapshot can be shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Our own JSON, grouped by product and workload.
    Simplified,
    /// One line per product and workload (RFC 4180).
    Csv,
    /// The same for a spreadsheet, which takes no text of it for a formula.
    Table,
    /// The upstream's own JSON, byte for byte.
    Native,
    /// Adoption as a picture (SVG 1.1).
    Chart(Theme),
}

/// The colours of a chart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Theme {
    /// Light or dark, as the reader's system prefers.
    #[default]
    Reader,
    /// For a light page, whatever the reader's system prefers.
    Light,
    /// For a dark page, whatever the reader's system prefers.
    Dark,
}

/// A content coding (RFC 9110 §8.4.1, RFC 8878 for zstd).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentCoding {
    /// As it is.
    Identity,
    /// gzip (RFC 1952).
    Gzip,
    /// Brotli (RFC 7932).
    Brotli,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// One answer of the upstream's in every form that was asked for so far.
pub struct Rendered {
    customer: Option<CustomerId>,
    processed_date: Option<ProcessedDate>,
    rows: usize,
    row_names_hash: u64,
    product_names_hash: u64,
    licenses_qualified: u64,
    /// Whether this is usage without a customer's name.
    lacks_customer_name: bool,
    /// Only of usage.
    simplified: Option<RenderedDocument>,
    native: Option<RenderedDocument>,
    csv: OnceLock<Box<RenderedDocument>>,
    table: OnceLock<Box<TableDocument>>,
    charts: ChartDocuments,
    /// Only of the list of customers.
    customers: Option<Box<CustomerIndex>>,
}

/// The chart in each theme that was asked for so far.
#[derive(Clone, Default)]
struct ChartDocuments {
    reader: OnceLock<Box<RenderedDocument>>,
    light: OnceLock<Box<RenderedDocument>>,
    dark: OnceLock<Box<RenderedDocument>>,
}

/// The form for spreadsheets, and what it is saved as.
#[derive(Clone)]
struct TableDocument {
    document: RenderedDocument,
    disposition: HeaderValue,
}

/// One form of a snapshot, in every coding that was asked for so far.
#[derive(Clone)]
pub struct RenderedDocument {
    identity: EncodedBody,
    compressed: OnceLock<Box<CompressedBodies>>,
    modified_at: Timestamp,
}

/// A body compressed, by its coding's [place](ContentCoding::compressed_index).
#[derive(Default)]
struct CompressedBodies {
    bodies: [OnceLock<EncodedBody>; ContentCoding::COMPRESSED.len()],
    /// Held while one is made, so that it is made once.
    lock: Mutex<()>,
}

/// A body as it goes over the wire, with the header values that go with it.
///
/// All of it is one allocation (validator, modification time, body, in this order), which the
/// values handed out share: an entry costs little memory beside its bodies, and a hit copies none
/// of it.
#[derive(Clone)]
pub struct EncodedBody {
    bytes: Bytes,
    etag_len: usize,
}

/// The forms of a snapshot could not be rendered; it says which and why.
#[derive(Debug, thiserror::Error)]
#[error("could not render {format:?}: {source}")]
pub struct RenderError {
    format: Format,
    source: Box<dyn std::error::Error + Send + Sync>,
}

// === impl Form ===

impl Format {
    /// Media type, with what parameters its readers need.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Simplified => "application/json",
            Self::Csv | Self::Table => "text/csv; charset=utf-8; header=present",
            Self::Native => "application/json; charset=utf-8",
            Self::Chart(_) => "image/svg+xml",
        }
    }

    /// Whether it is `application/json`.
    pub const fn is_json(self) -> bool {
        matches!(self, Self::Simplified | Self::Native)
    }
}

// === impl Coding ===

impl ContentCoding {
    /// Those that compress, by their place among them.
    pub(crate) const COMPRESSED: [Self; 3] = [Self::Gzip, Self::Brotli, Self::Zstd];

    /// The token of `AnswerContent-Encoding`; `None` for identity, which is not sent.
    pub const fn token(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Brotli => Some("br"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// How many times as long as to read a body it takes to write it in this coding.
    pub(crate) const fn compression_cost(self) -> usize {
        match self {
            Self::Identity => 1,
            Self::Gzip | Self::Brotli | Self::Zstd => 32,
        }
    }

    /// Its place among the codings that compress.
    pub(crate) const fn compressed_index(self) -> Option<usize> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some(0),
            Self::Brotli => Some(1),
            Self::Zstd => Some(2),
        }
    }
}

// === impl Prepared ===

impl Rendered {
    /// Renders the forms of usage that are always kept. `seen_at` becomes their `Last-Modified`.
    ///
    /// # Errors
    ///
    /// [`RenderError`] where a number has no JSON form; a snapshot from [`LicenseUsage::new`](crate::domain::LicenseUsage::new) has none.
    pub fn new(
        snapshot: &LicenseUsage,
        native: Option<&[u8]>,
        seen_at: Timestamp,
    ) -> Result<Self, RenderError> {
        let simplified = simplified::render(snapshot).map_err(|source| RenderError {
            format: Format::Simplified,
            source: source.into(),
        })?;
        let products = aggregation::products(snapshot);
        Ok(Self {
            customer: Some(snapshot.customer_id()),
            processed_date: snapshot.processed_date(),
            rows: snapshot.rows().len(),
            row_names_hash: hash_row_names(snapshot),
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
            csv: OnceLock::new(),
            table: OnceLock::new(),
            charts: ChartDocuments::default(),
            customers: None,
        })
    }

    /// Renders the partner's list of customers, which has the native form alone. `seen_at` becomes
    /// its `Last-Modified`.
    ///
    /// # Errors
    ///
    /// [`RenderError`] where its links have no JSON form, which they have.
    pub fn of_customers(list: CustomerList, seen_at: Timestamp) -> Result<Self, RenderError> {
        let rows = list.customers().len();
        let ids = list.customers().iter().map(|listed| listed.entry.id);
        let rows_named = hash_names(ids);
        let (body, index) = customers::render(list).map_err(|source| RenderError {
            format: Format::Native,
            source: source.into(),
        })?;
        Ok(Self {
            customer: None,
            processed_date: None,
            rows,
            row_names_hash: rows_named,
            product_names_hash: 0,
            licenses_qualified: 0,
            lacks_customer_name: false,
            simplified: None,
            native: Some(RenderedDocument::new(&body, seen_at)),
            csv: OnceLock::new(),
            table: OnceLock::new(),
            charts: ChartDocuments::default(),
            customers: Some(Box::new(index)),
        })
    }

    /// A document that is handed out as it came. `seen_at` becomes its `Last-Modified`.
    pub fn of_document(
        customer: Option<CustomerId>,
        outline: &DocumentSummary,
        body: &[u8],
        seen_at: Timestamp,
    ) -> Self {
        Self {
            customer,
            processed_date: outline.processed_date(),
            rows: outline.rows().len(),
            row_names_hash: hash_names(outline.rows().iter()),
            product_names_hash: 0,
            licenses_qualified: 0,
            lacks_customer_name: false,
            simplified: None,
            native: Some(RenderedDocument::new(body, seen_at)),
            csv: OnceLock::new(),
            table: OnceLock::new(),
            charts: ChartDocuments::default(),
            customers: None,
        }
    }

    /// Returns the same usage with a customer's name that its rows do not have. `seen_at` becomes the
    /// `Last-Modified` of the forms that show the name. Where this is no usage, nothing changes.
    ///
    /// This may take milliseconds of CPU: keep it off the async threads.
    ///
    /// # Errors
    ///
    /// [`RenderError`] when the simplified form cannot be read back.
    pub fn with_customer_name(&self, name: &str, seen_at: Timestamp) -> Result<Self, RenderError> {
        let simplified = match &self.simplified {
            Some(before) => {
                let body = simplified::with_customer_name(before.identity.body(), name);
                let body = body.map_err(|source| RenderError {
                    format: Format::Simplified,
                    source: source.into(),
                })?;
                Some(RenderedDocument::new(&body, seen_at))
            }
            None => None,
        };
        Ok(Self {
            customer: self.customer,
            processed_date: self.processed_date,
            rows: self.rows,
            row_names_hash: self.row_names_hash,
            product_names_hash: self.product_names_hash,
            licenses_qualified: self.licenses_qualified,
            lacks_customer_name: false,
            simplified,
            native: self.native.clone(),
            csv: OnceLock::new(),
            table: OnceLock::new(),
            charts: ChartDocuments::default(),
            customers: None,
        })
    }

    /// Takes over from `earlier`, of the same subject and date, every form whose content did not
    /// change: its validator, its `Last-Modified`, and what was compressed of it.
    #[must_use]
    pub fn reusing_unchanged(mut self, earlier: &Self) -> Self {
        if let (Some(simplified), Some(before)) = (&mut self.simplified, &earlier.simplified)
            && simplified.has_same_content(before)
        {
            *simplified = before.clone();
            self.csv = earlier.csv.clone();
            self.table = earlier.table.clone();
            self.charts = earlier.charts.clone();
        }
        if let (Some(native), Some(before)) = (&mut self.native, &earlier.native)
            && native.has_same_content(before)
        {
            *native = before.clone();
        }
        self
    }

    /// Whether every form is the very one that `earlier` holds.
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

    /// Bytes of its largest form that every other is made from.
    pub fn largest_source_bytes(&self) -> usize {
        let made = [&self.simplified, &self.native].into_iter().flatten();
        let sizes = made.map(|document| document.identity.body().len());
        sizes.max().unwrap_or_default()
    }

    /// Whose data this is.
    pub fn customer(&self) -> Option<CustomerId> {
        self.customer
    }

    /// Who is in it, where it is the list of customers.
    pub fn customers(&self) -> Option<&CustomerIndex> {
        self.customers.as_deref()
    }

    /// Returns what [`Self::visible_customers`] would, where that was made before.
    pub fn cached_visible_customers(
        &self,
        may_see: impl Fn(CustomerId) -> bool,
        page: Option<&CustomerPageRequest>,
        coding: ContentCoding,
    ) -> Option<VisibleCustomers> {
        self.customers
            .as_ref()?
            .cached_visible(may_see, page, coding)
    }

    /// What of the list of customers is shown to a caller who may see these, in a coding; made once
    /// while it is asked for. `Ok(None)` where this is no such list.
    ///
    /// This may take milliseconds of CPU: keep it off the async threads.
    ///
    /// # Errors
    ///
    /// [`RenderError`] where the coding failed.
    pub fn visible_customers(
        &self,
        may_see: impl Fn(CustomerId) -> bool,
        page: Option<&CustomerPageRequest>,
        coding: ContentCoding,
    ) -> Result<Option<VisibleCustomers>, RenderError> {
        let (Some(index), Some(whole)) = (&self.customers, &self.native) else {
            return Ok(None);
        };
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| RenderError {
            format: Format::Native,
            source,
        };
        let shown = index.visible(may_see, page, whole);
        let shown = shown.map_err(|error| failed(error.into()))?;
        if let VisibleCustomers::Part(document) = &shown {
            document
                .render(coding)
                .map_err(|error| failed(error.into()))?;
        }
        Ok(Some(shown))
    }

    /// Whether this is usage without a customer's name.
    pub fn lacks_customer_name(&self) -> bool {
        self.lacks_customer_name
    }

    /// The newest date of the rows; `None` when there are none.
    pub fn processed_date(&self) -> Option<ProcessedDate> {
        self.processed_date
    }

    /// How many rows the upstream told.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Which rows the upstream told, as one number: the same services, products and workloads have
    /// the same, whatever their counts and dates. It means nothing outside this process.
    pub fn row_names_hash(&self) -> u64 {
        self.row_names_hash
    }

    /// A hash of the products that the upstream sent, whatever their workloads, counts and dates.
    /// It means nothing outside this process; 0 for an answer that is no usage.
    pub fn product_names_hash(&self) -> u64 {
        self.product_names_hash
    }

    /// The sum of `licensesQualified` over the products; 0 for an answer that is no usage.
    pub fn licenses_qualified(&self) -> u64 {
        self.licenses_qualified
    }

    /// Whether it has the native form.
    pub fn has_native(&self) -> bool {
        self.native.is_some()
    }

    /// `AnswerContent-Disposition` of a form that is to be saved, if it is ready.
    pub fn disposition(&self, form: Format) -> Option<&HeaderValue> {
        match form {
            Format::Table => Some(&self.table.get()?.disposition),
            Format::Simplified | Format::Csv | Format::Native | Format::Chart(_) => None,
        }
    }

    /// A form in a coding, if both are ready.
    pub fn ready(
        &self,
        form: Format,
        coding: ContentCoding,
    ) -> Option<(&RenderedDocument, &EncodedBody)> {
        let document = self.document(form)?;
        Some((document, document.ready(coding)?))
    }

    /// Makes a form in a coding ready, once; further calls find it made. `Ok(None)` where the form
    /// can never be had: the native one of an answer that came without, ours of what is no usage.
    ///
    /// This may take milliseconds of CPU: keep it off the async threads.
    ///
    /// # Errors
    ///
    /// [`RenderError`] where the form or the coding failed.
    pub fn render(
        &self,
        form: Format,
        coding: ContentCoding,
    ) -> Result<Option<(&RenderedDocument, &EncodedBody)>, RenderError> {
        self.render_format(form).map_err(|source| RenderError {
            format: form,
            source,
        })?;
        let Some(document) = self.document(form) else {
            return Ok(None);
        };
        let encoded = document.render(coding).map_err(|source| RenderError {
            format: form,
            source: source.into(),
        })?;
        Ok(Some((document, encoded)))
    }

    /// What the page shows, made anew each time: unlike a form it is not kept. `Ok(None)` where this
    /// is no usage.
    ///
    /// This may take milliseconds of CPU: keep it off the async threads.
    ///
    /// # Errors
    ///
    /// Where the simplified form cannot be read back.
    pub fn adoption(&self) -> serde_json::Result<Option<AdoptionView>> {
        let simplified = self.simplified.as_ref();
        simplified
            .map(|simplified| AdoptionView::from_simplified(simplified.identity.body()))
            .transpose()
    }

    /// Bytes of memory that all that was made so far takes.
    pub fn weight(&self) -> usize {
        let derived = [&self.csv]
            .into_iter()
            .chain(self.charts.all())
            .filter_map(OnceLock::get);
        let derived: usize = derived
            .map(|document| document.weight() + size_of::<RenderedDocument>())
            .sum();
        let table = self.table.get().map_or(0, |table| {
            table.document.weight() + table.disposition.len() + size_of::<TableDocument>()
        });
        let kept = [&self.simplified, &self.native].into_iter().flatten();
        let kept: usize = kept.map(RenderedDocument::weight).sum();
        let customers = self
            .customers
            .as_ref()
            .map_or(0, |index| index.weight() + size_of::<CustomerIndex>());
        size_of::<Self>() + kept + derived + table + customers
    }

    /// Makes a form that is made from the simplified one, where there is that and it has not been
    /// done.
    fn render_format(&self, form: Format) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let Some(simplified) = &self.simplified else {
            return Ok(());
        };
        let told = simplified.identity.body();
        let document = |body: &[u8]| RenderedDocument::new(body, simplified.modified_at);
        let (slot, body) = match form {
            Format::Csv if self.csv.get().is_none() => (&self.csv, csv::render(told)?),
            Format::Table if self.table.get().is_none() => {
                let body = csv::render_for_spreadsheet(told)?;
                let disposition = attachment::disposition(told)?;
                self.table.get_or_init(|| {
                    Box::new(TableDocument {
                        document: document(&body),
                        disposition,
                    })
                });
                return Ok(());
            }
            Format::Chart(theme) if self.charts.of(theme).get().is_none() => {
                (self.charts.of(theme), chart::render(told, theme)?)
            }
            Format::Simplified
            | Format::Native
            | Format::Csv
            | Format::Table
            | Format::Chart(_) => {
                return Ok(());
            }
        };
        slot.get_or_init(|| Box::new(document(&body)));
        Ok(())
    }

    fn document(&self, form: Format) -> Option<&RenderedDocument> {
        match form {
            Format::Simplified => self.simplified.as_ref(),
            Format::Native => self.native.as_ref(),
            Format::Csv => self.csv.get().map(Box::as_ref),
            Format::Table => self.table.get().map(|table| &table.document),
            Format::Chart(theme) => self.charts.of(theme).get().map(Box::as_ref),
        }
    }
}

fn hash_row_names(snapshot: &LicenseUsage) -> u64 {
    let rows = snapshot.rows().iter();
    hash_names(rows.map(|row| (&row.service_name, &row.product_name, &row.workload_name)))
}

fn hash_names(rows: impl Iterator<Item = impl Hash>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for row in rows {
        row.hash(&mut hasher);
    }
    hasher.finish()
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("customer", &self.customer)
            .field("processed_date", &self.processed_date)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

// === impl Charts ===

impl ChartDocuments {
    fn of(&self, theme: Theme) -> &OnceLock<Box<RenderedDocument>> {
        match theme {
            Theme::Reader => &self.reader,
            Theme::Light => &self.light,
            Theme::Dark => &self.dark,
        }
    }

    fn all(&self) -> [&OnceLock<Box<RenderedDocument>>; 3] {
        [&self.reader, &self.light, &self.dark]
    }
}

// === impl Document ===

impl RenderedDocument {
    fn new(body: &[u8], seen_at: Timestamp) -> Self {
        // To the whole second, which is all that HTTP can tell.
        let modified_at = Timestamp::from_second(seen_at.as_second()).unwrap_or(seen_at);
        Self {
            identity: EncodedBody::new(&validator::strong_etag(body), modified_at, body),
            compressed: OnceLock::new(),
            modified_at,
        }
    }

    /// When this content was first seen, to the whole second.
    pub fn modified_at(&self) -> Timestamp {
        self.modified_at
    }

    /// The coding of it, if that is ready.
    pub fn ready(&self, coding: ContentCoding) -> Option<&EncodedBody> {
        match coding.compressed_index() {
            None => Some(&self.identity),
            Some(slot) => self.compressed.get()?.bodies.get(slot)?.get(),
        }
    }

    fn render(&self, coding: ContentCoding) -> std::io::Result<&EncodedBody> {
        if let Some(made) = self.ready(coding) {
            return Ok(made);
        }
        let compressed = self.compressed.get_or_init(Box::default);
        let Some(slot) = coding
            .compressed_index()
            .and_then(|slot| compressed.bodies.get(slot))
        else {
            return Ok(&self.identity);
        };
        // It guards work, and no data.
        let _making = compressed
            .lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = slot.get() {
            return Ok(made);
        }
        let body = compression::compress(self.identity.body(), coding)?;
        let etag = validator::etag_for_coding(self.identity.etag_bytes(), coding);
        Ok(slot.get_or_init(|| EncodedBody::new(&etag, self.modified_at, &body)))
    }

    fn has_same_content(&self, other: &Self) -> bool {
        self.identity.body() == other.identity.body()
    }

    /// Bytes that it refers to, itself excepted.
    fn weight(&self) -> usize {
        let compressed = self.compressed.get().map_or(0, |slots| {
            let made = slots.bodies.iter().filter_map(OnceLock::get);
            size_of_val(&**slots) + made.map(EncodedBody::weight).sum::<usize>()
        });
        self.identity.weight() + compressed
    }
}

impl fmt::Debug for RenderedDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("identity", &self.identity)
            .field("modified_at", &self.modified_at)
            .finish_non_exhaustive()
    }
}

// === impl Compressed ===

impl Clone for CompressedBodies {
    fn clone(&self) -> Self {
        Self {
            bodies: self.bodies.clone(),
            lock: Mutex::default(),
        }
    }
}

// === impl Encoded ===

impl EncodedBody {
    fn new(etag: &str, modified_at: Timestamp, body: &[u8]) -> Self {
        let modified = validator::http_date(modified_at);
        let mut bytes = Vec::with_capacity(etag.len() + modified.len() + body.len());
        bytes.extend_from_slice(etag.as_bytes());
        bytes.extend_from_slice(modified.as_bytes());
        bytes.extend_from_slice(body);
        Self {
            bytes: Bytes::from(bytes),
            etag_len: etag.len(),
        }
    }

    /// The body, to send.
    pub fn to_body(&self) -> Bytes {
        self.bytes.slice(self.body_start()..)
    }

    /// The body, to look at.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(self.body_start()..).unwrap_or_default()
    }

    /// `ETag`: strong, and its own for each form and coding (RFC 9110 §8.8.3).
    pub fn etag(&self) -> HeaderValue {
        self.header(0..self.etag_len)
    }

    /// The same, to compare.
    pub fn etag_bytes(&self) -> &[u8] {
        self.bytes.get(..self.etag_len).unwrap_or_default()
    }

    /// `Last-Modified`.
    pub fn last_modified(&self) -> HeaderValue {
        self.header(self.etag_len..self.body_start())
    }

    fn body_start(&self) -> usize {
        self.etag_len + validator::HTTP_DATE_LEN
    }

    /// Shares the bytes; they were ASCII when they were written.
    fn header(&self, range: std::ops::Range<usize>) -> HeaderValue {
        HeaderValue::from_maybe_shared(self.bytes.slice(range))
            .unwrap_or(HeaderValue::from_static(""))
    }

    fn weight(&self) -> usize {
        /// What `Bytes` allocates to share an allocation.
        const SHARED: usize = 32;
        self.bytes.len() + SHARED
    }
}

impl fmt::Debug for EncodedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoded")
            .field("etag", &self.etag())
            .field("bytes", &self.body().len())
            .finish()
    }
}

#[cfg(test)]
mod proptests;

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
    fn the_native_format_is_the_upstream_body() {
        let prepared = rendered_usage(5, b"\xef\xbb\xbf{}", 1);

        let (_, encoded) = prepared
            .ready(Format::Native, ContentCoding::Identity)
            .unwrap();

        assert_eq!(encoded.body(), b"\xef\xbb\xbf{}");
        assert_eq!(encoded.to_body(), encoded.body());
    }

    #[test]
    fn every_format_and_coding_has_its_own_validator() {
        let prepared = rendered_usage(5, b"{}", 1);
        let mut etags = std::collections::HashSet::new();

        for form in [
            Format::Simplified,
            Format::Csv,
            Format::Native,
            Format::Chart(Theme::Reader),
            Format::Chart(Theme::Light),
            Format::Chart(Theme::Dark),
        ] {
            for coding in [
                ContentCoding::Identity,
                ContentCoding::Gzip,
                ContentCoding::Brotli,
                ContentCoding::Zstd,
            ] {
                let (_, encoded) = prepared.render(form, coding).unwrap().unwrap();
                assert!(etags.insert(encoded.etag()), "{form:?} {coding:?}");
            }
        }
    }

    #[test]
    fn a_body_is_compressed_once() {
        let prepared = rendered_usage(5, b"{}", 1);
        assert!(
            prepared
                .ready(Format::Simplified, ContentCoding::Gzip)
                .is_none()
        );

        let first = prepared
            .render(Format::Simplified, ContentCoding::Gzip)
            .unwrap();
        let first = first.unwrap().1.body().as_ptr();

        let again = prepared
            .ready(Format::Simplified, ContentCoding::Gzip)
            .unwrap();
        assert_eq!(again.1.body().as_ptr(), first);
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
        let prepared = rendered_usage(5, b"{}", 1);
        let before = prepared.weight();

        prepared.render(Format::Csv, ContentCoding::Zstd).unwrap();

        assert!(prepared.weight() > before);
    }
}
