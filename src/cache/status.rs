/// How an answer came about, in the words of `Cache-Status` (RFC 9211 §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Answered from what was held, without waiting for upstream.
    pub hit: bool,
    /// Why upstream was asked.
    pub forward: Option<ForwardReason>,
    /// The status upstream answered with, where it answered.
    pub forward_status: Option<u16>,
    /// The upstream's answer is held from now on.
    pub stored: bool,
    /// Another request's call was waited for.
    pub collapsed: bool,
    /// Whole seconds until the answer goes stale; negative since it has.
    pub ttl: Option<i64>,
    /// What the other parameters cannot say.
    pub detail: Option<&'static str>,
}

/// Why upstream was asked (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardReason {
    /// Nothing was held.
    UriMiss,
    /// What was held was stale.
    Stale,
    /// The caller asked for it.
    Request,
}

/// What a request found in the cache: the label of metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheResult {
    /// Held and fresh.
    Hit,
    /// Held and stale, and served.
    Stale,
    /// Not held, or too old: upstream was asked.
    Miss,
    /// A failure or absence that was remembered.
    Negative,
    /// The caller had upstream asked.
    Bypass,
}

// === impl CacheStatus ===

impl CacheStatus {
    /// The answer has nothing to do with what is held.
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

// === impl Forward ===

impl ForwardReason {
    /// The token of the `fwd` parameter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UriMiss => "uri-miss",
            Self::Stale => "stale",
            Self::Request => "request",
        }
    }
}

// === impl CacheResult ===

impl CacheResult {
    /// Every result, in the order of their discriminants.
    pub const ALL: [Self; 5] = [
        Self::Hit,
        Self::Stale,
        Self::Miss,
        Self::Negative,
        Self::Bypass,
    ];

    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Negative => "negative",
            Self::Bypass => "bypass",
        }
    }
}
