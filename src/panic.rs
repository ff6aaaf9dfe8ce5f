//! Panics in handlers: each is an error of one request.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::Poll,
};

use prometheus::{IntCounter, Opts, Registry};

/// A handler panicked. The panic hook has logged where.
#[derive(Clone, Copy, Debug)]
pub struct HandlerPanicked;

/// Completes as `handler` does, or with [`HandlerPanicked`] as soon as it panics.
///
/// # Errors
///
/// [`HandlerPanicked`]; the message of the panic, which may contain anything, goes no further.
///
/// # Cancel safety
///
/// As that of `handler`.
pub async fn catch<F: Future>(mut handler: Pin<&mut F>) -> Result<F::Output, HandlerPanicked> {
    poll_fn(|context| {
        // Locks guard all that requests share, and each lock states what a panic leaves behind.
        match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(_message) => Poll::Ready(Err(HandlerPanicked)),
        }
    })
    .await
}

/// Registers the count of panics in the handlers of one listener.
///
/// # Errors
///
/// Fails if that listener has one already.
pub fn register_counter(
    registry: &Registry,
    listener: &'static str,
) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::with_opts(
        Opts::new(
            "usage_proxy_handler_panics_total",
            "Requests that were answered with 500 because of a panic; the log has the place.",
        )
        .const_label("listener", listener),
    )?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}
