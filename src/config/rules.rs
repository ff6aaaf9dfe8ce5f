//! What single values cannot tell: keys that are missing, out of place, or at odds with another.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    auth::TokenEndpointVersion,
    choices::AuthKind,
    error::{ConfigError, Source},
    form::is_in_clear,
    is_loopback_address,
    keys::{self, AnyConfigKey, ConfigKey, KeyPresence},
    settings::RawSettings,
    tls::{self, TlsConfigKeys},
};

/// Every fault between keys. A key whose own value was refused breaks no rule besides.
pub(super) fn check(settings: &RawSettings, faults: &mut Vec<ConfigError>) {
    check_presence(settings, faults);
    check_client_auth(settings, faults);
    check_audience(settings, faults);
    check_jwt(settings, faults);
    check_listeners(settings, faults);
    check_admin_key(settings, faults);
    check_callers(settings, faults);
    for keys in [&tls::SERVER_TLS, &tls::ADMIN_TLS] {
        check_tls(settings, keys, faults);
    }
    check_tracing(settings, faults);
    for (shorter, longer, because) in [
        (
            &keys::UPSTREAM_CONNECT_TIMEOUT,
            &keys::UPSTREAM_ATTEMPT_TIMEOUT,
            "connecting is part of an attempt, so it may not take longer",
        ),
        (
            &keys::UPSTREAM_ATTEMPT_TIMEOUT,
            &keys::UPSTREAM_DEADLINE,
            "an attempt is part of a call, so it may not take longer",
        ),
        (
            &keys::CACHE_STALE_WHILE_REVALIDATE,
            &keys::CACHE_STALE_IF_ERROR,
            "what may be served while upstream is asked may be served when asking fails",
        ),
    ] {
        check_order(settings, shorter, longer, because, faults);
    }
}

fn check_presence(settings: &RawSettings, faults: &mut Vec<ConfigError>) {
    let kind = settings.get(&keys::AUTH_KIND);
    for key in keys::ALL {
        faults.extend(match settings.source_of(key.name()) {
            Some(place) => misplaced_key(*key, place, kind),
            None => missing_key(settings, *key, kind),
        });
    }
}

fn misplaced_key(
    key: &dyn AnyConfigKey,
    place: &Source,
    kind: Option<AuthKind>,
) -> Option<ConfigError> {
    let (KeyPresence::RequiredBy(kinds) | KeyPresence::AllowedBy(kinds)) = key.presence() else {
        return None;
    };
    let kind = kind.filter(|kind| !kinds.contains(kind))?;
    let owners: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
    let problem = format!(
        "{}: does not belong to {}, only to {}",
        key.name(),
        auth_kind_text(kind),
        owners.join(" and "),
    );
    Some(ConfigError::at(place.clone(), problem))
}

fn missing_key(
    settings: &RawSettings,
    key: &dyn AnyConfigKey,
    kind: Option<AuthKind>,
) -> Option<ConfigError> {
    match key.presence() {
        KeyPresence::Required => Some(settings.missing_key(key, "")),
        KeyPresence::RequiredBy(kinds) => {
            let kind = kind.filter(|kind| kinds.contains(kind))?;
            let because = format!(", and {} needs it", auth_kind_text(kind));
            Some(settings.missing_key(key, &because))
        }
        KeyPresence::Default(_) | KeyPresence::Optional | KeyPresence::AllowedBy(_) => None,
    }
}

fn auth_kind_text(kind: AuthKind) -> String {
    format!("{} = {:?}", keys::AUTH_KIND.name(), kind.as_str())
}

