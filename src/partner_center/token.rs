//! Access tokens: how they are obtained, renewed ahead of expiry, and read by calls.

mod access_tokens;
mod authorization_code;
mod client_proof;
mod endpoint;
mod grant;
mod outcome;
mod refresh_token;
mod refresher;
mod rejections;
mod secret_file;
mod state;

pub use self::state::TokenStatus;
pub(super) use self::{
    access_tokens::AccessTokenSource,
    authorization_code::{AuthorizationCode, CodeRequest, refused_sign_in},
    endpoint::RedeemedCode,
    grant::TokenGrant,
    outcome::{GrantFailure, ObtainedToken},
    state::{AccessToken, RejectedToken, TokenError, TokenRenewal},
};
