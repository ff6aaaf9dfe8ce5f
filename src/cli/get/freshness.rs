//! How old an answer is and why, from its headers.

use http::{HeaderMap, header};

/// What the headers say of an answer's age (RFC 9111 §5.1, RFC 9211).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Freshness {
    pub(super) state: State,
    /// Seconds since Partner Center told it.
    age: Option<u64>,
    /// Seconds until it goes stale; negative since it has.
    ttl: Option<i64>,
    /// Partner Center was asked for this very answer.
    asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Fresh,
    /// Stale, and being asked for again.
    Revalidating,
    /// Stale, in place of a failure.
    InPlaceOfFailure,
    /// Partner Center has told something else since, which is doubted.
    Suspect,
    /// Not told by a usage-proxy.
    Unknown,
}

// === impl Freshness ===

impl Freshness {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let age = text(header::AGE.as_str()).and_then(|age| age.trim().parse().ok());
        let parameters = text("cache-status").and_then(of_ours).unwrap_or_default();
        let parameter = |name: &str| {
            let found = parameters.iter().find(|(held, _)| held == name);
            found.map(|(_, value)| value.as_str())
        };
        let ttl: Option<i64> = parameter("ttl").and_then(|ttl| ttl.parse().ok());
        let asked = parameter("fwd").is_some();
        let state = match parameter("detail") {
            _ if parameters.is_empty() => State::Unknown,
            Some("suspect") => State::Suspect,
            Some("stale-while-revalidate") => State::Revalidating,
            Some("stale-if-error") => State::InPlaceOfFailure,
            _ if ttl.is_some_and(|ttl| ttl < 0) => State::Revalidating,
            _ => State::Fresh,
        };
        Self {
            state,
            age,
            ttl,
            asked,
        }
    }

    /// For people.
    pub(super) fn sentence(&self) -> String {
        let age = match self.age {
            Some(age) => ago(age),
            None => "at a time that is not told".to_owned(),
        };
        match self.state {
            State::Fresh if self.asked => "Fresh: Partner Center was asked just now.".to_owned(),
            State::Fresh => match self.ttl {
                Some(ttl) if ttl > 0 => format!(
                    "Fresh: told by Partner Center {age}, and taken for true for {} more.",
                    duration(ttl.unsigned_abs())
                ),
                _ => format!("Fresh: told by Partner Center {age}."),
            },
            State::Revalidating => {
                format!(
                    "Stale: told by Partner Center {age}; it is being asked again, so ask once more."
                )
            }
            State::InPlaceOfFailure => format!(
                "Stale: told by Partner Center {age}, and shown since it cannot be asked now."
            ),
            State::Suspect => format!(
                "Suspect: told by Partner Center {age}. What it tells now lacks rows or is older, \
                 which is shown once it is confirmed."
            ),
            State::Unknown => "How old this is, nobody tells.".to_owned(),
        }
    }
}

/// The parameters of our own member of the list; there may be other caches on the way.
fn of_ours(list: &str) -> Option<Vec<(String, String)>> {
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

fn ago(seconds: u64) -> String {
    if seconds < 2 {
        "just now".to_owned()
    } else {
        format!("{} ago", duration(seconds))
    }
}

/// In the largest unit that does not lie much.
fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(cache_status: &'static str, age: &'static str) -> Freshness {
        let mut headers = HeaderMap::new();
        headers.insert("cache-status", cache_status.parse().unwrap());
        headers.insert(header::AGE, age.parse().unwrap());
        Freshness::of(&headers)
    }

    #[test]
    fn the_headers_of_every_way_to_an_answer_are_put_into_words() {
        for (cache_status, age, sentence) in [
            (
                "usage-proxy; fwd=uri-miss; fwd-status=200; stored; ttl=900",
                "0",
                "Fresh: Partner Center was asked just now.",
            ),
            (
                "usage-proxy; hit; ttl=720",
                "180",
                "Fresh: told by Partner Center 3 min ago, and taken for true for 12 min more.",
            ),
            (
                "usage-proxy; hit; ttl=-300; detail=stale-while-revalidate",
                "1200",
                "Stale: told by Partner Center 20 min ago; it is being asked again, so ask once more.",
            ),
            (
                "usage-proxy; fwd=stale; fwd-status=503; ttl=-9000; detail=stale-if-error",
                "180000",
                "Stale: told by Partner Center 2 days ago, and shown since it cannot be asked now.",
            ),
            (
                "edge; hit, usage-proxy; hit; ttl=3; detail=suspect",
                "7200",
                "Suspect: told by Partner Center 2 h ago. What it tells now lacks rows or is older, \
                 which is shown once it is confirmed.",
            ),
            ("edge; hit", "1", "How old this is, nobody tells."),
        ] {
            assert_eq!(
                told(cache_status, age).sentence(),
                sentence,
                "{cache_status}"
            );
        }
    }
}
