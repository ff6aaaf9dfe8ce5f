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

    /// Steps up to the gate as it stands now; the future completes at once if that was open, else
    /// at the next opening.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(super) fn passage(&self) -> impl Future<Output = ()> + use<> {
        let mut position = self.position.subscribe();
        let (shut, openings) = {
            let now = position.borrow_and_update();
            (now.shut, now.openings)
        };
        async move {
            if shut {
                // An error means that the gate is gone: nobody holds anything any more.
                drop(position.wait_for(|now| now.openings != openings).await);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_was_let_go_is_not_caught_by_the_next_hold() {
        let gate = Gate::open();
        gate.hold();
        let waiting = gate.passage();

        gate.release();
        gate.hold();

        waiting.await;
    }

    #[tokio::test]
    async fn who_found_the_gate_open_is_not_held() {
        let gate = Gate::open();
        let passing = gate.passage();

        gate.hold();

        passing.await;
    }
}
