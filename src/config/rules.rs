//! What single values cannot tell: keys that are missing, out of place, or at odds with another.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    auth::{AuthKind, TokenEndpoint},
    fault::{Fault, Place},
    form::is_in_clear,
    is_local,
    keys::{self, AnyKey, Key, Presence},
    settings::Settings,
    tls::{self, TlsKeys},
};

/// Every fault between keys. A key whose own value was refused breaks no rule besides.
pub(super) fn check(settings: &Settings, faults: &mut Vec<Fault>) {
    check_presence(settings, faults);
    check_client_proof(settings, faults);
    check_audience(settings, faults);
    check_jwt(settings, faults);
    check_listeners(settings, faults);
    check_admin_key(settings, faults);
    check_callers(settings, faults);
    for keys in [&tls::SERVER, &tls::ADMIN] {
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

fn check_presence(settings: &Settings, faults: &mut Vec<Fault>) {
    let kind = settings.get(&keys::AUTH_KIND);
    for key in keys::ALL {
        faults.extend(match settings.place(key.name()) {
            Some(place) => misplaced(*key, place, kind),
            None => missing(settings, *key, kind),
        });
    }
}

fn misplaced(key: &dyn AnyKey, place: &Place, kind: Option<AuthKind>) -> Option<Fault> {
    let (Presence::RequiredBy(kinds) | Presence::AllowedBy(kinds)) = key.presence() else {
        return None;
    };
    let kind = kind.filter(|kind| !kinds.contains(kind))?;
    let owners: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
    let problem = format!(
        "{}: does not belong to {}, only to {}",
        key.name(),
        stated_kind(kind),
        owners.join(" and "),
    );
    Some(Fault::at(place.clone(), problem))
}

fn missing(settings: &Settings, key: &dyn AnyKey, kind: Option<AuthKind>) -> Option<Fault> {
    match key.presence() {
        Presence::Required => Some(settings.missing(key, "")),
        Presence::RequiredBy(kinds) => {
            let kind = kind.filter(|kind| kinds.contains(kind))?;
            let because = format!(", and {} needs it", stated_kind(kind));
            Some(settings.missing(key, &because))
        }
        Presence::Default(_) | Presence::Optional | Presence::AllowedBy(_) => None,
    }
}

fn stated_kind(kind: AuthKind) -> String {
    format!("{} = {:?}", keys::AUTH_KIND.name(), kind.as_str())
}

/// Exactly one way for the application to prove who it is.
fn check_client_proof(settings: &Settings, faults: &mut Vec<Fault>) {
    let secret: &dyn AnyKey = &keys::AUTH_CLIENT_SECRET_FILE;
    let certificate: &dyn AnyKey = &keys::AUTH_CLIENT_CERTIFICATE_FILE;
    let key: &dyn AnyKey = &keys::AUTH_CLIENT_KEY_FILE;
    let federated: &dyn AnyKey = &keys::AUTH_FEDERATED_TOKEN_FILE;
    let Some(kind) = settings
        .get(&keys::AUTH_KIND)
        .filter(|kind| matches!(kind, AuthKind::RefreshToken | AuthKind::ClientCredentials))
    else {
        return;
    };
    let place = |key: &dyn AnyKey| settings.place(key.name());
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
                stated_kind(kind),
                certificate.name(),
                key.name(),
                federated.name(),
            );
            faults.push(settings.missing(secret, &because));
        }
        [(name, place)] if is_pair(name) => {
            let [one, other] = pair;
            let other = if *name == one { other } else { one };
            let problem = format!("{name}: stands without {other}; expected both");
            faults.push(Fault::at((*place).clone(), problem));
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
                faults.push(Fault::at((*place).clone(), problem));
            }
        }
    }
}

