use super::ProcessedDate;

/// What is known of an answer that is handed out as it came: enough to tell one that looks like a
/// fault of the upstream's from the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentSummary {
    processed_date: Option<ProcessedDate>,
    rows: Vec<RowName>,
}

/// What a row of such an answer is about; each where the upstream sent one.
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

// === impl Outline ===

impl DocumentSummary {
    /// Of rows in any order, the newest of which was processed then.
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

    /// What the rows are about, in one order.
    pub fn rows(&self) -> &[RowName] {
        &self.rows
    }
}
