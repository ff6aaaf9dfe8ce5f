//! The socket as hyper sees it, which records what happens on it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;

/// A socket that records reads, writes and stalls in the [`Activity`] of its connection.
#[derive(Debug)]
pub(super) struct ClientSocket<S> {
    stream: S,
    activity: Arc<Activity>,
    /// Bytes that were read before and that hyper reads first.
    prefix: Bytes,
    /// The number of bytes that were read and dropped after the last response.
    discarded: usize,
    /// hyper learns that the client has closed its half (FIN, or close_notify of TLS) only once every
    /// request before it is answered: it would abandon them.
    allows_half_close: bool,
    is_half_closed: bool,
    is_shut_down: bool,
}

// === impl ClientSocket ===

impl<S> ClientSocket<S> {
    /// The most bytes that are read from a rejected client, so that it reads the response.
    const MAX_DISCARDED: usize = 256 * 1024;

    /// A socket from which `prefix` was read already.
    pub(super) fn new(stream: S, prefix: Bytes, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            activity,
            prefix,
            discarded: 0,
            allows_half_close: false,
            is_half_closed: false,
            is_shut_down: false,
        }
    }

    /// The same, for clients that close their half and still read.
    pub(super) fn with_half_close(self) -> Self {
        Self {
            allows_half_close: true,
            ..self
        }
    }

    /// Gives back bytes that hyper has read and not used.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        self.prefix = bytes;
    }
}

impl<S: AsyncRead + Unpin> ClientSocket<S> {
    /// Completes when there is something to read, while hyper does not.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.prefix.is_empty() {
            let mut space = [0; 1024];
            let mut buf = ReadBuf::new(&mut space);
            // hyper then reads the same end or error itself.
            if ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)).is_ok() {
                self.prefix = Bytes::copy_from_slice(buf.filled());
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

impl<S: AsyncRead + Unpin> AsyncRead for ClientSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.prefix.is_empty() {
            let len = this.prefix.len().min(buf.remaining());
            buf.put_slice(this.prefix.get(..len).unwrap_or_default());
            this.prefix.advance(len);
            this.activity.record_read();
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match ready!(Pin::new(&mut this.stream).poll_read(cx, buf)) {
            // FIN without the close_notify of TLS: no request is cut short, since its end is known.
            Err(error)
                if this.allows_half_close && error.kind() == io::ErrorKind::UnexpectedEof => {}
            read => read?,
        }
        if buf.filled().len() > before {
            this.activity.record_read();
            return Poll::Ready(Ok(()));
        }
        this.is_half_closed = this.allows_half_close && this.activity.owes_responses();
        if this.is_half_closed {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.activity.set_stalled(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.activity.set_stalled(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.activity.set_stalled(flushed.is_pending());
        ready!(flushed)?;
        // hyper flushes once it has written everything that it has.
        self.activity.record_flush();
        if self.is_half_closed && !self.activity.owes_responses() {
            self.is_half_closed = false;
            // hyper reads again, and learns of the end.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    /// Sends FIN, then reads on where the client may still be sending: closing on unread bytes would
    /// reset the connection, and the client might never read the response.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut_down {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.is_shut_down = true;
            self.activity.close();
        }
        if self.activity.leaves_bytes_unread() {
            ready!(self.poll_discard(cx));
        }
        Poll::Ready(Ok(()))
    }
}
