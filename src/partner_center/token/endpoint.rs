//! The token endpoint of Microsoft Entra ID: one form sent, one answer read.
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
use url::{Url, form_urlencoded};

use super::{
    client_proof::{self, ClientCredential, ClientProof, CredentialSender},
    outcome::{GrantFailure, ObtainedToken},
    secret_file::UnreadableSecret,
};
use crate::{
    config::{GrantConfig, TokenAudience},
    http_client::{ExchangeError, HttpClient, HttpReply},
    observability::traces::Tracer,
    partner_center::{metrics::UpstreamMetrics, spans, throttle, wire::without_byte_order_mark},
    resilience::memory_pool::MemoryShare,
    text::to_printable_line,
};

/// Bytes of a token answer; real ones have a few thousand.
const LONGEST_ANSWER: usize = 256 * 1024;

/// What is assumed of a token that does not say how long it lives.
///
/// `expires_in` is only recommended (RFC 6749 §5.1). Taken too short, an hour's token costs a few
/// more redemptions; taken too long, every call would first be refused.
const UNSAID_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Nothing that says to live longer is believed; no token of Microsoft's does.
const LONGEST_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long the token endpoint is left alone at least after AADSTS50196, "client request loop".
const LOOP_PAUSE: Duration = Duration::from_secs(60);

/// A token endpoint and who asks there.
#[derive(Debug)]
pub(super) struct TokenEndpoint {
    http: HttpClient,
    tracer: Option<Tracer>,
    url: Url,
    client_id: String,
    proof: ClientProof,
    audience: TokenAudience,
    timeout: Duration,
    metrics: UpstreamMetrics,
}

