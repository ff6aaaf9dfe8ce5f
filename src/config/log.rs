use super::{keys, settings::RawSettings};

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

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// For people.
    Text,
}

/// Which requests leave a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestLog {
    /// Every one.
    All,
    /// Those that ended in 4xx or 5xx, and slow ones.
    Problems,
    /// None.
    Off,
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

impl LogFormat {
    pub(super) const ALL: [Self; 2] = [Self::Json, Self::Text];

    /// The name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
        }
    }
}

impl RequestLog {
    pub(super) const ALL: [Self; 3] = [Self::All, Self::Problems, Self::Off];

    /// The name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Problems => "problems",
            Self::Off => "off",
        }
    }
}
