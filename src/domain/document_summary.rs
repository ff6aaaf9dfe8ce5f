use super::ProcessedDate;

/// A summary of a document that is served unchanged, to recognize an answer that looks like a fault of
/// the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentSummary {
    processed_date: Option<ProcessedDate>,
    rows: Vec<RowName>,
}

/// The names in a row of a document, as far as the upstream sent them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowName {
    /// The service, such as `o365` or `crm`.
    pub service: Option<String>,
    /// The product.
    pub product: Option<String>,
    /// The workload.
    pub workload: Option<String>,
    /// The sales channel, such as `reseller`.
    pub channel: Option<String>,
}

// === impl DocumentSummary ===

impl DocumentSummary {
    /// Creates the summary of rows in any order, with their newest date.
    pub fn new(processed_date: Option<ProcessedDate>, mut rows: Vec<RowName>) -> Self {
        rows.sort();
        Self {
            processed_date,
            rows,
        }
    }

    /// The newest date of the rows; `None` where none has one.
    pub fn processed_date(&self) -> Option<ProcessedDate> {
        self.processed_date
    }

    /// The names of the rows, sorted.
    pub fn rows(&self) -> &[RowName] {
        &self.rows
    }
}
