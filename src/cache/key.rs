use crate::domain::{CustomerId, ProcessedDate, UpstreamApi};

/// Whose newest date, as told by which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NewestKey {
    /// The customer.
    pub customer_id: CustomerId,
    /// The call: its answers differ in what fields they have.
    pub api: UpstreamApi,
}

/// Which snapshot: every input that changes its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotKey {
    /// The customer.
    pub customer_id: CustomerId,
    /// The call that told it.
    pub api: UpstreamApi,
    /// The processed date; `None` for an answer without rows, which has none.
    pub date: Option<ProcessedDate>,
}

// === impl NewestKey ===

impl NewestKey {
    pub(super) fn snapshot(self, date: Option<ProcessedDate>) -> SnapshotKey {
        SnapshotKey {
            customer_id: self.customer_id,
            api: self.api,
            date,
        }
    }
}

// === impl SnapshotKey ===

impl SnapshotKey {
    pub(super) fn newest(self) -> NewestKey {
        NewestKey {
            customer_id: self.customer_id,
            api: self.api,
        }
    }
}
