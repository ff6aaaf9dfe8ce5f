//! What to do about what goes wrong, in the words of the troubleshooting table of `deploy/README.md`.

/// What to do about a problem document of this kind; `None` where its own detail says it.
pub(super) fn for_problem(name: &str) -> Option<&'static str> {
    let (_, advice) = PROBLEM_ADVICE.iter().find(|(known, _)| *known == name)?;
    Some(advice)
}

const PROBLEM_ADVICE: &[(&str, &str)] = &[
    (
        "unauthenticated",
        "--key-file names the file that holds your key; `usage-proxy hash-key` makes one",
    ),
    (
        "not-allowed",
        "whoever keeps the callers file can give this caller the customer",
    ),
    (
        "credentials-refused",
        "`usage-proxy doctor --config FILE`, where the proxy runs and with its file, says what a person must do",
    ),
    (
        "unknown-customer",
        "check the id: it is the customer's Microsoft 365 tenant",
    ),
    (
        "nothing-processed",
        "Partner Center has no data of that date: it lags by days, and keeps no date for ever",
    ),
    (
        "throttled",
        "Raise `cache.fresh_for`, lower `upstream.max_concurrency`",
    ),
    (
        "overloaded",
        "Ask for fewer customers at once, or raise `upstream.max_concurrency`",
    ),
    (
        "rejected",
        "check `upstream.base_url` and `upstream.commercial_path`",
    ),
    (
        "unavailable",
        "Partner Center is down or slow, and nothing is held that may stand in",
    ),
    (
        "timed-out",
        "Partner Center is down or slow, and nothing is held that may stand in",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATING: &str = include_str!("../../deploy/README.md");

    /// Error codes whose advice is in the troubleshooting table.
    const IN_TROUBLESHOOTING: [&str; 6] = [
        "nothing-processed",
        "throttled",
        "overloaded",
        "rejected",
        "unavailable",
        "timed-out",
    ];

    #[test]
    fn the_troubleshooting_table_gives_the_same_advice() {
        let table = OPERATING.split("### By error code").nth(1).unwrap();

        for name in IN_TROUBLESHOOTING {
            let advice = for_problem(name).unwrap();
            let row = table.lines().find(|row| {
                row.starts_with('|') && row.contains(&format!("`{name}`")) && row.contains(advice)
            });

            assert!(row.is_some(), "no row says of `{name}`: {advice}");
        }
    }
}
