//! App+User, the secure application model: a refresh token is redeemed, and may rotate.
//!
//! A rotated refresh token is on disk before the access token that came with it is used: a process
//! that forgot it at its next start would lock the partner out.

use secrecy::{ExposeSecret, SecretString};

use super::{
    client_proof::ClientCredential,
    endpoint::{GrantForm, TokenEndpoint},
    outcome::{GrantFailure, ObtainedToken},
    secret_file::{Fingerprint, ReplaceError, SecretFile, UnreadableSecret},
};
use crate::{clock::SharedClock, partner_center::metrics::UpstreamMetrics};

/// The `refresh_token` grant (RFC 6749 §6).
#[derive(Debug)]
pub(in crate::partner_center) struct RefreshToken {
    endpoint: TokenEndpoint,
    file: SecretFile,
    /// The newest token, while it could not be written; it wins over the one that it replaces.
    unsaved: Option<UnsavedRefreshToken>,
    /// Of what was shown last, or took its place; `None` when it could not be read.
    shown: Option<Fingerprint>,
    clock: SharedClock,
    metrics: UpstreamMetrics,
}

/// A rotated token that is held in memory alone.
#[derive(Debug)]
struct UnsavedRefreshToken {
    token: SecretString,
    /// Of the token in the file that it replaces: itself, where the file has it and only the
    /// folder was not flushed.
    replaces: Fingerprint,
}

// === impl RefreshToken ===

