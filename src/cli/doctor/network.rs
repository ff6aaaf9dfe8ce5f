//! The checks of the network: the token endpoint, Partner Center, and the clocks.

use std::time::Duration;

use jiff::SignedDuration;
use url::{Host, Url};

use super::{
    super::{CliError, terminal::while_waiting},
    report::{CheckFinding, DoctorReport},
};
use crate::{
    config::Config,
    partner_center::probe::{ReachedServer, UpstreamProbe},
};

/// The time for a DNS lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// `Date` has no fractions, and answers take their time.
const TOLERATED_SKEW: SignedDuration = SignedDuration::from_secs(5);

/// Tokens and assertions are accepted up to five minutes before and after their time.
const MAX_SKEW: SignedDuration = SignedDuration::from_secs(5 * 60);

pub(super) async fn check(
    config: &Config,
    probe: &UpstreamProbe,
    report: &mut DoctorReport,
) -> Result<(), CliError> {
    let upstream = &config.upstream;
    let token_url = upstream.auth.grant().map(|grant| &grant.token_url);
    let places = [
        ("token endpoint", token_url),
        ("Partner Center", Some(&upstream.base_url)),
    ];
    let mut worst: Option<(&str, SignedDuration)> = None;
    for (name, url) in places {
        let Some(url) = url else { continue };
        let (finding, reached) = while_waiting(
            &format!("asking the {name}"),
            check_endpoint(name, url, probe),
        )
        .await;
        report.add(finding)?;
        if let Some(ahead) = reached.and_then(|reached| reached.ahead)
            && worst.is_none_or(|(_, worst)| worst.abs() < ahead.abs())
        {
            worst = Some((name, ahead));
        }
    }
    report.add(clock_finding(worst))
}

async fn check_endpoint(
    name: &str,
    url: &Url,
    probe: &UpstreamProbe,
) -> (CheckFinding, Option<ReachedServer>) {
    let host = url.host_str().unwrap_or_default();
    if let Err(finding) = resolve_host(name, url).await {
        return (finding, None);
    }
    match probe.reach(url).await {
        Ok(reached) => {
            let tls = if url.scheme() == "https" {
                " over TLS"
            } else {
                ""
            };
            let said = format!("{host} answers{tls} in {}", milliseconds(reached.took));
            (CheckFinding::right(name, said), Some(reached))
        }
        Err(trouble) => {
            let said = format!("{host} cannot be reached: {}", trouble.said);
            (CheckFinding::wrong(name, said).hint(trouble.action), None)
        }
    }
}

/// Resolves the name first, since an unknown name has another cause than a host that does not answer.
async fn resolve_host(name: &str, url: &Url) -> Result<(), CheckFinding> {
    let Some(Host::Domain(host)) = url.host() else {
        return Ok(());
    };
    let port = url.port_or_known_default().unwrap_or_default();
    let failed = |cause: String| {
        CheckFinding::wrong(name, format!("{host} has no address: {cause}"))
            .hint("check the name, and this machine's DNS (/etc/resolv.conf)".to_owned())
    };
    let lookup = tokio::net::lookup_host((host, port));
    let found = match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
        Ok(Ok(addresses)) => addresses.count(),
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed("the lookup takes too long".to_owned())),
    };
    if found == 0 {
        return Err(failed("the answer is empty".to_owned()));
    }
    Ok(())
}

fn clock_finding(worst: Option<(&str, SignedDuration)>) -> CheckFinding {
    const CHECK: &str = "clock";
    let Some((name, ahead)) = worst else {
        return CheckFinding::skipped(CHECK, "no answer had a time");
    };
    let size = ahead.abs();
    if size <= TOLERATED_SKEW {
        return CheckFinding::right(CHECK, "agrees with theirs");
    }
    let direction = if ahead.is_positive() {
        "behind"
    } else {
        "ahead of"
    };
    let said = format!("is {} s {direction} that of the {name}", size.as_secs());
    let hint = "set this machine's clock, and keep it: timedatectl set-ntp true".to_owned();
    if size > MAX_SKEW {
        CheckFinding::wrong(CHECK, said).hint(hint)
    } else {
        CheckFinding::note(CHECK, said).hint(hint)
    }
}

pub(super) fn milliseconds(took: Duration) -> String {
    format!("{} ms", took.as_millis())
}

#[cfg(test)]
mod tests {
    use super::{super::report::CheckVerdict, *};

    #[test]
    fn clock_skew_is_rated_by_its_size_in_both_directions() {
        for (ahead, verdict) in [
            (0, CheckVerdict::Right),
            (-5, CheckVerdict::Right),
            (6, CheckVerdict::Note),
            (-300, CheckVerdict::Note),
            (301, CheckVerdict::Wrong),
            (-7_200, CheckVerdict::Wrong),
        ] {
            let finding = clock_finding(Some(("x", SignedDuration::from_secs(ahead))));

            assert_eq!(finding.verdict, verdict, "{ahead}");
        }
        let behind = clock_finding(Some(("x", SignedDuration::from_secs(7_200))));
        assert_eq!(behind.said, "is 7200 s behind that of the x");
    }
}
