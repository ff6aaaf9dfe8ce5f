//! Answers that were rendered lately.

use std::{error::Error, fmt, sync::Arc};

use http::HeaderValue;
use jiff::Timestamp;
use moka::policy::EvictionPolicy;

use super::{
    super::{
        attachment,
        csv_writer::CsvReader,
        document::{RenderedDocument, with_compressed},
        format::{ContentCoding, Format},
    },
    content_hash::{ContentHash, FleetVersion},
    fields::FleetRow,
    json,
    page::{CursorExpired, RowPage},
    query::{FleetQuery, FleetView},
    recent_values::RecentValues,
    rows::{CustomerUsageRow, UnusedLicensesRow},
    selection::{FleetScope, FleetSelection},
    table,
    totals::FleetTotals,
};
use crate::domain::{FleetUsage, Portfolio};

/// The answers over all customers that were requested lately, each rendered once and compressed at most
/// once.
pub struct FleetDocuments {
    documents: moka::sync::Cache<DocumentKey, Arc<RenderedDocument>>,
    /// So that a hit reads no rows.
    fleet_versions: RecentValues<FleetUsage, FleetVersion>,
    portfolio_hashes: RecentValues<Portfolio, ContentHash>,
}

/// A request for an answer, with all that it depends on.
#[derive(Clone, Debug)]
pub struct FleetDocumentRequest {
    /// The usage of all customers.
    pub fleet: Arc<FleetUsage>,
    /// The portfolio.
    pub portfolio: Arc<Portfolio>,
    /// The customers that count.
    pub scope: FleetScope,
    /// The requested part.
    pub query: FleetQuery,
    /// The requested format.
    pub format: FleetFormat,
}

/// A format of an answer over all customers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FleetFormat {
    /// JSON.
    Json,
    /// CSV.
    Csv(CsvReader),
}

/// The failure of a request for an answer.
#[derive(Debug, thiserror::Error)]
pub enum FleetRenderError {
    /// The cursor belongs to another answer.
    #[error(transparent)]
    CursorExpired(#[from] CursorExpired),
    /// The answer could not be rendered.
    #[error("could not render an answer over all customers: {0}")]
    Failed(Arc<Box<dyn Error + Send + Sync>>),
}

/// A document depends on nothing else, so callers with the same customers share it, and never see
/// another caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct DocumentKey {
    answer: ContentHash,
    rows_before: u32,
    limit: Option<usize>,
    format: FleetFormat,
}

// === impl FleetDocuments ===

impl FleetDocuments {
    const MAX_BYTES: u64 = 16 << 20;

    /// Creates an empty cache.
    pub fn new() -> Self {
        let documents = moka::sync::Cache::builder()
            .max_capacity(Self::MAX_BYTES)
            // It always keeps the document that was requested last, however large.
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_: &DocumentKey, document: &Arc<RenderedDocument>| {
                let bytes = with_compressed(document.weight()) + size_of::<RenderedDocument>();
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .build();
        Self {
            documents,
            fleet_versions: RecentValues::default(),
            portfolio_hashes: RecentValues::default(),
        }
    }

    /// Returns the document of a request if it is cached in this coding.
    pub fn ready(
        &self,
        request: &FleetDocumentRequest,
        coding: ContentCoding,
    ) -> Option<Arc<RenderedDocument>> {
        let fleet = self.fleet_versions.get(&request.fleet)?;
        let portfolio = self.portfolio_hashes.get(&request.portfolio)?;
        let key = request.key(fleet, portfolio).ok()?;
        let document = self.documents.get(&key)?;
        document.ready(coding)?;
        Some(document)
    }

    /// Renders the document of a request in a coding; once for concurrent requests. `seen_at` becomes its
    /// `Last-Modified`.
    ///
    /// This takes milliseconds of CPU for thousands of customers: call it off the async threads.
    ///
    /// # Errors
    ///
    /// [`FleetRenderError`] if the cursor has expired, or if rendering failed.
    ///
    /// # Blocking
    ///
    /// If another thread renders the same, it waits for that.
    pub fn render(
        &self,
        request: &FleetDocumentRequest,
        coding: ContentCoding,
        seen_at: Timestamp,
    ) -> Result<Arc<RenderedDocument>, FleetRenderError> {
        let (versions, hashes) = (&self.fleet_versions, &self.portfolio_hashes);
        let fleet = versions.get_or_compute(&request.fleet, FleetVersion::of);
        let portfolio = hashes.get_or_compute(&request.portfolio, ContentHash::of);
        let key = request.key(fleet, portfolio)?;
        let render = || {
            let body = request.render_body(key.answer)?;
            Ok::<_, Box<dyn Error + Send + Sync>>(Arc::new(RenderedDocument::new(&body, seen_at)))
        };
        let document = self
            .documents
            .try_get_with(key, render)
            .map_err(FleetRenderError::Failed)?;
        let encoded = document.render(coding);
        encoded.map_err(|error| FleetRenderError::Failed(Arc::new(error.into())))?;
        Ok(document)
    }
}

impl Default for FleetDocuments {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FleetDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetDocuments")
            .field("documents", &self.documents.entry_count())
            .finish_non_exhaustive()
    }
}

