//! The token endpoint of Microsoft Entra ID.
//!
//! See [the v2 protocol](https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow)
//! and [AADSTS codes](https://learn.microsoft.com/entra/identity-platform/reference-error-codes).

use std::time::{Duration, Instant};

use http::{
    HeaderValue, Method,
    header::{ACCEPT, CONTENT_TYPE},
};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use url::form_urlencoded;

use super::{
    credential::{ClientCredential, ClientProof},
    outcome::{GrantFailure, GrantFailureKind, GrantedToken},
    secret_file::UnreadableSecret,
};
use crate::{
    clock::SharedClock,
    config::{GrantConfig, TokenAudience},
    http_client::{ExchangeError, HttpClient, HttpReply},
    observability::traces::Tracer,
    partner_center::{metrics::UpstreamMetrics, spans, throttle, wire::without_byte_order_mark},
    resilience::byte_budget::MemoryShare,
    text::to_printable_line,
};

/// The most bytes of a reply; real ones have a few thousand.
const MAX_REPLY: usize = 256 * 1024;

/// The lifetime of a token that does not say one.
///
/// `expires_in` is only recommended (RFC 6749 §5.1). If this is too short, an hour's token costs a few
/// more redemptions; if it is too long, every call is refused first.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// The longest lifetime that is accepted; no token of Microsoft's has a longer one.
const MAX_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The shortest pause after AADSTS50196, "client request loop".
const LOOP_PAUSE: Duration = Duration::from_secs(60);

/// `client_assertion_type` of all assertions.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A token endpoint, and the application that asks there.
#[derive(Debug)]
pub(crate) struct TokenEndpoint {
    pub(crate) grant: GrantConfig,
    http: HttpClient,
    timeout: Duration,
    tracer: Option<Tracer>,
    metrics: UpstreamMetrics,
}

