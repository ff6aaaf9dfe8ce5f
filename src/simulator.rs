//! A stand-in for Partner Center: what the demo, the tests and the benches talk to.
//!
//! It serves the token endpoint, the calls that tell of licenses and the list of customers over real
//! HTTP, gets things wrong on demand ([`Faults`]), and is watched and steered through a
//! [`SimulatorHandle`] or, over HTTP, under `/_simulator`. It shares no type with `upstream` or
//! `domain`: one mistaken about Partner Center must not make the other mistaken too.

mod api;
mod control;
mod faults;
mod filter;
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
    DOCUMENTED_CUSTOMER, DOCUMENTED_DATE, HISTORY_DAYS, NO_RELATIONSHIP_CUSTOMER,
    NO_RELATIONSHIP_CUSTOMERS, PROCESSING_LAG_DAYS, WIDE_CUSTOMER, customer_id, documented_body,
    documented_deployment_body,
};
pub use handle::SimulatorHandle;
pub use overrides::{CustomerOverride, SimulatedRow};
pub use record::{RecordedRequest, SimulatedApi};
pub use tokens::RegisteredCertificate;

/// How long answers may still take once the end has begun; what is held then is dropped.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);

/// What kind of Partner Center to be.
#[derive(Clone, Debug)]
pub struct SimulatorOptions {
    /// Generated customers, beside the documented one.
    pub customers: usize,
    /// What the generated customers and their usage follow from.
    pub seed: u64,
    /// Rows of [`WIDE_CUSTOMER`]; 0 for no such customer.
    pub wide_rows: usize,
    /// The newest processed date is [`PROCESSING_LAG_DAYS`] before this day.
    pub today: Date,
    /// Faults to begin with.
    pub faults: Faults,
    /// Most rows in a page of the commercial call, and how many when none are asked for.
    pub page_size: usize,
    /// Whether API calls without a live access token are refused.
    pub require_token: bool,
    /// Whether the commercial call takes the token of an application alone. Nobody has shown that
    /// Partner Center does; every other call about usage or deployment refuses it all the same.
    pub allow_app_only: bool,
    /// The only client id that gets tokens; any when absent.
    pub client_id: Option<String>,
    /// The only client secret that gets tokens; any when absent.
    pub client_secret: Option<SecretString>,
    /// The certificate whose assertions prove the client, too.
    pub client_certificate: Option<RegisteredCertificate>,
    /// The federated token that proves the client, too.
    pub federated_token: Option<SecretString>,
    /// How long access tokens live.
    pub expires_in: Duration,
    /// Whether redeeming a refresh token spends it and brings a new one.
    pub rotate: bool,
    /// What tokens expire and minutes pass by; latency takes real time all the same.
    pub clock: SharedClock,
}

/// A stand-in that is bound to its address and not yet serving.
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
            require_token: true,
            allow_app_only: false,
            client_id: None,
            client_secret: None,
            client_certificate: None,
            federated_token: None,
            expires_in: Duration::from_secs(3_599),
            rotate: true,
            clock: Arc::new(SystemClock),
        }
    }
}

// === impl Simulator ===

impl Simulator {
    /// Takes the address; connections queue there until [`Simulator::run`].
    ///
    /// # Errors
    ///
    /// When the address cannot be had.
    pub async fn bind(listen: SocketAddr, options: SimulatorOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        Ok(Self {
            local_addr: listener.local_addr()?,
            listener,
            simulation: Arc::new(Simulation::new(options)),
        })
    }

    /// Where it listens: the real port, also when port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Control over it, also while it runs.
    pub fn handle(&self) -> SimulatorHandle {
        SimulatorHandle {
            simulation: Arc::clone(&self.simulation),
        }
    }

    /// Serves until `shutdown` drains, and does not wait for answers that are held then.
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

/// Everything that is served, in one list.
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
