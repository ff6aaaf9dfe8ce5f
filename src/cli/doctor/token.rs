//! An access token: had as the service has it, where that harms nobody, and looked at.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use tokio::sync::oneshot;

use super::{
    super::{CliError, terminal::while_waiting},
    RedeemMode,
    report::{CheckFinding, DoctorReport},
    running_service,
};
use crate::{
    clock::SharedClock,
    config::{AuthConfig, Config},
    domain::UpstreamApi,
    partner_center::probe::{ProbeFailure, ProbedClaims, ProbedToken, UpstreamProbe},
    shutdown::Shutdown,
};

const CHECK: &str = "access token";

/// Partner Center, as tokens name it: its URI in tokens of version 1, its application's id in those of
/// version 2.
const AUDIENCES: [&str; 2] = [
    "https://api.partnercenter.microsoft.com",
    "fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd",
];

/// Tells how it went; `None` where there is no token. A redemption that has begun is carried through
/// though this future is dropped: [`Shutdown::cancel`] waits for it.
pub(super) async fn obtain(
    config: &Config,
    redeem: RedeemMode,
    probe: UpstreamProbe,
    shutdown: &Shutdown,
    report: &mut DoctorReport,
) -> Result<Option<(UpstreamProbe, ProbedToken)>, CliError> {
    if let AuthConfig::RefreshToken {
        refresh_token_file, ..
    } = &config.upstream.auth
        && let Err(finding) = check_redeem_allowed(refresh_token_file, redeem, config).await
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

/// What came of asking for a token.
#[derive(Debug)]
struct ObtainedToken {
    probe: UpstreamProbe,
    token: Result<ProbedToken, ProbeFailure>,
    /// A refresh token that came is in memory alone.
    unsaved: bool,
}

/// In a task of its own: the refresh token that comes is on its way to disk before anybody can end
/// this process. `None` where the task was lost.
async fn spawn_obtain(mut probe: UpstreamProbe, shutdown: &Shutdown) -> Option<ObtainedToken> {
    let (tell, told) = oneshot::channel();
    shutdown.spawn_until_done(async move {
        let token = probe.obtain().await;
        let unsaved = probe.has_unsaved().await;
        // Nobody waits any more where a signal came; what had to be kept is kept.
        drop(tell.send(ObtainedToken {
            probe,
            token,
            unsaved,
        }));
    });
    told.await.ok()
}

fn lifetime_text(token: &ProbedToken) -> String {
    match token.lifetime {
        Some(lifetime) => format!("there is one, good for {} min", lifetime.as_secs() / 60),
        None => "there is one".to_owned(),
    }
}

fn unsaved_token_finding() -> CheckFinding {
    CheckFinding::wrong(
        "refresh token",
        "Microsoft replaced it, and its successor could not be written: it is gone when this ends",
    )
    .hint(
        "make room, or make the folder of upstream.auth.refresh_token_file writable; if the old one \
         is refused from now on, a person must consent again (`usage-proxy consent`)"
            .to_owned(),
    )
}

/// Redeeming replaces the token, so its successor must get into the file, and nobody else may be about
/// to redeem the same.
async fn check_redeem_allowed(
    file: &Path,
    redeem: RedeemMode,
    config: &Config,
) -> Result<(), CheckFinding> {
    if redeem == RedeemMode::Never {
        return Err(CheckFinding::skipped(
            CHECK,
            "the refresh token is not redeemed, as you wish",
        ));
    }
    if redeem == RedeemMode::Auto {
        running_service::check_not_running(CHECK, config).await?;
    }
    check_replaceable(file).map_err(|(said, hint)| {
        CheckFinding::wrong(CHECK, format!("the refresh token is not redeemed: {said}")).hint(hint)
    })
}

/// Whether a successor could take the place of the token in a way that its owner can read: what is
/// wrong, and what to do. A token that is not there yet is nobody's.
pub(in crate::cli) fn check_replaceable(file: &Path) -> Result<(), (String, String)> {
    let owner = || -> io::Result<(u32, u32)> {
        let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let folder = file.parent().unwrap_or(Path::new("."));
        // Made and removed at once: the one way to know whose files ours are, and that one can be made.
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
            format!(
                "its file belongs to another user ({owner}), who could not read what came of it"
            ),
            "run this as that user: sudo -u usage-proxy usage-proxy …".to_owned(),
        )),
        Err(error) => Err((
            format!(
                "its successor could not be written beside {}: {error}",
                file.display()
            ),
            "make the folder writable for the service: the file is replaced by another".to_owned(),
        )),
    }
}

/// What a token that can be read says of itself.
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
                format!("is for {audience}, which is not what Partner Center is usually called"),
            )
            .hint(
                "if it is refused: check upstream.auth.scope or upstream.auth.resource".to_owned(),
            ),
        )?;
    }
    if let Some(ends) = claims.expires_at.filter(|ends| *ends <= clock.wall_time()) {
        report.add(
            CheckFinding::wrong(CHECK, format!("has expired, on {ends}"))
                .hint("whatever writes upstream.auth.token_file must write a new one".to_owned()),
        )?;
    }
    if claims.app_only && config.upstream.source == UpstreamApi::Insights {
        report.add(
            CheckFinding::wrong(
                CHECK,
                "speaks for an application alone, which the insights call refuses",
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
