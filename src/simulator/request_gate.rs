//! A gate that holds requests.

use tokio::sync::watch;

/// Holds requests while it is closed.
#[derive(Debug, Default)]
pub(super) struct RequestGate {
    state: watch::Sender<GateState>,
}

#[derive(Debug, Default)]
struct GateState {
    is_closed: bool,
    /// Counts releases, so that closing at once after one does not hold what it released.
    releases: u64,
}

// === impl RequestGate ===

impl RequestGate {
    /// Holds requests that arrive from now on.
    pub(super) fn hold(&self) {
        self.state.send_modify(|state| state.is_closed = true);
    }

    /// Releases all requests, and holds no more.
    pub(super) fn release(&self) {
        self.state.send_modify(|state| {
            state.is_closed = false;
            state.releases += 1;
        });
    }

    /// Returns a future that completes at once if the gate is open now, or else at the next
    /// release.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(super) fn wait_if_held(&self) -> impl Future<Output = ()> + use<> {
        let mut state = self.state.subscribe();
        let (is_closed, releases) = {
            let now = state.borrow_and_update();
            (now.is_closed, now.releases)
        };
        async move {
            if is_closed {
                // An error means that the gate is gone, which releases everything.
                drop(state.wait_for(|now| now.releases != releases).await);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Fails if the gate still holds the request.
    async fn assert_released(request: impl Future<Output = ()>) {
        let released = tokio::time::timeout(Duration::from_secs(10), request).await;
        assert!(released.is_ok(), "the request is still held");
    }

    #[tokio::test]
    async fn a_released_request_is_not_held_again() {
        let gate = RequestGate::default();
        gate.hold();
        let waiting = gate.wait_if_held();

        gate.release();
        gate.hold();

        assert_released(waiting).await;
    }

    #[tokio::test]
    async fn a_request_at_an_open_gate_is_not_held() {
        let gate = RequestGate::default();
        let passing = gate.wait_if_held();

        gate.hold();

        assert_released(passing).await;
    }
}