/// Exactly one way for the application to prove who it is.
fn check_client_auth(settings: &RawSettings, faults: &mut Vec<ConfigError>) {
    let secret: &dyn AnyConfigKey = &keys::AUTH_CLIENT_SECRET_FILE;
    let certificate: &dyn AnyConfigKey = &keys::AUTH_CLIENT_CERTIFICATE_FILE;
    let key: &dyn AnyConfigKey = &keys::AUTH_CLIENT_KEY_FILE;
    let federated: &dyn AnyConfigKey = &keys::AUTH_FEDERATED_TOKEN_FILE;
    let Some(kind) = settings
        .get(&keys::AUTH_KIND)
        .filter(|kind| matches!(kind, AuthKind::RefreshToken | AuthKind::ClientCredentials))
    else {
        return;
    };
    let place = |key: &dyn AnyConfigKey| settings.source_of(key.name());
    let stated: Vec<_> = [secret, certificate, key, federated]
        .into_iter()
        .filter_map(|key| Some((key.name(), place(key)?)))
        .collect();
    let pair = [certificate.name(), key.name()];
    let is_pair = |name: &str| pair.contains(&name);
    match stated.as_slice() {
        [] => {
            let because = format!(
                ", and {} needs it, or {} with {}, or {}",
                auth_kind_text(kind),
                certificate.name(),
                key.name(),
                federated.name(),
            );
            faults.push(settings.missing_key(secret, &because));
        }
        [(name, place)] if is_pair(name) => {
            let [one, other] = pair;
            let other = if *name == one { other } else { one };
            let problem = format!("{name}: stands without {other}; expected both");
            faults.push(ConfigError::at((*place).clone(), problem));
        }
        [_] => {}
        [(one, _), (other, _)] if is_pair(one) && is_pair(other) => {}
        [(one, one_place), rest @ ..] => {
            for (name, place) in rest
                .iter()
                .filter(|(name, _)| !(is_pair(one) && is_pair(name)))
            {
                let problem = format!(
                    "{name}: stands beside {one} ({one_place}); expected one way to prove who asks"
                );
                faults.push(ConfigError::at((*place).clone(), problem));
            }
        }
    }
}

/// Exactly one of scope and resource, or a token URL that tells which to assume.
fn check_audience(settings: &RawSettings, faults: &mut Vec<ConfigError>) {
    let (scope, resource) = (keys::AUTH_SCOPE.name(), keys::AUTH_RESOURCE.name());
    match (settings.source_of(scope), settings.source_of(resource)) {
        (Some(scope_place), Some(place)) => faults.push(ConfigError::at(
            place.clone(),
            format!("{resource}: stands beside {scope} ({scope_place}); expected one of them"),
        )),
        (None, None) => {
            let token_url = &keys::AUTH_TOKEN_URL;
            let unclear = settings
                .get(token_url)
                .is_some_and(|url| TokenEndpointVersion::from_url(&url).is_none());
            if let Some(place) = settings.source_of(token_url.name()).filter(|_| unclear) {
                let problem = format!(
                    "{}: ends neither in /oauth2/token nor in /oauth2/v2.0/token, so it does not \
                     tell what tokens are for; expected {resource} or {scope} as well",
                    token_url.name(),
                );
                faults.push(ConfigError::at(place.clone(), problem));
            }
        }
        (Some(_), None) | (None, Some(_)) => {}
    }
}

/// Issuer, audience and keys go together, and the claims have a meaning with them alone.
fn check_jwt(settings: &RawSettings, faults: &mut Vec<ConfigError>) {
    let needed: [&dyn AnyConfigKey; 3] =
        [&keys::JWT_ISSUER, &keys::JWT_AUDIENCE, &keys::JWT_JWKS_URL];
    let claims: [&dyn AnyConfigKey; 3] = [
        &keys::JWT_SUBJECT_CLAIM,
        &keys::JWT_SCOPES_CLAIM,
        &keys::JWT_CUSTOMERS_CLAIM,
    ];
    let mut keys = needed.into_iter().chain(claims);
    let Some(stated) = keys.find(|key| settings.source_of(key.name()).is_some()) else {
        return;
    };
    let because = format!(", and {} needs it", stated.name());
    let lacking = needed
        .into_iter()
        .filter(|key| settings.source_of(key.name()).is_none());
    faults.extend(lacking.map(|key| settings.missing_key(key, &because)));
    check_token_rights(settings, faults);
}

