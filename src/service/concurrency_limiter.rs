//! Limits the upstream calls in progress, and shares them fairly between callers.
//!
//! A call needs two permits: first one of its caller's, then one of all. Both semaphores are
//! first come, first served. A caller's share is half of all permits, so it has at most that many
//! calls in the common queue and delays others by no more than those, however many it wants.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    num::NonZeroUsize,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::{Duration, Instant},
};

use prometheus::IntGauge;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::{
    cache::{CacheMetrics, ShedReason},
    clock::SharedClock,
    domain::Caller,
};

/// Limits of the calls to the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// The most calls in progress. A caller that is identified has at most half of them.
    pub max_concurrency: NonZeroUsize,
    /// The time from the request of a call until its answer comes too late.
    pub deadline: Duration,
}

/// The permits for upstream calls, and the calls that wait for one.
#[derive(Debug)]
pub(super) struct ConcurrencyLimiter {
    permits: Arc<Semaphore>,
    limits: CallLimits,
    queues: Mutex<CallerQueues>,
    clock: SharedClock,
    metrics: CacheMetrics,
}

/// The calls that wait or run. The lock around it is never held across an await.
#[derive(Debug, Default)]
struct CallerQueues {
    by_caller: HashMap<Arc<str>, CallerQueue>,
    calls: usize,
    /// The moving average of the time that a call takes; `None` before the first has ended.
    call_time: Option<Duration>,
}

/// The calls of one caller; it exists while there are any.
#[derive(Debug)]
struct CallerQueue {
    share: usize,
    permits: Arc<Semaphore>,
    calls: usize,
}

/// A call that waits for its permits, in the queue of each caller that wants it, so that no caller
/// waits behind the queue of another.
#[derive(Debug)]
pub(super) struct PendingCall {
    limiter: Arc<ConcurrencyLimiter>,
    first_caller: Arc<str>,
    state: Mutex<PendingState>,
    joined: Notify,
}

#[derive(Debug)]
struct PendingState {
    /// The time of the last request for the call. The deadline counts from it.
    asked_at: Instant,
    callers: Vec<Arc<str>>,
    /// Tickets of callers that have joined since the last look.
    new_tickets: Vec<QueueTicket>,
    started: bool,
}

/// Counts one call of one caller, from when it is asked for until it has ended.
#[derive(Debug)]
struct QueueTicket {
    limiter: Arc<ConcurrencyLimiter>,
    caller: Arc<str>,
    caller_permits: Arc<Semaphore>,
}

/// Allows one upstream call for as long as this lives.
#[derive(Debug)]
pub(super) struct CallPermit {
    /// `None` for a permit that was never used, and where the time of the call does not count.
    started_at: Option<Instant>,
    // Dropped in this order: another caller's call goes first.
    _permit: OwnedSemaphorePermit,
    _caller_permit: OwnedSemaphorePermit,
    ticket: QueueTicket,
}

/// Increments a gauge for as long as it lives.
#[derive(Debug)]
pub(super) struct GaugeGuard<'a>(&'a IntGauge);

/// The purpose of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchReason {
    /// A request waits for the answer.
    Request,
    /// A refresh behind a stale answer.
    Refresh,
}

/// No call can be made in time; asking again may help after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overloaded {
    pub(super) retry_after: Duration,
}

/// The state of a call that goes on after the deadline of one of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PastDeadline {
    /// It waits for its permits, or has waited for long.
    Queued,
    /// It is being answered, page by page.
    Running,
}

// === impl ConcurrencyLimiter ===

impl ConcurrencyLimiter {
    /// The most calls that wait. Each takes some kilobytes, besides the connection of its request.
    const MAX_WAITING: usize = 16_384;

    /// The most of them that one caller has.
    const MAX_WAITING_PER_CALLER: usize = 4_096;

    pub(super) fn new(limits: CallLimits, clock: SharedClock, metrics: CacheMetrics) -> Self {
        let permits = limits.max_concurrency.get().min(Semaphore::MAX_PERMITS);
        Self {
            permits: Arc::new(Semaphore::new(permits)),
            limits,
            queues: Mutex::default(),
            clock,
            metrics,
        }
    }