/// Exactly one of scope and resource, or a token URL that tells which to assume.
fn check_audience(settings: &Settings, faults: &mut Vec<Fault>) {
    let (scope, resource) = (keys::AUTH_SCOPE.name(), keys::AUTH_RESOURCE.name());
    match (settings.place(scope), settings.place(resource)) {
        (Some(scope_place), Some(place)) => faults.push(Fault::at(
            place.clone(),
            format!("{resource}: stands beside {scope} ({scope_place}); expected one of them"),
        )),
        (None, None) => {
            let token_url = &keys::AUTH_TOKEN_URL;
            let unclear = settings
                .get(token_url)
                .is_some_and(|url| TokenEndpoint::of(&url).is_none());
            if let Some(place) = settings.place(token_url.name()).filter(|_| unclear) {
                let problem = format!(
                    "{}: ends neither in /oauth2/token nor in /oauth2/v2.0/token, so it does not \
                     tell what tokens are for; expected {resource} or {scope} as well",
                    token_url.name(),
                );
                faults.push(Fault::at(place.clone(), problem));
            }
        }
        (Some(_), None) | (None, Some(_)) => {}
    }
}

/// Issuer, audience and keys go together, and the claims have a meaning with them alone.
fn check_jwt(settings: &Settings, faults: &mut Vec<Fault>) {
    let needed: [&dyn AnyKey; 3] = [&keys::JWT_ISSUER, &keys::JWT_AUDIENCE, &keys::JWT_JWKS_URL];
    let claims: [&dyn AnyKey; 3] = [
        &keys::JWT_SUBJECT_CLAIM,
        &keys::JWT_SCOPES_CLAIM,
        &keys::JWT_CUSTOMERS_CLAIM,
    ];
    let mut keys = needed.into_iter().chain(claims);
    let Some(stated) = keys.find(|key| settings.place(key.name()).is_some()) else {
        return;
    };
    let because = format!(", and {} needs it", stated.name());
    let lacking = needed
        .into_iter()
        .filter(|key| settings.place(key.name()).is_none());
    faults.extend(lacking.map(|key| settings.missing(key, &because)));
    check_rights_of_tokens(settings, faults);
}

/// Somebody has to say what callers with tokens may have: the callers file, or the tokens.
fn check_rights_of_tokens(settings: &Settings, faults: &mut Vec<Fault>) {
    let stated = |key: &dyn AnyKey| settings.place(key.name()).is_some();
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
    let place = settings.place(issuer);
    faults.extend(place.map(|at| Fault::at(at.clone(), problem)));
}

fn check_listeners(settings: &Settings, faults: &mut Vec<Fault>) {
    let (api, admin) = (&keys::SERVER_LISTEN, &keys::ADMIN_LISTEN);
    if let (Some(a), Some(b)) = (settings.get(api), settings.get(admin))
        && collide(a, b)
    {
        let because = "both would listen on the same port";
        conflict(settings, (api, &a), (admin, &b), because, faults);
    }
}

