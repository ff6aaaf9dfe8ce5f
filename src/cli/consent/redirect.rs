//! The listener that the browser is redirected to (RFC 8252 §7.3).

use std::sync::{Arc, Mutex, PoisonError};

use askama::Template;
use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode, header};
use secrecy::SecretString;
use tokio::sync::oneshot;
use url::form_urlencoded;

use super::super::eprint_line;
use crate::partner_center::{consent::SignInRequest, probe::ProbeFailure};

/// The answer to a sign-in, and the channel for the page that its browser waits for.
#[derive(Debug)]
pub(super) struct SignInRedirect {
    pub(super) sign_in: SignInRequest,
    /// The code, or the reason that there is none.
    pub(super) code: Result<SecretString, ProbeFailure>,
    pub(super) page_sender: oneshot::Sender<SignInPage>,
}

/// A page for the browser.
#[derive(Debug, Template)]
#[template(path = "cli/consent/page.html", config = "src/askama.toml")]
pub(super) struct SignInPage {
    status: StatusCode,
    title: &'static str,
    lines: Vec<String>,
}

/// The sign-in, until its answer has arrived.
#[derive(Debug)]
struct PendingSignIn {
    sign_in: Mutex<Option<(SignInRequest, oneshot::Sender<SignInRedirect>)>>,
}

/// Returns the routes of the listener, and the channel of the answer.
pub(super) fn redirect_router(
    sign_in: SignInRequest,
) -> (Router, oneshot::Receiver<SignInRedirect>) {
    let (sender, answer) = oneshot::channel();
    let waiting = Arc::new(PendingSignIn {
        sign_in: Mutex::new(Some((sign_in, sender))),
    });
    let router = Router::new().fallback(handle_redirect).with_state(waiting);
    (router, answer)
}

async fn handle_redirect(State(waiting): State<Arc<PendingSignIn>>, request: Request) -> Response {
    let uri = request.uri();
    if uri.path() != "/" {
        return SignInPage::not_found().into_response();
    }
    if request.method() != Method::GET {
        let page =
            SignInPage::rejected(StatusCode::METHOD_NOT_ALLOWED, "Only GET is answered here.");
        return ([(header::ALLOW, "GET")], page).into_response();
    }
    let page = match waiting.accept_redirect(uri.query().unwrap_or_default()) {
        Ok(page) => page
            .await
            .unwrap_or_else(|_ended| SignInPage::interrupted()),
        Err(page) => {
            eprint_line(
                "an answer that belongs to no sign-in of this command was refused; still waiting",
            );
            page
        }
    };
    page.into_response()
}

// === impl PendingSignIn ===

impl PendingSignIn {
    /// Passes an answer on if it belongs to the sign-in; any other changes nothing.
    fn accept_redirect(&self, query: &str) -> Result<oneshot::Receiver<SignInPage>, SignInPage> {
        let parameter = |name: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
        };
        let mut sign_in = self.sign_in.lock().unwrap_or_else(PoisonError::into_inner);
        let (waiting, _) = sign_in.as_ref().ok_or_else(SignInPage::already_answered)?;
        let Some(state) = parameter("state") else {
            return Err(SignInPage::missing_answer());
        };
        if !waiting.is_answered_by(&state) {
            return Err(SignInPage::wrong_sign_in());
        }
        let code = match (parameter("error"), parameter("code")) {
            (Some(error), _) => {
                let description = parameter("error_description").unwrap_or_default();
                Err(ProbeFailure::of_sign_in(&error, &description))
            }
            (None, Some(code)) if !code.is_empty() => Ok(code.into()),
            (None, _) => return Err(SignInPage::missing_answer()),
        };
        let (sign_in, sender) = sign_in.take().ok_or_else(SignInPage::already_answered)?;
        let (browser, page) = oneshot::channel();
        let redirect = SignInRedirect {
            sign_in,
            code,
            page_sender: browser,
        };
        sender
            .send(redirect)
            .map_err(|_ended| SignInPage::interrupted())?;
        Ok(page)
    }
}

// === impl SignInPage ===

impl SignInPage {
    pub(super) fn success(lines: Vec<String>) -> Self {
        Self {
            status: StatusCode::OK,
            title: "Signed in",
            lines,
        }
    }

    pub(super) fn failure(lines: Vec<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            title: "The sign-in failed",
            lines,
        }
    }

    fn rejected(status: StatusCode, line: &str) -> Self {
        Self {
            status,
            title: "Not the answer to the sign-in",
            lines: vec![line.to_owned()],
        }
    }

    fn not_found() -> Self {
        Self::rejected(
            StatusCode::NOT_FOUND,
            "Nothing is served here but the end of a sign-in.",
        )
    }

    fn missing_answer() -> Self {
        Self::rejected(
            StatusCode::BAD_REQUEST,
            "usage-proxy is waiting for the sign-in: open the address that it printed.",
        )
    }

    fn wrong_sign_in() -> Self {
        Self::rejected(
            StatusCode::BAD_REQUEST,
            "This answer belongs to another sign-in, so it was refused. usage-proxy is still \
             waiting: open the address that it printed last.",
        )
    }

    fn already_answered() -> Self {
        Self::rejected(
            StatusCode::BAD_REQUEST,
            "The sign-in was answered already. See what usage-proxy says in the terminal.",
        )
    }

    fn interrupted() -> Self {
        Self::failure(vec![
            "usage-proxy was ended before it was done. See what it says in the terminal."
                .to_owned(),
        ])
    }
}

impl IntoResponse for SignInPage {
    fn into_response(self) -> Response {
        let fixed = |value| HeaderValue::from_static(value);
        let headers = [
            (header::CONTENT_TYPE, fixed("text/html; charset=utf-8")),
            (header::CACHE_CONTROL, fixed("no-store")),
            (header::REFERRER_POLICY, fixed("no-referrer")),
            (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
            (
                header::CONTENT_SECURITY_POLICY,
                fixed("default-src 'none'; frame-ancestors 'none'"),
            ),
        ];
        match self.render() {
            Ok(html) => (self.status, headers, html).into_response(),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, headers).into_response(),
        }
    }
}
