use percent_encoding::percent_decode_str;

use super::{
    AuthConfig, Config, TokenAudience,
    auth::TokenEndpointVersion,
    duration,
    keys::{self, AnyConfigKey},
    size,
};
use crate::domain::UpstreamApi;

impl Config {
    /// What is allowed but hardly meant, each a sentence that names its keys.
    pub fn warnings(&self) -> Vec<String> {
        [
            self.insights_without_user(),
            self.audience_mismatch(),
            self.cache_below_max_body(),
            self.drain_timeout_below_deadline(),
            self.request_timeout_below_deadline(),
            self.unknown_log_level(),
        ]
        .into_iter()
        .flatten()
        .chain(self.placeholder_warnings())
        .collect()
    }

    /// Values that were copied from an example and not replaced.
    fn placeholder_warnings(&self) -> impl Iterator<Item = String> {
        let keys: [&dyn AnyConfigKey; 5] = [
            &keys::AUTH_TOKEN_URL,
            &keys::AUTH_CLIENT_ID,
            &keys::JWT_ISSUER,
            &keys::JWT_AUDIENCE,
            &keys::JWT_JWKS_URL,
        ];
        keys.into_iter().filter_map(|key| {
            let value = key.text(self)?;
            let placeholder = find_placeholder(&value)?;
            Some(format!(
                "{} still has the placeholder {placeholder:?}; put your own value in its place",
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
        let wanted = match (
            TokenEndpointVersion::from_url(&grant.token_url)?,
            &grant.audience,
        ) {
            (TokenEndpointVersion::V1, TokenAudience::Scope(_)) => "upstream.auth.resource",
            (TokenEndpointVersion::V2, TokenAudience::Resource(_)) => "upstream.auth.scope",
            _ => return None,
        };
        Some(format!(
            "upstream.auth.token_url is of the version that wants {wanted}, which is not configured"
        ))
    }

    fn cache_below_max_body(&self) -> Option<String> {
        let (held, body) = (self.cache.max_bytes, self.upstream.max_body);
        (held < u64::try_from(body).unwrap_or(u64::MAX)).then(|| {
            format!(
                "cache.max_bytes = {} is below upstream.max_body: the largest answers cannot be \
                 held",
                size::print(held)
            )
        })
    }

    fn drain_timeout_below_deadline(&self) -> Option<String> {
        let (drain, deadline) = (self.server.drain_timeout, self.upstream.deadline);
        (drain < deadline).then(|| {
            format!(
                "server.drain_timeout = {} is below upstream.deadline = {}: a request that waits \
                 for Partner Center may be cut at shutdown",
                duration::print(&drain),
                duration::print(&deadline),
            )
        })
    }

    fn request_timeout_below_deadline(&self) -> Option<String> {
        let (request, deadline) = (self.server.request_timeout, self.upstream.deadline);
        (request < deadline).then(|| {
            format!(
                "server.request_timeout = {} is below upstream.deadline = {}: a request that waits \
                 for Partner Center may be cut before its answer comes",
                duration::print(&request),
                duration::print(&deadline),
            )
        })
    }

    /// A bare word that is no level is a target to `EnvFilter`: `inof` would silence all the rest.
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
            "log.filter: {word:?} is no level, so it is read as a target to trace; the levels are \
             {}",
            LEVELS.join(", ")
        ))
    }
}

/// The part of a value that stands in examples for one's own: of ours, of the README's, and of
/// Microsoft's documentation, whose company is Contoso.
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
