use std::time::Duration;

use crate::{
    cache::Freshness,
    domain::ProcessedDate,
    render::{adoption::grouped, fleet::FleetStatusCounts},
    service::{FleetAnswer, FleetCheck, UsageAnswer},
    text::{format_age, format_duration},
};

/// The sentences about the last check with Partner Center.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FreshnessNote {
    /// The CSS class.
    pub(super) class: &'static str,
    /// The start of the first sentence, such as `Checked 3 min ago`.
    pub(super) checked: String,
    /// The rest of it.
    pub(super) rest: String,
}

// === impl FreshnessNote ===

impl FreshnessNote {
    /// The note for an answer of this date, or of the newest one. `is_refreshed` is true if all customers
    /// are checked together, whether or not anyone loads the page.
    pub(super) fn new(
        answer: &UsageAnswer,
        date: Option<ProcessedDate>,
        is_refreshed: bool,
    ) -> Self {
        let cached = &answer.cached;
        let newest = cached.rendered.processed_date().filter(|_| date.is_none());
        let newest_count = |verb| match newest {
            Some(newest) => format!(" Microsoft’s newest count {verb} of {newest}."),
            None => String::new(),
        };
        let next_check = next_check(cached.ttl, is_refreshed);
        let (class, rest) = match cached.freshness {
            _ if cached.suspect => (
                "doubt",
                format!(
                    ". What Partner Center has answered since is implausible, and is shown only after \
                     a second check confirms it. Next check {}.",
                    next_check
                ),
            ),
            Freshness::Fresh if date.is_some() => (
                "fresh",
                ". Microsoft seldom changes the counts of a past date.".to_owned(),
            ),
            Freshness::Fresh => (
                "fresh",
                format!(", next check {}.{}", next_check, newest_count("is")),
            ),
            Freshness::StaleWhileRevalidate
                if answer.status.hit && answer.status.forward.is_none() =>
            {
                (
                    "renewed",
                    format!(
                        ". A new check is running: load this page again in a moment.{}",
                        newest_count("was")
                    ),
                )
            }
            Freshness::StaleWhileRevalidate | Freshness::StaleIfError | Freshness::Expired => (
                "old",
                format!(". {}{}", stale_reason(answer), newest_count("was")),
            ),
        };
        Self {
            class,
            checked: format!("Checked {}", format_age(cached.age)),
            rest,
        }
    }

    /// The note for the customers of a list, of this date or each with its newest one. `check` is the last
    /// check of all customers together; `is_refreshed` is false where there are none.
    pub(super) fn of_fleet(
        answer: &FleetAnswer,
        check: Option<FleetCheck>,
        date: Option<ProcessedDate>,
        is_refreshed: bool,
        counts: FleetStatusCounts,
    ) -> Self {
        let newest = answer.usage.processed_date;
        let newest_count = |verb| match newest {
            Some(newest) => format!(" Microsoft’s newest count {verb} of {newest}."),
            None => String::new(),
        };
        let checked = |age| format!("Checked {}", format_age(age));
        let (class, checked, rest) = match check {
            _ if date.is_some() => (
                "fresh",
                checked(answer.age),
                ". Microsoft seldom changes the counts of a past date.".to_owned(),
            ),
            Some(check) if check.age < check.lifetime => (
                "fresh",
                checked(check.age),
                format!(
                    ", next check within {}.{}",
                    format_duration(check.lifetime.saturating_sub(check.age)),
                    newest_count("is")
                ),
            ),
            Some(check) => (
                "old",
                checked(check.age),
                format!(
                    ". Later checks with Partner Center failed.{}",
                    newest_count("was")
                ),
            ),
            None if is_refreshed && newest.is_some() => (
                "old",
                "Not checked since this service started".to_owned(),
                format!(
                    ". The counts are those of its store.{}",
                    newest_count("was")
                ),
            ),
            None if is_refreshed => (
                "renewed",
                "The first check is running".to_owned(),
                ". Load this page again in a moment.".to_owned(),
            ),
            None => (
                "renewed",
                format!(
                    "{} of {} customers are loaded",
                    grouped(counts.total - counts.not_fetched),
                    grouped(counts.total)
                ),
                ". This service loads a customer when it is opened or requested, because \
                 fleet.refresh is off."
                    .to_owned(),
            ),
        };
        Self {
            class,
            checked,
            rest,
        }
    }
}

/// The reason that a stale answer is shown.
fn stale_reason(answer: &UsageAnswer) -> &'static str {
    match answer.status.forward_status {
        Some(429) => "Partner Center limits how often it may be asked.",
        Some(401 | 403) => "Partner Center rejects this service’s credentials.",
        Some(_) => "Partner Center answered the last check with an error.",
        None if answer.status.hit => {
            "The last check failed a moment ago, and the next one waits a little."
        }
        None => "Partner Center did not answer the last check.",
    }
}

/// Returns the time of the next check. If all customers are refreshed together, it is by the end of `ttl`;
/// otherwise it is when the page is loaded after that.
fn next_check(ttl: i64, is_refreshed: bool) -> String {
    let word = if is_refreshed { "within" } else { "in" };
    match u64::try_from(ttl) {
        Ok(seconds) if seconds > 0 => {
            format!("{word} {}", format_duration(Duration::from_secs(seconds)))
        }
        _ => "when this page is next loaded".to_owned(),
    }
}