    /// Queues a call that `caller` asked for at `now`.
    ///
    /// # Errors
    ///
    /// [`Overloaded`] where it would not get its permits and be answered before the deadline.
    pub(super) fn enqueue(
        self: &Arc<Self>,
        caller: &Caller,
        reason: FetchReason,
        now: Instant,
    ) -> Result<Arc<PendingCall>, Overloaded> {
        let ticket = self.ticket(caller).map_err(|(shed, overloaded)| {
            self.metrics.record_shed(match reason {
                FetchReason::Refresh => ShedReason::Refresh,
                FetchReason::Request => shed,
            });
            overloaded
        })?;
        Ok(Arc::new(PendingCall {
            limiter: Arc::clone(self),
            first_caller: Arc::clone(caller.name()),
            state: Mutex::new(PendingState {
                asked_at: now,
                callers: vec![Arc::clone(caller.name())],
                new_tickets: vec![ticket],
                started: false,
            }),
            joined: Notify::new(),
        }))
    }

    /// The rejection of a request of this caller that has waited until its deadline.
    pub(super) fn overloaded(&self, caller: &str) -> Overloaded {
        let queues = self.lock();
        let (calls, share) = queues
            .by_caller
            .get(caller)
            .map_or((0, 1), |queue| (queue.calls, queue.share));
        let permits = self.fair_share(&queues, share, 0);
        self.overloaded_behind(&queues, calls, permits)
    }

    /// Queues one more call of a caller.
    fn ticket(self: &Arc<Self>, caller: &Caller) -> Result<QueueTicket, (ShedReason, Overloaded)> {
        let share = self.share(caller);
        let mut queues = self.lock();
        self.check(&queues, caller.name(), share)?;
        queues.calls += 1;
        let queue = queues
            .by_caller
            .entry(Arc::clone(caller.name()))
            .or_insert_with(|| CallerQueue {
                share,
                permits: Arc::new(Semaphore::new(share)),
                calls: 0,
            });
        queue.calls += 1;
        Ok(QueueTicket {
            limiter: Arc::clone(self),
            caller: Arc::clone(caller.name()),
            caller_permits: Arc::clone(&queue.permits),
        })
    }

    /// Half of all permits, so that other callers find some; all of them where callers are not
    /// identified.
    fn share(&self, caller: &Caller) -> usize {
        let all = self
            .limits
            .max_concurrency
            .get()
            .min(Semaphore::MAX_PERMITS);
        if caller.is_anonymous() {
            all
        } else {
            (all / 2).max(1)
        }
    }

    /// Rejects a call that would be answered too late, or for which there is no memory.
    fn check(
        &self,
        queues: &CallerQueues,
        caller: &str,
        share: usize,
    ) -> Result<(), (ShedReason, Overloaded)> {
        let calls = queues.by_caller.get(caller).map_or(0, |queue| queue.calls);
        let max_concurrency = self.limits.max_concurrency.get();
        if calls < share && queues.calls < max_concurrency {
            return Ok(());
        }
        let fair_share = self.fair_share(queues, share, usize::from(calls == 0));
        let is_late = |permits: f64| {
            queues
                .answered_in(calls, permits)
                .is_some_and(|time| time > self.limits.deadline)
        };
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let whole_share = share as f64;
        let reason = if calls.saturating_sub(share) >= Self::MAX_WAITING_PER_CALLER
            || is_late(whole_share)
        {
            ShedReason::Caller
        } else if queues.calls.saturating_sub(max_concurrency) >= Self::MAX_WAITING
            || is_late(fair_share)
        {
            ShedReason::Queue
        } else {
            return Ok(());
        };
        Err((reason, self.overloaded_behind(queues, calls, fair_share)))
    }

    /// The permits that a caller of this share has on average, with so many callers more.
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    fn fair_share(&self, queues: &CallerQueues, share: usize, new_callers: usize) -> f64 {
        let callers = (queues.by_caller.len() + new_callers).max(1);
        (self.limits.max_concurrency.get() as f64 / callers as f64).min(share as f64)
    }

    /// The rejection of a call behind so many of the same caller: asking again helps when these
    /// have got their permits, as far as is known.
    fn overloaded_behind(&self, queues: &CallerQueues, calls: usize, permits: f64) -> Overloaded {
        let starts_in = queues
            .answered_in(calls, permits)
            .zip(queues.call_time)
            .map(|(answered, takes)| answered.saturating_sub(takes));
        Overloaded {
            retry_after: starts_in
                .unwrap_or(self.limits.deadline)
                .min(self.limits.deadline),
        }
    }

    /// A panic while the lock is held would be a mistake in the arithmetic itself; the counts are
    /// consistent between its steps.
    fn lock(&self) -> MutexGuard<'_, CallerQueues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl CallerQueues ===

impl CallerQueues {
    /// The time until one more call is answered, after so many that share these permits; `None`
    /// while no call has ended.
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    fn answered_in(&self, calls: usize, permits: f64) -> Option<Duration> {
        Some(self.call_time?.mul_f64((calls + 1) as f64 / permits))
    }

