//! The claims of a signed token.

use std::{collections::HashSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::rejection::TokenRejection;
use crate::{
    config::JwtConfig,
    domain::{CallerScope, CustomerAccess, CustomerId, ScopeSet},
};

/// The tolerated difference between the issuer's clock and ours.
pub(super) const LEEWAY: Duration = Duration::from_secs(60);

/// The longest caller name in bytes; it is logged with every request.
const MAX_SUBJECT_LENGTH: usize = 256;

/// The caller and the rights that a valid token names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    /// The value of `callers.jwt.subject_claim`, after [`VerifiedToken::PREFIX`].
    name: Arc<str>,
    /// The granted scopes, none if the claim is absent; `None` if `callers.jwt.scopes_claim` is not
    /// configured.
    pub scopes: Option<ScopeSet>,
    /// The granted customers, none if the claim is absent; `None` if `callers.jwt.customers_claim`
    /// is not configured.
    pub customers: Option<CustomerAccess>,
}

// === impl VerifiedToken ===

impl VerifiedToken {
    /// The prefix of the name of a caller that is not in the callers file. Names in the file cannot
    /// contain it, so logs cannot confuse the two.
    pub const PREFIX: &str = "token:";

    pub(super) fn new(
        subject: &str,
        scopes: Option<ScopeSet>,
        customers: Option<CustomerAccess>,
    ) -> Self {
        Self {
            name: format!("{}{subject}", Self::PREFIX).into(),
            scopes,
            customers,
        }
    }

    /// Returns the value of the claim that names the caller.
    pub fn subject(&self) -> &str {
        self.name.strip_prefix(Self::PREFIX).unwrap_or_default()
    }

    /// Returns the name of the caller if the callers file does not have it.
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }
}

/// Reads the claims of a signed token, and for how long from `now` they are valid.
///
/// # Errors
///
/// [`TokenRejection`] if the token is not valid now, or a claim is missing or malformed.
pub(super) fn read(
    claims: &Map<String, Value>,
    config: &JwtConfig,
    now: Timestamp,
) -> Result<(VerifiedToken, Duration), TokenRejection> {
    let valid_for = valid_for(claims, now)?;
    let subject = subject(claims.get(&config.subject_claim)).ok_or(TokenRejection::Subject)?;
    let scopes = config
        .scopes_claim
        .as_ref()
        .map(|claim| scopes(claims.get(claim)));
    let customers = config
        .customers_claim
        .as_ref()
        .map(|claim| customers(claims.get(claim)))
        .transpose()?;
    let verified = VerifiedToken::new(subject, scopes, customers);
    Ok((verified, valid_for))
}

/// Checks `exp` and `nbf` (RFC 7519 §4.1.4 and §4.1.5), which may have fractions.
fn valid_for(claims: &Map<String, Value>, now: Timestamp) -> Result<Duration, TokenRejection> {
    let now = now.as_duration().as_secs_f64();
    let expires = match claims.get("exp").and_then(Value::as_f64) {
        Some(seconds) => seconds + LEEWAY.as_secs_f64(),
        None => return Err(TokenRejection::Expired),
    };
    if now >= expires {
        return Err(TokenRejection::Expired);
    }
    match claims.get("nbf") {
        None | Some(Value::Null) => {}
        Some(from) => match from.as_f64() {
            Some(seconds) if now >= seconds - LEEWAY.as_secs_f64() => {}
            Some(_) => return Err(TokenRejection::NotYetValid),
            None => return Err(TokenRejection::Malformed),
        },
    }
    Ok(Duration::try_from_secs_f64(expires - now).unwrap_or(Duration::MAX))
}

fn subject(claim: Option<&Value>) -> Option<&str> {
    let is_valid = |name: &&str| {
        (1..=MAX_SUBJECT_LENGTH).contains(&name.len()) && !name.contains(char::is_control)
    };
    claim?.as_str().filter(is_valid)
}

/// Returns the known scopes; a claim that is absent or malformed grants nothing.
fn scopes(claim: Option<&Value>) -> ScopeSet {
    string_list(claim)
        .into_iter()
        .flatten()
        .filter_map(CallerScope::from_name)
        .collect()
}

/// Returns no customers if the claim is absent. A malformed list is rejected, so that somebody
/// corrects it.
fn customers(claim: Option<&Value>) -> Result<CustomerAccess, TokenRejection> {
    let mut names = match claim {
        None => Vec::new(),
        Some(_) => string_list(claim).ok_or(TokenRejection::Customers)?,
    };
    let count = names.len();
    names.retain(|name| *name != "*");
    let ids: HashSet<_> = names
        .iter()
        .map(|name| CustomerId::parse(name).map_err(|_| TokenRejection::Customers))
        .collect::<Result<_, _>>()?;
    Ok(if names.len() < count {
        CustomerAccess::All
    } else {
        CustomerAccess::Only(Arc::new(ids))
    })
}

/// Reads a list of texts, or one text with spaces between its items (RFC 8693 §4.2).
fn string_list(claim: Option<&Value>) -> Option<Vec<&str>> {
    match claim? {
        Value::String(text) => Some(text.split(' ').filter(|item| !item.is_empty()).collect()),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        _ => None,
    }
}
