//! The bodies of responses.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::activity::Activity;
use crate::problem;

/// The body of a response. Records when its last byte was written or it was dropped.
#[derive(Debug)]
pub(super) struct ResponseBody<B> {
    /// Moves into the last chunk.
    tracked: Option<TrackedBody<B>>,
    /// Data of the body that hyper does not have yet.
    pending: Bytes,
    /// The most bytes of one chunk.
    max_chunk: usize,
    /// Only its size is sent (RFC 9110 §9.3.2).
    is_omitted: bool,
}

/// Part of a body. hyper drops it once it is written. With HTTP/2 that may be long after it was passed
/// on, because hyper waits for the client's flow-control window.
#[derive(Debug)]
pub(super) struct ResponseChunk<B> {
    bytes: Bytes,
    /// Part of the last chunk: counts as unsent until that is written.
    _tracked: Option<TrackedBody<B>>,
}

#[derive(Debug)]
struct TrackedBody<B> {
    body: BodySource<B>,
    active: ActiveResponse,
}

#[derive(Debug)]
enum BodySource<B> {
    Handler(B),
    Problem(problem::FullBody),
}

/// A request whose response is in progress until this is dropped.
#[derive(Debug)]
pub(super) struct ActiveResponse {
    activity: Arc<Activity>,
    stream: u32,
}

// === impl ResponseBody ===

impl<B> ResponseBody<B> {
    /// The size of the chunks of a stream's response. hyper buffers one chunk until the client reads it.
    /// A stalled stream can be reset only before its last chunk.
    pub(super) const STREAM_CHUNK_BYTES: usize = 64 * 1024;

    pub(super) fn from_handler(body: B, active: ActiveResponse) -> Self {
        Self::new(BodySource::Handler(body), active)
    }

    pub(super) fn from_problem(body: problem::FullBody, active: ActiveResponse) -> Self {
        Self::new(BodySource::Problem(body), active)
    }

    fn new(body: BodySource<B>, active: ActiveResponse) -> Self {
        Self {
            tracked: Some(TrackedBody { body, active }),
            pending: Bytes::new(),
            max_chunk: usize::MAX,
            is_omitted: false,
        }
    }

    /// Returns the body of a response to HEAD, which has no content.
    pub(super) fn without_content(self) -> Self {
        Self {
            is_omitted: true,
            ..self
        }
    }

    /// Returns the body of a stream's response.
    pub(super) fn in_chunks(self) -> Self {
        Self {
            max_chunk: Self::STREAM_CHUNK_BYTES,
            ..self
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ResponseBody<B> {
    type Data = ResponseChunk<B>;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<ResponseChunk<B>>, B::Error>>> {
        let this = &mut *self;
        let Some(tracked) = &mut this.tracked else {
            return Poll::Ready(None);
        };
        if this.pending.is_empty() {
            match ready!(tracked.body.poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => this.pending = bytes,
                    Err(trailers) => {
                        return Poll::Ready(
                            trailers
                                .into_trailers()
                                .ok()
                                .map(|trailers| Ok(Frame::trailers(trailers))),
                        );
                    }
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        tracked.active.record_chunk();
        let len = this.max_chunk.min(this.pending.len());
        let bytes = this.pending.split_to(len);
        let last = this.pending.is_empty() && tracked.body.is_end_stream();
        Poll::Ready(Some(Ok(Frame::data(ResponseChunk {
            bytes,
            _tracked: if last { this.tracked.take() } else { None },
        }))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_omitted
            || match &self.tracked {
                Some(tracked) => self.pending.is_empty() && tracked.body.is_end_stream(),
                None => true,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let Some(tracked) = &self.tracked else {
            return SizeHint::with_exact(0);
        };
        let (mut hint, rest) = (tracked.body.size_hint(), self.pending.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

// === impl BodySource ===

impl<B: Body<Data = Bytes> + Unpin> BodySource<B> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self {
            Self::Handler(body) => Pin::new(body).poll_frame(cx),
            Self::Problem(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Handler(body) => body.is_end_stream(),
            Self::Problem(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Handler(body) => body.size_hint(),
            Self::Problem(body) => body.size_hint(),
        }
    }
}

// === impl ResponseChunk ===

impl<B> Buf for ResponseChunk<B> {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        self.bytes.copy_to_bytes(count)
    }
}

// === impl ActiveResponse ===

impl ActiveResponse {
    /// Creates the guard of a request; `stream` is its number.
    pub(super) fn new(activity: Arc<Activity>, stream: u32) -> Self {
        Self { activity, stream }
    }

    fn record_chunk(&self) {
        self.activity.record_chunk(self.stream);
    }
}

impl Drop for ActiveResponse {
    fn drop(&mut self) {
        self.activity.finish(self.stream);
    }
}