impl RefreshToken {
    pub(super) fn new(
        endpoint: TokenEndpoint,
        file: SecretFile,
        clock: SharedClock,
        metrics: UpstreamMetrics,
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
    pub(super) async fn obtain(&mut self) -> Result<ObtainedToken, GrantFailure> {
        self.shown = None;
        self.save().await;
        let (credential, token) = self.credentials().await?;
        self.shown = Some(fingerprint(&credential, &token));

        let granted = self
            .endpoint
            .redeem(&credential, GrantForm::RefreshToken(&token))
            .await
            .inspect_err(|failure| {
                if failure.refuses_refresh_token() {
                    self.forget_unsaved();
                }
            })?;
        if let Some(rotated) = granted.refresh_token
            && rotated.expose_secret() != token.expose_secret()
        {
            self.metrics.refresh_token_issued(self.clock.wall_time());
            self.shown = Some(fingerprint(&credential, &rotated));
            let replaces = match self.unsaved.take() {
                // The file still holds what that one was to replace.
                Some(unsaved) => unsaved.replaces,
                None => Fingerprint::of(&[&token]),
            };
            self.unsaved = Some(UnsavedRefreshToken {
                token: rotated,
                replaces,
            });
            self.save().await;
        }
        granted.access
    }

    /// Whether the files hold anything else than what was shown last.
    pub(super) async fn has_changed(&self) -> bool {
        if self.is_overtaken().await {
            return true;
        }
        let now = self.credentials().await.ok();
        now.map(|(credential, token)| fingerprint(&credential, &token)) != self.shown
    }

    /// Whether a rotated token is held in memory alone.
    pub(super) fn has_unsaved(&self) -> bool {
        self.unsaved.is_some()
    }

    /// Writes the token that is held in memory alone, if there is one, over the one it replaces and
    /// over no other.
    pub(super) async fn save(&mut self) {
        if self.is_overtaken().await {
            tracing::warn!(
                "the refresh token's file holds another token than the one that was rotated: a \
                 person or another replica put it there, and it is taken"
            );
            self.forget_unsaved();
        }
        let Some(unsaved) = &mut self.unsaved else {
            return;
        };
        match self.file.replace(&unsaved.token).await {
            Ok(()) => {
                self.unsaved = None;
                tracing::info!("the rotated refresh token was written to its file");
            }
            Err(ReplaceError::Unflushed(error)) => {
                unsaved.replaces = Fingerprint::of(&[&unsaved.token]);
                tracing::error!(
                    path = %self.file.path().display(),
                    %error,
                    "the rotated refresh token is in its file, but the folder cannot be flushed to \
                     disk: if this machine crashes, the old token may come back; check the disk"
                );
            }
            Err(ReplaceError::Unwritten(error)) => tracing::error!(
                path = %self.file.path().display(),
                %error,
                "the rotated refresh token cannot be written and is held in memory alone: make \
                 room, or make the directory writable, before this process ends"
            ),
        }
        self.metrics.refresh_token_unsaved(self.unsaved.is_some());
    }

    /// Whether the file holds another token than the one that the unsaved one replaces.
    async fn is_overtaken(&self) -> bool {
        let Some(unsaved) = &self.unsaved else {
            return false;
        };
        match self.file.read().await {
            Ok(token) => Fingerprint::of(&[&token]) != unsaved.replaces,
            Err(_unreadable) => false,
        }
    }

    async fn credentials(&self) -> Result<(ClientCredential, SecretString), UnreadableSecret> {
        let credential = self.endpoint.credential().await?;
        if let Some(unsaved) = &self.unsaved {
            return Ok((credential, unsaved.token.clone()));
        }
        // Read each time: another replica may have rotated it.
        let token = self.file.read().await?;
        if let Some(modified) = self.file.modified().await {
            self.metrics.refresh_token_issued(modified);
        }
        Ok((credential, token))
    }

    /// Lets the file win again: a refused token is worth nothing, and the file's may be a new one.
    fn forget_unsaved(&mut self) {
        self.unsaved = None;
        self.metrics.refresh_token_unsaved(false);
    }
}

/// Of all that is shown together.
fn fingerprint(credential: &ClientCredential, token: &SecretString) -> Fingerprint {
    let mut parts = credential.parts();
    parts.push(token);
    Fingerprint::of(&parts)
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::{
        config::AuthConfig,
        partner_center::{
            request,
            test_support::{TestCredentials, UpstreamFixture},
        },
    };

    #[tokio::test]
    async fn a_folder_that_was_not_flushed_is_not_taken_for_another_replicas_token() {
        static BROKEN: AtomicBool = AtomicBool::new(true);
        let fixture = UpstreamFixture::new(TestCredentials::RefreshToken).await;
        let AuthConfig::RefreshToken {
            grant: config,
            refresh_token_file,
        } = &fixture.config.auth
        else {
            panic!("the fixture redeems a refresh token");
        };
        let http = request::http_client(&fixture.config, fixture.clock.clone()).unwrap();
        let metrics = UpstreamMetrics::register(&fixture.registry).unwrap();
        let endpoint = TokenEndpoint::new(
            (http, None),
            config,
            fixture.config.attempt_timeout,
            metrics.clone(),
        );
        let file = SecretFile::new(refresh_token_file, "k").flushing_folders_by(|_| {
            if BROKEN.load(Ordering::Relaxed) {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            Ok(())
        });
        let mut grant = RefreshToken::new(endpoint, file, fixture.clock.clone(), metrics);
        let [old, rotated] = ["refresh-1", "refresh-2"].map(SecretString::from);
        grant.unsaved = Some(UnsavedRefreshToken {
            token: rotated,
            replaces: Fingerprint::of(&[&old]),
        });

        grant.save().await;
        let unflushed = (fixture.read("rotating/refresh"), grant.has_unsaved());
        let overtaken = grant.is_overtaken().await;
        grant.save().await;
        let still_unflushed = grant.has_unsaved();
        BROKEN.store(false, Ordering::Relaxed);
        grant.save().await;

        assert_eq!(unflushed, ("refresh-2".to_owned(), true));
        assert!(!overtaken, "the token in the file is our own");
        assert!(still_unflushed);
        assert_eq!(fixture.read("rotating/refresh"), "refresh-2");
        assert!(!grant.has_unsaved());
    }
}
