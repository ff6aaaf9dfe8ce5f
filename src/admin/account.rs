//! Whose usage a process serves, told in a way that two can be compared and nothing be learnt.

use sha2::{Digest as _, Sha256};

use crate::config::UpstreamConfig;

/// Bytes that are shown: enough that no two accounts of a partner share them.
const ACCOUNT_ID_BYTES: usize = 8;

/// The same for whoever asks the same Partner Center as the same application of the same tenant.
///
/// In hexadecimal: the beginning of a SHA-256 of `base_url`, `token_url` and `client_id`. No secret
/// goes into it.
pub fn account_id(upstream: &UpstreamConfig) -> String {
    let mut hash = Sha256::new();
    let grant = upstream.auth.grant();
    for part in [
        upstream.base_url.as_str(),
        grant.map_or("", |grant| grant.token_url.as_str()),
        grant.map_or("", |grant| grant.client_id.as_str()),
    ] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let hash = hash.finalize();
    let shown = hash.iter().take(ACCOUNT_ID_BYTES);
    shown.map(|byte| format!("{byte:02x}")).collect()
}
