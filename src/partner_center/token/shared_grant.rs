//! Access tokens that replicas share: one redeems the credentials, and the others take its token from the
//! store.
//!
//! The refresh token is in the store too. A person's file is only read: its token counts if the stored one
//! neither came from it nor replaced it.

use std::{sync::Arc, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};

use super::{
    account::{OpenedTokens, RefreshToken, StoredAccessToken, TokenAccount, TokenHash, token_hash},
    credential::ClientCredential,
    endpoint::{GrantForm, TokenEndpoint},
    grant::fingerprint,
    outcome::{GrantFailure, GrantFailureKind, GrantedToken},
    secret_file::{Fingerprint, SecretFile},
};
use crate::{
    clock::SharedClock,
    partner_center::{deps::SharedTokenStore, metrics::UpstreamMetrics},
    sealing::{OpenSealedError, SealingKeys},
    store::{
        Coordination, HeldLease, LEASE_TIME, LeaseEnd, LeaseTurn, SealedTokens, StoreError,
        WantedLease,
    },
};

/// A grant of an account whose tokens replicas share.
#[derive(Debug)]
pub(crate) struct SharedGrant {
    endpoint: TokenEndpoint,
    /// `None` for the `client_credentials` grant.
    refresh_token_file: Option<SecretFile>,
    account: TokenAccount,
    shared: SharedTokenStore,
    key_file: SecretFile,
    tokens: KnownTokens,
    /// As in [`EndpointGrant`](super::grant::EndpointGrant).
    last_sent: Option<Fingerprint>,
    clock: SharedClock,
    metrics: UpstreamMetrics,
}

/// The tokens as this process knows them.
#[derive(Debug, Default)]
struct KnownTokens {
    /// The version of the stored ones; `None` if there are none.
    version: Option<i64>,
    refresh_token: Option<RefreshToken>,
    /// True if the refresh token is newer than the stored one.
    is_unsaved: bool,
    /// The error if the stored refresh token cannot be decrypted, and its origins.
    locked: Option<(OpenSealedError, Vec<TokenHash>)>,
    /// The access token that is stored with an unsaved refresh token.
    granted: Option<GrantedToken>,
    /// The last token of the file that the token endpoint refused. Any other one is used first.
    refused: Option<TokenHash>,
}

/// The credentials of a redemption.
#[derive(Debug)]
struct ChosenCredentials {
    client: ClientCredential,
    refresh_token: Option<RefreshToken>,
    /// True if a person has put the refresh token into its file.
    is_new: bool,
}

/// The pauses of a replica that waits for another, and is not notified.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

const MAX_PAUSE: Duration = Duration::from_millis(200);

/// The shortest time for which an old access token is used.
const MIN_OLD_LIFETIME: Duration = Duration::from_secs(60);

/// More replicas than can be faster in a row.
const MAX_SWAPS: usize = 4;

// === impl SharedGrant ===

impl SharedGrant {
    pub(crate) fn new(
        endpoint: TokenEndpoint,
        refresh_token_file: Option<SecretFile>,
        account: TokenAccount,
        shared: SharedTokenStore,
        metrics: UpstreamMetrics,
    ) -> Self {
        Self {
            refresh_token_file,
            account,
            key_file: SecretFile::new(&shared.key_file, "store.encryption_key_file"),
            shared,
            tokens: KnownTokens::default(),
            last_sent: None,
            clock: endpoint.clock().clone(),
            endpoint,
            metrics,
        }
    }

