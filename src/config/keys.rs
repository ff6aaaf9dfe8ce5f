//! The list of all keys, and the search in it.

use super::{
    auth::upstream_auth,
    error::{ConfigError, Source, is_secret_name},
    key::{AnyConfigKey, last_part},
    sections::{
        admin, admin_tls, cache, callers, callers_jwt, fleet, log, metrics, portfolio, server,
        server_tls, store, tracing, upstream,
    },
};

/// The keys of each table, in the order in which the configuration is printed.
pub(super) static TABLES: &[&[&dyn AnyConfigKey]] = &[
    server::KEYS,
    server_tls::KEYS,
    admin::KEYS,
    admin_tls::KEYS,
    callers::KEYS,
    callers_jwt::KEYS,
    upstream::KEYS,
    upstream_auth::KEYS,
    cache::KEYS,
    store::KEYS,
    fleet::KEYS,
    portfolio::KEYS,
    metrics::KEYS,
    log::KEYS,
    tracing::KEYS,
];

pub(super) fn all() -> impl Iterator<Item = &'static dyn AnyConfigKey> {
    TABLES.iter().copied().flatten().copied()
}

pub(super) fn find(name: &str) -> Option<&'static dyn AnyConfigKey> {
    all().find(|key| key.name() == name)
}

/// Returns true if there are keys below this name.
pub(super) fn is_table(name: &str) -> bool {
    all()
        .filter_map(|key| key.name().strip_prefix(name))
        .any(|rest| rest.starts_with('.'))
}

/// Returns the key whose variable has this name but for the number of underscores. Other variables
/// that begin with `USAGE_PROXY_` are not ours.
pub(super) fn by_misspelled_variable(variable_name: &str) -> Option<&'static dyn AnyConfigKey> {
    let single = |name: &str| name.replace("__", "_");
    let meant = single(&variable_name.to_ascii_uppercase());
    all().find(|key| single(&key.variable()) == meant)
}

/// Reports a name that is not a key. Never prints its value, which may be anything.
pub(super) fn unknown_key(source: Source, name: &str) -> ConfigError {
    let Some(nearest) = nearest(name) else {
        return ConfigError::at(source, format!("{name}: unknown key"));
    };
    let problem = if is_table(name) {
        format!(
            "{name}: is a table; expected keys in it, such as {}",
            nearest.name()
        )
    } else if let Some(file) = secret_file_key(name, nearest.name()) {
        format!(
            "{name}: secrets must not be in configuration; write it to a file of its own, and name \
             that file in {} or {}",
            file.name(),
            file.variable(),
        )
    } else if let Source::Variable(_) = source {
        let variable = nearest.variable();
        let nearest = nearest.name();
        format!("{name}: unknown key; the nearest is {nearest}, as {variable}")
    } else {
        format!("{name}: unknown key; the nearest is {}", nearest.name())
    };
    ConfigError::at(source, problem)
}

/// Returns the key that was most likely meant: first one with the same last part in another table,
/// then one that was cut short, then the one with the fewest letters to change.
fn nearest(name: &str) -> Option<&'static dyn AnyConfigKey> {
    all().min_by_key(|key| {
        (
            last_part(key.name()) != last_part(name),
            !key.name().starts_with(name),
            strsim::damerau_levenshtein(key.name(), name),
        )
    })
}

/// Returns the key of a secret's file, for an unknown key that would have the secret itself.
fn secret_file_key(name: &str, nearest: &str) -> Option<&'static dyn AnyConfigKey> {
    let part = last_part(name);
    let is_typing_error = strsim::damerau_levenshtein(part, last_part(nearest)) <= 2;
    if is_typing_error || !is_secret_name(part) {
        None
    } else if part.contains("refresh") {
        Some(&upstream_auth::refresh_token_file)
    } else if part.contains("token") {
        Some(&upstream_auth::token_file)
    } else {
        Some(&upstream_auth::client_secret_file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{key::InputValue, value_type::USAGE_API},
        domain::UpstreamApi,
    };

    #[test]
    fn every_default_is_a_value_of_its_key() {
        for key in all() {
            if let Some(text) = key.default() {
                let accepted = key.check(&InputValue::Text(text.to_owned()));

                assert_eq!(accepted, Ok(text.to_owned()), "{}", key.name());
            }
        }
    }

    #[test]
    fn every_usage_call_is_named_where_a_value_is_expected() {
        for name in UpstreamApi::OF_USAGE.map(UpstreamApi::as_str) {
            assert!(USAGE_API.expected.contains(name), "{name}");
        }
    }

    #[test]
    fn no_key_is_a_table_too() {
        for key in all() {
            assert!(!is_table(key.name()), "{}", key.name());
        }
        assert!(is_table("upstream"));
        assert!(is_table("upstream.auth"));
        assert!(!is_table("up"));
    }

    #[test]
    fn the_nearest_key_is_the_one_that_was_meant() {
        for (written, meant) in [
            ("cache.fresh_fro", "cache.fresh_for"),
            ("cahce.max_bytes", "cache.max_bytes"),
            ("fresh_for", "cache.fresh_for"),
            ("upstream.kind", "upstream.auth.kind"),
            ("server.drain", "server.drain_timeout"),
            ("log.level", "log.filter"),
        ] {
            let found = nearest(written).map(AnyConfigKey::name);

            assert_eq!(found, Some(meant), "{written}");
        }
    }
}
