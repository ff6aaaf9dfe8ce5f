//! The tokens that were issued.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::simulator::faults::Faults;

/// Every issued or redeemed token and its state.
#[derive(Debug)]
pub(in crate::simulator) struct TokenRegistry {
    entries: Mutex<TokenRegistryState>,
}

#[derive(Debug)]
struct TokenRegistryState {
    access: HashMap<String, AccessTokenEntry>,
    refresh: HashMap<String, RefreshTokenState>,
    /// The refresh token that each one replaced.
    replaced: HashMap<String, String>,
    reused: usize,
    expires_in: Duration,
}

/// The identity behind an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simulator) enum AccessGrant {
    /// App+User, from a refresh token.
    User,
    /// App only, from client credentials.
    App,
}

#[derive(Clone, Debug)]
struct AccessTokenEntry {
    grant: AccessGrant,
    expires_at: Instant,
    /// The refresh token that was redeemed for it.
    redeemed_refresh_token: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RefreshTokenState {
    Unused,
    /// Redeemed, and no token issued for it was used.
    Used,
    /// Redeemed, and a token issued for it was used.
    Superseded,
    Revoked,
}

/// The tokens that answer a token request.
#[derive(Debug)]
pub(super) struct IssuedTokens {
    pub(super) grant: AccessGrant,
    pub(super) access_token: String,
    pub(super) refresh_token: Option<String>,
    pub(super) expires_in: Duration,
}

// === impl TokenRegistry ===

impl TokenRegistry {
    pub(in crate::simulator) fn new(expires_in: Duration) -> Self {
        Self {
            entries: Mutex::new(TokenRegistryState {
                access: HashMap::new(),
                refresh: HashMap::new(),
                replaced: HashMap::new(),
                reused: 0,
                expires_in,
            }),
        }
    }

    /// Redeems a refresh token, also one that was not issued here. Returns `None` if it is
    /// rejected.
    pub(super) fn redeem(
        &self,
        presented: &str,
        faults: &Faults,
        now: Instant,
    ) -> Option<IssuedTokens> {
        let mut entries = self.lock_state();
        match entries.refresh.get(presented) {
            Some(RefreshTokenState::Revoked) => return None,
            Some(redeemed @ (RefreshTokenState::Used | RefreshTokenState::Superseded)) => {
                let is_superseded = *redeemed == RefreshTokenState::Superseded;
                entries.reused += 1;
                if faults.strict_rotation || faults.graceful_rotation && is_superseded {
                    return None;
                }
            }
            Some(RefreshTokenState::Unused) | None => {}
        }
        let redeemed = Some(presented.to_owned());
        let mut issued = entries.issue(AccessGrant::User, redeemed, now);
        issued.refresh_token = Some(entries.replace(presented));
        Some(issued)
    }

    pub(super) fn issue(&self, grant: AccessGrant, now: Instant) -> IssuedTokens {
        self.lock_state().issue(grant, None, now)
    }

    /// Returns the grant of an access token; `None` if it is unknown, expired or revoked.
    pub(in crate::simulator) fn grant(
        &self,
        access_token: &str,
        now: Instant,
    ) -> Option<AccessGrant> {
        let mut entries = self.lock_state();
        let access = entries.access.get(access_token)?.clone();
        if access.expires_at <= now {
            return None;
        }
        if let Some(redeemed) = &access.redeemed_refresh_token {
            entries.mark_superseded(redeemed);
        }
        Some(access.grant)
    }

    pub(in crate::simulator) fn issue_refresh_token(&self) -> String {
        self.lock_state().issue_refresh_token()
    }

    /// Refresh tokens that were not redeemed yet.
    pub(in crate::simulator) fn live_refresh_tokens(&self) -> Vec<String> {
        let entries = self.lock_state();
        let live = entries
            .refresh
            .iter()
            .filter(|(_, state)| **state == RefreshTokenState::Unused);
        live.map(|(token, _)| token.clone()).collect()
    }

    pub(in crate::simulator) fn reused_refresh_tokens(&self) -> usize {
        self.lock_state().reused
    }

    pub(in crate::simulator) fn revoke_refresh_token(&self, token: &str) {
        let mut entries = self.lock_state();
        entries
            .refresh
            .insert(token.to_owned(), RefreshTokenState::Revoked);
    }

    pub(in crate::simulator) fn revoke_access_tokens(&self) {
        self.lock_state().access.clear();
    }

    fn lock_state(&self) -> MutexGuard<'_, TokenRegistryState> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl TokenRegistryState ===

impl TokenRegistryState {
    fn issue(
        &mut self,
        grant: AccessGrant,
        redeemed: Option<String>,
        now: Instant,
    ) -> IssuedTokens {
        let access_token = random_token();
        let expires_at = now + self.expires_in;
        self.access.retain(|_, access| access.expires_at > now);
        let access = AccessTokenEntry {
            grant,
            expires_at,
            redeemed_refresh_token: redeemed,
        };
        self.access.insert(access_token.clone(), access);
        IssuedTokens {
            grant,
            access_token,
            refresh_token: None,
            expires_in: self.expires_in,
        }
    }

    /// Issues the refresh token that replaces a redeemed one.
    fn replace(&mut self, redeemed: &str) -> String {
        if let Some(outlived) = self.replaced.get(redeemed).cloned() {
            self.mark_superseded(&outlived);
        }
        let state = self.refresh.entry(redeemed.to_owned());
        let state = state.or_insert(RefreshTokenState::Unused);
        if *state == RefreshTokenState::Unused {
            *state = RefreshTokenState::Used;
        }
        let token = self.issue_refresh_token();
        self.replaced.insert(token.clone(), redeemed.to_owned());
        token
    }

    /// Records that a token issued for this refresh token is used.
    fn mark_superseded(&mut self, redeemed: &str) {
        if let Some(state @ RefreshTokenState::Used) = self.refresh.get_mut(redeemed) {
            *state = RefreshTokenState::Superseded;
        }
    }

    fn issue_refresh_token(&mut self) -> String {
        let token = random_token();
        self.refresh
            .insert(token.clone(), RefreshTokenState::Unused);
        token
    }
}

/// 244 random bits as text.
fn random_token() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}
