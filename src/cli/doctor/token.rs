//! The checks of the access token, which is obtained as the service does, if that is safe.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use tokio::sync::oneshot;

use super::{
    super::{CliError, terminal::while_waiting},
    RedeemMode,
    report::{CheckFinding, DoctorReport},
    running_service,
    stored_tokens::SharedTokens,
};
use crate::{
    clock::SharedClock,
    config::{AuthConfig, Config},
    domain::UpstreamApi,
    partner_center::probe::{ProbeFailure, ProbedClaims, ProbedToken, UpstreamProbe},
    shutdown::Shutdown,
};

const CHECK: &str = "access token";

/// Partner Center's names in tokens: its URI in version 1, its application's id in version 2.
const AUDIENCES: [&str; 2] = [
    "https://api.partnercenter.microsoft.com",
    "fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd",
];

/// Obtains an access token, and reports how that went. A redemption that has begun completes even if
/// this future is dropped: [`Shutdown::cancel`] waits for it.
pub(super) async fn obtain(
    config: &Config,
    redeem: RedeemMode,
    (mut probe, shared): (UpstreamProbe, Option<SharedTokens>),
    shutdown: &Shutdown,
    report: &mut DoctorReport,
) -> Result<Option<(UpstreamProbe, ProbedToken)>, CliError> {
    let is_shared = shared.is_some();
    if let Some(shared) = shared
        && let Some(token) = probe.share(shared.tokens)
    {
        let minutes = token.lifetime.unwrap_or_default().as_secs() / 60;
        let said = format!("replicas share one, valid for {minutes} min");
        report.add(CheckFinding::right(CHECK, said))?;
        return Ok(Some((probe, token)));
    }
    if let AuthConfig::RefreshToken {
        refresh_token_file, ..
    } = &config.upstream.auth
        && let Err(finding) =
            check_redeem_allowed(refresh_token_file, redeem, config, is_shared).await
    {
        report.add(finding)?;
        return Ok(None);
    }
    let carried_through = spawn_obtain(probe, shutdown);
    let Some(obtained) = while_waiting("getting an access token", carried_through).await else {
        return Ok(None);
    };
    if obtained.unsaved {
        report.add(unsaved_token_finding())?;
    }
    match obtained.token {
        Ok(token) => {
            report.add(CheckFinding::right(CHECK, lifetime_text(&token)))?;
            Ok(Some((obtained.probe, token)))
        }
        Err(trouble) => {
            report.add(CheckFinding::wrong(CHECK, trouble.said).hint(trouble.action))?;
            Ok(None)
        }
    }
}

/// The result of a token request.
#[derive(Debug)]
struct ObtainedToken {
    probe: UpstreamProbe,
    token: Result<ProbedToken, ProbeFailure>,
    /// True if a new refresh token could not be saved.
    unsaved: bool,
}

/// Obtains the token in a task of its own, so that a new refresh token is saved even if a signal ends
/// the command. Returns `None` if the task was lost.
async fn spawn_obtain(mut probe: UpstreamProbe, shutdown: &Shutdown) -> Option<ObtainedToken> {
    let (sender, result) = oneshot::channel();
    shutdown.spawn_until_done(async move {
        let token = probe.obtain().await;
        let unsaved = probe.has_unsaved().await;
        // After a signal nobody waits any more.
        drop(sender.send(ObtainedToken {
            probe,
            token,
            unsaved,
        }));
    });
    result.await.ok()
}

fn lifetime_text(token: &ProbedToken) -> String {
    match token.lifetime {
        Some(lifetime) => format!("there is one, valid for {} min", lifetime.as_secs() / 60),
        None => "there is one".to_owned(),
    }
}

fn unsaved_token_finding() -> CheckFinding {
    CheckFinding::wrong(
        "refresh token",
        "Microsoft replaced it, and the new one could not be written: it is lost when this ends",
    )
    .hint(
        "make room, or make the folder of upstream.auth.refresh_token_file writable; if the old one \
         is refused from now on, a person must consent again (`usage-proxy consent`)"
            .to_owned(),
    )
}

