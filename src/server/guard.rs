//! The socket as hyper sees it: whole heads, each judged, and nothing after the last that may be.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    activity::Activity,
    head::{HeadScanner, Verdict},
    refusal::Refusal,
};

/// A socket that hands on only heads that may be read.
///
/// A refused head is replaced by a harmless one, which the service answers with the refusal: so the
/// answer comes after those of the requests before it, and is dressed as every other.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    activity: Arc<Activity>,
    reading: Reading,
    /// Bytes that hyper is to have before any others.
    ready: Vec<u8>,
    /// Of how many bytes it has been given.
    given: usize,
    /// What was read and thrown away after the end.
    discarded: usize,
    /// The client has closed its half (FIN, or close_notify of TLS), which hyper learns once every
    /// request that came before is answered.
    half_closed: bool,
    shut: bool,
}

#[derive(Debug)]
enum Reading {
    /// Bytes are handed on as they come: HTTP/2, or a listener that takes bodies.
    Unjudged,
    /// The next head is awaited, of which this much has come.
    Heads { scanner: HeadScanner, held: Vec<u8> },
    /// The last head has been handed on.
    Nothing,
}

/// What a read came to.
enum Input {
    Read,
    Ended,
}

// === impl Guarded ===

impl<S> Guarded<S> {
    /// Most bytes that are read from a client that was refused, so that it reads the answer.
    const MAX_DISCARDED: usize = 256 * 1024;

    /// Hands on heads alone. `begun` was read from the stream already.
    pub(super) fn heads(stream: S, begun: &[u8], activity: Arc<Activity>) -> Self {
        let reading = Reading::Heads {
            scanner: HeadScanner::default(),
            held: Vec::new(),
        };
        let mut guarded = Self::new(stream, reading, activity);
        if !begun.is_empty() {
            guarded.judge_held(begun);
        }
        guarded
    }

    /// Hands on everything, `begun` first.
    pub(super) fn unjudged(stream: S, begun: Vec<u8>, activity: Arc<Activity>) -> Self {
        Self {
            ready: begun,
            ..Self::new(stream, Reading::Unjudged, activity)
        }
    }

    fn new(stream: S, reading: Reading, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            activity,
            reading,
            ready: Vec::new(),
            given: 0,
            discarded: 0,
            half_closed: false,
            shut: false,
        }
    }

    /// Judges what is held of a head and these bytes after it.
    fn judge_held(&mut self, fresh: &[u8]) {
        let Reading::Heads { held, .. } = &mut self.reading else {
            return;
        };
        held.extend_from_slice(fresh);
        let mut bytes = std::mem::take(held);
        let whole = self.judge(&bytes);
        if let Reading::Heads { held, .. } = &mut self.reading {
            *held = bytes.split_off(whole);
        }
        bytes.truncate(whole);
        // A refusal has put its stand-in there, which comes after the heads before it.
        bytes.append(&mut self.ready);
        self.ready = bytes;
    }

    /// Looks for whole heads at the front of `bytes`, and returns how many bytes they are. What is
    /// left is the beginning of a head, unless nothing more is read.
    fn judge(&mut self, bytes: &[u8]) -> usize {
        let mut whole = 0;
        while let Reading::Heads { scanner, .. } = &mut self.reading {
            let rest = bytes.get(whole..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match scanner.scan(rest) {
                Verdict::Partial => {
                    self.activity.set_partial(true);
                    return whole;
                }
                Verdict::Whole { len, body } => {
                    whole += len;
                    self.activity.take();
                    if body {
                        self.reading = Reading::Nothing;
                    }
                }
                Verdict::Refused(refusal) => self.refuse(refusal, rest),
            }
        }
        self.activity.set_partial(false);
        whole
    }

    fn refuse(&mut self, refusal: Refusal, head: &[u8]) {
        self.activity.refuse(refusal);
        self.ready.extend_from_slice(&Refusal::stand_in(head));
        self.reading = Reading::Nothing;
    }

    fn refuse_overdue(&mut self) {
        if self.activity.is_overdue()
            && let Reading::Heads { held, .. } = &mut self.reading
        {
            let held = std::mem::take(held);
            self.refuse(Refusal::Overdue, &held);
        }
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let rest = self.ready.get(self.given..).unwrap_or_default();
        let given = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..given).unwrap_or_default());
        self.given += given;
        if self.given == self.ready.len() {
            self.ready = Vec::new();
            self.given = 0;
        }
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Reads heads into hyper's own buffer; only what is left of one is copied. Tells whether there
    /// was anything to read.
    fn poll_heads(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Input>> {
        let Reading::Heads { held, .. } = &self.reading else {
            return Poll::Pending;
        };
        let before = buf.filled().len();
        let in_pieces = !held.is_empty();
        match ready!(Pin::new(&mut self.stream).poll_read(cx, buf)) {
            // FIN without the close_notify of TLS: no head is cut short, for their ends are known.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            read => read?,
        }
        let fresh = buf.filled().get(before..).unwrap_or_default();
        if fresh.is_empty() {
            return Poll::Ready(Ok(Input::Ended));
        }
        if in_pieces {
            self.judge_held(fresh);
            buf.set_filled(before);
            return Poll::Ready(Ok(Input::Read));
        }
        let whole = self.judge(fresh);
        if let Reading::Heads { held, .. } = &mut self.reading {
            *held = fresh.get(whole..).unwrap_or_default().to_vec();
        }
        buf.set_filled(before + whole);
        Poll::Ready(Ok(Input::Read))
    }

    /// Completes when bytes come, or the end, after a time in which hyper did not read.
    pub(super) fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut space = [0; 1024];
        let mut buf = ReadBuf::new(&mut space);
        // What hyper then reads says the same of the end, or of what is broken.
        if ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)).is_ok() {
            match self.reading {
                Reading::Heads { .. } => self.judge_held(buf.filled()),
                Reading::Unjudged => self.ready.extend_from_slice(buf.filled()),
                Reading::Nothing => {}
            }
        }
        Poll::Ready(())
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut space = [0; 4096];
        while self.discarded < Self::MAX_DISCARDED {
            let mut buf = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => self.discarded += buf.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            this.refuse_overdue();
            if !this.ready.is_empty() {
                this.give(buf);
                return Poll::Ready(Ok(()));
            }
            if let Reading::Unjudged = this.reading {
                return Pin::new(&mut this.stream).poll_read(cx, buf);
            }
            let before = buf.filled().len();
            // Without a byte, hyper takes the connection for closed, and what is under way for
            // abandoned.
            if let Input::Ended = ready!(this.poll_heads(cx, buf))? {
                this.half_closed = this.activity.owes_answers();
                return if this.half_closed {
                    Poll::Pending
                } else {
                    Poll::Ready(Ok(()))
                };
            }
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.activity.set_held_up(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.activity.set_held_up(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.activity.set_held_up(flushed.is_pending());
        ready!(flushed)?;
        // hyper flushes once it has written everything that it held.
        self.activity.flushed();
        if self.half_closed && !self.activity.owes_answers() {
            self.half_closed = false;
            // It reads again, and learns of the end.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    /// Says that no more will come, then reads on where bytes are left that nobody wants: closing on
    /// them would reset the connection, and the client might never see the answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.shut = true;
            self.activity.close();
        }
        if self.activity.leaves_bytes_unread() || matches!(self.reading, Reading::Nothing) {
            ready!(self.poll_discard(cx));
        }
        Poll::Ready(Ok(()))
    }
}