    /// Makes one attempt to get another access token than this one: that of another replica, or one of
    /// its own, which it stores. While the store does not answer, each replica redeems by itself.
    pub(crate) async fn obtain(
        &mut self,
        unwanted: Option<&SecretString>,
    ) -> Result<GrantedToken, GrantFailure> {
        self.last_sent = None;
        let deadline = self.clock.now() + self.endpoint.timeout().max(LEASE_TIME);
        let mut notifications = self.shared.store.notifications();
        let mut pause = FIRST_PAUSE;
        let mut lease: Option<HeldLease> = None;
        loop {
            let keys = self.keys().await?;
            let access = match self.load(&keys).await {
                Ok(access) => access,
                Err(_no_answer) => return self.redeem(&keys).await,
            };
            let chosen = self.choose().await?;
            let is_wanted = |access: &StoredAccessToken| {
                let unwanted = unwanted.map(SecretString::expose_secret);
                access.is_young() && unwanted != Some(access.token.expose_secret())
            };
            if let Some(access) = access.clone().filter(is_wanted)
                && !chosen.is_new
            {
                self.last_sent = Some(chosen.fingerprint());
                self.tokens.granted = None;
                tracing::debug!("the access token of another replica is used");
                return Ok(access.granted(self.clock.now()));
            }
            if let Some(lease) = lease {
                let granted = self.redeem(&keys).await;
                lease.release(lease_end(&granted)).await;
                let or_old = |failure| self.take_old(access, unwanted, failure);
                return granted.or_else(or_old);
            }
            let now = self.clock.now();
            match self.shared.leases.acquire(self.wanted_lease()).await {
                // Another one may have ended its own since the look.
                Ok(LeaseTurn::Held(held)) => lease = Some(held),
                Ok(LeaseTurn::Failed { failure, remaining }) => {
                    let failure = GrantFailure {
                        kind: GrantFailureKind::Transient {
                            retry_after: Some(remaining),
                        },
                        ..GrantFailure::transient(&failure, "another replica has asked")
                    };
                    return self.take_old(access, unwanted, failure);
                }
                Ok(_) if now >= deadline => {
                    let detail = "another replica is getting an access token";
                    return Err(GrantFailure::transient(detail, detail));
                }
                Ok(_) => {
                    tokio::select! {
                        () = self.shared.shutdown.cancelled() => {
                            let detail = "the process is shutting down";
                            return Err(GrantFailure::transient(detail, detail));
                        }
                        () = self.clock.sleep_until(now + pause) => {}
                        () = notifications.wait_for(|it| it.may_end(&self.lease_name())) => {}
                    }
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                Err(_no_answer) => return self.redeem(&keys).await,
            }
        }
    }

    /// Returns a stored access token that is old, where there is no other one.
    fn take_old(
        &self,
        stored: Option<StoredAccessToken>,
        unwanted: Option<&SecretString>,
        failure: GrantFailure,
    ) -> Result<GrantedToken, GrantFailure> {
        let is_transient = matches!(failure.kind, GrantFailureKind::Transient { .. });
        let usable = stored.filter(|access| {
            is_transient && unwanted.is_none() && access.remaining > MIN_OLD_LIFETIME
        });
        let Some(access) = usable else {
            return Err(failure);
        };
        tracing::warn!(
            error = failure.cause,
            "no new access token: {}; the stored one is used",
            failure.detail
        );
        Ok(GrantedToken {
            token: access.token,
            lifetime: Some(access.remaining),
            requested_at: self.clock.now(),
        })
    }

    fn wanted_lease(&self) -> WantedLease {
        WantedLease {
            name: self.lease_name().into(),
            unknown_since: Duration::ZERO,
            is_urgent: false,
        }
    }

    fn lease_name(&self) -> String {
        format!("token/{}", self.account.name())
    }

    /// Returns whether the credentials are others than those sent last.
    pub(crate) async fn has_changed(&mut self) -> bool {
        let Ok(keys) = self.keys().await else {
            return false;
        };
        // Without an answer, the file may have changed all the same.
        drop(self.load(&keys).await);
        let current = self.choose().await.ok();
        current.map(|chosen| chosen.fingerprint()) != self.last_sent
    }

    /// Returns whether the newest refresh token is in memory alone.
    pub(crate) fn has_unsaved(&self) -> bool {
        self.tokens.is_unsaved
    }

    /// Stores the newest refresh token, unless another replica has stored one that is as new.
    pub(crate) async fn save(&mut self) {
        let keys = match self.keys().await {
            Ok(keys) => keys,
            Err(failure) => {
                tracing::error!(error = failure.cause, "the refresh token cannot be stored");
                return;
            }
        };
        if self.load(&keys).await.is_ok() {
            self.store_unsaved(&keys).await;
        }
    }

    /// Redeems the newest credentials. The tokens are stored before anything else.
    async fn redeem(&mut self, keys: &SealingKeys) -> Result<GrantedToken, GrantFailure> {
        loop {
            let ChosenCredentials {
                client,
                refresh_token,
                is_new,
            } = self.choose().await?;
            let sent = refresh_token.as_ref().map(|refresh| &refresh.token);
            self.last_sent = Some(fingerprint(&client, sent));
            let form = sent.map_or(GrantForm::ClientCredentials, GrantForm::RefreshToken);
            match (self.endpoint.redeem(&client, form).await, refresh_token) {
                (Ok(granted), refresh_token) => {
                    if let Some(mut refresh_token) = refresh_token {
                        if let Some(rotated) = granted.refresh_token {
                            refresh_token.token = rotated;
                        }
                        self.last_sent = Some(fingerprint(&client, Some(&refresh_token.token)));
                        self.tokens.replace(refresh_token);
                        let now = self.clock.wall_time().as_second();
                        self.metrics.refresh_token_issued.set(now);
                    }
                    self.tokens.granted = granted.access.as_ref().ok().cloned();
                    self.store_unsaved(keys).await;
                    return granted.access;
                }
                (Err(failure), Some(refresh_token))
                    if failure.kind == GrantFailureKind::RefreshTokenRefused =>
                {
                    if !is_new {
                        // Another replica may have stored another one.
                        self.tokens.forget();
                        self.update_gauge();
                        return Err(failure);
                    }
                    // Another replica may store one later.
                    self.tokens.refused = Some(token_hash(&refresh_token.token));
                    if self.tokens.usable().is_none() {
                        return Err(failure);
                    }
                    tracing::error!(
                        error = failure.cause,
                        "the new refresh token of upstream.auth.refresh_token_file is refused, and the \
                         one before it is used"
                    );
                }
                (Err(failure), _) => return Err(failure),
            }
        }
    }

    async fn store_unsaved(&mut self, keys: &SealingKeys) {
        for _ in 0..MAX_SWAPS {
            let now = self.clock.now();
            let granted = self.tokens.granted.as_ref();
            let access = granted.and_then(|granted| StoredAccessToken::at(granted, now));
            let refresh = self.tokens.refresh_token.as_ref();
            if !self.tokens.is_unsaved && access.is_none() {
                break;
            }
            let Some(sealed) = self.account.seal(refresh, access.as_ref(), keys) else {
                break;
            };
            match self.swap(sealed).await {
                Ok(Some(version)) => {
                    self.tokens.version = Some(version);
                    self.tokens.is_unsaved = false;
                    self.tokens.granted = None;
                }
                Ok(None) => {
                    if self.load(keys).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        %error,
                        "the tokens cannot be stored, and are in memory alone until the store works"
                    );
                    break;
                }
            }
        }
        self.update_gauge();
    }