/// What is shown to get an access token.
#[derive(Clone, Copy, Debug)]
pub(super) enum GrantForm<'a> {
    /// `grant_type=client_credentials`.
    ClientCredentials,
    /// `grant_type=refresh_token`.
    RefreshToken(&'a SecretString),
    /// `grant_type=authorization_code`.
    AuthorizationCode(&'a RedeemedCode),
}

/// A code, and the proof that we asked for it.
#[derive(Debug)]
pub(in crate::partner_center) struct RedeemedCode {
    pub(in crate::partner_center) code: SecretString,
    pub(in crate::partner_center) verifier: SecretString,
    /// The one of the request.
    pub(in crate::partner_center) redirect_uri: String,
}

/// What the endpoint gave.
#[derive(Debug)]
pub(super) struct GrantResponse {
    /// The access token, or what is wrong with it: a refresh token may have come all the same.
    pub(super) access: Result<ObtainedToken, GrantFailure>,
    /// The refresh token that takes the place of the one shown, where one came.
    pub(super) refresh_token: Option<SecretString>,
}

/// A token answer, not checked yet. It holds secrets in plain text, so it has no `Debug`.
#[derive(Deserialize)]
struct TokenResponseBody {
    access_token: Option<String>,
    token_type: Option<String>,
    /// A number in v2, the same as text in v1.
    expires_in: Option<Value>,
    refresh_token: Option<String>,
}

/// An error answer (RFC 6749 §5.2, with Microsoft's additions).
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
    pub(super) fn new(
        (http, tracer): (HttpClient, Option<Tracer>),
        grant: &GrantConfig,
        timeout: Duration,
        metrics: UpstreamMetrics,
    ) -> Self {
        Self {
            http,
            tracer,
            url: grant.token_url.clone(),
            client_id: grant.client_id.clone(),
            proof: ClientProof::new(&grant.client_auth),
            audience: grant.audience.clone(),
            timeout,
            metrics,
        }
    }

    /// Reads what proves who asks, which may have been replaced since the last time.
    ///
    /// # Errors
    ///
    /// [`UnreadableSecret`] says why there is none.
    pub(super) async fn credential(&self) -> Result<ClientCredential, UnreadableSecret> {
        let credential = self.proof.read().await?;
        self.metrics
            .client_certificate_expires(credential.expires_at());
        Ok(credential)
    }

    /// Asks for an access token, once.
    ///
    /// # Errors
    ///
    /// [`GrantFailure`] says whether asking again may help.
    pub(super) async fn redeem(
        &self,
        credential: &ClientCredential,
        shown: GrantForm<'_>,
    ) -> Result<GrantResponse, GrantFailure> {
        let clock = self.http.clock();
        let asked_at = clock.now();
        let proof = credential.show(CredentialSender {
            client_id: &self.client_id,
            token_url: &self.url,
            now: clock.wall_time(),
        })?;
        let request = self.request(&proof, shown);
        let span = spans::begin_redemption(self.tracer.as_ref(), &self.url);
        let answer = self
            .http
            .exchange(
                request,
                &mut MemoryShare::unshared(LONGEST_ANSWER),
                asked_at + self.timeout,
            )
            .await;
        if let Some(span) = &span {
            let ended = answer.as_ref().map(|answer| answer.status);
            spans::end_redemption(span, ended.map_err(ExchangeError::as_str));
        }
        let answer = answer?;
        if answer.status.is_success() {
            return read_granted(&answer, asked_at);
        }
        let mut secrets = credential.parts();
        secrets.push(proof.secret());
        match shown {
            GrantForm::ClientCredentials => {}
            GrantForm::RefreshToken(token) => secrets.push(token),
            GrantForm::AuthorizationCode(code) => secrets.extend([&code.code, &code.verifier]),
        }
        Err(read_failure(&answer, clock.wall_time(), &secrets))
    }

    fn request(
        &self,
        proof: &client_proof::SentCredential,
        shown: GrantForm<'_>,
    ) -> reqwest::Request {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("client_id", &self.client_id);
        match proof {
            client_proof::SentCredential::Secret(secret) => {
                form.append_pair("client_secret", secret.expose_secret())
            }
            client_proof::SentCredential::Assertion(assertion) => form
                .append_pair("client_assertion_type", client_proof::JWT_BEARER)
                .append_pair("client_assertion", assertion.expose_secret()),
        };
        match shown {
            GrantForm::ClientCredentials => form.append_pair("grant_type", "client_credentials"),
            GrantForm::RefreshToken(token) => form
                .append_pair("grant_type", "refresh_token")
                .append_pair("refresh_token", token.expose_secret()),
            GrantForm::AuthorizationCode(code) => form
                .append_pair("grant_type", "authorization_code")
                .append_pair("code", code.code.expose_secret())
                .append_pair("redirect_uri", &code.redirect_uri)
                .append_pair("code_verifier", code.verifier.expose_secret()),
        };
        match (&self.audience, shown) {
            (TokenAudience::Resource(resource), _) => form.append_pair("resource", resource),
            (TokenAudience::Scope(scope), GrantForm::AuthorizationCode(_)) => {
                form.append_pair("scope", &lasting(scope))
            }
            (TokenAudience::Scope(scope), _) => form.append_pair("scope", scope),
        };
        let mut request = reqwest::Request::new(Method::POST, self.url.clone());
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        *request.body_mut() = Some(form.finish().into());
        request
    }
}

/// A v2 scope with what brings a refresh token, once each.
pub(super) fn lasting(scope: &str) -> String {
    let mut scopes: Vec<_> = scope.split(' ').collect();
    for more in ["offline_access", "openid"] {
        if !scopes.contains(&more) {
            scopes.push(more);
        }
    }
    scopes.join(" ")
}

/// Reads an answer of 200.
fn read_granted(answer: &HttpReply, asked_at: Instant) -> Result<GrantResponse, GrantFailure> {
    let no_token = |cause: &str| {
        GrantFailure::passing(
            "the token endpoint's answer is no access token",
            cause.to_owned(),
        )
    };
    // The fault of serde would quote the answer, and so perhaps the token.
    let read: TokenResponseBody = serde_json::from_slice(without_byte_order_mark(&answer.body))
        .map_err(|_| no_token("expected a JSON object with access_token"))?;
    let lifetime = lifetime(read.expires_in.as_ref());
    let is_bearer = |of: &String| of.eq_ignore_ascii_case("bearer");
    let access = match read.access_token.filter(|token| !token.is_empty()) {
        Some(_) if !read.token_type.as_ref().is_none_or(is_bearer) => {
            Err(no_token("expected token_type Bearer"))
        }
        Some(token) if !lifetime.is_zero() => Ok(ObtainedToken {
            token: SecretString::from(token),
            lifetime: Some(lifetime),
            asked_at,
        }),
        _ => Err(no_token("expected a token that is good for a while")),
    };
    Ok(GrantResponse {
        access,
        refresh_token: read
            .refresh_token
            .filter(|token| !token.is_empty())
            .map(SecretString::from),
    })
}

