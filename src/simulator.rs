//! A simulator of Partner Center for the demo, the tests and the benches.
//!
//! It serves the token endpoint, the license calls and the list of customers over real HTTP, and
//! fails on demand ([`Faults`]). Tests control it through a [`SimulatorHandle`], people through
//! `/_simulator`. It shares no type with `partner_center` or `domain`, so that a mistake there is not
//! repeated here.

mod api;
mod control;
mod dataset;
mod faults;
mod fleet;
mod handle;
mod overrides;
mod record;
mod reply;
mod request_gate;
mod simulation;
mod throttle;
mod tokens;

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use tokio::net::TcpListener;

use self::{
    simulation::Simulation,
    tokens::{authorization, token_endpoint},
};
use crate::{
    server::{ListenerConfig, RequestValidation, router_handler, serve},
    shutdown::Shutdown,
};
pub use faults::{BodyFault, FaultScope, Faults};
pub use fleet::{
    DOCUMENTED_CUSTOMER, DOCUMENTED_DATE, NO_RELATIONSHIP_CUSTOMER, customer_id, documented_body,
    documented_deployment_body,
};
pub use handle::SimulatorHandle;
pub use overrides::{CustomerOverride, SimulatedRow};
pub use record::{RecordedRequest, SimulatedApi};
pub use simulation::{Publication, SimulatorOptions};
pub use tokens::assertion::RegisteredCertificate;

/// The time that answers may still take after shutdown begins. Calls on hold are then dropped.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);

/// A simulator that is bound to its address but does not serve yet.
#[derive(Debug)]
pub struct Simulator {
    listener: TcpListener,
    local_addr: SocketAddr,
    simulation: Arc<Simulation>,
}

// === impl Simulator ===

impl Simulator {
    /// Binds the address. Connections queue there until [`Simulator::run`].
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    pub async fn bind(listen: SocketAddr, options: SimulatorOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        Ok(Self {
            local_addr: listener.local_addr()?,
            listener,
            simulation: Arc::new(Simulation::new(options)),
        })
    }

    /// Returns the address with the real port, also if port 0 was given.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns a handle that controls it, also while it runs.
    pub fn handle(&self) -> SimulatorHandle {
        SimulatorHandle {
            simulation: Arc::clone(&self.simulation),
        }
    }

    /// Serves until `shutdown` drains, and drops the calls on hold then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listener and every connection.
    pub fn run(self, shutdown: Shutdown) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        // Boxed here, so that this crate has its code and not each program that awaits it.
        Box::pin(self.serve_until_drained(shutdown))
    }

    async fn serve_until_drained(self, shutdown: Shutdown) {
        let handler = router_handler(router(self.simulation));
        serve(
            self.listener,
            ListenerConfig::new(RequestValidation::Lenient),
            handler,
            shutdown.draining(),
            DRAIN_TIMEOUT,
        )
        .await;
    }
}

/// Creates the router. Every other path is a call of Partner Center, or unknown to it.
fn router(simulation: Arc<Simulation>) -> Router {
    Router::new()
        .route("/_simulator", get(control::index))
        .route(
            "/_simulator/faults",
            get(control::faults)
                .put(control::replace_faults)
                .patch(control::patch_faults)
                .delete(control::clear_faults),
        )
        .route("/{tenant}/oauth2/token", post(token_endpoint::handle))
        .route("/{tenant}/oauth2/v2.0/token", post(token_endpoint::handle))
        .route("/{tenant}/oauth2/authorize", get(authorization::handle))
        .route(
            "/{tenant}/oauth2/v2.0/authorize",
            get(authorization::handle),
        )
        .fallback(api::handle)
        .with_state(simulation)
}

#[cfg(test)]
mod tests;