    fn coordination(&self) -> Result<&dyn Coordination, StoreError> {
        let coordination = self.shared.store.coordination();
        coordination.ok_or(StoreError::Unavailable)
    }

    async fn swap(&self, sealed: SealedTokens) -> Result<Option<i64>, StoreError> {
        let name = Arc::clone(self.account.name());
        self.coordination()?
            .swap_tokens(name, self.tokens.version, sealed)
            .await
    }

    /// Reads what is stored, and returns the access token.
    async fn load(&mut self, keys: &SealingKeys) -> Result<Option<StoredAccessToken>, StoreError> {
        let name = Arc::clone(self.account.name());
        let stored = self.coordination()?.tokens(name).await?;
        let opened = stored.map(|stored| self.account.open(stored, keys));
        let changed_at = opened.as_ref().and_then(|opened| {
            let age = jiff::SignedDuration::try_from(opened.age).ok()?;
            self.clock.wall_time().checked_sub(age).ok()
        });
        let access = self.tokens.merge(opened);
        self.update_gauge();
        if let (Some(at), Some(_), false) = (
            changed_at,
            &self.tokens.refresh_token,
            self.tokens.is_unsaved,
        ) {
            self.metrics.refresh_token_issued.set(at.as_second());
        }
        Ok(access)
    }

