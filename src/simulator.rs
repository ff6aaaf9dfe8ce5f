//! A simulator of Partner Center for the demo, the tests and the benches.
//!
//! It serves the token endpoint, the license calls and the list of customers over real HTTP, and
//! fails on demand ([`Faults`]). Tests control it through a [`SimulatorHandle`], people through
//! `/_simulator`. It shares no type with `partner_center` or `domain`, so that a mistake there is not
//! repeated here.

mod api;
mod control;
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

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use jiff::{civil::Date, tz::Offset};
use secrecy::SecretString;
use tokio::net::TcpListener;

use crate::{
    clock::{Clock, SharedClock, SystemClock},
    server::{ListenerConfig, RequestValidation, router_handler, serve},
    shutdown::Shutdown,
};
use simulation::Simulation;

pub use faults::{BodyFault, FaultScope, Faults};
pub use fleet::{
    DOCUMENTED_CUSTOMER, DOCUMENTED_DATE, NO_RELATIONSHIP_CUSTOMER, WIDE_CUSTOMER, customer_id,
    documented_body, documented_deployment_body,
};
pub use handle::SimulatorHandle;
pub use overrides::{CustomerOverride, SimulatedRow};
pub use record::{RecordedRequest, SimulatedApi};
pub use tokens::RegisteredCertificate;

/// The time that answers may still take after shutdown begins. Calls on hold are then dropped.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);

/// Settings of a simulator.
#[derive(Clone, Debug)]
pub struct SimulatorOptions {
    /// The number of generated customers, besides the documented one.
    pub customers: usize,
    /// The seed of the generated customers and their usage.
    pub seed: u64,
    /// Rows of [`WIDE_CUSTOMER`]; 0 for no such customer.
    pub wide_rows: usize,
    /// The current day. The newest processed date is three days earlier.
    pub today: Date,
    /// Faults to begin with.
    pub faults: Faults,
    /// The largest and the default number of rows in a page of the commercial call.
    pub page_size: usize,
    /// Lets the commercial call accept the token of an application alone. It is not known that
    /// Partner Center does. Every other call about usage or deployment still rejects it.
    pub allow_app_only: bool,
    /// The only client id that gets tokens; any when absent.
    pub client_id: Option<String>,
    /// The only client secret that gets tokens; any when absent.
    pub client_secret: Option<SecretString>,
    /// A certificate whose assertions also authenticate the client.
    pub client_certificate: Option<RegisteredCertificate>,
    /// A federated token that also authenticates the client.
    pub federated_token: Option<SecretString>,
    /// The lifetime of access tokens.
    pub expires_in: Duration,
    /// The clock of tokens and of throttling. Latency takes real time.
    pub clock: SharedClock,
}

/// A simulator that is bound to its address but does not serve yet.
#[derive(Debug)]
pub struct Simulator {
    listener: TcpListener,
    local_addr: SocketAddr,
    simulation: Arc<Simulation>,
}

// === impl SimulatorOptions ===

impl Default for SimulatorOptions {
    fn default() -> Self {
        Self {
            customers: 25,
            seed: 1,
            wide_rows: 0,
            today: Offset::UTC.to_datetime(SystemClock.wall_time()).date(),
            faults: Faults::default(),
            page_size: 10_000,
            allow_app_only: false,
            client_id: None,
            client_secret: None,
            client_certificate: None,
            federated_token: None,
            expires_in: Duration::from_secs(3_599),
            clock: Arc::new(SystemClock),
        }
    }
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

    /// The address with the real port, also if port 0 was given.
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
    pub async fn run(self, shutdown: Shutdown) {
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

/// Every route.
fn router(simulation: Arc<Simulation>) -> Router {
    Router::new()
        .merge(api::routes())
        .merge(control::routes())
        .route("/{tenant}/oauth2/token", post(tokens::v1))
        .route("/{tenant}/oauth2/v2.0/token", post(tokens::v2))
        .route("/{tenant}/oauth2/authorize", get(tokens::authorization::v1))
        .route(
            "/{tenant}/oauth2/v2.0/authorize",
            get(tokens::authorization::v2),
        )
        .fallback(api::not_found)
        .with_state(simulation)
}

#[cfg(test)]
mod tests;
