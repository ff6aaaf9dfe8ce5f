//! Values that are one of a few words.

/// `upstream.auth.kind`, which decides which other `upstream.auth.*` keys apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthKind {
    RefreshToken,
    ClientCredentials,
    TokenFile,
}

// === impl AuthKind ===

impl AuthKind {
    pub(super) const ALL: [Self; 3] =
        [Self::RefreshToken, Self::ClientCredentials, Self::TokenFile];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::RefreshToken => "refresh_token",
            Self::ClientCredentials => "client_credentials",
            Self::TokenFile => "token_file",
        }
    }
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
