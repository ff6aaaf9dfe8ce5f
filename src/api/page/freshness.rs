use crate::{
    cache::Freshness,
    domain::ProcessedDate,
    service::UsageAnswer,
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
    /// The note for an answer of this date, or of the newest one.
    pub(super) fn new(answer: &UsageAnswer, date: Option<ProcessedDate>) -> Self {
        let cached = &answer.cached;
        let newest = cached.rendered.processed_date().filter(|_| date.is_none());
        let newest_count = |verb| match newest {
            Some(newest) => format!(" Microsoft’s newest count {verb} of {newest}."),
            None => String::new(),
        };
        let (class, rest) = match cached.freshness {
            _ if cached.suspect => (
                "doubt",
                format!(
                    ". What Partner Center has answered since is implausible, and is shown only after \
                     a second check confirms it. Next check {}.",
                    next_check(cached.ttl)
                ),
            ),
            Freshness::Fresh if date.is_some() => (
                "fresh",
                ". Microsoft seldom changes the counts of a past date.".to_owned(),
            ),
            Freshness::Fresh => (
                "fresh",
                format!(
                    ", next check {}.{}",
                    next_check(cached.ttl),
                    newest_count("is")
                ),
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

/// Returns the time of the next check, if the page is loaded then.
fn next_check(ttl: i64) -> String {
    match u64::try_from(ttl) {
        Ok(seconds) if seconds > 0 => {
            format!(
                "in {}",
                format_duration(std::time::Duration::from_secs(seconds))
            )
        }
        _ => "when this page is next loaded".to_owned(),
    }
}
