use std::time::Duration;

use super::duration::in_words;
use crate::{cache::Freshness, domain::ProcessedDate, usage::Answer};

/// How old an answer is and why, in words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// How it is marked.
    pub(super) class: &'static str,
    /// In a word or two.
    pub(super) label: &'static str,
    /// In a sentence or two.
    pub(super) text: String,
}

// === impl Standing ===

impl Standing {
    /// How an answer stands that is of this date, or of the newest.
    pub(super) fn of(answer: &Answer, date: Option<ProcessedDate>) -> Self {
        let held = &answer.held;
        let ago = ago(held.age);
        if held.suspect {
            return Self {
                class: "doubt",
                label: "Kept.",
                text: format!(
                    "Partner Center’s newest answer lacks most of these numbers, or is older than they \
                     are, so it is not believed yet. These are what it said {ago}. It is asked again {}.",
                    when(held.ttl)
                ),
            };
        }
        match held.freshness {
            Freshness::Fresh if !answer.status.hit && answer.status.forward_status == Some(200) => {
                Self {
                    class: "fresh",
                    label: "Fresh.",
                    text: "Partner Center said so just now.".to_owned(),
                }
            }
            Freshness::Fresh => Self {
                class: "fresh",
                label: "Fresh.",
                text: match date {
                    Some(_) => format!(
                        "Partner Center said so {ago}. The numbers of a past date hardly ever change."
                    ),
                    None => format!(
                        "Partner Center said so {ago}. It is asked again {}.",
                        when(held.ttl)
                    ),
                },
            },
            Freshness::StaleWhileRevalidate
                if answer.status.hit && answer.status.forward.is_none() =>
            {
                Self {
                    class: "renewed",
                    label: "Being renewed.",
                    text: format!(
                        "These are what Partner Center said {ago}. It is being asked for newer ones: load \
                         this page again in a moment."
                    ),
                }
            }
            Freshness::StaleWhileRevalidate | Freshness::StaleIfError | Freshness::Expired => {
                Self {
                    class: "old",
                    label: "Old.",
                    text: format!("{} These are what it said {ago}.", why(answer)),
                }
            }
        }
    }
}

/// Why what is old is shown.
fn why(answer: &Answer) -> &'static str {
    match answer.status.forward_status {
        Some(429) => "Partner Center wants to be asked less often.",
        Some(401 | 403) => "Partner Center refuses this service’s credentials.",
        Some(_) => "Partner Center was asked for newer numbers and answered with an error.",
        None if answer.status.hit => {
            "Partner Center failed a moment ago, and is left alone until it may answer again."
        }
        None => "Partner Center was asked for newer numbers and did not answer.",
    }
}

fn ago(age: Duration) -> String {
    if age < Duration::from_secs(5) {
        "just now".to_owned()
    } else {
        format!("{} ago", in_words(age))
    }
}

/// When upstream is asked again, and not before somebody asks for it.
fn when(ttl: i64) -> String {
    match u64::try_from(ttl) {
        Ok(seconds) if seconds > 0 => {
            format!(
                "in {} at the earliest",
                in_words(Duration::from_secs(seconds))
            )
        }
        _ => "the next time that somebody looks".to_owned(),
    }
}
