//! App+User, the secure application model: a refresh token is redeemed, and may rotate.
//!
//! A rotated refresh token is on disk before the access token that came with it is used: a process
//! that forgot it at its next start would lock the partner out.

use secrecy::{ExposeSecret, SecretString};

use super::{
    GrantFailure, Obtained,
    endpoint::{Shown, TokenEndpoint},
    secret_file::{Fingerprint, SecretFile, Unreadable},
};
use crate::{clock::SharedClock, upstream::metrics::Metrics};

/// The `refresh_token` grant (RFC 6749 §6).
#[derive(Debug)]
pub(super) struct RefreshToken {
    endpoint: TokenEndpoint,
    file: SecretFile,
    /// The newest token, while it could not be written; it wins over the file's.
    unsaved: Option<SecretString>,
    /// Of what was shown last, or took its place; `None` when it could not be read.
    shown: Option<Fingerprint>,
    clock: SharedClock,
    metrics: Metrics,
}

// === impl RefreshToken ===

impl RefreshToken {
    pub(super) fn new(
        endpoint: TokenEndpoint,
        file: SecretFile,
        clock: SharedClock,
        metrics: Metrics,
    ) -> Self {
        Self {
            endpoint,
            file,
            unsaved: None,
            shown: None,
            clock,
            metrics,
        }
    }

    /// Redeems the refresh token, and keeps the one that replaces it before all else.
    pub(super) async fn obtain(&mut self) -> Result<Obtained, GrantFailure> {
        self.shown = None;
        self.save().await;
        let (secret, token) = self.credentials().await?;
        self.shown = Some(Fingerprint::of(&[&secret, &token]));

        let granted = self
            .endpoint
            .redeem(&secret, Shown::RefreshToken(&token))
            .await
            .inspect_err(|failure| {
                if failure.refuses_refresh_token() {
                    self.forget_unsaved();
                }
            })?;
        if let Some(rotated) = granted.refresh_token
            && rotated.expose_secret() != token.expose_secret()
        {
            self.metrics.refresh_token_issued(self.clock.wall());
            self.shown = Some(Fingerprint::of(&[&secret, &rotated]));
            self.unsaved = Some(rotated);
            self.save().await;
        }
        Ok(granted.access)
    }

    /// Whether the files hold anything else than what was shown last.
    pub(super) async fn has_changed(&self) -> bool {
        let now = self.credentials().await.ok();
        now.map(|(secret, token)| Fingerprint::of(&[&secret, &token])) != self.shown
    }

    /// Whether a rotated token is held in memory alone.
    pub(super) fn has_unsaved(&self) -> bool {
        self.unsaved.is_some()
    }

    /// Writes the token that is held in memory alone, if there is one.
    pub(super) async fn save(&mut self) {
        let Some(token) = &self.unsaved else { return };
        match self.file.replace(token).await {
            Ok(()) => {
                self.unsaved = None;
                tracing::info!("the rotated refresh token was written to its file");
            }
            Err(error) => tracing::error!(
                path = %self.file.path().display(),
                %error,
                "the rotated refresh token cannot be written and is held in memory alone: make \
                 room, or make the directory writable, before this process ends"
            ),
        }
        self.metrics.refresh_token_unsaved(self.unsaved.is_some());
    }

    async fn credentials(&self) -> Result<(SecretString, SecretString), Unreadable> {
        let secret = self.endpoint.client_secret().await?;
        if let Some(unsaved) = &self.unsaved {
            return Ok((secret, unsaved.clone()));
        }
        // Read each time: another replica may have rotated it.
        let token = self.file.read().await?;
        if let Some(modified) = self.file.modified().await {
            self.metrics.refresh_token_issued(modified);
        }
        Ok((secret, token))
    }

    /// Lets the file win again: a refused token is worth nothing, and the file's may be a new one.
    fn forget_unsaved(&mut self) {
        self.unsaved = None;
        self.metrics.refresh_token_unsaved(false);
    }
}
