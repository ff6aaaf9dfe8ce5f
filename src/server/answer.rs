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
pub(super) struct Answer<B> {
    /// Moves into the last chunk.
    whole: Option<Whole<B>>,
    /// What the body gave and is not handed on yet.
    rest: Bytes,
    /// Most bytes of one chunk.
    piece: usize,
    /// Only its size is told (RFC 9110 §9.3.2).
    withheld: bool,
}

/// Part of a body. hyper drops it once it is written, which may be long after it was handed over:
/// HTTP/2 holds what the client does not yet want.
#[derive(Debug)]
pub(super) struct Chunk<B> {
    bytes: Bytes,
    /// With the last one, what counts as not sent before it is.
    _whole: Option<Whole<B>>,
}

#[derive(Debug)]
struct Whole<B> {
    body: Origin<B>,
    answering: Answering,
}

#[derive(Debug)]
enum Origin<B> {
    Handler(B),
    Edge(problem::Body),
}

/// A request whose answer is under way for as long as this lives.
#[derive(Debug)]
pub(super) struct Answering {
    activity: Arc<Activity>,
    stream: u32,
}

// === impl Answer ===

impl<B> Answer<B> {
    /// What is handed over of a stream's answer at a time. hyper keeps one piece until the client
    /// takes it; only before the last can it reset a stream that is stalled.
    pub(super) const STREAM_PIECE: usize = 64 * 1024;

    pub(super) fn of_handler(body: B, answering: Answering) -> Self {
        Self::new(Origin::Handler(body), answering)
    }

    pub(super) fn of_edge(body: problem::Body, answering: Answering) -> Self {
        Self::new(Origin::Edge(body), answering)
    }

    fn new(body: Origin<B>, answering: Answering) -> Self {
        Self {
            whole: Some(Whole { body, answering }),
            rest: Bytes::new(),
            piece: usize::MAX,
            withheld: false,
        }
    }

    /// As the answer to HEAD, which has no content.
    pub(super) fn withheld(self) -> Self {
        Self {
            withheld: true,
            ..self
        }
    }

    /// As the answer of a stream.
    pub(super) fn in_pieces(self) -> Self {
        Self {
            piece: Self::STREAM_PIECE,
            ..self
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Chunk<B>;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk<B>>, B::Error>>> {
        let this = &mut *self;
        let Some(whole) = &mut this.whole else {
            return Poll::Ready(None);
        };
        if this.rest.is_empty() {
            match ready!(whole.body.poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => this.rest = bytes,
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
        whole.answering.hand_over();
        let piece = this.piece.min(this.rest.len());
        let bytes = this.rest.split_to(piece);
        let last = this.rest.is_empty() && whole.body.is_end_stream();
        Poll::Ready(Some(Ok(Frame::data(Chunk {
            bytes,
            _whole: if last { this.whole.take() } else { None },
        }))))
    }

    fn is_end_stream(&self) -> bool {
        self.withheld
            || match &self.whole {
                Some(whole) => self.rest.is_empty() && whole.body.is_end_stream(),
                None => true,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let Some(whole) = &self.whole else {
            return SizeHint::with_exact(0);
        };
        let (mut hint, rest) = (whole.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

// === impl Origin ===

impl<B: Body<Data = Bytes> + Unpin> Origin<B> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self {
            Self::Handler(body) => Pin::new(body).poll_frame(cx),
            Self::Edge(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Handler(body) => body.is_end_stream(),
            Self::Edge(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Handler(body) => body.size_hint(),
            Self::Edge(body) => body.size_hint(),
        }
    }
}

// === impl Chunk ===

impl<B> Buf for Chunk<B> {
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

impl Answering {
    /// Of this stream, where there are streams.
    pub(super) fn new(activity: Arc<Activity>, stream: u32) -> Self {
        Self { activity, stream }
    }

    fn hand_over(&self) {
        self.activity.hand_over(self.stream);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.activity.end(self.stream);
    }
}
