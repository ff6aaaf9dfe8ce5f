//! Answers that wait for clients to take them: how many bytes of them there may be.
//!
//! A client that stalls pins the body of its answer, which is nobody else's where it is a page of the
//! list of customers or was evicted meanwhile. What an ordinary hit sends over HTTP/1 is no larger
//! than what its connection takes anyway, and is not counted.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Response, Version};
use http_body::{Frame, SizeHint};

use crate::{
    auth::Identity,
    problem::{Body, Kind, Problem},
    resilience::byte_budget::ByteBudget,
};

/// The body of an answer. Dropped once it is sent, or given up, it no longer counts as unsent.
#[derive(Debug)]
pub struct ApiBody {
    content: Body,
    _charge: Option<Charge>,
}

/// The budgets of one listener.
#[derive(Debug)]
pub(super) struct UnsentBudgets {
    all: Arc<ByteBudget>,
    /// Of those who have not proved who they are.
    unknown: Arc<ByteBudget>,
}

/// Bytes that are taken from the budgets for as long as this lives.
#[derive(Debug)]
pub(super) struct Charge {
    bytes: usize,
    all: Arc<ByteBudget>,
    /// `None` where nobody is told apart.
    caller: Option<Arc<ByteBudget>>,
}

/// Bytes that all answers of a listener may have unsent.
const OF_ALL: usize = 64 * 1024 * 1024;

/// What an answer over HTTP/1 may have without being counted.
const SMALL: usize = 8 * 1024;

/// What a stream of HTTP/2 takes besides its answer.
const STREAM: usize = 16 * 1024;

// === impl UnsentBudgets ===

impl Default for UnsentBudgets {
    fn default() -> Self {
        Self {
            all: Arc::new(ByteBudget::new(OF_ALL)),
            unknown: Identity::unsent_budget(),
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
        answer: &Response<Body>,
        version: Version,
        sender: Sender<'_>,
    ) -> Result<Option<Charge>, Problem> {
        let stream = version == Version::HTTP_2;
        let content = match sender {
            // Files that are part of the program, and a problem of a few hundred bytes.
            Sender::Unknown => 0,
            Sender::Anyone | Sender::Caller(_) => content_length(answer),
        };
        if !stream && content <= SMALL {
            return Ok(None);
        }
        let bytes = content + if stream { STREAM } else { 0 };
        let caller = match sender {
            Sender::Unknown => Some(&self.unknown),
            Sender::Anyone => None,
            Sender::Caller(identity) => Some(identity.unsent()),
        };
        if caller.is_some_and(|caller| !caller.take(bytes)) {
            return Err(too_many_of_caller());
        }
        if !self.all.take(bytes) {
            if let Some(caller) = caller {
                caller.give_back(bytes);
            }
            return Err(too_many());
        }
        Ok(Some(Charge {
            bytes,
            all: Arc::clone(&self.all),
            caller: caller.cloned(),
        }))
    }
}

/// Who gets an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sender<'a> {
    /// Somebody who has not proved who it is.
    Unknown,
    /// Somebody, where callers are not identified.
    Anyone,
    /// A caller.
    Caller(&'a Identity),
}

fn content_length(answer: &Response<Body>) -> usize {
    let size = http_body::Body::size_hint(answer.body()).lower();
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn too_many_of_caller() -> Problem {
    let detail = "this caller has not read answers that were sent before; read them, or close their \
                  connections, and try again";
    Problem::new(Kind::UnreadAnswers, detail).with_retry_after(1)
}

fn too_many() -> Problem {
    let detail = "clients have not read answers that were sent to them; try again shortly";
    Problem::new(Kind::Backlogged, detail).with_retry_after(1)
}

// === impl Charge ===

impl Drop for Charge {
    fn drop(&mut self) {
        for budget in self.caller.iter().chain([&self.all]) {
            budget.give_back(self.bytes);
        }
    }
}

// === impl ApiBody ===

impl ApiBody {
    pub(super) const fn new(content: Body, charge: Option<Charge>) -> Self {
        Self {
            content,
            _charge: charge,
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