/// The grant of a request for a token.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GrantForm<'a> {
    /// `grant_type=client_credentials`.
    ClientCredentials,
    /// `grant_type=refresh_token`.
    RefreshToken(&'a SecretString),
    /// `grant_type=authorization_code`.
    AuthorizationCode(&'a RedeemedCode),
}

/// An authorization code, and the proof that we asked for it.
#[derive(Debug)]
pub(crate) struct RedeemedCode {
    pub(crate) code: SecretString,
    pub(crate) verifier: SecretString,
    /// That of the request.
    pub(crate) redirect_uri: String,
}

/// The tokens of a reply.
#[derive(Debug)]
pub(crate) struct GrantResponse {
    /// The access token. Without one, there may be a refresh token all the same.
    pub(crate) access: Result<GrantedToken, GrantFailure>,
    /// The refresh token that replaces the one sent.
    pub(crate) refresh_token: Option<SecretString>,
}

/// The body of a token reply. It has secrets in plain text, so it has no `Debug`.
#[derive(Deserialize)]
struct TokenResponseBody {
    access_token: Option<String>,
    token_type: Option<String>,
    /// A number in v2, the same as text in v1.
    expires_in: Option<Value>,
    refresh_token: Option<String>,
}

/// The body of an error (RFC 6749 §5.2, with Microsoft's additions).
#[derive(Deserialize)]
struct TokenErrorBody {
    error: String,
    error_description: Option<String>,
    #[serde(default)]
    error_codes: Vec<u64>,
    correlation_id: Option<String>,
}

// === impl TokenEndpoint ===

impl TokenEndpoint {
    pub(crate) fn new(
        grant: &GrantConfig,
        http: HttpClient,
        timeout: Duration,
        tracer: Option<Tracer>,
        metrics: UpstreamMetrics,
    ) -> Self {
        Self {
            grant: grant.clone(),
            http,
            timeout,
            tracer,
            metrics,
        }
    }

    /// Reads the credential of the application, which may have been replaced since the last time.
    ///
    /// # Errors
    ///
    /// [`UnreadableSecret`] names the key of the unreadable file.
    pub(crate) async fn credential(&self) -> Result<ClientCredential, UnreadableSecret> {
        let credential = ClientCredential::read(&self.grant.client_auth).await?;
        let expires_at = credential.expires_at().unwrap_or(0);
        self.metrics.client_certificate_expiry.set(expires_at);
        Ok(credential)
    }

    /// The clock of the deadlines.
    pub(crate) fn clock(&self) -> &SharedClock {
        self.http.clock()
    }

    /// The time of one request.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Asks for an access token, once.
    ///
    /// # Errors
    ///
    /// [`GrantFailure`] says whether another attempt may succeed.
    pub(crate) async fn redeem(
        &self,
        credential: &ClientCredential,
        form: GrantForm<'_>,
    ) -> Result<GrantResponse, GrantFailure> {
        let clock = self.clock();
        let requested_at = clock.now();
        let proof = credential.prove(&self.grant, clock.wall_time())?;
        let request = self.request(&proof, form);
        let span = spans::begin_redemption(self.tracer.as_ref(), &self.grant.token_url);
        let mut memory = MemoryShare::unshared(MAX_REPLY);
        let deadline = requested_at + self.timeout;
        let reply = self.http.exchange(request, &mut memory, deadline).await;
        if let Some(span) = &span {
            let status = reply.as_ref().map(|reply| reply.status);
            spans::end_redemption(span, status.map_err(ExchangeError::as_str));
        }
        let reply = reply?;
        if reply.status.is_success() {
            return parse_granted(&reply, requested_at);
        }
        let mut secrets = credential.secrets();
        secrets.push(proof.secret());
        secrets.extend(form.secrets().map(|(_, secret)| secret));
        Err(parse_failure(&reply, clock.wall_time(), &secrets))
    }

    fn request(&self, proof: &ClientProof, form: GrantForm<'_>) -> reqwest::Request {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.append_pair("client_id", &self.grant.client_id);
        match proof {
            ClientProof::Secret(secret) => {
                body.append_pair("client_secret", secret.expose_secret())
            }
            ClientProof::Assertion(assertion) => body
                .append_pair("client_assertion_type", JWT_BEARER)
                .append_pair("client_assertion", assertion.expose_secret()),
        };
        let is_code = matches!(form, GrantForm::AuthorizationCode(_));
        body.append_pair("grant_type", form.grant_type());
        for (field, secret) in form.secrets() {
            body.append_pair(field, secret.expose_secret());
        }
        if let GrantForm::AuthorizationCode(code) = form {
            body.append_pair("redirect_uri", &code.redirect_uri);
        }
        match &self.grant.audience {
            TokenAudience::Resource(resource) => body.append_pair("resource", resource),
            TokenAudience::Scope(scope) if is_code => {
                body.append_pair("scope", &offline_scope(scope))
            }
            TokenAudience::Scope(scope) => body.append_pair("scope", scope),
        };
        let mut request = reqwest::Request::new(Method::POST, self.grant.token_url.clone());
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        *request.body_mut() = Some(body.finish().into());
        request
    }
}

// === impl GrantForm ===

impl<'a> GrantForm<'a> {
    fn grant_type(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::RefreshToken(_) => "refresh_token",
            Self::AuthorizationCode(_) => "authorization_code",
        }
    }

    /// The secrets to send, with their fields.
    fn secrets(self) -> impl Iterator<Item = (&'static str, &'a SecretString)> {
        let (first, second) = match self {
            Self::ClientCredentials => (None, None),
            Self::RefreshToken(token) => (Some(("refresh_token", token)), None),
            Self::AuthorizationCode(code) => (
                Some(("code", &code.code)),
                Some(("code_verifier", &code.verifier)),
            ),
        };
        first.into_iter().chain(second)
    }
}

/// Returns a v2 scope that also asks for a refresh token.
pub(crate) fn offline_scope(scope: &str) -> String {
    let mut scopes: Vec<_> = scope.split(' ').collect();
    for more in ["offline_access", "openid"] {
        if !scopes.contains(&more) {
            scopes.push(more);
        }
    }
    scopes.join(" ")
}

