//! Every form of one snapshot, rendered once and compressed at most once.
//!
//! Bodies and the header values that go with them are made when an entry is stored, or when a
//! rarer form is first asked for; handing them out copies nothing.

mod compression;
mod csv;
mod simplified;
mod validator;

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use http::HeaderValue;
use jiff::Timestamp;

pub use self::validator::http_date;
use crate::domain::{CustomerId, ProcessedDate, Snapshot};

/// What a snapshot can be shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Our own JSON, grouped by product and workload.
    Simplified,
    /// One line per product and workload (RFC 4180).
    Csv,
    /// The upstream's own JSON, byte for byte.
    Native,
}

/// A content coding (RFC 9110 §8.4.1, RFC 8878 for zstd).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// As it is.
    Identity,
    /// gzip (RFC 1952).
    Gzip,
    /// Brotli (RFC 7932).
    Brotli,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// One snapshot in every form that was asked for so far.
pub struct Prepared {
    customer_id: CustomerId,
    processed_date: Option<ProcessedDate>,
    rows: usize,
    simplified: Arc<Document>,
    native: Option<Arc<Document>>,
    csv: OnceLock<Arc<Document>>,
}

/// One form of a snapshot, in every coding that was asked for so far.
pub struct Document {
    identity: Encoded,
    compressed: [OnceLock<Box<Encoded>>; 3],
    last_modified: Modified,
}

/// A body as it goes over the wire, and its validator.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The body.
    pub body: Bytes,
    /// Strong, and its own for each form and coding (RFC 9110 §8.8.3).
    pub etag: HeaderValue,
}

/// When some content was first seen.
#[derive(Clone, Debug)]
pub struct Modified {
    /// The instant, cut to the whole second, which is all that HTTP can tell.
    pub at: Timestamp,
    /// As `Last-Modified` writes it.
    pub header: HeaderValue,
}

/// The forms of a snapshot could not be rendered; it says which and why.
#[derive(Debug, thiserror::Error)]
#[error("could not render {form:?}: {source}")]
pub struct RenderError {
    form: Form,
    source: Box<dyn std::error::Error + Send + Sync>,
}

// === impl Form ===

impl Form {
    /// Media type, with what parameters its readers need.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Simplified => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Native => "application/json; charset=utf-8",
        }
    }
}

// === impl Coding ===

impl Coding {
    /// The token of `Content-Encoding`; `None` for identity, which is not sent.
    pub const fn token(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Brotli => Some("br"),
            Self::Zstd => Some("zstd"),
        }
    }
}

// === impl Prepared ===

impl Prepared {
    /// Renders the forms that are always kept. `seen_at` becomes their `Last-Modified`.
    ///
    /// # Errors
    ///
    /// [`RenderError`] where a number has no JSON form; a snapshot from [`Snapshot::new`] has none.
    pub fn new(
        snapshot: &Snapshot,
        native: Option<Bytes>,
        seen_at: Timestamp,
    ) -> Result<Self, RenderError> {
        let modified = Modified::new(seen_at);
        let simplified = simplified::render(snapshot).map_err(|source| RenderError {
            form: Form::Simplified,
            source: source.into(),
        })?;
        Ok(Self {
            customer_id: snapshot.customer_id(),
            processed_date: snapshot.processed_date(),
            rows: snapshot.rows().len(),
            simplified: Arc::new(Document::new(simplified.into(), modified.clone())),
            native: native.map(|body| Arc::new(Document::new(body, modified))),
            csv: OnceLock::new(),
        })
    }

    /// Takes over from `earlier`, of the same customer and date, every form whose content did not
    /// change: its validator, its `Last-Modified`, and what was compressed of it.
    #[must_use]
    pub fn succeeding(mut self, earlier: &Self) -> Self {
        if self.simplified.same_content(&earlier.simplified) {
            self.simplified = Arc::clone(&earlier.simplified);
            self.csv = earlier.csv.clone();
        }
        if let (Some(native), Some(before)) = (&self.native, &earlier.native)
            && native.same_content(before)
        {
            self.native = Some(Arc::clone(before));
        }
        self
    }

