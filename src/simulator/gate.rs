use tokio::sync::watch;

/// Something to stand before: open unless it was shut.
#[derive(Debug)]
pub(super) struct Gate {
    position: watch::Sender<Position>,
}

#[derive(Debug, Default)]
struct Position {
    shut: bool,
    /// Counts openings, so that shutting at once after one does not catch who was let go.
    openings: u64,
}

// === impl Gate ===

impl Gate {
    pub(super) fn open() -> Self {
        Self {
            position: watch::Sender::new(Position::default()),
        }
    }

    /// Everyone who comes from now on waits.
    pub(super) fn hold(&self) {
        self.position.send_modify(|position| position.shut = true);
    }

    /// Everyone who waits goes on, and nobody waits any more.
    pub(super) fn release(&self) {
        self.position.send_modify(|position| {
            position.shut = false;
            position.openings += 1;
        });
    }

    /// Completes at once, or when the gate is opened.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(super) async fn passage(&self) {
        let mut position = self.position.subscribe();
        let openings = position.borrow_and_update().openings;
        let passable = |now: &Position| !now.shut || now.openings != openings;
        // The sender is ours, so the channel outlives the wait and there is no error to tell.
        drop(position.wait_for(passable).await);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn who_was_let_go_is_not_caught_by_the_next_hold() {
        let gate = Arc::new(Gate::open());
        gate.hold();
        let mut waiting = Box::pin(gate.passage());
        let early = tokio::time::timeout(std::time::Duration::ZERO, &mut waiting).await;
        assert!(early.is_err(), "held");

        gate.release();
        gate.hold();

        waiting.await;
    }
}