    /// Each call counts for an eighth, as in TCP's round-trip time (RFC 6298 §2).
    fn observe_call_time(&mut self, time: Duration) {
        let before = self.call_time.unwrap_or(time);
        self.call_time = Some((before * 7 + time) / 8);
    }
}

// === impl PendingCall ===

impl PendingCall {
    /// Queues the call for this caller too, unless it has started. A caller whose queue is full
    /// waits for the permits of the others.
    pub(super) fn join(&self, caller: &Caller, now: Instant) {
        let mut state = self.lock();
        if state.started || now >= state.asked_at + self.limiter.limits.deadline {
            return;
        }
        state.asked_at = state.asked_at.max(now);
        if !state.callers.contains(caller.name())
            && let Ok(ticket) = self.limiter.ticket(caller)
        {
            state.callers.push(Arc::clone(caller.name()));
            state.new_tickets.push(ticket);
            self.joined.notify_one();
        }
    }

    /// Waits for the permits of any caller that wants the call. Returns also when the call was last
    /// asked for: its deadline counts from then.
    ///
    /// # Errors
    ///
    /// [`Overloaded`] when no caller got its permits before the deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the permits back.
    pub(super) async fn acquire(&self) -> Result<(CallPermit, Instant), Overloaded> {
        let ConcurrencyLimiter { clock, metrics, .. } = &*self.limiter;
        let _waiting = GaugeGuard::increment(&metrics.fills_waiting);
        let mut queued = Vec::new();
        loop {
            let (tickets, deadline) = self.take_tickets();
            queued.extend(tickets.into_iter().map(|ticket| Box::pin(ticket.acquire())));
            let permit = tokio::select! {
                biased;
                permit = first_of(&mut queued) => Some(permit),
                () = self.joined.notified() => None,
                () = clock.sleep_until(deadline) => None,
            };
            let now = clock.now();
            if let Some(permit) = permit
                && let Some(asked_at) = self.start(now)
            {
                return Ok((permit.used_from(now), asked_at));
            }
            if now >= self.deadline() {
                metrics.record_shed(ShedReason::Deadline);
                return Err(self.limiter.overloaded(&self.first_caller));
            }
        }
    }

    /// Completes at the deadline of a request made at `asked_at`, where the call goes on: for a
    /// later request, or for the cache where it `may_outlast_deadline`.
    pub(super) async fn past_deadline(
        &self,
        asked_at: Instant,
        may_outlast_deadline: bool,
    ) -> PastDeadline {
        let deadline = asked_at + self.limiter.limits.deadline;
        self.limiter.clock.sleep_until(deadline).await;
        let (has_later_request, started) = {
            let state = self.lock();
            (state.asked_at > asked_at, state.started)
        };
        if may_outlast_deadline && started {
            PastDeadline::Running
        } else if has_later_request {
            PastDeadline::Queued
        } else {
            // The call ends by itself, and its error says more.
            std::future::pending().await
        }
    }

    fn take_tickets(&self) -> (Vec<QueueTicket>, Instant) {
        let mut state = self.lock();
        let deadline = state.asked_at + self.limiter.limits.deadline;
        (std::mem::take(&mut state.new_tickets), deadline)
    }

    /// Ends the wait, unless it is too late; returns when the call was last asked for.
    fn start(&self, now: Instant) -> Option<Instant> {
        let mut state = self.lock();
        if now >= state.asked_at + self.limiter.limits.deadline {
            return None;
        }
        state.started = true;
        state.new_tickets.clear();
        Some(state.asked_at)
    }

    fn deadline(&self) -> Instant {
        self.lock().asked_at + self.limiter.limits.deadline
    }

