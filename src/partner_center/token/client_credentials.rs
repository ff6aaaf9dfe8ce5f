//! App only: the client's own credentials. The insights call refuses such tokens, and nobody has shown
//! that another call about usage takes them.

use super::{
    GrantFailure, ObtainedToken,
    endpoint::{GrantForm, TokenEndpoint},
    secret_file::Fingerprint,
};

/// The `client_credentials` grant (RFC 6749 §4.4).
#[derive(Debug)]
pub(in crate::partner_center) struct ClientCredentials {
    endpoint: TokenEndpoint,
    /// Of what was shown last; `None` when it could not be read.
    shown: Option<Fingerprint>,
}

// === impl ClientCredentials ===

impl ClientCredentials {
    pub(super) fn new(endpoint: TokenEndpoint) -> Self {
        Self {
            endpoint,
            shown: None,
        }
    }

    pub(super) async fn obtain(&mut self) -> Result<ObtainedToken, GrantFailure> {
        self.shown = None;
        let credential = self.endpoint.credential().await?;
        self.shown = Some(Fingerprint::of(&credential.parts()));
        let granted = self
            .endpoint
            .redeem(&credential, GrantForm::ClientCredentials)
            .await?;
        granted.access
    }

    /// Whether the files hold anything else than what was shown last.
    pub(super) async fn has_changed(&self) -> bool {
        let now = self.endpoint.credential().await.ok();
        now.map(|credential| Fingerprint::of(&credential.parts())) != self.shown
    }
}
