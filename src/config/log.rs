use super::{
    choices::{LogFormat, RequestLog},
    keys,
    settings::RawSettings,
};

/// `log.*`: what is logged, and how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How lines are written. Absent by default: `text` on a terminal, `json` elsewhere, decided
    /// by whoever owns the output.
    pub format: Option<LogFormat>,
    /// A [`tracing_subscriber::EnvFilter`], known to parse. Default `info`.
    pub filter: String,
    /// Which requests leave a line. Default `all`.
    pub requests: RequestLog,
}

impl LogConfig {
    pub(super) fn read(settings: &RawSettings) -> Option<Self> {
        Some(Self {
            format: settings.get(&keys::LOG_FORMAT),
            filter: settings.get(&keys::LOG_FILTER)?,
            requests: settings.get(&keys::LOG_REQUESTS)?,
        })
    }
}