/// Somebody has to say what callers with tokens may have: the callers file, or the tokens.
fn check_token_rights(settings: &RawSettings, faults: &mut Vec<ConfigError>) {
    let stated = |key: &dyn AnyConfigKey| settings.source_of(key.name()).is_some();
    let by_token = stated(&keys::JWT_SCOPES_CLAIM) && stated(&keys::JWT_CUSTOMERS_CLAIM);
    if by_token || stated(&keys::CALLERS_FILE) {
        return;
    }
    let issuer = keys::JWT_ISSUER.name();
    let problem = format!(
        "{issuer}: nothing says what its callers may have; expected {}, or both {} and {}",
        keys::CALLERS_FILE.name(),
        keys::JWT_SCOPES_CLAIM.name(),
        keys::JWT_CUSTOMERS_CLAIM.name(),
    );
    let place = settings.source_of(issuer);
    faults.extend(place.map(|at| ConfigError::at(at.clone(), problem)));
}

fn check_listeners(settings: &RawSettings, faults: &mut Vec<ConfigError>) {
    let (api, admin) = (&keys::SERVER_LISTEN, &keys::ADMIN_LISTEN);
    if let (Some(a), Some(b)) = (settings.get(api), settings.get(admin))
        && listeners_overlap(a, b)
    {
        let because = "both would listen on the same port";
        report_conflict(settings, (api, &a), (admin, &b), because, faults);
    }
}

/// Everybody is let in only where nobody else can come, or where that is what the words say.
fn check_callers(settings: &RawSettings, faults: &mut Vec<ConfigError>) {
    let (listen, file) = (&keys::SERVER_LISTEN, &keys::CALLERS_FILE);
    let issuer = keys::JWT_ISSUER.name();
    let Some(anonymous) = settings.get(&keys::CALLERS_ANONYMOUS) else {
        return;
    };
    let (told_apart, teller) = match settings.source_of(file.name()) {
        Some(place) => (Some(place), file.name()),
        None => (settings.source_of(issuer), issuer),
    };
    let exposed = settings
        .get(listen)
        .filter(|address| !is_loopback_address(*address));
    match (told_apart, anonymous, exposed) {
        (Some(told_apart), true, _) => {
            let anonymous = keys::CALLERS_ANONYMOUS.name();
            let problem = format!(
                "{anonymous} = true, but {teller} names callers ({told_apart}): whoever shows \
                 nothing would have every right; expected one of them",
            );
            faults.extend(
                settings
                    .source_of(anonymous)
                    .map(|at| ConfigError::at(at.clone(), problem)),
            );
        }
        (None, false, Some(address)) => {
            let problem = format!(
                "{} = {:?}: anyone who reaches it could read every customer's usage; expected {} \
                 or {issuer}, which name who may, or {} = true, which says that anyone may",
                listen.name(),
                listen.print(&address),
                file.name(),
                keys::CALLERS_ANONYMOUS.name(),
            );
            // By default it is the loopback, so it was stated.
            let place = settings.source_of(listen.name());
            faults.extend(place.map(|at| ConfigError::at(at.clone(), problem)));
        }
        (Some(_), false, _) | (None, true, _) | (None, false, None) => {}
    }
}

