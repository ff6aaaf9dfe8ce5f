//! The age of an answer, and the reason for it, from its headers.

use std::time::Duration;

use http::{HeaderMap, header};

use crate::text::{format_age, format_duration};

/// The age of an answer by its headers (RFC 9111 §5.1, RFC 9211).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReplyFreshness {
    pub(super) state: ReplyState,
    /// Seconds since it was checked with Partner Center.
    age: Option<u64>,
    /// Seconds until it goes stale; negative since it has.
    ttl: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyState {
    Fresh,
    /// Stale, while a new check is running.
    StaleWhileRevalidate,
    /// Stale, because Partner Center failed.
    StaleIfError,
    /// Partner Center's newer answer is implausible.
    Suspect,
    /// Not an answer of a usage-proxy.
    Unknown,
}

// === impl ReplyFreshness ===

impl ReplyFreshness {
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let age = text(header::AGE.as_str()).and_then(|age| age.trim().parse().ok());
        let parameters = text("cache-status")
            .and_then(own_parameters)
            .unwrap_or_default();
        let parameter = |name: &str| {
            let found = parameters.iter().find(|(found, _)| found == name);
            found.map(|(_, value)| value.as_str())
        };
        let ttl: Option<i64> = parameter("ttl").and_then(|ttl| ttl.parse().ok());
        let state = match parameter("detail") {
            _ if parameters.is_empty() => ReplyState::Unknown,
            Some("suspect") => ReplyState::Suspect,
            Some("stale-while-revalidate") => ReplyState::StaleWhileRevalidate,
            Some("stale-if-error") => ReplyState::StaleIfError,
            _ if ttl.is_some_and(|ttl| ttl < 0) => ReplyState::StaleWhileRevalidate,
            _ => ReplyState::Fresh,
        };
        Self { state, age, ttl }
    }

    /// Describes the age in a sentence. `newest` is the date of the counts, if it is the newest date.
    pub(super) fn sentence(&self, newest: Option<&str>) -> String {
        let checked = match self.age {
            Some(age) => format!("Checked {}", format_age(Duration::from_secs(age))),
            None => "Checked at an unknown time".to_owned(),
        };
        let newest_count = |verb| match newest {
            Some(newest) => format!(" Microsoft's newest count {verb} of {newest}."),
            None => String::new(),
        };
        match self.state {
            ReplyState::Fresh => {
                let next = self.ttl.filter(|ttl| *ttl > 0 && newest.is_some());
                let next = next.map(|ttl| Duration::from_secs(ttl.unsigned_abs()));
                let next = next.map(|next| format!(", next check in {}", format_duration(next)));
                format!(
                    "{checked}{}.{}",
                    next.unwrap_or_default(),
                    newest_count("is")
                )
            }
            ReplyState::StaleWhileRevalidate => format!(
                "{checked}. A new check is running: ask again in a moment.{}",
                newest_count("was")
            ),
            ReplyState::StaleIfError => format!(
                "{checked}. The last check with Partner Center failed.{}",
                newest_count("was")
            ),
            ReplyState::Suspect => format!(
                "{checked}. What Partner Center has answered since is implausible, and is shown only \
                 after a second check confirms it."
            ),
            ReplyState::Unknown => "Its age is unknown: no usage-proxy answered.".to_owned(),
        }
    }
}

/// Returns the parameters of our own member of the list; there may be other caches on the way.
fn own_parameters(list: &str) -> Option<Vec<(String, String)>> {
    list.split(',').find_map(|member| {
        let mut parts = member.split(';').map(str::trim);
        let name = parts.next()?.trim_matches('"');
        (name == "usage-proxy").then(|| {
            let parameters = parts.map(|part| part.split_once('=').unwrap_or((part, "")));
            let owned = |text: &str| text.trim_matches('"').to_owned();
            parameters
                .map(|(name, value)| (owned(name), owned(value)))
                .collect()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn freshness(cache_status: &'static str, age: &'static str) -> ReplyFreshness {
        let mut headers = HeaderMap::new();
        headers.insert("cache-status", cache_status.parse().unwrap());
        headers.insert(header::AGE, age.parse().unwrap());
        ReplyFreshness::from_headers(&headers)
    }

    #[test]
    fn every_cache_status_is_described_in_words() {
        for (cache_status, age, newest, sentence) in [
            (
                "usage-proxy; fwd=uri-miss; fwd-status=200; stored; ttl=900",
                "0",
                Some("2017-03-09"),
                "Checked just now, next check in 15 min. Microsoft's newest count is of 2017-03-09.",
            ),
            (
                "usage-proxy; hit; ttl=844",
                "56",
                Some("2017-03-09"),
                "Checked 56 s ago, next check in 14 min. Microsoft's newest count is of 2017-03-09.",
            ),
            (
                "usage-proxy; hit; ttl=720",
                "180",
                None,
                "Checked 3 min ago.",
            ),
            (
                "usage-proxy; hit; ttl=-300; detail=stale-while-revalidate",
                "1200",
                Some("2017-03-09"),
                "Checked 20 min ago. A new check is running: ask again in a moment. Microsoft's newest \
                 count was of 2017-03-09.",
            ),
            (
                "usage-proxy; fwd=stale; fwd-status=503; ttl=-9000; detail=stale-if-error",
                "180000",
                None,
                "Checked 2 days ago. The last check with Partner Center failed.",
            ),
            (
                "edge; hit, usage-proxy; hit; ttl=3; detail=suspect",
                "7200",
                Some("2017-03-09"),
                "Checked 2 h ago. What Partner Center has answered since is implausible, and is shown \
                 only after a second check confirms it.",
            ),
            (
                "edge; hit",
                "1",
                None,
                "Its age is unknown: no usage-proxy answered.",
            ),
        ] {
            assert_eq!(
                freshness(cache_status, age).sentence(newest),
                sentence,
                "{cache_status}"
            );
        }
    }
}
