//! CPU-bound work, done where it holds up nobody's I/O.

/// Work on this many bytes takes less time than handing it to another thread.
const SMALL: usize = 64 * 1024;

/// Works on so many bytes: here if they are few, else on a thread of its own.
///
/// # Cancel safety
///
/// Dropping the future abandons the result; work that has begun is finished all the same.
pub async fn work_on<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes <= SMALL {
        work()
    } else {
        elsewhere(work).await
    }
}

/// Works on a thread of its own. A panic there goes on here.
///
/// # Cancel safety
///
/// Dropping the future abandons the result; work that has begun is finished all the same.
pub async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending, and this task with it.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}
