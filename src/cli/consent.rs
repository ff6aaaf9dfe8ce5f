//! `usage-proxy consent`: obtains the refresh token by one sign-in in a browser.

mod redirect;

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use secrecy::SecretString;
use tokio::{net::TcpListener, sync::oneshot};
use url::Url;

use self::redirect::{SignInPage, SignInRedirect};
use super::{
    CliError,
    config_args::{ConfigArgs, warnings},
    doctor::check_replaceable,
    eprint_line, print_line, shell,
    signals::exit_code_on_signal,
    terminal::{environment_variable, sanitize},
};
use crate::{
    clock::SystemClock,
    config::{
        AuthConfig, Config, parse_duration,
        secret::{self, SecretError},
    },
    partner_center::{
        consent::{ConsentFlow, ConsentResult, SignInError, SignInRequest},
        probe::{ProbeFailure, WITHOUT_PROOF},
    },
    server::{ListenerConfig, RequestValidation, bind_failure_advice, router_handler, serve},
    shutdown::Shutdown,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy consent --config usage-proxy.toml
  usage-proxy consent --config usage-proxy.toml --force --no-browser
  usage-proxy consent --config usage-proxy.toml \\
    --set upstream.auth.refresh_token_file=./refresh_token
  ssh -L 8400:127.0.0.1:8400 HOST      if the browser is on another machine

A user who may read the partner's customers signs in with multi-factor authentication, once. The \
application's registration in the Entra admin center must have http://localhost:8400 (or the port \
of --port) as a redirect URI of the platform Web. The command waits there for the browser, redeems \
the code, checks the multi-factor proof, and writes the refresh token to \
upstream.auth.refresh_token_file. A running service uses the new token within seconds.

Run it as the user of the service, who must be able to read the file and to replace it; or write \
the token to another file, as the third example does, and install it as described in deploy/.

Environment:
  USAGE_PROXY__TABLE__KEY  any key of the configuration, as for serve
  BROWSER                  the browser to open, if xdg-open supports it

Files:
  upstream.auth.refresh_token_file  replaced as a whole, with mode 0600

Exit codes:
  0    the refresh token is in its file
  1    it is not: the sign-in failed, or nobody signed in
  2    wrong use or configuration
  130  ended by Ctrl-C";

/// Options of a sign-in.
#[derive(Debug, Args)]
pub(super) struct ConsentArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Port of 127.0.0.1 that the browser comes back to.
    #[arg(long, value_name = "PORT", default_value_t = 8400)]
    port: u16,
    /// Time to wait for the sign-in.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = timeout)]
    timeout: Duration,
    /// Replace a refresh token that is there already, without asking.
    #[arg(long, visible_alias = "yes")]
    force: bool,
    /// Print the address to sign in at, and open no browser.
    #[arg(long)]
    no_browser: bool,
}

/// Time for the last page to reach the browser.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn run(args: &ConsentArgs) -> Result<(), CliError> {
    let config = Config::load(args.config.sources())?;
    let AuthConfig::RefreshToken {
        grant,
        refresh_token_file: file,
    } = &config.upstream.auth
    else {
        return Err(CliError::usage(
            "upstream.auth.kind: expected \"refresh_token\"; the other kinds need no sign-in",
        ));
    };
    for warning in warnings(&config) {
        eprint_line(format_args!("warning: {warning}"));
    }
    // Before signals are handled, so that Ctrl-C ends the question.
    check_replace_allowed(file, args.force)?;
    let consent = ConsentFlow::new(&config.upstream, grant, file, Arc::new(SystemClock))
        .map_err(CliError::other)?;
    let shutdown = Shutdown::new();
    let ended = tokio::select! {
        ended = sign_in(args, consent, file, &shutdown) => ended,
        code = exit_code_on_signal()? => {
            eprint_line("ending, after the code is redeemed and the token is on disk");
            Err(CliError::AlreadyReported(code))
        }
    };
    shutdown.cancel().await;
    ended
}

