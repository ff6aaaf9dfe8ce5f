//! The rules between keys: those that are missing, out of place, or in conflict with another.

use std::net::{IpAddr, SocketAddr};

use super::{
    auth::{TokenEndpointVersion, upstream_auth},
    error::{ConfigError, Source, may_be_secret},
    key::{AnyConfigKey, ConfigKey, KeyPresence},
    keys,
    network_types::{is_loopback_address, is_unencrypted},
    sections::{admin, admin_tls, cache, callers, callers_jwt, server, store, tracing, upstream},
    settings::RawSettings,
    value_type::StoreUrl,
};

/// Reports every rule that is broken. A key whose own value is invalid breaks no other rule.
pub(super) fn check(settings: &RawSettings, errors: &mut Vec<ConfigError>) {
    let mut rules = Rules { settings, errors };
    for key in keys::all() {
        rules.check_presence(key);
    }
    rules.check_client_auth();
    rules.check_audience();
    rules.check_token_rights();
    rules.check_listeners();
    rules.check_callers();
    rules.check_admin_key();
    rules.check_tracing();
    rules.check_store();
    rules.check_order(
        &upstream::connect_timeout,
        &upstream::attempt_timeout,
        "connecting is part of an attempt, so it may not take longer",
    );
    rules.check_order(
        &upstream::attempt_timeout,
        &upstream::deadline,
        "an attempt is part of a call, so it may not take longer",
    );
    rules.check_order(
        &cache::stale_while_revalidate,
        &cache::stale_if_error,
        "what may be served during a refresh may be served if the refresh fails",
    );
}

struct Rules<'a> {
    settings: &'a RawSettings,
    errors: &'a mut Vec<ConfigError>,
}

