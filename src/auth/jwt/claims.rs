use std::{collections::HashSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{TokenRejection, VerifiedToken};
use crate::{
    config::JwtConfig,
    domain::{CallerScope, CustomerAccess, CustomerId, ScopeSet},
};

/// How far the issuer's clock and ours may be apart.
pub(super) const LEEWAY: Duration = Duration::from_secs(60);

/// Bytes of a caller's name; it is logged with every request.
const MAX_SUBJECT_LENGTH: usize = 256;

/// Reads what a signed token says, and for how long from `now` it may go on saying so.
///
/// # Errors
///
/// [`TokenRejection`], when the token is not valid now, or does not say what it should.
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

/// `exp` and `nbf` (RFC 7519 §4.1.4 and §4.1.5), which may have fractions.
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
    let sane = |name: &&str| {
        (1..=MAX_SUBJECT_LENGTH).contains(&name.len()) && !name.contains(char::is_control)
    };
    claim?.as_str().filter(sane)
}

/// What is listed and known; a claim that is absent, or of another form, grants nothing.
fn scopes(claim: Option<&Value>) -> ScopeSet {
    string_list(claim)
        .into_iter()
        .flatten()
        .filter_map(CallerScope::from_name)
        .collect()
}

/// Nobody where the claim is absent. A faulty list grants nothing either, but is refused, so that
/// somebody repairs it.
fn customers(claim: Option<&Value>) -> Result<CustomerAccess, TokenRejection> {
    let mut names = match claim {
        None => Vec::new(),
        Some(_) => string_list(claim).ok_or(TokenRejection::Customers)?,
    };
    let named = names.len();
    names.retain(|name| *name != "*");
    let these: HashSet<_> = names
        .iter()
        .map(|name| CustomerId::parse(name).map_err(|_| TokenRejection::Customers))
        .collect::<Result<_, _>>()?;
    Ok(if names.len() < named {
        CustomerAccess::All
    } else {
        CustomerAccess::Only(Arc::new(these))
    })
}

/// A list of text, or one text with spaces between its items (RFC 8693 §4.2).
fn string_list(claim: Option<&Value>) -> Option<Vec<&str>> {
    match claim? {
        Value::String(text) => Some(text.split(' ').filter(|item| !item.is_empty()).collect()),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        _ => None,
    }
}
