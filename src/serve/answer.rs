use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::activity::Activity;
use crate::problem;

/// The body of an answer, which tells when the last of it was written, or given up.
#[derive(Debug)]
pub(super) struct Answer<B> {
    body: Origin<B>,
    /// Only its size is told (RFC 9110 §9.3.2).
    withheld: bool,
    /// Moves into the last chunk.
    answering: Option<Answering>,
}

/// Part of a body. hyper drops it once it is written, which may be long after it was handed over:
/// HTTP/2 holds what the client does not yet want.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Bytes,
    _answering: Option<Answering>,
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
    pub(super) fn of_handler(body: B, answering: Answering) -> Self {
        Self {
            body: Origin::Handler(body),
            withheld: false,
            answering: Some(answering),
        }
    }

    pub(super) fn of_edge(body: problem::Body, answering: Answering) -> Self {
        Self {
            body: Origin::Edge(body),
            withheld: false,
            answering: Some(answering),
        }
    }

    /// As the answer to HEAD, which has no content.
    pub(super) fn withheld(self) -> Self {
        Self {
            withheld: true,
            ..self
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Answer<B> {
    fn poll_origin(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut self.body {
            Origin::Handler(body) => Pin::new(body).poll_frame(cx),
            Origin::Edge(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Chunk;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, B::Error>>> {
        self.poll_origin(cx).map_ok(|frame| {
            frame.map_data(|bytes| Chunk {
                bytes,
                _answering: if self.is_end_stream() {
                    self.answering.take()
                } else {
                    None
                },
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.withheld
            || match &self.body {
                Origin::Handler(body) => body.is_end_stream(),
                Origin::Edge(body) => body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Origin::Handler(body) => body.size_hint(),
            Origin::Edge(body) => body.size_hint(),
        }
    }
}

// === impl Chunk ===

impl Buf for Chunk {
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
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.activity.end(self.stream);
    }
}
