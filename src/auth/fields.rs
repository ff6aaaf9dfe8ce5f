//! What a `[[caller]]` may state: each field's name, and what its values look like.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use crate::{
    access_key::KeyHash,
    domain::{CallerScope, CustomerId},
    resilience::token_bucket::RateQuota,
};

/// One field.
pub(super) struct CallerField<T: 'static> {
    pub(super) name: &'static str,
    /// Completes "expected …".
    pub(super) expected: &'static str,
    /// Why a text is no value of this field completes "the value …".
    pub(super) parse: fn(&str) -> Result<T, String>,
    /// Whether a bad value may be repeated: it could be a key that was put in its hash's place.
    pub(super) shown: bool,
}

/// Whose usage, as it is written in `customers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CustomerPattern {
    Everybodys,
    One(CustomerId),
}

/// Every field's name.
pub(super) const NAMES: [&str; 8] = [
    NAME.name,
    KEY_SHA256.name,
    JWT_SUBJECT.name,
    CLIENT_CERTIFICATE.name,
    CUSTOMERS.name,
    CUSTOMERS_FILE.name,
    SCOPES.name,
    RATE.name,
];

pub(super) const NAME: CallerField<String> = CallerField {
    name: "name",
    expected: "1 to 64 letters, digits, `.`, `_` or `-`, and not `anonymous`",
    parse: |text| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match text {
            // What the log calls who shows nothing, where nobody has to, and where somebody had to.
            "anonymous" | "-" => Err("has a meaning of its own".into()),
            _ if (1..=64).contains(&text.len()) && text.bytes().all(plain) => Ok(text.to_owned()),
            _ => Err("is no name".into()),
        }
    },
    shown: true,
};

pub(super) const KEY_SHA256: CallerField<KeyHash> = CallerField {
    name: "key_sha256",
    expected: KeyHash::EXPECTED,
    parse: |text| KeyHash::parse(text).map_err(|invalid| invalid.to_string()),
    shown: false,
};

pub(super) const JWT_SUBJECT: CallerField<String> = CallerField {
    name: "jwt_subject",
    expected: "the subject of the caller's tokens, such as `api://portal`",
    parse: identifier,
    shown: true,
};

pub(super) const CLIENT_CERTIFICATE: CallerField<String> = CallerField {
    name: "client_certificate",
    expected: "the common name of the caller's certificate, such as `grafana.contoso.com`",
    parse: identifier,
    shown: true,
};

pub(super) const CUSTOMERS: CallerField<CustomerPattern> = CallerField {
    name: "customers",
    expected: "`[\"*\"]`, or a list of GUIDs such as `4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04`",
    parse: |text| match text {
        "*" => Ok(CustomerPattern::Everybodys),
        _ => CustomerId::parse(text)
            .map(CustomerPattern::One)
            .map_err(|_| "is no GUID".into()),
    },
    shown: true,
};

pub(super) const CUSTOMERS_FILE: CallerField<PathBuf> = CallerField {
    name: "customers_file",
    expected: "the path of a file with a GUID a line; from the folder of this file, unless it \
               begins with `/`",
    parse: |text| match text {
        "" => Err("is empty".into()),
        _ if text.contains(char::is_control) => Err("holds control characters".into()),
        _ => Ok(PathBuf::from(text)),
    },
    shown: true,
};

pub(super) const SCOPES: CallerField<CallerScope> = CallerField {
    name: "scopes",
    expected: "a list of `usage:read` and `cache:refresh`",
    parse: |text| CallerScope::from_name(text).ok_or_else(|| "is no scope".into()),
    shown: true,
};

pub(super) const RATE: CallerField<RateQuota> = CallerField {
    name: "rate",
    expected: "so many requests a second, minute or hour, such as `50/s`, `600/m` or `1000/h`, \
               from 1 to 1000000; left out, there is no limit",
    parse: rate,
    shown: true,
};

fn identifier(text: &str) -> Result<String, String> {
    match text {
        "" => Err("is empty".into()),
        _ if text.len() > 256 => Err("is longer than 256 bytes".into()),
        _ if text.contains(char::is_control) => Err("holds control characters".into()),
        _ if text.trim() != text => Err("begins or ends with a space".into()),
        _ => Ok(text.to_owned()),
    }
}

fn rate(text: &str) -> Result<RateQuota, String> {
    const MOST: u32 = 1_000_000;

    let none = || "is no rate".to_owned();
    let (quota, unit) = text.split_once('/').ok_or_else(none)?;
    let period = match unit.trim() {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(60 * 60),
        _ => return Err(none()),
    };
    let quota: NonZeroU32 = quota.trim().parse().map_err(|_| none())?;
    if quota.get() > MOST {
        return Err("is out of range".into());
    }
    RateQuota::new(quota, period).map_err(|error| error.to_string())
}