    /// Whether every form is the very one that `earlier` holds.
    pub fn is_unchanged_from(&self, earlier: &Self) -> bool {
        let same_native = match (&self.native, &earlier.native) {
            (Some(native), Some(before)) => native.same_content(before),
            (None, None) => true,
            _ => false,
        };
        same_native && self.simplified.same_content(&earlier.simplified)
    }

    /// Whose usage this is.
    pub fn customer_id(&self) -> CustomerId {
        self.customer_id
    }

    /// The newest date of the rows; `None` when there are none.
    pub fn processed_date(&self) -> Option<ProcessedDate> {
        self.processed_date
    }

    /// How many rows the upstream told.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// A form that is ready; `None` where it must be [rendered](Self::render) first, or never can
    /// be (the native form of an answer that came without one).
    pub fn document(&self, form: Form) -> Option<&Arc<Document>> {
        match form {
            Form::Simplified => Some(&self.simplified),
            Form::Native => self.native.as_ref(),
            Form::Csv => self.csv.get(),
        }
    }

    /// A form in a coding, if both are ready.
    pub fn ready(&self, form: Form, coding: Coding) -> Option<(&Document, &Encoded)> {
        let document = self.document(form)?;
        Some((document, document.ready(coding)?))
    }

    /// Makes a form in a coding ready, once; further calls find it made. `Ok(None)` where the form
    /// can never be had.
    ///
    /// This may take milliseconds of CPU: keep it off the async threads.
    ///
    /// # Errors
    ///
    /// [`RenderError`] where the form or the coding failed.
    pub fn render(
        &self,
        form: Form,
        coding: Coding,
    ) -> Result<Option<(&Document, &Encoded)>, RenderError> {
        if form == Form::Csv && self.csv.get().is_none() {
            let body =
                csv::render(&self.simplified.identity.body).map_err(|source| RenderError {
                    form,
                    source: source.into(),
                })?;
            self.csv.get_or_init(|| {
                Arc::new(Document::new(
                    body.into(),
                    self.simplified.last_modified.clone(),
                ))
            });
        }
        let Some(document) = self.document(form) else {
            return Ok(None);
        };
        let encoded = document.render(coding).map_err(|source| RenderError {
            form,
            source: source.into(),
        })?;
        Ok(Some((document, encoded)))
    }