/// Whether two listeners would want the same port: port 0 takes a free one, and an unspecified
/// address takes every address (the one of IPv6 those of IPv4 too).
fn listeners_overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |any: IpAddr, one: IpAddr| {
        any == one || any.is_unspecified() && (any.is_ipv6() || one.is_ipv4())
    };
    a.port() != 0 && a.port() == b.port() && (covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

/// A certificate and its key, or neither; client certificates only with both.
fn check_tls(settings: &RawSettings, keys: &TlsConfigKeys, faults: &mut Vec<ConfigError>) {
    let (certificate, key) = (keys.certificate_file.name(), keys.key_file.name());
    for (stated, missing) in [
        (certificate, key),
        (key, certificate),
        (keys.client_ca_file.name(), certificate),
    ] {
        if let Some(place) = settings.source_of(stated)
            && settings.source_of(missing).is_none()
        {
            let problem = format!("{stated}: stands without {missing}; expected both or neither");
            faults.push(ConfigError::at(place.clone(), problem));
        }
    }
}

/// Whoever reaches the admin listener sees customers' ids and may drop what is held.
fn check_admin_key(settings: &RawSettings, faults: &mut Vec<ConfigError>) {
    let (listen, hashes) = (&keys::ADMIN_LISTEN, &keys::ADMIN_KEY_SHA256);
    if let (Some(address), Some(place)) = (settings.get(listen), settings.source_of(listen.name()))
        && !is_loopback_address(address)
        && settings.get(hashes).is_some_and(|hashes| hashes.is_empty())
        && settings.get(&keys::ADMIN_TLS_CLIENT_CA_FILE).is_none()
    {
        let problem = format!(
            "{} = {:?}: others can reach it, and {} is empty; make a key by `usage-proxy hash-key` \
             and state its hash there, or let certificates open it by {}, or listen on 127.0.0.1",
            listen.name(),
            listen.print(&address),
            hashes.name(),
            keys::ADMIN_TLS_CLIENT_CA_FILE.name(),
        );
        faults.push(ConfigError::at(place.clone(), problem));
    }
}

/// Headers go with an endpoint, and in clear to no other machine: they may be credentials.
fn check_tracing(settings: &RawSettings, faults: &mut Vec<ConfigError>) {
    let (endpoint, headers) = (&keys::TRACING_OTLP_ENDPOINT, &keys::TRACING_HEADERS_FILE);
    let Some(place) = settings.source_of(headers.name()) else {
        return;
    };
    let problem = match settings.source_of(endpoint.name()) {
        None => format!("{}: stands without {}", headers.name(), endpoint.name()),
        Some(_) if settings.get(endpoint).is_some_and(|url| is_in_clear(&url)) => format!(
            "{}: would be sent in clear to another machine; expected an `https://` URL in {}",
            headers.name(),
            endpoint.name(),
        ),
        Some(_) => return,
    };
    faults.push(ConfigError::at(place.clone(), problem));
}

fn check_order(
    settings: &RawSettings,
    shorter: &ConfigKey<Duration>,
    longer: &ConfigKey<Duration>,
    because: &str,
    faults: &mut Vec<ConfigError>,
) {
    if let (Some(a), Some(b)) = (settings.get(shorter), settings.get(longer))
        && a > b
    {
        report_conflict(settings, (shorter, &a), (longer, &b), because, faults);
    }
}

/// A fault between two values: it stands where one of them was stated, and names that one first.
fn report_conflict<T>(
    settings: &RawSettings,
    a: (&ConfigKey<T>, &T),
    b: (&ConfigKey<T>, &T),
    because: &str,
    faults: &mut Vec<ConfigError>,
) {
    let place = |key: &ConfigKey<T>| settings.source_of(key.name());
    // Defaults do not conflict with each other, so one of the two was stated.
    let ((one, one_value), (other, other_value), place, origin) = match (place(a.0), place(b.0)) {
        (Some(place), origin) => (a, b, place, origin),
        (None, Some(place)) => (b, a, place, None),
        (None, None) => return,
    };
    let origin = origin.map_or_else(|| "by default".to_owned(), Source::to_string);
    let problem = format!(
        "{} = {:?}, but {} = {:?} ({origin}): {because}",
        one.name(),
        one.print(one_value),
        other.name(),
        other.print(other_value),
    );
    faults.push(ConfigError::at(place.clone(), problem));
}