/// Runs the sign-in, from the printed URL to the token in its file.
async fn sign_in(
    args: &ConsentArgs,
    consent: ConsentFlow,
    file: &Path,
    shutdown: &Shutdown,
) -> Result<(), CliError> {
    let listener = listen(args.port).await?;
    let address = listener.local_addr().map_err(CliError::other)?;
    let redirect_uri = format!("http://localhost:{}", address.port());
    let sign_in = consent
        .begin(redirect_uri.clone())
        .map_err(sign_in_start_error)?;
    let url = sign_in.url.clone();
    let (router, answer) = redirect::redirect_router(sign_in);
    let (served, done) = oneshot::channel();
    let draining = shutdown.clone();
    shutdown.spawn(async move {
        let edge = ListenerConfig::new(RequestValidation::Strict);
        serve(
            listener,
            edge,
            router_handler(router),
            draining.draining(),
            DRAIN_TIMEOUT,
        )
        .await;
        served.send(()).unwrap_or_default();
    });
    print_sign_in_url(args, &url, &redirect_uri).await?;
    let redirect = match tokio::time::timeout(args.timeout, answer).await {
        Ok(Ok(redirect)) => redirect,
        Ok(Err(_)) => return Err(CliError::other("the listener has ended")),
        Err(_) => {
            return Err(CliError::other(format!(
                "nobody signed in within {}; run it again, or set a longer --timeout",
                humantime::format_duration(args.timeout)
            )));
        }
    };
    let ended = complete_sign_in(redirect, consent, args, file, shutdown).await;
    // The browser gets its page before the listener closes.
    shutdown.drain();
    drop(done.await);
    ended
}

async fn listen(port: u16) -> Result<TcpListener, CliError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).await.map_err(|error| {
        CliError::other(format!(
            "--port {port}: cannot listen on {address}: {}",
            bind_failure_advice(&error)
        ))
    })
}

fn sign_in_start_error(error: SignInError) -> CliError {
    match error {
        SignInError::UnknownEndpoint => CliError::usage(error),
        SignInError::NoRandomness(_) => CliError::other(error),
    }
}

/// Prints the URL of the sign-in, and opens it in a browser if there is one.
async fn print_sign_in_url(
    args: &ConsentArgs,
    url: &Url,
    redirect_uri: &str,
) -> Result<(), CliError> {
    print_line(format_args!(
        "Sign in with multi-factor authentication, as a user who may read the partner's customers:

  {url}

The application must have {redirect_uri} as a redirect URI (Web). Waiting for {timeout}; Ctrl-C ends it.",
        timeout = humantime::format_duration(args.timeout),
    ))?;
    if args.no_browser || !has_display() {
        return Ok(());
    }
    let url = url.to_string();
    // It blocks for a moment, until the browser has started.
    match tokio::task::spawn_blocking(move || open::that_detached(url)).await {
        Ok(Ok(())) => print_line("A browser was opened with it."),
        Ok(Err(_)) | Err(_) => Ok(()),
    }
}

/// Without a display, a browser of the terminal would open amid the output.
fn has_display() -> bool {
    cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY"]
            .into_iter()
            .any(|name| environment_variable(name).is_some())
}

/// Redeems the code, and shows the result in the terminal and in the browser.
async fn complete_sign_in(
    redirect: SignInRedirect,
    consent: ConsentFlow,
    args: &ConsentArgs,
    file: &Path,
    shutdown: &Shutdown,
) -> Result<(), CliError> {
    let SignInRedirect {
        sign_in,
        code,
        page_sender: browser,
    } = redirect;
    let outcome = match code {
        Ok(code) => redeem(consent, sign_in, code, shutdown).await,
        Err(trouble) => Err(error_lines(trouble)),
    };
    match outcome {
        Ok(notes) => {
            let page = [
                vec!["The refresh token is in its file. You can close this page.".to_owned()],
                notes.clone(),
            ];
            // A browser that is gone needs no page.
            drop(browser.send(SignInPage::success(page.concat())));
            print_line(next_steps(args, file, &notes))
        }
        Err(lines) => {
            let said = lines.join("; ");
            let mut page = lines;
            page.push("Nothing was written.".to_owned());
            drop(browser.send(SignInPage::failure(page)));
            Err(CliError::other(format!(
                "the sign-in failed: {}; nothing was written",
                sanitize(&said)
            )))
        }
    }
}

/// Redeems the code in a task of its own, which completes even if this future is dropped: a code can
/// be redeemed once. Returns notes for the reader, or what went wrong.
async fn redeem(
    consent: ConsentFlow,
    sign_in: SignInRequest,
    code: SecretString,
    shutdown: &Shutdown,
) -> Result<Vec<String>, Vec<String>> {
    let (sender, result) = oneshot::channel();
    shutdown.spawn_until_done(async move {
        drop(sender.send(redeem_and_save(&consent, sign_in, code).await));
    });
    result
        .await
        .unwrap_or_else(|_| Err(vec!["the redemption was interrupted".to_owned()]))
}

