//! The formats of an answer and their content codings.

/// A format of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Our own JSON, grouped by product and workload.
    Simplified,
    /// CSV with one line per product and workload (RFC 4180).
    Csv,
    /// The same CSV for spreadsheets: no text is taken for a formula.
    Table,
    /// Partner Center's own JSON, byte for byte.
    Native,
    /// Adoption as a picture (SVG 1.1).
    Chart(ChartTheme),
}

/// The colours of a chart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChartTheme {
    /// Light or dark, as the reader's system prefers.
    #[default]
    Reader,
    /// For light pages.
    Light,
    /// For dark pages.
    Dark,
}

/// A content coding (RFC 9110 §8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentCoding {
    /// Uncompressed.
    Identity,
    /// gzip (RFC 1952).
    Gzip,
    /// Brotli (RFC 7932).
    Brotli,
    /// Zstandard (RFC 8878).
    Zstd,
}

// === impl Format ===

impl Format {
    /// Returns the media type with its parameters.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Simplified => "application/json",
            Self::Csv | Self::Table => "text/csv; charset=utf-8; header=present",
            Self::Native => "application/json; charset=utf-8",
            Self::Chart(_) => "image/svg+xml",
        }
    }

    /// Returns true for `application/json`.
    pub const fn is_json(self) -> bool {
        matches!(self, Self::Simplified | Self::Native)
    }
}

// === impl ContentCoding ===

impl ContentCoding {
    /// The codings that compress, in the order of [`Self::compressed_index`].
    pub(crate) const COMPRESSED: [Self; 3] = [Self::Gzip, Self::Brotli, Self::Zstd];

    /// Returns the value of `Content-Encoding`; `None` for identity, which has none.
    pub const fn token(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Brotli => Some("br"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// The CPU time to encode a body, as a multiple of the time to read it.
    pub(crate) const fn compression_cost(self) -> usize {
        match self {
            Self::Identity => 1,
            Self::Gzip | Self::Brotli | Self::Zstd => 32,
        }
    }

    /// Returns the index among [`Self::COMPRESSED`].
    pub(crate) const fn compressed_index(self) -> Option<usize> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some(0),
            Self::Brotli => Some(1),
            Self::Zstd => Some(2),
        }
    }
}