    /// Returns the newest credentials that are known.
    async fn choose(&self) -> Result<ChosenCredentials, GrantFailure> {
        let client = self.endpoint.credential().await?;
        let Some(file) = &self.refresh_token_file else {
            return Ok(ChosenCredentials {
                client,
                refresh_token: None,
                is_new: false,
            });
        };
        let file = file.read().await;
        let (refresh_token, is_new) = match (file, self.tokens.usable()) {
            (Ok(token), known) if self.tokens.is_new(&token) => {
                let before = match &self.tokens.locked {
                    Some((_, origins)) => origins.clone(),
                    None => known.map_or_else(Vec::new, |known| known.origins.clone()),
                };
                (RefreshToken::of_file(token, before), true)
            }
            (_, Some(known)) => (known.clone(), false),
            (file, None) => {
                if let Some((error, _)) = &self.tokens.locked {
                    return Err(locked_failure(*error));
                }
                (RefreshToken::of_file(file?, Vec::new()), true)
            }
        };
        Ok(ChosenCredentials {
            client,
            refresh_token: Some(refresh_token),
            is_new,
        })
    }

    /// Reads the keys, which may have been replaced since the last time.
    async fn keys(&self) -> Result<SealingKeys, GrantFailure> {
        let text = self.key_file.read().await?;
        SealingKeys::parse(&text).map_err(|error| {
            let cause = format!("store.encryption_key_file, {error}");
            GrantFailure::refused(&format!("a key cannot be used: {cause}"), cause.clone())
        })
    }

    fn update_gauge(&self) {
        let is_unsaved = i64::from(self.tokens.is_unsaved);
        self.metrics.refresh_token_unsaved.set(is_unsaved);
    }
}

// === impl KnownTokens ===

impl KnownTokens {
    /// Takes over what is stored, unless the known refresh token is newer. Returns the stored access
    /// token.
    fn merge(&mut self, stored: Option<OpenedTokens>) -> Option<StoredAccessToken> {
        let seen = self.version;
        self.locked = None;
        let Some(stored) = stored else {
            // Someone has deleted them.
            self.version = None;
            self.is_unsaved = self.refresh_token.is_some();
            return None;
        };
        self.version = Some(stored.version);
        let is_seen = seen == self.version;
        match (stored.refresh_token, &mut self.refresh_token) {
            (Ok(Some(other)), Some(own))
                if self.is_unsaved && (is_seen || !other.is_as_new_as(own)) =>
            {
                own.replace(&other);
            }
            (Ok(None), Some(_)) if self.is_unsaved => {}
            (Ok(other), _) => {
                self.refresh_token = other;
                self.is_unsaved = false;
                if !is_seen {
                    // Another replica has stored one.
                    self.granted = None;
                }
            }
            (Err(error), _) => self.locked = Some((error, stored.origins)),
        }
        stored.access_token
    }

    /// Takes over what the token endpoint has sent.
    fn replace(&mut self, refresh_token: RefreshToken) {
        let is_stored = |known: &RefreshToken| {
            known.origins == refresh_token.origins
                && known.token.expose_secret() == refresh_token.token.expose_secret()
        };
        self.is_unsaved |= !self.usable().is_some_and(is_stored);
        self.refresh_token = Some(refresh_token);
        self.locked = None;
    }

    /// Returns the known refresh token, unless another one is stored that cannot be decrypted.
    fn usable(&self) -> Option<&RefreshToken> {
        self.refresh_token
            .as_ref()
            .filter(|_| self.locked.is_none())
    }

    /// Returns whether a token of the file is one that a person has put there.
    fn is_new(&self, file: &SecretString) -> bool {
        let hash = token_hash(file);
        if self.refused == Some(hash) && self.usable().is_some() {
            return false;
        }
        match (&self.locked, &self.refresh_token) {
            (Some((_, origins)), _) => !origins.contains(&hash),
            (None, Some(known)) => !known.includes(file),
            (None, None) => true,
        }
    }

