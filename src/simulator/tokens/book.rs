use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::simulator::Faults;

/// Every token that was given out or redeemed, and what became of it.
#[derive(Debug)]
pub(in crate::simulator) struct TokenBook {
    entries: Mutex<Entries>,
}

#[derive(Debug)]
struct Entries {
    access: HashMap<String, Access>,
    refresh: HashMap<String, Refresh>,
    /// Which refresh token each replaced.
    replaced: HashMap<String, String>,
    reused: usize,
    rotate: bool,
    expires_in: Duration,
}

/// On whose behalf an access token is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simulator) enum Grant {
    /// App+User: came of a refresh token.
    User,
    /// App only: came of client credentials.
    App,
}

#[derive(Clone, Debug)]
struct Access {
    grant: Grant,
    expires_at: Instant,
    /// The refresh token that it came for.
    redeemed: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refresh {
    Live,
    /// Redeemed, and nothing that came for it was used.
    Used,
    /// Redeemed, and what came for it was used.
    Outlived,
    Revoked,
}

/// What becomes of a refresh token that is redeemed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    Accepted,
    /// Accepted until anything is used that came for it.
    AcceptedForAWhile,
    Refused,
}

/// How a refresh token is redeemed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Redemption {
    pub(super) reuse: Reuse,
    pub(super) now: Instant,
}

/// What a token request gets.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) grant: Grant,
    pub(super) access_token: String,
    pub(super) refresh_token: Option<String>,
    pub(super) expires_in: Duration,
}

// === impl Reuse ===

impl Reuse {
    pub(super) fn under(faults: &Faults) -> Self {
        match (faults.strict_rotation, faults.graceful_rotation) {
            (true, _) => Self::Refused,
            (false, true) => Self::AcceptedForAWhile,
            (false, false) => Self::Accepted,
        }
    }

    fn accepts(self, redeemed: Refresh) -> bool {
        match self {
            Self::Accepted => true,
            Self::AcceptedForAWhile => redeemed == Refresh::Used,
            Self::Refused => false,
        }
    }
}

// === impl TokenBook ===

impl TokenBook {
    pub(in crate::simulator) fn new(rotate: bool, expires_in: Duration) -> Self {
        Self {
            entries: Mutex::new(Entries {
                access: HashMap::new(),
                refresh: HashMap::new(),
                replaced: HashMap::new(),
                reused: 0,
                rotate,
                expires_in,
            }),
        }
    }

    /// Redeems a refresh token, which may be one that nobody has seen before; `None` when it is
    /// refused.
    pub(super) fn redeem(&self, presented: &str, redemption: Redemption) -> Option<Issued> {
        let mut entries = self.entries();
        match entries.refresh.get(presented) {
            Some(Refresh::Revoked) => return None,
            Some(redeemed @ (Refresh::Used | Refresh::Outlived)) => {
                let accepted = redemption.reuse.accepts(*redeemed);
                entries.reused += 1;
                if !accepted {
                    return None;
                }
            }
            Some(Refresh::Live) | None => {}
        }
        let redeemed = entries.rotate.then(|| presented.to_owned());
        let mut issued = entries.issue(Grant::User, redeemed, redemption.now);
        if entries.rotate {
            issued.refresh_token = Some(entries.replace(presented));
        } else {
            let state = entries.refresh.entry(presented.to_owned());
            state.or_insert(Refresh::Live);
        }
        Some(issued)
    }

    pub(super) fn issue(&self, grant: Grant, now: Instant) -> Issued {
        self.entries().issue(grant, None, now)
    }

    /// What a live access token was granted for; `None` when it is unknown, expired or revoked.
    pub(in crate::simulator) fn grant(&self, access_token: &str, now: Instant) -> Option<Grant> {
        let mut entries = self.entries();
        let access = entries.access.get(access_token)?.clone();
        if access.expires_at <= now {
            return None;
        }
        if let Some(redeemed) = &access.redeemed {
            entries.outlive(redeemed);
        }
        Some(access.grant)
    }

    pub(in crate::simulator) fn issue_refresh_token(&self) -> String {
        self.entries().issue_refresh_token()
    }

    /// Refresh tokens that would be redeemed without being a reuse.
    pub(in crate::simulator) fn live_refresh_tokens(&self) -> Vec<String> {
        let entries = self.entries();
        let live = entries
            .refresh
            .iter()
            .filter(|(_, state)| **state == Refresh::Live);
        live.map(|(token, _)| token.clone()).collect()
    }

    pub(in crate::simulator) fn reused_refresh_tokens(&self) -> usize {
        self.entries().reused
    }

    pub(in crate::simulator) fn revoke_refresh_token(&self, token: &str) {
        let mut entries = self.entries();
        entries.refresh.insert(token.to_owned(), Refresh::Revoked);
    }

    pub(in crate::simulator) fn revoke_access_tokens(&self) {
        self.entries().access.clear();
    }

    pub(in crate::simulator) fn set_expires_in(&self, expires_in: Duration) {
        self.entries().expires_in = expires_in;
    }

    pub(in crate::simulator) fn set_rotate(&self, rotate: bool) {
        self.entries().rotate = rotate;
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Entries ===

impl Entries {
    fn issue(&mut self, grant: Grant, redeemed: Option<String>, now: Instant) -> Issued {
        let access_token = unguessable();
        let expires_at = now + self.expires_in;
        self.access.retain(|_, access| access.expires_at > now);
        let access = Access {
            grant,
            expires_at,
            redeemed,
        };
        self.access.insert(access_token.clone(), access);
        Issued {
            grant,
            access_token,
            refresh_token: None,
            expires_in: self.expires_in,
        }
    }

    /// Issues the refresh token that comes instead of one that is redeemed.
    fn replace(&mut self, redeemed: &str) -> String {
        if let Some(outlived) = self.replaced.get(redeemed).cloned() {
            self.outlive(&outlived);
        }
        let state = self.refresh.entry(redeemed.to_owned());
        let state = state.or_insert(Refresh::Live);
        if *state == Refresh::Live {
            *state = Refresh::Used;
        }
        let token = self.issue_refresh_token();
        self.replaced.insert(token.clone(), redeemed.to_owned());
        token
    }

    /// Something is used that came for this refresh token.
    fn outlive(&mut self, redeemed: &str) {
        if let Some(state @ Refresh::Used) = self.refresh.get_mut(redeemed) {
            *state = Refresh::Outlived;
        }
    }

    fn issue_refresh_token(&mut self) -> String {
        let token = unguessable();
        self.refresh.insert(token.clone(), Refresh::Live);
        token
    }
}

/// 244 random bits as text.
fn unguessable() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}
