//! Access tokens: obtained from the token endpoint, renewed ahead of expiry, and read by calls.

mod access_tokens;
mod account;
mod credential;
mod endpoint;
mod grant;
mod outcome;
mod refresh_token;
mod refresher;
mod secret_file;
mod shared_grant;
mod state;

pub(super) use self::{
    access_tokens::AccessTokenSource,
    endpoint::{GrantForm, RedeemedCode, TokenEndpoint, offline_scope, person_action},
    grant::TokenGrant,
    outcome::{GrantFailure, GrantFailureKind, GrantedToken},
    secret_file::{ReplaceError, SecretFile},
    state::{AccessToken, RejectedToken, TokenError, TokenErrorReason, TokenRenewal},
};
pub use self::{
    account::{OpenedTokens, TokenAccount},
    shared_grant::LOCKED_ADVICE,
    state::TokenStatus,
};
