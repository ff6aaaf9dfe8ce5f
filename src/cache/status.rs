//! The parameters of `Cache-Status` (RFC 9211 §2).

use strum::{EnumCount, IntoStaticStr, VariantArray};

/// The origin of an answer, in the words of `Cache-Status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// It was cached, and nothing waited for upstream.
    pub hit: bool,
    /// The reason why upstream was asked.
    pub forward: Option<ForwardReason>,
    /// The status of upstream's reply.
    pub forward_status: Option<u16>,
    /// The upstream's answer was stored.
    pub stored: bool,
    /// It waited for another request's call.
    pub collapsed: bool,
    /// Whole seconds until the answer goes stale; negative for a stale one.
    pub ttl: Option<i64>,
    /// Anything that the other parameters cannot say.
    pub detail: Option<&'static str>,
}

/// The reason why upstream was asked (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum ForwardReason {
    /// Nothing was cached.
    UriMiss,
    /// The cached answer was stale.
    Stale,
    /// The caller requested it.
    Request,
}

/// The result of a look-up in the cache, as a label of metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum CacheResult {
    /// Cached and fresh.
    Hit,
    /// Cached and stale, and served.
    Stale,
    /// Not cached, or too old: upstream was asked.
    Miss,
    /// A cached failure or absence.
    Negative,
    /// The caller requested that upstream is asked.
    Bypass,
}

// === impl CacheStatus ===

impl CacheStatus {
    /// The answer was cached.
    pub const HIT: Self = Self {
        hit: true,
        detail: None,
        ..Self::NOT_CONSULTED
    };

    /// The cache was not consulted.
    pub const NOT_CONSULTED: Self = Self {
        hit: false,
        forward: None,
        forward_status: None,
        stored: false,
        collapsed: false,
        ttl: None,
        detail: Some("not-consulted"),
    };
}

// === impl ForwardReason ===

impl ForwardReason {
    /// The token of the `fwd` parameter.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

// === impl CacheResult ===

impl CacheResult {
    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