// === impl FleetDocumentRequest ===

impl FleetDocumentRequest {
    /// Returns `Content-Disposition` of a format that is saved as a file.
    pub fn disposition(&self) -> Option<HeaderValue> {
        let FleetFormat::Csv(CsvReader::Spreadsheet(_)) = self.format else {
            return None;
        };
        let name = self.query.view.as_str();
        let file = match self.fleet.processed_date {
            Some(date) => format!("usage-{name}-{date}.csv"),
            None => format!("usage-{name}.csv"),
        };
        Some(attachment::of_file(&file))
    }

    fn key(
        &self,
        fleet: FleetVersion,
        portfolio: ContentHash,
    ) -> Result<DocumentKey, CursorExpired> {
        let answer = self.answer(fleet, portfolio);
        let cursor = self.query.cursor;
        if cursor.is_some_and(|cursor| cursor.answer != answer) {
            return Err(CursorExpired);
        }
        Ok(DocumentKey {
            answer,
            rows_before: cursor.map_or(0, |cursor| cursor.rows_before),
            limit: self.query.limit.map(Into::into),
            format: self.format,
        })
    }

    /// Returns a hash of all that the rows of the answer and their order depend on.
    fn answer(&self, fleet: FleetVersion, portfolio: ContentHash) -> ContentHash {
        let query = &self.query;
        let fleet = match query.view {
            FleetView::Products | FleetView::Unused => fleet.rows,
            FleetView::Customers => fleet.rows_and_arrivals,
        };
        let unlisted = self.scope.unlisted.iter().map(|entry| entry.customer_id);
        let unlisted: Vec<_> = unlisted.collect();
        let data = (fleet, portfolio, &self.scope.counts, unlisted);
        let rows = (&query.products, query.min_unused, query.below);
        let order = (query.sort, &query.currency);
        ContentHash::of(&(query.view, data, rows, order))
    }

    fn render_body(&self, answer: ContentHash) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        let query = &self.query;
        let selection =
            FleetSelection::new(&self.fleet, &self.scope, &self.portfolio, &query.products);
        match query.view {
            FleetView::Products => self.render_totals(&selection),
            FleetView::Customers => self.render_rows(
                &selection,
                &CustomerUsageRow::select(&selection, query),
                answer,
            ),
            FleetView::Unused => self.render_rows(
                &selection,
                &UnusedLicensesRow::select(&selection, query),
                answer,
            ),
        }
    }

    fn render_totals(
        &self,
        selection: &FleetSelection<'_>,
    ) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        match self.format {
            FleetFormat::Json => Ok(json::render_totals(selection)?),
            FleetFormat::Csv(reader) => {
                let products = FleetTotals::of(selection).products;
                Ok(table::render(&products, &self.portfolio, reader)?)
            }
        }
    }

    fn render_rows<'a, R: FleetRow<'a>>(
        &self,
        selection: &FleetSelection<'a>,
        rows: &[R],
        answer: ContentHash,
    ) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        let limit = self.query.limit.map(Into::into);
        let page = RowPage::cut(rows, answer, self.query.cursor, limit);
        match self.format {
            FleetFormat::Json => Ok(json::render_rows(selection, &page)?),
            FleetFormat::Csv(reader) => Ok(table::render(page.rows, &self.portfolio, reader)?),
        }
    }
}

// === impl FleetFormat ===

impl FleetFormat {
    /// Returns the format with its media type.
    pub const fn format(self) -> Format {
        match self {
            Self::Json => Format::Simplified,
            Self::Csv(CsvReader::Program) => Format::Csv,
            Self::Csv(CsvReader::Spreadsheet(_)) => Format::Table,
        }
    }
}
