//! What a query comes to, and how each way there is told in `Cache-Status`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::source::{CallIds, SourceError, SourceErrorKind};
use crate::cache::{CacheResult, CacheStatus, Failure, Forward, Held};

/// Usage, and how it came about.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Every form of it, with its age and lifetime.
    pub held: Held,
    /// For `Cache-Status`.
    pub status: CacheStatus,
    /// For metrics and logs.
    pub result: CacheResult,
    /// The upstream call's ids, on the answer that made the call and on no other.
    pub ids: Option<CallIds>,
}

/// Why there is no usage to hand out.
#[derive(Clone, Debug)]
pub struct Unanswered {
    /// What stands in the way.
    pub cause: Cause,
    /// For `Cache-Status`.
    pub status: CacheStatus,
    /// For metrics and logs; `None` where the cache was not consulted.
    pub result: Option<CacheResult>,
    /// The upstream call's ids, on the answer that made the call and on no other.
    pub ids: Option<CallIds>,
}

/// What stands in the way of an answer.
#[derive(Clone, Debug)]
pub enum Cause {
    /// The caller may not read this customer's usage, whether there is any or not.
    NotAllowed,
    /// Nothing that may be served is held, and the caller wants no call made.
    NotHeld,
    /// The source failed, now or shortly before.
    Source {
        /// How and when.
        failure: Arc<Failure<SourceError>>,
        /// Until asking again may help.
        retry_after: Duration,
    },
}

const REFRESH_NOT_ALLOWED: Option<&str> = Some("refresh-not-allowed");

// === impl Answer ===

impl Answer {
    /// Fresh, from memory.
    pub(super) fn hit(held: Held, detail: Option<&'static str>) -> Self {
        let detail = doubt_about(&held).or(detail);
        let status = CacheStatus {
            hit: true,
            detail,
            ..CacheStatus::default()
        };
        Self::of(held, CacheResult::Hit, status)
    }

    /// Stale, from memory, with a refresh behind it.
    pub(super) fn stale_while_revalidate(held: Held) -> Self {
        let doubt = doubt_about(&held);
        let status = CacheStatus {
            hit: true,
            detail: doubt.or(Some("stale-while-revalidate")),
            ..CacheStatus::default()
        };
        Self::of(held, CacheResult::Stale, status)
    }

    /// Stale, in place of a failure; `status` says whether upstream was asked.
    pub(super) fn stale_if_error(held: Held, status: CacheStatus) -> Self {
        let status = CacheStatus {
            detail: doubt_about(&held).or(Some("stale-if-error")),
            ..status
        };
        Self::of(held, CacheResult::Stale, status)
    }

    /// Stale, in place of an answer that takes longer than the soft timeout.
    pub(super) fn soft_timeout(held: Held, status: CacheStatus) -> Self {
        let status = CacheStatus {
            detail: doubt_about(&held).or(Some("soft-timeout")),
            ..status
        };
        Self::of(held, CacheResult::Stale, status)
    }

    /// What upstream told just now, to this request or to another that it joined; or what is held,
    /// where that is doubted.
    pub(super) fn fetched(held: Held, status: CacheStatus) -> Self {
        let status = CacheStatus {
            detail: doubt_about(&held).or(status.detail),
            ..status
        };
        Self::of(held, result_of(status.forward), status)
    }

    /// The same, told to a caller that wanted upstream asked and may not have that. Where the answer
    /// is stale besides, its negative `ttl` says so; that it is doubted is what matters more.
    pub(super) fn without_refresh(mut self) -> Self {
        self.status.detail = doubt_about(&self.held).or(REFRESH_NOT_ALLOWED);
        self
    }

    fn of(held: Held, result: CacheResult, status: CacheStatus) -> Self {
        let ttl = Some(held.ttl);
        Self {
            held,
            status: CacheStatus { ttl, ..status },
            result,
            ids: None,
        }
    }
}

// === impl Unanswered ===

impl Unanswered {
    /// The caller has no right to ask.
    pub(super) fn not_allowed() -> Self {
        Self {
            cause: Cause::NotAllowed,
            status: CacheStatus {
                detail: Some("not-consulted"),
                ..CacheStatus::default()
            },
            result: None,
            ids: None,
        }
    }

    /// The caller wants no call made, and nothing may be served without.
    pub(super) fn not_held() -> Self {
        Self {
            cause: Cause::NotHeld,
            status: CacheStatus {
                detail: Some("only-if-cached"),
                ..CacheStatus::default()
            },
            result: Some(CacheResult::Miss),
            ids: None,
        }
    }

    /// A failure of before still answers.
    pub(super) fn remembered(failure: Arc<Failure<SourceError>>, retry_after: Duration) -> Self {
        Self {
            status: CacheStatus {
                hit: true,
                ttl: Some(i64::try_from(retry_after.as_secs()).unwrap_or(i64::MAX)),
                detail: Some(failure.error.kind.as_str()),
                ..CacheStatus::default()
            },
            cause: Cause::Source {
                failure,
                retry_after,
            },
            result: Some(CacheResult::Negative),
            ids: None,
        }
    }

    /// No call could be made in time.
    pub(super) fn shed(failure: Arc<Failure<SourceError>>, retry_after: Duration) -> Self {
        Self {
            status: CacheStatus {
                detail: Some(failure.error.kind.as_str()),
                ..CacheStatus::default()
            },
            cause: Cause::Source {
                failure,
                retry_after,
            },
            result: Some(CacheResult::Miss),
            ids: None,
        }
    }

    /// The native form was asked for, and the newest data has none: the dated call sent it.
    pub(super) fn without_native(answer: Answer, now: Instant) -> Self {
        let retry_after = Duration::from_secs(u64::try_from(answer.held.ttl).unwrap_or(0));
        let error = SourceError {
            kind: SourceErrorKind::Suspect,
            detail: "Partner Center's newest data is older than what it sent before, and what it \
                     sent before cannot be had in this form: ask for the simplified one"
                .into(),
            status: answer.status.forward_status,
            refusal: None,
            ids: answer.ids,
        };
        Self {
            cause: Cause::Source {
                failure: Arc::new(Failure::once(error, now, retry_after)),
                retry_after,
            },
            status: CacheStatus {
                detail: Some(SourceErrorKind::Suspect.as_str()),
                ..answer.status
            },
            result: Some(answer.result),
            ids: answer.ids,
        }
    }

    /// The same, told to a caller that wanted upstream asked and may not have that; what failed is
    /// in the problem's own type.
    pub(super) fn without_refresh(mut self) -> Self {
        self.status.detail = REFRESH_NOT_ALLOWED;
        self
    }

    /// Upstream was asked, and failed.
    pub(super) fn failed(
        failure: Arc<Failure<SourceError>>,
        retry_after: Duration,
        status: CacheStatus,
    ) -> Self {
        Self {
            status: CacheStatus {
                detail: Some(failure.error.kind.as_str()),
                ..status
            },
            cause: Cause::Source {
                failure,
                retry_after,
            },
            result: Some(result_of(status.forward)),
            ids: None,
        }
    }
}

/// What is told wherever data is doubted, whatever else there is to tell.
fn doubt_about(held: &Held) -> Option<&'static str> {
    held.suspect.then_some("suspect")
}

fn result_of(forward: Option<Forward>) -> CacheResult {
    match forward {
        Some(Forward::Request) => CacheResult::Bypass,
        Some(Forward::UriMiss | Forward::Stale) | None => CacheResult::Miss,
    }
}
