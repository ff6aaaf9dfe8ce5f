//! The settings that are allowed but are probably mistakes.

use percent_encoding::percent_decode_str;

use super::{
    auth::{AuthConfig, TokenAudience, TokenEndpointVersion, upstream_auth},
    key::AnyConfigKey,
    load::Config,
    sections::{cache, callers_jwt, server, upstream},
    value_type::StoreUrl,
};
use crate::domain::UpstreamApi;

impl Config {
    /// Returns a sentence for each setting that is allowed but probably a mistake.
    pub fn warnings(&self) -> Vec<String> {
        let (drain, request) = (self.server.drain_timeout, self.server.request_timeout);
        let deadline = self.upstream.deadline;
        let max_body = u64::try_from(self.upstream.max_body).unwrap_or(u64::MAX);
        [
            self.insights_without_user(),
            self.audience_mismatch(),
            (self.cache.max_bytes < max_body).then(|| {
                self.below(
                    &cache::max_bytes,
                    &upstream::max_body,
                    "the largest answers cannot be cached",
                )
            }),
            (drain < deadline).then(|| {
                self.below(
                    &server::drain_timeout,
                    &upstream::deadline,
                    "a shutdown may cut a request that waits for Partner Center",
                )
            }),
            (request < deadline).then(|| {
                self.below(
                    &server::request_timeout,
                    &upstream::deadline,
                    "a request that waits for Partner Center may be cut before its answer comes",
                )
            }),
            self.unknown_log_level(),
            self.unlikely_store_file(),
        ]
        .into_iter()
        .flatten()
        .chain(self.placeholder_warnings())
        .collect()
    }

    fn below(&self, key: &dyn AnyConfigKey, other: &dyn AnyConfigKey, danger: &str) -> String {
        let value = |key| self.settings.text(key).unwrap_or_default();
        format!(
            "{} = {} is below {} = {}: {danger}",
            key.name(),
            value(key),
            other.name(),
            value(other),
        )
    }

    /// Warns of values that were copied from an example and not replaced.
    fn placeholder_warnings(&self) -> impl Iterator<Item = String> {
        let keys: [&dyn AnyConfigKey; 5] = [
            &upstream_auth::token_url,
            &upstream_auth::client_id,
            &callers_jwt::issuer,
            &callers_jwt::audience,
            &callers_jwt::jwks_url,
        ];
        keys.into_iter().filter_map(|key| {
            let placeholder = find_placeholder(self.settings.text(key)?)?;
            Some(format!(
                "{} still has the placeholder {placeholder:?}; replace it with your own value",
                key.name()
            ))
        })
    }

    fn insights_without_user(&self) -> Option<String> {
        let app_only = matches!(self.upstream.auth, AuthConfig::ClientCredentials { .. });
        (app_only && self.upstream.source == UpstreamApi::Insights).then(|| {
            "upstream.auth.kind = \"client_credentials\" with upstream.source = \"insights\": \
             Partner Center refuses that call without a user; choose \
             upstream.auth.kind = \"refresh_token\" (that \"commercial\" takes an application \
             alone is unproven)"
                .to_owned()
        })
    }

    fn audience_mismatch(&self) -> Option<String> {
        let grant = self.upstream.auth.grant()?;
        let version = TokenEndpointVersion::from_url(&grant.token_url)?;
        let needed = match (version, &grant.audience) {
            (TokenEndpointVersion::V1, TokenAudience::Scope(_)) => &upstream_auth::resource,
            (TokenEndpointVersion::V2, TokenAudience::Resource(_)) => &upstream_auth::scope,
            _ => return None,
        };
        Some(format!(
            "upstream.auth.token_url is of the version that needs {}, which is not set",
            needed.name()
        ))
    }

    fn unlikely_store_file(&self) -> Option<String> {
        const TEMPORARY_FOLDERS: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

        let Some(StoreUrl::Sqlite(file)) = &self.store.url else {
            return None;
        };
        let danger = if file.is_relative() {
            "is relative to the folder that the service is started in; give the whole path"
        } else if TEMPORARY_FOLDERS
            .iter()
            .any(|folder| file.starts_with(folder))
        {
            "is in a folder that the system empties; use one such as /var/lib/usage-proxy"
        } else {
            return None;
        };
        Some(format!("store.url: {} {danger}", file.display()))
    }

    /// Warns of a bare word that is no level: `EnvFilter` takes `inof` as a target, and silences all
    /// the rest.
    fn unknown_log_level(&self) -> Option<String> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let word = self.log.filter.split(',').find(|directive| {
            let bare = !directive.is_empty() && !directive.contains(['=', '[', ':']);
            let level = LEVELS
                .iter()
                .any(|level| directive.eq_ignore_ascii_case(level));
            bare && !level && directive.parse::<u8>().is_err()
        })?;
        Some(format!(
            "log.filter: {word:?} is not a level, so it is read as the target to trace; the levels \
             are {}",
            LEVELS.join(", ")
        ))
    }
}

/// Returns the part of a value that is a placeholder of our examples or of Microsoft's
/// documentation, whose company is Contoso.
fn find_placeholder(value: &str) -> Option<String> {
    const NAMES: [&str; 4] = ["TENANT", "CLIENT_ID", "CLIENT_ID_OF_USAGE_PROXY", "REALM"];
    const NIL: &str = "00000000-0000-0000-0000-000000000000";
    // A URL has `{tenant}` as `%7Btenant%7D`.
    let mut parts = value
        .split('/')
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned());
    parts.find(|part| {
        let framed = |open, close| part.starts_with(open) && part.ends_with(close);
        NAMES.contains(&part.as_str())
            || part == NIL
            || part.starts_with("contoso.")
            || framed('{', '}')
            || framed('<', '>')
    })
}
