//! What a connection is doing, as its parts tell each other.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

use super::{
    refusal::Refusal,
    stream_tracker::{StallAction, StreamTracker},
};

/// What the socket, the service and the answers of one connection have come to.
///
/// With HTTP/1 they are polled by one task, one after another; only HTTP/2 has tasks of its own for
/// streams, and then nothing here orders anything but itself.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests whose head is complete.
    taken: AtomicU32,
    /// Requests that the service was asked to answer.
    asked: AtomicU32,
    /// Requests whose answer has been written whole, or given up.
    ended: AtomicU32,
    /// Requests whose answer has left, as far as the socket tells.
    answered: AtomicU32,
    /// Part of a head has come.
    partial: AtomicBool,
    /// The head in progress is to be refused as overdue.
    overdue: AtomicBool,
    closing: AtomicBool,
    /// The socket does not take what is written to it.
    held_up: AtomicBool,
    /// How often it has taken some again.
    resumed: AtomicU32,
    /// Where requests are streams, which are not answered one after another.
    streams: Option<StreamTracker>,
    /// Which request is refused, counted as `taken` is, and why. It is the last.
    refused: OnceLock<(u32, Refusal)>,
}

/// What a connection spends its time on; another number means that it is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing has come yet.
    Opening,
    /// A head is coming.
    Head(u32),
    /// A request is being answered, or its answer taken.
    Request(u32),
    /// Streams are being answered, the oldest since then.
    Streams(Instant),
    /// Everything is answered.
    Idle(u32),
    /// It is over, and the client has yet to agree.
    Closing,
}

// === impl Activity ===

impl Activity {
    /// Of a connection that speaks HTTP/2.
    pub(super) fn of_streams() -> Self {
        Self {
            streams: Some(StreamTracker::default()),
            ..Self::default()
        }
    }

    pub(super) fn phase(&self) -> Phase {
        if let Some(streams) = &self.streams {
            return self.phase_of(streams);
        }
        let (taken, answered) = (self.taken.load(Relaxed), self.answered.load(Relaxed));
        if self.closing.load(Relaxed) {
            Phase::Closing
        } else if taken != answered {
            Phase::Request(answered)
        } else if self.partial.load(Relaxed) {
            Phase::Head(taken)
        } else if taken == 0 {
            Phase::Opening
        } else {
            Phase::Idle(taken)
        }
    }

    fn phase_of(&self, streams: &StreamTracker) -> Phase {
        if self.closing.load(Relaxed) {
            return Phase::Closing;
        }
        match (streams.oldest_opened_at(), self.taken.load(Relaxed)) {
            (Some(since), _) => Phase::Streams(since),
            (None, 0) => Phase::Opening,
            (None, taken) => Phase::Idle(taken),
        }
    }

    /// A head is complete.
    pub(super) fn take(&self) {
        self.taken.fetch_add(1, Relaxed);
    }

    /// The head of a stream is complete; returns the number of the stream.
    pub(super) fn open(&self) -> u32 {
        self.taken.fetch_add(1, Relaxed) + 1
    }

    /// Runs the task of the stream that was opened last.
    pub(super) fn run(&self, spawn: impl FnOnce() -> AbortHandle) {
        match &self.streams {
            Some(streams) => streams.open(self.taken.load(Relaxed), spawn),
            None => drop(spawn()),
        }
    }

    /// The next piece of a stream's answer is handed to hyper.
    pub(super) fn hand_over(&self, stream: u32) {
        if let Some(streams) = &self.streams {
            streams.record_chunk(stream);
        }
    }

    /// Resets the streams whose clients have taken nothing for this long.
    pub(super) fn reset_stalled(&self, timeout: Duration) -> StallAction {
        match &self.streams {
            Some(streams) => streams.reset_stalled(timeout),
            None => StallAction::Wait(None),
        }
    }

    /// Whether a request that has come is not answered yet.
    pub(super) fn owes_answers(&self) -> bool {
        self.taken.load(Relaxed) != self.answered.load(Relaxed)
    }