/// Everybody is let in only where nobody else can come, or where that is what the words say.
fn check_callers(settings: &Settings, faults: &mut Vec<Fault>) {
    let (listen, file) = (&keys::SERVER_LISTEN, &keys::CALLERS_FILE);
    let issuer = keys::JWT_ISSUER.name();
    let Some(anonymous) = settings.get(&keys::CALLERS_ANONYMOUS) else {
        return;
    };
    let (told_apart, teller) = match settings.place(file.name()) {
        Some(place) => (Some(place), file.name()),
        None => (settings.place(issuer), issuer),
    };
    let exposed = settings.get(listen).filter(|address| !is_local(*address));
    match (told_apart, anonymous, exposed) {
        (Some(told_apart), true, _) => {
            let anonymous = keys::CALLERS_ANONYMOUS.name();
            let problem = format!(
                "{anonymous} = true, but {teller} names callers ({told_apart}): whoever shows \
                 nothing would have every right; expected one of them",
            );
            faults.extend(
                settings
                    .place(anonymous)
                    .map(|at| Fault::at(at.clone(), problem)),
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
            let place = settings.place(listen.name());
            faults.extend(place.map(|at| Fault::at(at.clone(), problem)));
        }
        (Some(_), false, _) | (None, true, _) | (None, false, None) => {}
    }
}

/// Whether two listeners would want the same port: port 0 takes a free one, and an unspecified
/// address takes every address (the one of IPv6 those of IPv4 too).
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |any: IpAddr, one: IpAddr| {
        any == one || any.is_unspecified() && (any.is_ipv6() || one.is_ipv4())
    };
    a.port() != 0 && a.port() == b.port() && (covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

/// A certificate and its key, or neither; client certificates only with both.
fn check_tls(settings: &Settings, keys: &TlsKeys, faults: &mut Vec<Fault>) {
    let (certificate, key) = (keys.certificate_file.name(), keys.key_file.name());
    for (stated, missing) in [
        (certificate, key),
        (key, certificate),
        (keys.client_ca_file.name(), certificate),
    ] {
        if let Some(place) = settings.place(stated)
            && settings.place(missing).is_none()
        {
            let problem = format!("{stated}: stands without {missing}; expected both or neither");
            faults.push(Fault::at(place.clone(), problem));
        }
    }
}

/// Whoever reaches the admin listener sees customers' ids and may drop what is held.
fn check_admin_key(settings: &Settings, faults: &mut Vec<Fault>) {
    let (listen, hashes) = (&keys::ADMIN_LISTEN, &keys::ADMIN_KEY_SHA256);
    if let (Some(address), Some(place)) = (settings.get(listen), settings.place(listen.name()))
        && !is_local(address)
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
        faults.push(Fault::at(place.clone(), problem));
    }
}

/// Headers go with an endpoint, and in clear to no other machine: they may be credentials.
fn check_tracing(settings: &Settings, faults: &mut Vec<Fault>) {
    let (endpoint, headers) = (&keys::TRACING_OTLP_ENDPOINT, &keys::TRACING_HEADERS_FILE);
    let Some(place) = settings.place(headers.name()) else {
        return;
    };
    let problem = match settings.place(endpoint.name()) {
        None => format!("{}: stands without {}", headers.name(), endpoint.name()),
        Some(_) if settings.get(endpoint).is_some_and(|url| is_in_clear(&url)) => format!(
            "{}: would be sent in clear to another machine; expected an `https://` URL in {}",
            headers.name(),
            endpoint.name(),
        ),
        Some(_) => return,
    };
    faults.push(Fault::at(place.clone(), problem));
}

fn check_order(
    settings: &Settings,
    shorter: &Key<Duration>,
    longer: &Key<Duration>,
    because: &str,
    faults: &mut Vec<Fault>,
) {
    if let (Some(a), Some(b)) = (settings.get(shorter), settings.get(longer))
        && a > b
    {
        conflict(settings, (shorter, &a), (longer, &b), because, faults);
    }
}

/// A fault between two values: it stands where one of them was stated, and names that one first.
fn conflict<T>(
    settings: &Settings,
    a: (&Key<T>, &T),
    b: (&Key<T>, &T),
    because: &str,
    faults: &mut Vec<Fault>,
) {
    let place = |key: &Key<T>| settings.place(key.name());
    // Defaults do not conflict with each other, so one of the two was stated.
    let ((one, one_value), (other, other_value), place, origin) = match (place(a.0), place(b.0)) {
        (Some(place), origin) => (a, b, place, origin),
        (None, Some(place)) => (b, a, place, None),
        (None, None) => return,
    };
    let origin = origin.map_or_else(|| "by default".to_owned(), Place::to_string);
    let problem = format!(
        "{} = {:?}, but {} = {:?} ({origin}): {because}",
        one.name(),
        one.print(one_value),
        other.name(),
        other.print(other_value),
    );
    faults.push(Fault::at(place.clone(), problem));
}
