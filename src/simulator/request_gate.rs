use tokio::sync::watch;

/// Something to stand before: open unless it was shut.
#[derive(Debug)]
pub(super) struct RequestGate {
    state: watch::Sender<GateState>,
}

#[derive(Debug, Default)]
struct GateState {
    is_closed: bool,
    /// Counts openings, so that shutting at once after one does not catch who was let go.
    releases: u64,
}

// === impl Gate ===

impl RequestGate {
    pub(super) fn new() -> Self {
        Self {
            state: watch::Sender::new(GateState::default()),
        }
    }

    /// Everyone who comes from now on waits.
    pub(super) fn hold(&self) {
        self.state.send_modify(|position| position.is_closed = true);
    }

    /// Everyone who waits goes on, and nobody waits any more.
    pub(super) fn release(&self) {
        self.state.send_modify(|position| {
            position.is_closed = false;
            position.releases += 1;
        });
    }

    /// Steps up to the gate as it stands now; the future completes at once if that was open, else
    /// at the next opening.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(super) fn wait_if_held(&self) -> impl Future<Output = ()> + use<> {
        let mut position = self.state.subscribe();
        let (shut, openings) = {
            let now = position.borrow_and_update();
            (now.is_closed, now.releases)
        };
        async move {
            if shut {
                // An error means that the gate is gone: nobody holds anything any more.
                drop(position.wait_for(|now| now.releases != openings).await);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_released_request_is_not_held_again() {
        let gate = RequestGate::new();
        gate.hold();
        let waiting = gate.wait_if_held();

        gate.release();
        gate.hold();

        waiting.await;
    }

    #[tokio::test]
    async fn a_request_at_an_open_gate_is_not_held() {
        let gate = RequestGate::new();
        let passing = gate.wait_if_held();

        gate.hold();

        passing.await;
    }
}
