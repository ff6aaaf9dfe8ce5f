//! The fields of a `[[caller]]`: their names and their values.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use crate::{
    access_key::KeyHash,
    domain::{CallerScope, CustomerId},
    tables_file::{FieldType, TableField, TableKind, parse_identifier},
    token_bucket::RateQuota,
};

pub(super) const CALLER: TableKind = TableKind {
    name: "caller",
    fields: &[
        NAME.name,
        KEY_SHA256.name,
        JWT_SUBJECT.name,
        CLIENT_CERTIFICATE.name,
        CUSTOMERS.name,
        CUSTOMERS_FILE.name,
        SCOPES.name,
        RATE.name,
    ],
    labels: &[NAME.name],
};

pub(super) const NAME: TableField<String> = TableField {
    name: "name",
    expected: "1 to 64 letters, digits, `.`, `_` or `-`, and not `anonymous`",
    value_type: FieldType::Text,
    parse: |text| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match text {
            // The log uses these two for requests without a caller.
            "anonymous" | "-" => Err("is reserved".into()),
            _ if (1..=64).contains(&text.len()) && text.bytes().all(is_plain) => Ok(text.into()),
            _ => Err("is not a name".into()),
        }
    },
    unique_by: Some(String::clone),
};

/// A bad value is never printed: it could be a key in the place of its hash.
pub(super) const KEY_SHA256: TableField<KeyHash> = TableField {
    name: "key_sha256",
    expected: KeyHash::EXPECTED,
    value_type: FieldType::HiddenText,
    parse: |text| KeyHash::parse(text).map_err(|invalid| invalid.to_string()),
    unique_by: Some(KeyHash::to_string),
};

pub(super) const JWT_SUBJECT: TableField<String> = TableField {
    name: "jwt_subject",
    expected: "the subject of the caller's tokens, such as `api://portal`",
    value_type: FieldType::Text,
    parse: parse_identifier,
    unique_by: Some(String::clone),
};

pub(super) const CLIENT_CERTIFICATE: TableField<String> = TableField {
    name: "client_certificate",
    expected: "the common name of the caller's certificate, such as `grafana.contoso.com`",
    value_type: FieldType::Text,
    parse: parse_identifier,
    unique_by: Some(String::clone),
};

/// `None` is `*`, every customer.
pub(super) const CUSTOMERS: TableField<Option<CustomerId>> = TableField {
    name: "customers",
    expected: "`[\"*\"]`, or a list of GUIDs such as `4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04`",
    value_type: FieldType::Text,
    parse: |text| match text {
        "*" => Ok(None),
        _ => CustomerId::parse(text)
            .map(Some)
            .map_err(|_| "is not a GUID".into()),
    },
    unique_by: None,
};

pub(super) const CUSTOMERS_FILE: TableField<PathBuf> = TableField {
    name: "customers_file",
    expected: "the path of a file with one GUID per line, relative to the folder of this file \
               unless it begins with `/`",
    value_type: FieldType::Text,
    parse: |text| match text {
        "" => Err("is empty".into()),
        _ if text.contains(char::is_control) => Err("contains control characters".into()),
        _ => Ok(PathBuf::from(text)),
    },
    unique_by: None,
};

pub(super) const SCOPES: TableField<CallerScope> = TableField {
    name: "scopes",
    expected: "a list of `usage:read` and `cache:refresh`",
    value_type: FieldType::Text,
    parse: |text| CallerScope::from_name(text).ok_or_else(|| "is not a scope".into()),
    unique_by: None,
};

pub(super) const RATE: TableField<RateQuota> = TableField {
    name: "rate",
    expected: "a number of requests, from 1 to 1000000, per second, minute or hour, such as \
               `50/s`, `600/m` or `1000/h`; without this field, there is no limit",
    value_type: FieldType::Text,
    parse: parse_rate,
    unique_by: None,
};

fn parse_rate(text: &str) -> Result<RateQuota, String> {
    const MAX_QUOTA: u32 = 1_000_000;

    let invalid = || "is not a rate".to_owned();
    let (quota, unit) = text.split_once('/').ok_or_else(invalid)?;
    let period = match unit.trim() {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(60 * 60),
        _ => return Err(invalid()),
    };
    let quota: NonZeroU32 = quota.trim().parse().map_err(|_| invalid())?;
    if quota.get() > MAX_QUOTA {
        return Err("is out of range".into());
    }
    RateQuota::new(quota, period).map_err(|error| error.to_string())
}
