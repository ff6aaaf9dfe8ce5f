use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::activity::Activity;
use crate::problem;

/// The body of an answer, which tells when hyper has all of it, or has given it up.
#[derive(Debug)]
pub(super) struct Answer<B> {
    body: Origin<B>,
    _answering: Answering,
}

#[derive(Debug)]
enum Origin<B> {
    Handler(B),
    Edge(problem::Body),
}

/// A request whose answer is under way for as long as this lives.
#[derive(Debug)]
pub(super) struct Answering(pub(super) Arc<Activity>);

// === impl Answer ===

impl<B> Answer<B> {
    pub(super) fn of_handler(body: B, answering: Answering) -> Self {
        Self {
            body: Origin::Handler(body),
            _answering: answering,
        }
    }

    pub(super) fn of_edge(body: problem::Body, answering: Answering) -> Self {
        Self {
            body: Origin::Edge(body),
            _answering: answering,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut self.body {
            Origin::Handler(body) => Pin::new(body).poll_frame(cx),
            Origin::Edge(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
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

// === impl Answering ===

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.end();
    }
}
