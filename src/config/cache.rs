use std::time::Duration;

/// `cache.*`: how much is held, and for how long it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Memory for everything held, in bytes.
    pub max_bytes: u64,
    /// How long the newest date of a customer is served without asking.
    pub fresh_for: Duration,
    /// How long past that it is served at once, with a refresh behind it.
    pub stale_while_revalidate: Duration,
    /// How long past `fresh_for` it is served when the upstream fails.
    pub stale_if_error: Duration,
    /// How long "no such customer" and "no relationship" are remembered.
    pub negative_fresh_for: Duration,
    /// The shortest time between two calls that callers may force for one customer.
    pub min_refresh_interval: Duration,
}
