//! Limits the bytes of answers that clients have not read yet.
//!
//! A client that stalls keeps the body of its answer in memory, also after its eviction from the cache.
//! A usual hit over HTTP/1 is no larger than the buffers of its connection, so it is not counted.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Response, Version};
use http_body::{Frame, SizeHint};

use crate::{
    auth::CallerIdentity,
    problem::{FullBody, Problem, ProblemKind},
    resilience::byte_budget::ByteBudget,
};

/// The body of an answer, counted as unsent until it is dropped.
#[derive(Clone, Debug)]
pub struct ApiBody {
    content: FullBody,
    charge: Option<Arc<UnsentCharge>>,
}

/// The budgets of one listener.
#[derive(Debug)]
pub(super) struct UnsentBudgets {
    total: Arc<ByteBudget>,
    /// The part for unauthenticated clients.
    unauthenticated: Arc<ByteBudget>,
}

/// Bytes that are taken from the budgets until it is dropped.
#[derive(Debug)]
pub(super) struct UnsentCharge {
    bytes: usize,
    total: Arc<ByteBudget>,
    /// `None` if callers are not identified.
    caller: Option<Arc<ByteBudget>>,
}

/// The most unsent bytes of a listener.
const TOTAL_BYTES: usize = 64 * 1024 * 1024;

/// The most bytes of an answer over HTTP/1 that is not counted.
const UNCOUNTED_BYTES: usize = 8 * 1024;

/// The memory of an HTTP/2 stream beside its answer.
const STREAM_OVERHEAD_BYTES: usize = 16 * 1024;

// === impl UnsentBudgets ===

impl Default for UnsentBudgets {
    fn default() -> Self {
        Self {
            total: Arc::new(ByteBudget::new(TOTAL_BYTES)),
            unauthenticated: CallerIdentity::new_unsent_budget(),
        }
    }
}

impl UnsentBudgets {
    /// Counts an answer as unsent; `Ok(None)` where it is too small to count.
    ///
    /// # Errors
    ///
    /// A problem to answer with in its place, where a budget is used up.
    pub(super) fn charge(
        &self,
        answer: &Response<ApiBody>,
        version: Version,
        sender: ResponseRecipient<'_>,
    ) -> Result<Option<UnsentCharge>, Problem> {
        let stream = version == Version::HTTP_2;
        let content = match sender {
            // Files that are part of the program, and a problem of a few hundred bytes.
            ResponseRecipient::Unauthenticated => 0,
            ResponseRecipient::Anonymous | ResponseRecipient::Caller(_) => content_length(answer),
        };
        if !stream && content <= UNCOUNTED_BYTES {
            return Ok(None);
        }
        let bytes = content + if stream { STREAM_OVERHEAD_BYTES } else { 0 };
        let caller = match sender {
            ResponseRecipient::Unauthenticated => Some(&self.unauthenticated),
            ResponseRecipient::Anonymous => None,
            ResponseRecipient::Caller(identity) => Some(identity.unsent()),
        };
        if caller.is_some_and(|caller| !caller.acquire(bytes)) {
            return Err(caller_over_budget());
        }
        if !self.total.acquire(bytes) {
            if let Some(caller) = caller {
                caller.release(bytes);
            }
            return Err(over_budget());
        }
        Ok(Some(UnsentCharge {
            bytes,
            total: Arc::clone(&self.total),
            caller: caller.cloned(),
        }))
    }
}

/// The recipient of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum ResponseRecipient<'a> {
    /// A client without a valid credential.
    Unauthenticated,
    /// A client of a service that identifies no callers.
    Anonymous,
    /// A caller.
    Caller(&'a CallerIdentity),
}

fn content_length(answer: &Response<ApiBody>) -> usize {
    let size = http_body::Body::size_hint(answer.body()).lower();
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn caller_over_budget() -> Problem {
    let detail = "this caller has not read answers that were sent before; read them, or close their \
                  connections, and try again";
    Problem::new(ProblemKind::UnreadAnswers, detail).with_retry_after(1)
}

fn over_budget() -> Problem {
    let detail = "clients have not read answers that were sent to them; try again shortly";
    Problem::new(ProblemKind::Backlogged, detail).with_retry_after(1)
}

// === impl Charge ===

impl Drop for UnsentCharge {
    fn drop(&mut self) {
        for budget in self.caller.iter().chain([&self.total]) {
            budget.release(self.bytes);
        }
    }
}

// === impl ApiBody ===

impl ApiBody {
    /// Counts the body as unsent until it is dropped.
    pub(super) fn set_charge(&mut self, charge: UnsentCharge) {
        self.charge = Some(Arc::new(charge));
    }
}

impl From<FullBody> for ApiBody {
    fn from(content: FullBody) -> Self {
        Self {
            content,
            charge: None,
        }
    }
}

impl http_body::Body for ApiBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.content).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}