/// Checks that the refresh token may be redeemed, which replaces it: the new one must get into the
/// file, and no service may redeem the old one at the same time. Where replicas share their tokens, nothing
/// is written.
async fn check_redeem_allowed(
    file: &Path,
    redeem: RedeemMode,
    config: &Config,
    is_shared: bool,
) -> Result<(), CheckFinding> {
    if redeem == RedeemMode::Never {
        return Err(CheckFinding::skipped(
            CHECK,
            "the refresh token is not redeemed, because of --redeem never",
        ));
    }
    if redeem == RedeemMode::Auto {
        running_service::check_not_running(CHECK, config).await?;
    }
    if is_shared {
        return Ok(());
    }
    check_replaceable(file).map_err(|(said, hint)| {
        CheckFinding::wrong(CHECK, format!("the refresh token is not redeemed: {said}")).hint(hint)
    })
}

/// Checks that a new token can replace the file so that its owner can read it. Returns the problem and
/// the advice.
pub(in crate::cli) fn check_replaceable(file: &Path) -> Result<(), (String, String)> {
    let owner = || -> io::Result<(u32, u32)> {
        let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let folder = file.parent().unwrap_or(Path::new("."));
        // A file that is removed at once shows who we are, and that we can write there.
        let ours = tempfile::Builder::new()
            .prefix(".usage-proxy-")
            .tempfile_in(folder)?;
        let us = ours.as_file().metadata()?.uid();
        match fs::metadata(&file) {
            Ok(there) => Ok((there.uid(), us)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((us, us)),
            Err(error) => Err(error),
        }
    };
    match owner() {
        Ok((owner, us)) if owner == us => Ok(()),
        Ok((owner, _)) => Err((
            format!("its file belongs to another user ({owner}), who could not read the new one"),
            "run this as that user: sudo -u usage-proxy usage-proxy …".to_owned(),
        )),
        Err(error) => Err((
            format!(
                "the new one could not be written beside {}: {error}",
                file.display()
            ),
            "make the folder writable for the service: the file is replaced as a whole".to_owned(),
        )),
    }
}

/// Checks the claims of a token that can be read.
pub(super) fn check_claims(
    claims: &ProbedClaims,
    config: &Config,
    clock: &SharedClock,
    report: &mut DoctorReport,
) -> Result<(), CliError> {
    if let Some(audience) = &claims.audience
        && !AUDIENCES.contains(&audience.trim_end_matches('/'))
    {
        report.add(
            CheckFinding::note(
                CHECK,
                format!("is for {audience}, which is not a usual name of Partner Center"),
            )
            .hint(
                "if it is refused: check upstream.auth.scope or upstream.auth.resource".to_owned(),
            ),
        )?;
    }
    if let Some(ends) = claims.expires_at.filter(|ends| *ends <= clock.wall_time()) {
        report.add(
            CheckFinding::wrong(CHECK, format!("has expired, on {ends}")).hint(
                "the program that writes upstream.auth.token_file must write a new one".to_owned(),
            ),
        )?;
    }
    if claims.app_only && config.upstream.source == UpstreamApi::Insights {
        report.add(
            CheckFinding::wrong(
                CHECK,
                "is of an application alone, which the insights call refuses",
            )
            .hint(
                "use a refresh token (App+User); that upstream.source = \"commercial\" takes an \
                 application alone is unproven"
                    .to_owned(),
            ),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_whose_successor_cannot_be_saved_is_not_redeemed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("refresh-token");
        fs::write(&file, "token").unwrap();

        assert_eq!(check_replaceable(&file), Ok(()));
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left behind"
        );
        // Nobody can make a file there, not even root.
        let (said, _) = check_replaceable(Path::new("/proc/self/cmdline")).unwrap_err();
        assert!(said.contains("could not be written"), "{said}");
    }
}