    /// Whether part of a head waits for the rest.
    pub(super) fn is_partial(&self) -> bool {
        self.partial.load(Relaxed)
    }

    pub(super) fn set_partial(&self, partial: bool) {
        if self.partial.load(Relaxed) != partial {
            self.partial.store(partial, Relaxed);
        }
    }

    /// The next request is the last, and refused.
    pub(super) fn refuse(&self, refusal: Refusal) {
        self.take();
        self.set_partial(false);
        // Only one is ever refused, since nothing is read after it.
        self.refused
            .get_or_init(|| (self.taken.load(Relaxed), refusal));
    }

    /// The service is asked; tells why it must refuse, if it must.
    pub(super) fn ask(&self) -> Option<Refusal> {
        let asked = self.asked.fetch_add(1, Relaxed) + 1;
        let (at, refusal) = self.refused.get()?;
        (*at == asked).then_some(*refusal)
    }

    /// The request that was asked last is refused.
    pub(super) fn note(&self, refusal: Refusal) {
        self.refused
            .get_or_init(|| (self.asked.load(Relaxed), refusal));
    }

    /// The last of an answer was written, or it was given up.
    pub(super) fn end(&self, stream: u32) {
        self.ended.fetch_add(1, Relaxed);
        if let Some(streams) = &self.streams {
            streams.end(stream);
        }
    }

    /// The socket takes what is written to it, or it does not.
    pub(super) fn set_held_up(&self, held_up: bool) {
        if self.held_up.load(Relaxed) != held_up {
            self.held_up.store(held_up, Relaxed);
            if !held_up {
                self.resumed.fetch_add(1, Relaxed);
            }
        }
    }

    /// Which pause of the socket lasts: another number means that it has taken something since.
    pub(super) fn pause(&self) -> Option<u32> {
        self.held_up
            .load(Relaxed)
            .then(|| self.resumed.load(Relaxed))
    }

    /// Everything that hyper held has left.
    pub(super) fn flushed(&self) {
        let ended = self.ended.load(Relaxed);
        if self.answered.load(Relaxed) != ended {
            self.answered.store(ended, Relaxed);
        }
    }

    /// Has the head in progress refused, if there is one.
    pub(super) fn refuse_overdue(&self) -> bool {
        let partial = self.partial.load(Relaxed);
        self.overdue.store(partial, Relaxed);
        partial
    }

    pub(super) fn is_overdue(&self) -> bool {
        self.overdue.load(Relaxed)
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Relaxed);
    }

    /// Why a request was refused, if one was.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refused.get().map(|(_, refusal)| *refusal)
    }

    /// Whether bytes may have come that nobody will read.
    pub(super) fn leaves_bytes_unread(&self) -> bool {
        self.refused.get().is_some() || self.taken.load(Relaxed) != self.asked.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_lasts_until_its_answer_has_left() {
        let activity = Activity::default();
        assert_eq!(activity.phase(), Phase::Opening);

        activity.set_partial(true);
        assert_eq!(activity.phase(), Phase::Head(0));
        activity.set_partial(false);
        activity.take();
        assert_eq!(activity.phase(), Phase::Request(0));
        assert_eq!(activity.ask(), None);
        activity.flushed();
        activity.end(1);
        assert_eq!(activity.phase(), Phase::Request(0));
        activity.flushed();

        assert_eq!(activity.phase(), Phase::Idle(1));
    }

    #[test]
    fn heads_that_come_meanwhile_give_no_more_time_to_a_request() {
        let activity = Activity::default();
        activity.take();
        let before = activity.phase();

        activity.take();
        activity.set_partial(true);

        assert_eq!(activity.phase(), before);
    }

    #[test]
    fn the_refused_request_is_the_one_that_comes_after_the_others() {
        let activity = Activity::default();
        activity.take();
        activity.refuse(Refusal::BareLineFeed);

        assert_eq!(activity.ask(), None);
        assert_eq!(activity.ask(), Some(Refusal::BareLineFeed));
    }
}
