use crate::domain::{ProcessedDate, Subject, UpstreamApi};

/// Whose newest date, as told by which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NewestKey {
    /// Whose data it is.
    pub subject: Subject,
    /// The call: its answers differ in what fields they have.
    pub api: UpstreamApi,
}

/// Which snapshot: every input that changes its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotKey {
    /// Whose data it is.
    pub subject: Subject,
    /// The call that told it.
    pub api: UpstreamApi,
    /// The processed date; `None` for an answer that has none, such as one without rows.
    pub date: Option<ProcessedDate>,
}

// === impl NewestKey ===

impl NewestKey {
    pub(super) fn snapshot(self, date: Option<ProcessedDate>) -> SnapshotKey {
        SnapshotKey {
            subject: self.subject,
            api: self.api,
            date,
        }
    }
}

// === impl SnapshotKey ===

impl SnapshotKey {
    pub(super) fn newest(self) -> NewestKey {
        NewestKey {
            subject: self.subject,
            api: self.api,
        }
    }
}