    /// The state is consistent between two statements.
    fn lock(&self) -> MutexGuard<'_, PendingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for whichever of these futures is ready first.
async fn first_of<T>(futures: &mut [Pin<Box<impl Future<Output = T>>>]) -> T {
    poll_fn(|context| {
        let mut polled = futures
            .iter_mut()
            .map(|future| future.as_mut().poll(context));
        polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

// === impl QueueTicket ===

impl QueueTicket {
    async fn acquire(self) -> CallPermit {
        let caller_permit = acquire(Arc::clone(&self.caller_permits)).await;
        let permit = acquire(Arc::clone(&self.limiter.permits)).await;
        CallPermit {
            started_at: None,
            _permit: permit,
            _caller_permit: caller_permit,
            ticket: self,
        }
    }
}

impl Drop for QueueTicket {
    fn drop(&mut self) {
        let mut queues = self.limiter.lock();
        queues.calls -= 1;
        if let Some(queue) = queues.by_caller.get_mut(&self.caller) {
            queue.calls -= 1;
            if queue.calls == 0 {
                queues.by_caller.remove(&self.caller);
            }
        }
    }
}

#[expect(clippy::expect_used, reason = "these semaphores are never closed")]
async fn acquire(permits: Arc<Semaphore>) -> OwnedSemaphorePermit {
    permits.acquire_owned().await.expect("an open semaphore")
}

// === impl CallPermit ===

impl CallPermit {
    fn used_from(mut self, now: Instant) -> Self {
        self.started_at = Some(now);
        self
    }

    /// Returns the same permit for a call whose time is no measure for others.
    pub(super) fn uncounted(mut self) -> Self {
        self.started_at = None;
        self
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        let limiter = &self.ticket.limiter;
        if let Some(started_at) = self.started_at {
            let took = limiter.clock.now().saturating_duration_since(started_at);
            // Only the call for the list of customers may take longer than the deadline. Its time
            // says nothing of other calls, which would be rejected because of it.
            limiter
                .lock()
                .observe_call_time(took.min(limiter.limits.deadline));
        }
    }
}

// === impl GaugeGuard ===

impl<'a> GaugeGuard<'a> {
    pub(super) fn increment(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for GaugeGuard<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::{
        clock::ManualClock,
        domain::{CallerScope, CustomerAccess},
    };

    const SECOND: Duration = Duration::from_secs(1);
    const DEADLINE: Duration = Duration::from_secs(25);

    fn limiter(max_concurrency: usize, call_time: Option<Duration>) -> Arc<ConcurrencyLimiter> {
        let limiter = ConcurrencyLimiter::new(
            CallLimits {
                max_concurrency: NonZeroUsize::new(max_concurrency).unwrap(),
                deadline: DEADLINE,
            },
            Arc::new(ManualClock::at("2026-11-22T12:00:00Z".parse().unwrap())),
            CacheMetrics::new(&Registry::new()).unwrap(),
        );
        limiter.lock().call_time = call_time;
        Arc::new(limiter)
    }

    fn named_caller(name: &str) -> Caller {
        let scopes = CallerScope::ALL.into_iter().collect();
        Caller::new(name, CustomerAccess::All, scopes)
    }

    #[test]
    fn a_call_is_rejected_when_other_callers_would_make_it_late() {
        let limiter = limiter(4, Some(8 * SECOND));
        let _other = limiter.ticket(&named_caller("other")).unwrap();
        let anonymous = Caller::anonymous();

        // Two of four permits work for it, eight seconds a call: six calls are answered in 24 s.
        let _calls: Vec<_> = (0..6)
            .map(|_| limiter.ticket(&anonymous).unwrap())
            .collect();
        let (reason, overloaded) = limiter.ticket(&anonymous).unwrap_err();

        assert_eq!(reason, ShedReason::Queue);
        assert_eq!(overloaded.retry_after, 20 * SECOND);
    }

    #[test]
    fn waiting_calls_are_bounded_per_caller_and_in_all() {
        let limiter = limiter(1, None);
        let mut tickets = Vec::new();
        let mut fill = |name: &str| loop {
            match limiter.ticket(&named_caller(name)) {
                Ok(ticket) => tickets.push(ticket),
                Err(rejection) => break rejection,
            }
        };

        let rejections = ["a", "b", "c", "d"].map(&mut fill);
        let (reason, overloaded) = fill("e");

        assert_eq!(rejections[0].0, ShedReason::Caller);
        assert_eq!(reason, ShedReason::Queue);
        assert_eq!(overloaded.retry_after, DEADLINE, "no call has ended");
        assert_eq!(tickets.len(), 1 + ConcurrencyLimiter::MAX_WAITING);
        drop(tickets);
        assert!(limiter.lock().by_caller.is_empty());
        assert_eq!(limiter.lock().calls, 0);
    }

    #[test]
    fn the_call_time_follows_what_is_observed() {
        let mut queues = CallerQueues::default();
        let mut observe = |time| {
            queues.observe_call_time(time);
            queues.call_time.unwrap()
        };

        assert_eq!(observe(8 * SECOND), 8 * SECOND);
        assert_eq!(observe(Duration::ZERO), 7 * SECOND);
        for _ in 0..100 {
            observe(Duration::from_millis(100));
        }
        assert!(observe(Duration::from_millis(100)) < Duration::from_millis(101));
    }
}