/// Parses a reply of status 200.
fn parse_granted(reply: &HttpReply, requested_at: Instant) -> Result<GrantResponse, GrantFailure> {
    let no_token = |cause: &str| {
        GrantFailure::transient("the token endpoint's answer is no access token", cause)
    };
    // The error of serde would quote the reply, and so perhaps the token.
    let body: TokenResponseBody = serde_json::from_slice(without_byte_order_mark(&reply.body))
        .map_err(|_| no_token("expected a JSON object with access_token"))?;
    let lifetime = parse_lifetime(body.expires_in.as_ref());
    let is_bearer = |kind: &String| kind.eq_ignore_ascii_case("bearer");
    let access = match body.access_token.filter(|token| !token.is_empty()) {
        Some(_) if !body.token_type.as_ref().is_none_or(is_bearer) => {
            Err(no_token("expected token_type Bearer"))
        }
        Some(token) if !lifetime.is_zero() => Ok(GrantedToken {
            token: SecretString::from(token),
            lifetime: Some(lifetime),
            requested_at,
        }),
        _ => Err(no_token("expected a token with a lifetime")),
    };
    let refresh_token = body.refresh_token.filter(|token| !token.is_empty());
    Ok(GrantResponse {
        access,
        refresh_token: refresh_token.map(SecretString::from),
    })
}

fn parse_lifetime(expires_in: Option<&Value>) -> Duration {
    let seconds = match expires_in {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    seconds.map_or(DEFAULT_LIFETIME, |seconds| {
        Duration::from_secs(seconds).min(MAX_LIFETIME)
    })
}

/// Parses a reply of any other status.
fn parse_failure(reply: &HttpReply, wall: Timestamp, secrets: &[&SecretString]) -> GrantFailure {
    let status = reply.status;
    let asked = throttle::retry_after(&reply.headers, wall);
    let transient = |detail: &str, cause: String, retry_after| GrantFailure {
        kind: GrantFailureKind::Transient { retry_after },
        ..GrantFailure::transient(detail, cause)
    };
    let fault = "the token endpoint has a fault of its own";
    let body = serde_json::from_slice(without_byte_order_mark(&reply.body));
    let Ok::<TokenErrorBody, _>(body) = body else {
        // A gateway in between, or no token endpoint at all.
        let cause = format!(
            "status {status} without an OAuth error; if it stays, check upstream.auth.token_url"
        );
        return transient(fault, cause, asked);
    };
    let cause = body.cause(secrets);
    if body.is_request_loop() {
        let detail =
            "the token endpoint throttles us (AADSTS50196) and is asked again after a minute";
        return transient(
            detail,
            cause,
            Some(asked.unwrap_or_default().max(LOOP_PAUSE)),
        );
    }
    if status.is_server_error() || matches!(status.as_u16(), 408 | 429) || body.is_transient() {
        return transient(fault, cause, asked);
    }
    GrantFailure {
        kind: match body.error.as_str() {
            "invalid_grant" | "interaction_required" => GrantFailureKind::RefreshTokenRefused,
            _ => GrantFailureKind::Refused,
        },
        ..GrantFailure::refused(person_action(&body.error, &body.error_codes), cause)
    }
}

// === impl TokenErrorBody ===

impl TokenErrorBody {
    /// Returns whether it is throttling, which is called `invalid_grant`.
    fn is_request_loop(&self) -> bool {
        self.error_codes.contains(&50196)
    }

    fn is_transient(&self) -> bool {
        matches!(
            self.error.as_str(),
            "temporarily_unavailable" | "server_error" | "slow_down"
        ) || self
            .error_codes
            .iter()
            // "A transient error has occurred", "request budget exceeded".
            .any(|code| matches!(code, 90033 | 90055))
    }

    /// Returns the text for the log, without the secrets that the endpoint may repeat.
    fn cause(&self, secrets: &[&SecretString]) -> String {
        let redacted = |text: &str, max_chars: usize| {
            let mut text = text.to_owned();
            for secret in secrets {
                text = text.replace(secret.expose_secret(), "[redacted]");
            }
            to_printable_line(text.trim(), max_chars)
        };
        let description = self.error_description.as_deref().unwrap_or_default();
        format!(
            "{} {:?}, correlation id {}: {}",
            redacted(&self.error, 64),
            self.error_codes,
            redacted(self.correlation_id.as_deref().unwrap_or("unknown"), 64),
            redacted(description.lines().next().unwrap_or_default(), 300)
        )
    }
}

/// Returns what a person must do, by AADSTS code where one says more than the error does.
pub(crate) fn person_action(error: &str, codes: &[u64]) -> &'static str {
    codes
        .iter()
        .find_map(|code| action_by_code(*code))
        .unwrap_or_else(|| action_by_error(error))
}

