//! Who goes next where places are few: each caller in turn, none beyond its share.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

/// Places, and who waits for one.
///
/// Callers take turns, whatever the length of their lines: a caller that wants a million places
/// delays another by one turn. A caller holds no more places than its share, so that where nothing
/// moves, because those places are held for long, others still find one.
///
/// It does not wait by itself: a `W` stands for whoever does, and is handed back when its turn has
/// come.
#[derive(Debug)]
pub struct FairQueue<W> {
    limits: Limits,
    held: usize,
    waiting: usize,
    /// Of callers that hold a place or wait for one.
    lines: HashMap<Arc<str>, Line<W>>,
    /// Callers that wait, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    /// How long a place is held, on average; `None` before the first was given back.
    holding_time: Option<Duration>,
    next_ticket: u64,
}

/// How many may hold a place, and how many may wait how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Places in all.
    pub places: NonZeroUsize,
    /// How long anybody waits and holds a place, together: the deadline.
    pub patience: Duration,
    /// Most that wait at once, for each takes memory.
    pub waiting: usize,
    /// Most of them that are one caller's.
    pub waiting_per_caller: usize,
}

/// What becomes of who wants a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It holds one now.
    Granted,
    /// It waits, under this number.
    Waits(u64),
    /// Waiting would be in vain.
    Refused(Refusal),
}

/// A place is not to be had in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What stands in the way.
    pub reason: Reason,
    /// Until those who wait now have been served, as far as can be told: coming back before is in
    /// vain.
    pub retry_after: Duration,
}

/// Why a place is not to be had in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The caller itself has as many waiting as its share can serve.
    Caller,
    /// All callers together have.
    Queue,
}

#[derive(Debug)]
struct Line<W> {
    share: usize,
    held: usize,
    waiting: VecDeque<(u64, W)>,
}

// === impl FairQueue ===

impl<W> FairQueue<W> {
    /// All places are free, and nobody waits.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            held: 0,
            waiting: 0,
            lines: HashMap::new(),
            turns: VecDeque::new(),
            holding_time: None,
            next_ticket: 0,
        }
    }

    /// Takes a place for a caller that may hold `share` of them, or has `waiter` wait for it.
    pub fn enter(
        &mut self,
        caller: &Arc<str>,
        share: usize,
        waiter: impl FnOnce() -> W,
    ) -> Admission {
        let (held, waiting) = self
            .lines
            .get(caller)
            .map_or((0, 0), |line| (line.held, line.waiting.len()));
        let free = self.held < self.limits.places.get() && held < share && waiting == 0;
        if !free && let Some(refusal) = self.refusal(share, held, waiting) {
            return Admission::Refused(refusal);
        }
        let line = self
            .lines
            .entry(Arc::clone(caller))
            .or_insert_with(Line::empty);
        line.share = share;
        if free {
            line.held += 1;
            self.held += 1;
            return Admission::Granted;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        line.waiting.push_back((ticket, waiter()));
        self.waiting += 1;
        if waiting == 0 {
            self.turns.push_back(Arc::clone(caller));
        }
        Admission::Waits(ticket)
    }

    /// Gives a place back that was held for so long, and returns who holds one instead. `None` for
    /// a place of which no use was made.
    pub fn leave(&mut self, caller: &Arc<str>, held_for: Option<Duration>) -> Option<W> {
        if let Some(held_for) = held_for {
            self.learn(held_for);
        }
        if let Some(line) = self.lines.get_mut(caller) {
            line.held -= 1;
            self.held -= 1;
        }
        self.forget_if_idle(caller);
        self.grant()
    }

    /// Takes who waits under this number out of the line; `false` where its turn has come already.
    pub fn abandon(&mut self, caller: &Arc<str>, ticket: u64) -> bool {
        let Some(line) = self.lines.get_mut(caller) else {
            return false;
        };
        let Ok(at) = line.waiting.binary_search_by_key(&ticket, |(of, _)| *of) else {
            return false;
        };
        line.waiting.remove(at);
        self.waiting -= 1;
        if line.waiting.is_empty() {
            self.turns.retain(|other| other != caller);
        }
        self.forget_if_idle(caller);
        true
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// What one more of this caller would be told when its patience had come to its end.
    pub fn retry_after(&self, caller: &str) -> Duration {
        let (share, waiting) = self
            .lines
            .get(caller)
            .map_or((1, 0), |line| (line.share, line.waiting.len()));
        self.turn_in(waiting, self.fair_share(share, 0))
            .unwrap_or(self.limits.patience)
            .min(self.limits.patience)
    }

    /// The next place goes to the caller whose turn it is, among those that may have one more.
    ///
    /// One place at most has become free for somebody: before, either all were held, or whoever
    /// waited held its share.
    fn grant(&mut self) -> Option<W> {
        if self.held >= self.limits.places.get() {
            return None;
        }
        let lines = &self.lines;
        let may_go =
            |caller: &Arc<str>| lines.get(caller).is_some_and(|line| line.held < line.share);
        let turn = self.turns.iter().position(may_go)?;
        let caller = self.turns.remove(turn)?;
        let line = self.lines.get_mut(&caller)?;
        let (_, waiter) = line.waiting.pop_front()?;
        line.held += 1;
        self.held += 1;
        self.waiting -= 1;
        if !line.waiting.is_empty() {
            self.turns.push_back(caller);
        }
        Some(waiter)
    }

    /// Why one more would wait in vain behind so many of its own.
    fn refusal(&self, share: usize, held: usize, waiting: usize) -> Option<Refusal> {
        let newcomer = usize::from(held + waiting == 0);
        let fair = self.fair_share(share, newcomer);
        let too_late = |places: f64| {
            let served_in = self.turn_in(waiting, places).zip(self.holding_time);
            served_in.is_some_and(|(turn, holding)| turn + holding > self.limits.patience)
        };
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let alone = share as f64;
        let reason = if waiting >= self.limits.waiting_per_caller || too_late(alone) {
            Reason::Caller
        } else if self.waiting >= self.limits.waiting || too_late(fair) {
            Reason::Queue
        } else {
            return None;
        };
        let patience = self.limits.patience;
        let retry_after = self.turn_in(waiting, fair).unwrap_or(patience);
        Some(Refusal {
            reason,
            retry_after: retry_after.min(patience),
        })
    }

    /// How many places work for a caller of this share, with so many callers more.
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    fn fair_share(&self, share: usize, newcomers: usize) -> f64 {
        let callers = (self.lines.len() + newcomers).max(1);
        (self.limits.places.get() as f64 / callers as f64).min(share as f64)
    }

    /// Until it is the turn of who comes behind so many, while so many places work for them; `None`
    /// while nobody knows how long one is held.
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    fn turn_in(&self, ahead: usize, places: f64) -> Option<Duration> {
        let turns = (ahead + 1) as f64 / places;
        Some(self.holding_time?.mul_f64(turns))
    }

    /// The average follows each by an eighth, as TCP's round-trip time does (RFC 6298 §2).
    fn learn(&mut self, held_for: Duration) {
        let before = self.holding_time.unwrap_or(held_for);
        self.holding_time = Some((before * 7 + held_for) / 8);
    }

    fn forget_if_idle(&mut self, caller: &Arc<str>) {
        if self
            .lines
            .get(caller)
            .is_some_and(|line| line.held == 0 && line.waiting.is_empty())
        {
            self.lines.remove(caller);
        }
    }
}

// === impl Line ===

impl<W> Line<W> {
    fn empty() -> Self {
        Self {
            share: 0,
            held: 0,
            waiting: VecDeque::new(),
        }
    }
}

#[cfg(test)]
mod tests;
