use super::{ProcessedDate, UpstreamApi};

/// Which of a customer's snapshots is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// The newest processed data, as told by this call.
    Newest(UpstreamApi),
    /// The data of one processed date; only the commercial call can tell it.
    Dated(ProcessedDate),
}

// === impl Question ===

impl Question {
    /// The upstream call that answers it.
    pub fn api(self) -> UpstreamApi {
        match self {
            Self::Newest(api) => api,
            Self::Dated(_) => UpstreamApi::Commercial,
        }
    }
}
