//! CPU-bound and blocking work, off the threads that serve requests.

use std::{num::NonZeroUsize, panic, sync::LazyLock, thread};

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinError,
};
use tokio_util::task::AbortOnDropHandle;

/// Work on this many bytes takes less time than handing it to another thread.
const INLINE_BYTES: usize = 64 * 1024;

/// The threads for all CPU-bound work of the process: as many jobs run at once as there are processors,
/// however many requests want one, so that the memory they need is bounded.
///
/// A thread that is idle for 10 s ends. The allocator then returns the memory that only this thread could
/// have used again.
static CPU_POOL: LazyLock<Runtime> = LazyLock::new(start_cpu_pool);

/// Runs CPU-bound work over so many bytes: in place where they are few, else on another thread.
///
/// # Panics
///
/// If the work does.
///
/// # Cancel safety
///
/// Dropping the future abandons the result. Work that has begun is finished all the same.
pub async fn run_cpu_bound<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes <= INLINE_BYTES {
        work()
    } else {
        join(AbortOnDropHandle::new(CPU_POOL.spawn_blocking(work))).await
    }
}

/// Returns how many jobs of [`run_cpu_bound`] run at once on other threads: one per processor.
pub fn max_cpu_bound_jobs() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Runs work that waits for the machine, such as reading a file, on a thread that may wait.
///
/// # Panics
///
/// If the work does.
///
/// # Cancel safety
///
/// Dropping the future abandons the result. Work that has begun is finished all the same.
pub async fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    join(tokio::task::spawn_blocking(work)).await
}

async fn join<T>(job: impl Future<Output = Result<T, JoinError>>) -> T {
    match job.await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => panic::resume_unwind(panic),
            // The runtime is ending, and this task with it.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

#[expect(
    clippy::expect_used,
    reason = "a runtime without drivers asks nothing of the system"
)]
fn start_cpu_pool() -> Runtime {
    Builder::new_current_thread()
        .thread_name("cpu-bound")
        .max_blocking_threads(max_cpu_bound_jobs().get())
        .on_thread_start(lower_thread_priority)
        .build()
        .expect("a runtime for CPU-bound work")
}

/// Lowers the priority of the current thread, so that a cache hit does not wait for its time slice.
fn lower_thread_priority() {
    /// Enough for a thread of usual priority to run at once when it wakes.
    const NICE_LEVEL: i32 = 10;

    // Linux alone has a priority for each thread; elsewhere this would be the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE_LEVEL) {
        tracing::debug!(%error, "CPU-bound work keeps the usual priority");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use tokio::task::JoinSet;

    use super::*;

    const LARGE: usize = INLINE_BYTES + 1;

    #[tokio::test]
    async fn at_most_one_job_per_processor_runs_at_once() {
        let most = max_cpu_bound_jobs().get();
        let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let mut jobs = JoinSet::new();
        for _ in 0..20 * most {
            let (running, peak) = (Arc::clone(&running), Arc::clone(&peak));
            let (started, released) = (started.clone(), Arc::clone(&released));
            jobs.spawn(run_cpu_bound(LARGE, move || {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                peak.fetch_max(now, Ordering::SeqCst);
                started.send(()).unwrap();
                released.lock().unwrap().recv().unwrap();
                running.fetch_sub(1, Ordering::SeqCst);
            }));
        }

        for _ in 0..most {
            starts.recv().await.unwrap();
        }
        for _ in 0..20 * most {
            release.send(()).unwrap();
        }
        jobs.join_all().await;

        assert!(peak.load(Ordering::SeqCst) <= most, "{peak:?} of {most}");
    }

    #[tokio::test]
    async fn a_panicking_job_panics_its_caller_and_keeps_the_thread() {
        for _ in 0..2 * max_cpu_bound_jobs().get() {
            let mut job = JoinSet::new();
            job.spawn(run_cpu_bound(LARGE, || panic!("on purpose")));

            assert!(job.join_next().await.unwrap().unwrap_err().is_panic());
        }
        assert_eq!(run_cpu_bound(LARGE, || 1).await, 1);
    }
}
