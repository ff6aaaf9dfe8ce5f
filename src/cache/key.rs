use crate::domain::{CustomerId, ProcessedDate, Resource, UpstreamApi};

/// The key of a newest date: one for each resource, whatever date it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NewestKey {
    /// `None` for the partner's own data.
    pub customer: Option<CustomerId>,
    /// The call: the answers of each have other fields.
    pub api: UpstreamApi,
}

/// The key of a snapshot: every input that changes its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotKey {
    /// `None` for the partner's own data.
    pub customer: Option<CustomerId>,
    /// The call that returned it.
    pub api: UpstreamApi,
    /// The processed date; `None` for an answer that has none, such as one without rows.
    pub date: Option<ProcessedDate>,
}

// === impl NewestKey ===

impl From<Resource> for NewestKey {
    fn from(resource: Resource) -> Self {
        Self {
            customer: resource.customer(),
            api: resource.api(),
        }
    }
}

impl NewestKey {
    pub(super) fn snapshot(self, date: Option<ProcessedDate>) -> SnapshotKey {
        SnapshotKey {
            customer: self.customer,
            api: self.api,
            date,
        }
    }
}

// === impl SnapshotKey ===

impl SnapshotKey {
    pub(super) fn newest(self) -> NewestKey {
        NewestKey {
            customer: self.customer,
            api: self.api,
        }
    }
}
