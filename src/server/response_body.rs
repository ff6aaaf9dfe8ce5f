use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::activity::Activity;
use crate::problem;

/// The body of an answer, which tells when the last of it was written, or given up.
#[derive(Debug)]
pub(super) struct ResponseBody<B> {
    /// Moves into the last chunk.
    tracked: Option<TrackedBody<B>>,
    /// What the body gave and is not handed on yet.
    pending: Bytes,
    /// Most bytes of one chunk.
    max_chunk: usize,
    /// Only its size is told (RFC 9110 §9.3.2).
    is_omitted: bool,
}

/// Part of a body. hyper drops it once it is written, which may be long after it was handed over:
/// HTTP/2 holds what the client does not yet want.
#[derive(Debug)]
pub(super) struct ResponseChunk<B> {
    bytes: Bytes,
    /// With the last one, what counts as not sent before it is.
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

/// A request whose answer is under way for as long as this lives.
#[derive(Debug)]
pub(super) struct ActiveResponse {
    activity: Arc<Activity>,
    stream: u32,
}

// === impl Answer ===

impl<B> ResponseBody<B> {
    /// What is handed over of a stream's answer at a time. hyper keeps one piece until the client
    /// takes it; only before the last can it reset a stream that is stalled.
    pub(super) const STREAM_CHUNK_BYTES: usize = 64 * 1024;

    pub(super) fn from_handler(body: B, answering: ActiveResponse) -> Self {
        Self::new(BodySource::Handler(body), answering)
    }

    pub(super) fn from_problem(body: problem::FullBody, answering: ActiveResponse) -> Self {
        Self::new(BodySource::Problem(body), answering)
    }

    fn new(body: BodySource<B>, answering: ActiveResponse) -> Self {
        Self {
            tracked: Some(TrackedBody {
                body,
                active: answering,
            }),
            pending: Bytes::new(),
            max_chunk: usize::MAX,
            is_omitted: false,
        }
    }

    /// As the answer to HEAD, which has no content.
    pub(super) fn without_content(self) -> Self {
        Self {
            is_omitted: true,
            ..self
        }
    }

    /// As the answer of a stream.
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
        let Some(whole) = &mut this.tracked else {
            return Poll::Ready(None);
        };
        if this.pending.is_empty() {
            match ready!(whole.body.poll_frame(cx)) {
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
        whole.active.record_chunk();
        let piece = this.max_chunk.min(this.pending.len());
        let bytes = this.pending.split_to(piece);
        let last = this.pending.is_empty() && whole.body.is_end_stream();
        Poll::Ready(Some(Ok(Frame::data(ResponseChunk {
            bytes,
            _tracked: if last { this.tracked.take() } else { None },
        }))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_omitted
            || match &self.tracked {
                Some(whole) => self.pending.is_empty() && whole.body.is_end_stream(),
                None => true,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let Some(whole) = &self.tracked else {
            return SizeHint::with_exact(0);
        };
        let (mut hint, rest) = (whole.body.size_hint(), self.pending.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

// === impl Origin ===

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

// === impl Chunk ===

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

// === impl Answering ===

impl ActiveResponse {
    /// Of this stream, where there are streams.
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