    /// Bytes of memory that all that was made so far takes.
    pub fn weight(&self) -> usize {
        [Form::Simplified, Form::Native, Form::Csv]
            .into_iter()
            .filter_map(|form| self.document(form))
            .map(|document| document.weight())
            .sum::<usize>()
            + size_of::<Self>()
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("customer_id", &self.customer_id)
            .field("processed_date", &self.processed_date)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

// === impl Document ===

impl Document {
    fn new(body: Bytes, last_modified: Modified) -> Self {
        let etag = validator::strong_etag(&body);
        Self {
            identity: Encoded { body, etag },
            compressed: Default::default(),
            last_modified,
        }
    }

    /// When this content was first seen.
    pub fn last_modified(&self) -> &Modified {
        &self.last_modified
    }

    /// The body in a coding, if it was made.
    pub fn ready(&self, coding: Coding) -> Option<&Encoded> {
        match self.slot(coding) {
            None => Some(&self.identity),
            Some(slot) => slot.get().map(Box::as_ref),
        }
    }

    fn render(&self, coding: Coding) -> std::io::Result<&Encoded> {
        let Some(slot) = self.slot(coding) else {
            return Ok(&self.identity);
        };
        if let Some(made) = slot.get() {
            return Ok(made);
        }
        let body = compression::compress(&self.identity.body, coding)?;
        let etag = validator::for_coding(&self.identity.etag, coding);
        Ok(slot.get_or_init(|| Box::new(Encoded { body, etag })))
    }

    fn slot(&self, coding: Coding) -> Option<&OnceLock<Box<Encoded>>> {
        let [gzip, brotli, zstd] = &self.compressed;
        match coding {
            Coding::Identity => None,
            Coding::Gzip => Some(gzip),
            Coding::Brotli => Some(brotli),
            Coding::Zstd => Some(zstd),
        }
    }

    fn same_content(&self, other: &Self) -> bool {
        self.identity.body == other.identity.body
    }

    fn weight(&self) -> usize {
        let compressed: usize = self
            .compressed
            .iter()
            .filter_map(OnceLock::get)
            .map(|encoded| encoded.weight())
            .sum();
        self.identity.weight() + compressed + self.last_modified.header.len() + size_of::<Self>()
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("etag", &self.identity.etag)
            .field("bytes", &self.identity.body.len())
            .finish_non_exhaustive()
    }
}

// === impl Encoded ===

impl Encoded {
    fn weight(&self) -> usize {
        self.body.len() + self.etag.len() + size_of::<Self>()
    }
}

// === impl Modified ===

impl Modified {
    fn new(at: Timestamp) -> Self {
        let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
        Self {
            header: http_date(at),
            at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ProcessedAt, UsageRow};

    fn snapshot(seats: u64) -> Snapshot {
        let row = UsageRow {
            service_code: None,
            service_name: "o365".into(),
            product_id: None,
            product_name: "EXCHANGE ONLINE (PLAN 1)".into(),
            channel: Some("reseller".into()),
            workload_code: None,
            workload_name: "Exchange".into(),
            licenses_active: 0,
            licenses_qualified: seats,
            usage_percent: Some(0.0),
            processed_at: ProcessedAt("2017-03-09T00:00:00Z".parse().unwrap()),
        };
        let customer = CustomerId::parse("4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04").unwrap();
        Snapshot::new(customer, Some("DEMO".into()), vec![row]).unwrap()
    }

    fn prepared(seats: u64, native: &'static [u8], seen_at: i64) -> Prepared {
        let seen_at = Timestamp::from_second(seen_at).unwrap();
        Prepared::new(&snapshot(seats), Some(Bytes::from_static(native)), seen_at).unwrap()
    }

    #[test]
    fn the_native_form_is_the_bytes_that_came() {
        let prepared = prepared(5, b"\xef\xbb\xbf{}", 1);

        let (_, encoded) = prepared.ready(Form::Native, Coding::Identity).unwrap();

        assert_eq!(&encoded.body[..], b"\xef\xbb\xbf{}");
    }

    #[test]
    fn every_form_and_coding_has_a_validator_of_its_own() {
        let prepared = prepared(5, b"{}", 1);
        let mut etags = std::collections::HashSet::new();

        for form in [Form::Simplified, Form::Csv, Form::Native] {
            for coding in [Coding::Identity, Coding::Gzip, Coding::Brotli, Coding::Zstd] {
                let (_, encoded) = prepared.render(form, coding).unwrap().unwrap();
                assert!(etags.insert(encoded.etag.clone()), "{form:?} {coding:?}");
            }
        }
    }

    #[test]
    fn a_coding_is_compressed_once() {
        let prepared = prepared(5, b"{}", 1);
        assert!(prepared.ready(Form::Simplified, Coding::Gzip).is_none());

        let first = prepared.render(Form::Simplified, Coding::Gzip).unwrap();
        let first = first.unwrap().1.body.as_ptr();

        let again = prepared.ready(Form::Simplified, Coding::Gzip).unwrap();
        assert_eq!(again.1.body.as_ptr(), first);
    }

    #[test]
    fn the_same_content_keeps_its_validator_and_modification_time() {
        let first = prepared(5, b"{}", 1);
        first.render(Form::Simplified, Coding::Gzip).unwrap();

        let second = prepared(5, b"{}", 99).succeeding(&first);

        let (document, _) = second.ready(Form::Simplified, Coding::Gzip).unwrap();
        assert_eq!(document.last_modified().at.as_second(), 1);
    }

    #[test]
    fn only_the_form_that_changed_is_newly_modified() {
        let first = prepared(5, b"{}", 1);

        let second = prepared(5, b"{ }", 99).succeeding(&first);

        let modified = |form| {
            second
                .document(form)
                .unwrap()
                .last_modified()
                .at
                .as_second()
        };
        assert_eq!(modified(Form::Simplified), 1);
        assert_eq!(modified(Form::Native), 99);
        assert!(!second.is_unchanged_from(&first));
    }

    #[test]
    fn what_is_made_later_adds_to_the_weight() {
        let prepared = prepared(5, b"{}", 1);
        let before = prepared.weight();

        prepared.render(Form::Csv, Coding::Zstd).unwrap();

        assert!(prepared.weight() > before);
    }
}