async fn redeem_and_save(
    consent: &ConsentFlow,
    sign_in: SignInRequest,
    code: SecretString,
) -> Result<Vec<String>, Vec<String>> {
    let consented = consent.redeem(sign_in, code).await.map_err(error_lines)?;
    let mut notes = check_multi_factor(consent, &consented).await?;
    let warning = consent.save(&consented).await.map_err(|error| {
        vec![format!(
            "the refresh token cannot be written to upstream.auth.refresh_token_file: {error}"
        )]
    })?;
    notes.extend(warning);
    Ok(notes)
}

/// Checks multi-factor proof: a token without it must not replace one that has it.
async fn check_multi_factor(
    consent: &ConsentFlow,
    consented: &ConsentResult,
) -> Result<Vec<String>, Vec<String>> {
    let by_claims = consented.access.claims().and_then(|c| c.multi_factor);
    let (by_call, trouble) = match consent.call(consented).await {
        Ok(answered) => (answered.multi_factor, None),
        Err((trouble, proof)) => (proof, Some(trouble)),
    };
    let proof = match by_call.or(by_claims) {
        Some(true) => "The token has multi-factor proof.",
        Some(false) => return Err(vec![WITHOUT_PROOF.to_owned()]),
        None => "Neither the token nor Partner Center says whether it has multi-factor proof.",
    };
    let mut notes = vec![proof.to_owned()];
    if let Some(trouble) = trouble {
        let said = error_lines(trouble).join("; ");
        notes.push(format!("A first call of Partner Center failed: {said}"));
    }
    Ok(notes)
}

fn error_lines(trouble: ProbeFailure) -> Vec<String> {
    std::iter::once(trouble.said)
        .chain(trouble.action)
        .collect()
}

fn next_steps(args: &ConsentArgs, file: &Path, notes: &[String]) -> String {
    let (program, flag) = (shell::program_name(), args.config.config_flag());
    let mut said = format!("\nThe refresh token is in {}.\n", file.display());
    for note in notes.iter().cloned().chain(owner_warning(file)) {
        said.push_str(&sanitize(&note));
        said.push('\n');
    }
    format!(
        "{said}
Next:

  {program} doctor{flag}
  {program} serve{flag}

A running service uses the new token within seconds."
    )
}

/// A note for the case that file and folder have different owners.
fn owner_warning(file: &Path) -> Option<String> {
    let file = file.canonicalize().ok()?;
    let folder = fs::metadata(file.parent()?).ok()?.uid();
    let owner = fs::metadata(&file).ok()?.uid();
    // Anybody may write to a folder like /tmp, which belongs to root.
    (folder != owner && folder != 0).then(|| {
        format!(
            "Its owner is user {owner}, and that of its folder user {folder}: if the service runs as \
             that one, chown the file to it."
        )
    })
}

/// Checks that a new token may replace the content of the file, and that it can.
fn check_replace_allowed(file: &Path, force: bool) -> Result<(), CliError> {
    let is_free = match secret::read_secret(file) {
        Err(SecretError::Empty { .. }) => true,
        Err(SecretError::Unreadable { cause, .. }) => cause.kind() == io::ErrorKind::NotFound,
        Ok(_) | Err(SecretError::NotText { .. } | SecretError::TooLarge { .. }) => false,
    };
    if !is_free && !force {
        confirm_replace(file)?;
    }
    check_replaceable(file).map_err(|(said, hint)| {
        CliError::other(format!(
            "the refresh token could not be saved: {said}; {hint}"
        ))
    })
}

fn confirm_replace(file: &Path) -> Result<(), CliError> {
    let there = format!("{} has a refresh token already", file.display());
    if !io::stdin().is_terminal() {
        return Err(CliError::usage(format!("{there}; --force replaces it")));
    }
    let mut terminal = io::stderr().lock();
    drop(write!(terminal, "{there}. Replace it? [y/N] ").and_then(|()| terminal.flush()));
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(CliError::other)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::other("the refresh token was left as it is")),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("is zero; expected a duration such as 10m".to_owned()),
        duration => Ok(duration),
    }
}