    /// Forgets a refused refresh token that is in memory alone.
    fn forget(&mut self) {
        if self.is_unsaved {
            self.refresh_token = None;
            self.is_unsaved = false;
        }
    }
}

// === impl ChosenCredentials ===

impl ChosenCredentials {
    fn fingerprint(&self) -> Fingerprint {
        let refresh_token = self.refresh_token.as_ref();
        fingerprint(&self.client, refresh_token.map(|refresh| &refresh.token))
    }
}

/// Lets the other replicas wait too if the token endpoint wants a pause.
fn lease_end(granted: &Result<GrantedToken, GrantFailure>) -> LeaseEnd {
    match granted {
        Err(GrantFailure {
            kind:
                GrantFailureKind::Transient {
                    retry_after: Some(lifetime),
                },
            detail,
            ..
        }) => LeaseEnd::Failed {
            failure: detail.to_string(),
            lifetime: *lifetime,
        },
        _ => LeaseEnd::Abandoned,
    }
}

/// The advice if the stored tokens cannot be decrypted.
fn locked_failure(error: OpenSealedError) -> GrantFailure {
    let action = format!("the stored refresh token cannot be decrypted: {error}; {LOCKED_ADVICE}");
    GrantFailure::refused(&action, action.clone())
}

/// The advice if stored tokens cannot be decrypted with the keys of the file.
pub const LOCKED_ADVICE: &str = "put the key that encrypted it back into store.encryption_key_file; if it is lost, a person \
     must consent again: `usage-proxy consent` puts a new refresh token into \
     upstream.auth.refresh_token_file, and it replaces the stored one";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealing::KeyId;

    fn of_file(token: &str, before: Vec<TokenHash>) -> RefreshToken {
        RefreshToken::of_file(token.into(), before)
    }

    fn stored(version: i64, refresh_token: Result<RefreshToken, OpenSealedError>) -> OpenedTokens {
        OpenedTokens {
            version,
            age: Duration::ZERO,
            key_id: KeyId::UNKNOWN,
            origins: (refresh_token.as_ref()).map_or(vec![[9; 32]], |token| token.origins.clone()),
            refresh_token: refresh_token.map(Some),
            access_token: None,
        }
    }

    /// A token that came from that of a file.
    fn rotated(token: &str, file: &str) -> RefreshToken {
        RefreshToken {
            token: token.into(),
            ..of_file(file, Vec::new())
        }
    }

    fn after_merging(seen: Option<i64>, found: Option<OpenedTokens>) -> (String, bool) {
        let mut tokens = KnownTokens {
            version: seen,
            ..KnownTokens::default()
        };
        tokens.replace(rotated("own", "file"));
        tokens.merge(found);
        let refresh_token = tokens.usable().unwrap();
        (
            refresh_token.token.expose_secret().to_owned(),
            tokens.is_unsaved,
        )
    }

    #[test]
    fn an_unsaved_token_gives_way_to_one_of_another_replica_that_is_as_new() {
        let other = |file: &str| Some(stored(7, Ok(rotated("other", file))));
        for (seen, found, expected) in [
            // It came from this version.
            (Some(7), other("file"), ("own", true)),
            (Some(6), other("file"), ("other", false)),
            (None, other("file"), ("other", false)),
            // A person has put another one into the file since.
            (Some(6), other("older file"), ("own", true)),
            // Someone has deleted what was stored.
            (Some(7), None, ("own", true)),
        ] {
            let (token, is_unsaved) = after_merging(seen, found);

            assert_eq!((&*token, is_unsaved), expected, "{seen:?}");
        }
    }

    #[test]
    fn nothing_but_a_new_token_of_the_file_replaces_what_cannot_be_decrypted() {
        let mut tokens = KnownTokens::default();
        let old = token_hash(&"old".into());
        let mut locked = stored(7, Err(OpenSealedError::Altered));
        locked.origins = vec![old];

        tokens.replace(rotated("own", "old"));
        tokens.merge(Some(locked));

        assert!(tokens.usable().is_none());
        assert!(!tokens.is_new(&"old".into()));
        assert!(tokens.is_new(&"new".into()));
    }
}