impl Rules<'_> {
    fn check_presence(&mut self, key: &dyn AnyConfigKey) {
        let kind = self.settings.text(&upstream_auth::kind);
        let is_set = self.settings.is_set(key);
        match (key.presence(), kind) {
            (KeyPresence::Required, _) if !is_set => self.missing(key, ""),
            (KeyPresence::RequiredInTable, _) if !is_set => {
                if let Some(other) = self.settings.set_key_of(key.table()) {
                    self.missing(key, &format!(", and {other} needs it"));
                }
            }
            (KeyPresence::RequiredBy(kinds), Some(kind)) if !is_set && kinds.contains(&kind) => {
                self.missing(key, &format!(", and {} needs it", auth_kind(kind)));
            }
            (KeyPresence::RequiredBy(kinds) | KeyPresence::AllowedBy(kinds), Some(kind))
                if is_set && !kinds.contains(&kind) =>
            {
                let problem = format!("only valid with {}", kinds.join(" or "));
                self.report(key, format!("{problem}, not with {}", auth_kind(kind)));
            }
            _ => {}
        }
    }

    /// An application needs exactly one credential: a secret, a certificate with its key, or a
    /// federated token.
    fn check_client_auth(&mut self) {
        let (certificate, key) = (
            &upstream_auth::client_certificate_file,
            &upstream_auth::client_key_file,
        );
        let methods: [&[&dyn AnyConfigKey]; 3] = [
            &[&upstream_auth::client_secret_file],
            &[certificate, key],
            &[&upstream_auth::federated_token_file],
        ];
        let Some(kind) = self.settings.text(&upstream_auth::kind) else {
            return;
        };
        if kind == "token_file" {
            return;
        }
        let is_set = |key: &&dyn AnyConfigKey| self.settings.is_set(*key);
        let set: Vec<Vec<_>> = methods
            .into_iter()
            .map(|keys| keys.iter().copied().filter(is_set).collect())
            .filter(|keys: &Vec<_>| !keys.is_empty())
            .collect();
        match set.iter().flatten().next() {
            None => {
                let because = format!(
                    ", and {} needs it, or {} with {}, or {}",
                    auth_kind(kind),
                    certificate.name(),
                    key.name(),
                    upstream_auth::federated_token_file.name(),
                );
                self.missing(&upstream_auth::client_secret_file, &because);
            }
            Some(first) => {
                for other in set.iter().skip(1).flatten() {
                    self.conflict(
                        *other,
                        *first,
                        "use one way to authenticate the application",
                    );
                }
            }
        }
        self.check_pair(certificate, key);
        self.check_pair(key, certificate);
    }

    fn check_pair(&mut self, key: &dyn AnyConfigKey, other: &dyn AnyConfigKey) {
        if !self.settings.is_set(other) {
            self.report(key, format!("needs {} as well", other.name()));
        }
    }

    /// A token is for one scope or one resource; a token URL of a known version has a default.
    fn check_audience(&mut self) {
        let (scope, resource) = (&upstream_auth::scope, &upstream_auth::resource);
        if self.settings.is_set(scope) {
            return self.conflict(resource, scope, "set one of them");
        }
        let url = self.settings.get(&upstream_auth::token_url);
        let is_unknown = url.is_some_and(|url| TokenEndpointVersion::from_url(&url).is_none());
        if is_unknown && !self.settings.is_set(resource) {
            let problem = format!(
                "ends neither in /oauth2/token nor in /oauth2/v2.0/token, so what tokens are for is \
                 unknown; set {} or {} as well",
                resource.name(),
                scope.name(),
            );
            self.report(&upstream_auth::token_url, problem);
        }
    }

    /// The rights of callers with tokens come from the callers file or from the tokens.
    fn check_token_rights(&mut self) {
        let (scopes, customers) = (&callers_jwt::scopes_claim, &callers_jwt::customers_claim);
        let by_token = self.settings.is_set(scopes) && self.settings.is_set(customers);
        if !by_token && !self.settings.is_set(&callers::file) {
            let problem = format!(
                "its callers have no rights; set {}, or both {} and {}",
                callers::file.name(),
                scopes.name(),
                customers.name(),
            );
            self.report(&callers_jwt::issuer, problem);
        }
    }

    fn check_listeners(&mut self) {
        let (api, admin) = (&server::listen, &admin::listen);
        if let (Some(a), Some(b)) = (self.settings.get(api), self.settings.get(admin))
            && listeners_overlap(a, b)
        {
            self.conflict_of_either(api, admin, "both would listen on the same port");
        }
    }

    /// Everybody may call only if nobody else can reach the listener, or if `anonymous` says so.
    fn check_callers(&mut self) {
        let Some(anonymous) = self.settings.get(&callers::anonymous) else {
            return;
        };
        let identified_by: [&dyn AnyConfigKey; 2] = [&callers::file, &callers_jwt::issuer];
        let mut identified_by = identified_by.into_iter();
        let identified_by = identified_by.find(|key| self.settings.is_set(*key));
        let address = self.settings.get(&server::listen);
        match identified_by {
            Some(key) if anonymous => {
                let because = "a request without a key would have every right; set one of them";
                self.conflict(&callers::anonymous, key, because);
            }
            None if !anonymous && address.is_some_and(|it| !is_loopback_address(it)) => {
                let problem = format!(
                    "anyone who reaches it could read every customer's usage; set {} or {}, which \
                     name who may, or {} = true, which says that anyone may",
                    callers::file.name(),
                    callers_jwt::issuer.name(),
                    callers::anonymous.name(),
                );
                self.report(&server::listen, problem);
            }
            _ => {}
        }
    }

    /// The admin listener shows customers' ids, and can empty the cache.
    fn check_admin_key(&mut self) {
        let address = self.settings.get(&admin::listen);
        if address.is_some_and(|address| !is_loopback_address(address))
            && let Some([]) = self.settings.get(&admin::key_sha256).as_deref()
            && self.settings.get(&admin_tls::client_ca_file).is_none()
        {
            let problem = format!(
                "others can reach it, and {} is empty; make a key with `usage-proxy hash-key` and \
                 set its hash there, or accept certificates with {}, or listen on 127.0.0.1",
                admin::key_sha256.name(),
                admin_tls::client_ca_file.name(),
            );
            self.report(&admin::listen, problem);
        }
    }

    /// Headers may be credentials: they are not sent unencrypted to another machine.
    fn check_tracing(&mut self) {
        let (endpoint, headers) = (&tracing::otlp_endpoint, &tracing::headers_file);
        self.check_pair(headers, endpoint);
        if self
            .settings
            .get(endpoint)
            .is_some_and(|url| is_unencrypted(&url))
        {
            let problem = format!(
                "would be sent unencrypted to another machine; set an `https://` URL in {}",
                endpoint.name(),
            );
            self.report(headers, problem);
        }
    }

    /// SQLite needs no second URL, no password, no CA and no key. Replicas on PostgreSQL share a refresh token, which
    /// must be encrypted there.
    fn check_store(&mut self) {
        let is_sqlite = match self.settings.get(&store::url) {
            Some(StoreUrl::Sqlite(_)) => true,
            Some(StoreUrl::Postgres(_)) => {
                self.check_encryption_key();
                false
            }
            None => !self.settings.is_set(&store::url),
        };
        let keys: [&dyn AnyConfigKey; 4] = [
            &store::listen_url,
            &store::password_file,
            &store::ca_file,
            &store::encryption_key_file,
        ];
        for key in keys.into_iter().filter(|_| is_sqlite) {
            let problem = format!("is for a `postgres://` URL in {}", store::url.name());
            self.report(key, problem);
        }
    }

    fn check_encryption_key(&mut self) {
        let key = &store::encryption_key_file;
        if self.settings.text(&upstream_auth::kind) == Some(REFRESH_TOKEN)
            && !self.settings.is_set(key)
        {
            let because = format!(
                ", and {} with a `postgres://` URL in {} needs it: the refresh token is stored there, \
                 encrypted; `openssl rand -base64 32` makes a key",
                auth_kind(REFRESH_TOKEN),
                store::url.name(),
            );
            self.missing(key, &because);
        }
    }

    fn check_order<T: PartialOrd>(
        &mut self,
        shorter: &'static ConfigKey<T>,
        longer: &'static ConfigKey<T>,
        because: &str,
    ) {
        if let (Some(a), Some(b)) = (self.settings.get(shorter), self.settings.get(longer))
            && a > b
        {
            self.conflict_of_either(shorter, longer, because);
        }
    }

    fn missing(&mut self, key: &dyn AnyConfigKey, because: &str) {
        let has_file = self.settings.has_file;
        self.errors
            .push(ConfigError::missing_key(key, because, has_file));
    }

    /// Reports a problem of a key, where it is set. A default has no problem.
    fn report(&mut self, key: &dyn AnyConfigKey, problem: impl AsRef<str>) {
        if let Some(source) = self.settings.source_of(key.name()) {
            let problem = format!("{}: {}", self.shown(key), problem.as_ref());
            self.errors.push(ConfigError::at(source.clone(), problem));
        }
    }

    /// Reports that a key conflicts with another.
    fn conflict(&mut self, key: &dyn AnyConfigKey, other: &dyn AnyConfigKey, because: &str) {
        let source = self.settings.source_of(other.name());
        let source = source.map_or_else(|| "by default".to_owned(), Source::to_string);
        let other = self.shown(other);
        self.report(key, format!("conflicts with {other} ({source}): {because}"));
    }

    /// Reports that two keys conflict, at one that is set.
    fn conflict_of_either(&mut self, a: &dyn AnyConfigKey, b: &dyn AnyConfigKey, because: &str) {
        let (one, other) = if self.settings.is_set(a) {
            (a, b)
        } else {
            (b, a)
        };
        self.conflict(one, other, because);
    }

    /// Prints a key with its value, unless that may be a secret.
    fn shown(&self, key: &dyn AnyConfigKey) -> String {
        match self.settings.text(key) {
            Some(text) if !may_be_secret(key.name(), text) => {
                format!("{} = {}", key.name(), key.to_toml(text))
            }
            _ => key.name().to_owned(),
        }
    }
}

/// The value of `upstream.auth.kind` with a refresh token.
const REFRESH_TOKEN: &str = "refresh_token";

fn auth_kind(kind: &str) -> String {
    format!("{} = {kind:?}", upstream_auth::kind.name())
}

/// Returns true if two listeners need the same port: port 0 takes a free one, and an unspecified
/// address takes every address (that of IPv6 also those of IPv4).
fn listeners_overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |any: IpAddr, one: IpAddr| {
        any == one || any.is_unspecified() && (any.is_ipv6() || one.is_ipv4())
    };
    a.port() != 0 && a.port() == b.port() && (covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}