fn lifetime(expires_in: Option<&Value>) -> Duration {
    let seconds = match expires_in {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    seconds.map_or(UNSAID_LIFETIME, |seconds| {
        Duration::from_secs(seconds).min(LONGEST_LIFETIME)
    })
}

/// Reads an answer other than 200.
fn read_failure(answer: &HttpReply, wall: Timestamp, secrets: &[&SecretString]) -> GrantFailure {
    let status = answer.status;
    let passing = |cause: String| {
        GrantFailure::passing("the token endpoint has a fault of its own", cause)
            .not_before(throttle::retry_after(&answer.headers, wall))
    };
    let read = serde_json::from_slice(without_byte_order_mark(&answer.body));
    let Ok::<TokenErrorBody, _>(read) = read else {
        // Some gateway on the way, or not a token endpoint at all.
        return passing(format!(
            "status {status} without an OAuth error; if it stays, check upstream.auth.token_url"
        ));
    };
    let cause = read.cause(secrets);
    if read.is_request_loop() {
        let asked = throttle::retry_after(&answer.headers, wall).unwrap_or_default();
        return GrantFailure::passing(
            "the token endpoint throttles us (AADSTS50196) and is asked again after a minute",
            cause,
        )
        .not_before(Some(asked.max(LOOP_PAUSE)));
    }
    if status.is_server_error() || matches!(status.as_u16(), 408 | 429) || read.is_passing() {
        return passing(cause);
    }
    GrantFailure::refused(person_action(&read.error, &read.error_codes), cause)
        .of_refresh_token(read.error == "invalid_grant" || read.error == "interaction_required")
}

// === impl ErrorAnswer ===

impl TokenErrorBody {
    /// Whether it is throttling, which is dressed as `invalid_grant`.
    fn is_request_loop(&self) -> bool {
        self.error_codes.contains(&50196)
    }

    fn is_passing(&self) -> bool {
        matches!(
            self.error.as_str(),
            "temporarily_unavailable" | "server_error" | "slow_down"
        ) || self
            .error_codes
            .iter()
            // "A transient error has occurred", "request budget exceeded".
            .any(|code| matches!(code, 90033 | 90055))
    }

    /// What the log says: no secret, though the endpoint should repeat one, wherever it may.
    fn cause(&self, secrets: &[&SecretString]) -> String {
        let told = |text: &str, longest: usize| {
            let mut text = text.to_owned();
            for secret in secrets {
                text = text.replace(secret.expose_secret(), "[redacted]");
            }
            to_printable_line(text.trim(), longest)
        };
        let description = self.error_description.as_deref().unwrap_or_default();
        format!(
            "{} {:?}, correlation id {}: {}",
            told(&self.error, 64),
            self.error_codes,
            told(self.correlation_id.as_deref().unwrap_or("unknown"), 64),
            told(description.lines().next().unwrap_or_default(), 300)
        )
    }
}

/// What a person must do, by AADSTS code where one says more than the error does.
pub(super) fn person_action(error: &str, codes: &[u64]) -> &'static str {
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
             upstream.auth.client_secret_file, or what stands in its place"
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

// === impl GrantFailure ===

impl From<ExchangeError> for GrantFailure {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::TimedOut => Self::passing(
                "the token endpoint did not answer in time",
                "timed out".to_owned(),
            ),
            ExchangeError::Connection(cause) => {
                Self::passing("the connection to the token endpoint failed", cause)
            }
            ExchangeError::Undecodable(cause) => {
                Self::passing("the token endpoint's answer is no access token", cause)
            }
        }
    }
}

#[cfg(test)]
mod tests;
