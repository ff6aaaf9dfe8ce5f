use std::time::Duration;

use super::{keys, settings::RawSettings};

/// `cache.*`: how much is held, and for how long it may be served.
///
/// Every duration counts from when our copy arrived. The two stale windows both begin where
/// freshness ends ([RFC 5861 §3–4](https://www.rfc-editor.org/rfc/rfc5861#section-3)), so
/// `stale_if_error` is never the shorter one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// What all held snapshots may weigh, in bytes; above zero. Default `256MiB`.
    pub max_bytes: u64,
    /// How long the newest date is served without asking upstream; above zero. Default `15m`.
    pub fresh_for: Duration,
    /// How long past that it is served at once while one refresh runs; zero never does.
    /// Default `1h`.
    pub stale_while_revalidate: Duration,
    /// How long past freshness it is served when asking upstream fails; zero never does.
    /// Default `7d`.
    pub stale_if_error: Duration,
    /// The time that a request waits for upstream before it is served stale data; the upstream call
    /// continues. Zero does not wait. Default `2s`.
    pub soft_timeout: Duration,
    /// How long "no such customer" and "no relationship" are remembered; zero never does.
    /// Default `30s`.
    pub negative_fresh_for: Duration,
    /// The time for which the absence of a date older than the customer's newest is remembered; zero
    /// never does. Default `24h`.
    pub past_absence_fresh_for: Duration,
    /// Between two upstream calls that callers' `no-cache` may force for one customer and date; zero
    /// lets every one through. Default `30s`.
    pub min_refresh_interval: Duration,
    /// How much later a second answer must say the same for missing rows to be believed; zero
    /// believes them at once. Default `15m`.
    pub suspect_confirm_after: Duration,
}

impl CacheConfig {
    pub(super) fn read(settings: &RawSettings) -> Option<Self> {
        Some(Self {
            max_bytes: settings.get(&keys::CACHE_MAX_BYTES)?,
            fresh_for: settings.get(&keys::CACHE_FRESH_FOR)?,
            stale_while_revalidate: settings.get(&keys::CACHE_STALE_WHILE_REVALIDATE)?,
            stale_if_error: settings.get(&keys::CACHE_STALE_IF_ERROR)?,
            soft_timeout: settings.get(&keys::CACHE_SOFT_TIMEOUT)?,
            negative_fresh_for: settings.get(&keys::CACHE_NEGATIVE_FRESH_FOR)?,
            past_absence_fresh_for: settings.get(&keys::CACHE_PAST_ABSENCE_FRESH_FOR)?,
            min_refresh_interval: settings.get(&keys::CACHE_MIN_REFRESH_INTERVAL)?,
            suspect_confirm_after: settings.get(&keys::CACHE_SUSPECT_CONFIRM_AFTER)?,
        })
    }
}
