//! A bare access token that another program writes.

use std::path::Path;

use super::{GrantFailure, ObtainedToken, secret_file::SecretFile};
use crate::clock::SharedClock;

/// The file of another program's token.
///
/// It is compared by content: Kubernetes swaps secrets by symlink, which leaves times and inodes
/// to mislead.
#[derive(Debug)]
pub(in crate::partner_center) struct TokenFile {
    file: SecretFile,
    clock: SharedClock,
}

// === impl TokenFile ===

impl TokenFile {
    pub(super) fn new(path: &Path, clock: SharedClock) -> Self {
        Self {
            file: SecretFile::new(path, "upstream.auth.token_file"),
            clock,
        }
    }

    /// Reads the token. Its lifetime is the business of whoever writes it.
    pub(super) async fn obtain(&self) -> Result<ObtainedToken, GrantFailure> {
        let asked_at = self.clock.now();
        // A sidecar may not have written yet, or write again at this moment.
        let token = self.file.read().await.map_err(|fault| {
            GrantFailure::passing(
                "upstream.auth.token_file holds no access token",
                fault.to_string(),
            )
        })?;
        Ok(ObtainedToken {
            token,
            lifetime: None,
            asked_at,
        })
    }
}