fn action_by_code(code: u64) -> Option<&'static str> {
    Some(match code {
        50072 | 50074 | 50076 | 50078 | 50079 | 50158 => {
            "a person must consent again, with multi-factor authentication: `usage-proxy consent` \
             puts the new refresh token into upstream.auth.refresh_token_file"
        }
        50173 | 70008 | 70043 | 700_081 | 700_082 | 700_084 | 50089 | 50132 => {
            "the refresh token has expired or was revoked: a person must consent again; \
             `usage-proxy consent` puts the new one into upstream.auth.refresh_token_file"
        }
        50034 | 50053 | 50057 | 50105 => {
            "the user who consented may not sign in any more: check the account, or let another \
             consent"
        }
        65001 | 65004 => "the application lacks consent: an administrator must grant it",
        7_000_215 | 7_000_216 => {
            "the client secret is wrong: put the secret's value, not its id, into \
             upstream.auth.client_secret_file"
        }
        7_000_222 => {
            "the client secret has expired: make a new one and put it into \
             upstream.auth.client_secret_file"
        }
        700_027 | 700_030 => {
            "the signature of the assertion is refused: register the certificate of \
             upstream.auth.client_certificate_file with the application, and check that \
             upstream.auth.client_key_file is its key"
        }
        700_024 => {
            "the assertion is not valid at this time: check the clock of this machine, and the age \
             of the token in upstream.auth.federated_token_file"
        }
        70021 | 700_211..=700_213 => {
            "no federated credential of the application fits the token in \
             upstream.auth.federated_token_file: check its issuer, subject and audience"
        }
        700_016 | 7_000_112 => {
            "the tenant knows no such application, or has disabled it: check \
             upstream.auth.client_id and the tenant in upstream.auth.token_url"
        }
        90002 | 900_023 => "there is no such tenant: check upstream.auth.token_url",
        500_011 | 650_057 | 70011 | 28002 => {
            "the audience is wrong: check upstream.auth.scope or upstream.auth.resource"
        }
        _ => return None,
    })
}

fn action_by_error(error: &str) -> &'static str {
    match error {
        "invalid_grant" | "interaction_required" | "login_required" => {
            "the refresh token is refused: a person must consent again, with multi-factor \
             authentication; `usage-proxy consent` puts the new one into \
             upstream.auth.refresh_token_file"
        }
        "consent_required" => "the application lacks consent: an administrator must grant it",
        "invalid_client" => {
            "the application's credentials are refused: check upstream.auth.client_id and \
             upstream.auth.client_secret_file, or the certificate or token in its place"
        }
        "unauthorized_client" | "unsupported_grant_type" | "access_denied" => {
            "the application may not use this grant: check its registration and \
             upstream.auth.kind"
        }
        "invalid_scope" | "invalid_resource" | "invalid_target" => {
            "the audience is wrong: check upstream.auth.scope or upstream.auth.resource"
        }
        _ => "the token endpoint refuses the request: check all of upstream.auth",
    }
}

#[cfg(test)]
mod proptests;
#[cfg(test)]
mod tests;
