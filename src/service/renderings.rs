//! Forms that are made when first asked for, once however many ask.

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;

use crate::{
    cache::{Held, SingleFlight, UsageCache},
    domain::CustomerId,
    offload,
    render::{Coding, Form, Prepared, RenderError},
    shutdown::Shutdown,
};

/// Renderings under way.
#[derive(Debug)]
pub(super) struct Renderings {
    flights: SingleFlight<Rendering, Result<(), Arc<RenderError>>>,
    cache: Arc<UsageCache>,
}

/// One form and coding to make of one snapshot, known by its address: whoever renders it keeps it
/// alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rendering {
    prepared: usize,
    form: Form,
    coding: Coding,
}

// === impl Renderings ===

impl Renderings {
    pub(super) fn new(cache: Arc<UsageCache>, shutdown: Shutdown) -> Self {
        Self {
            flights: SingleFlight::new(shutdown),
            cache,
        }
    }

    /// Adds the name that the cached list of customers has to an answer whose rows have none. It is
    /// stored with the name, so that this happens once.
    pub(super) async fn named(
        &self,
        held: Held,
        customer: CustomerId,
        seen_at: Timestamp,
        now: Instant,
    ) -> Held {
        let Some(name) = self.cache.listed_name(customer, now) else {
            return held;
        };
        let bytes = held.prepared.bytes();
        let nameless = Arc::clone(&held.prepared);
        match offload::run_cpu_bound(bytes, move || nameless.named(&name, seen_at)).await {
            Ok(named) => {
                let prepared = Arc::new(named);
                self.cache.rename(&held.prepared, &prepared);
                Held { prepared, ..held }
            }
            Err(error) => {
                tracing::error!(customer.id = %customer, %error, "a stored answer could not be named");
                held
            }
        }
    }

    pub(super) async fn render(
        &self,
        prepared: &Arc<Prepared>,
        form: Form,
        coding: Coding,
    ) -> Result<(), Arc<RenderError>> {
        let rendering = Rendering {
            prepared: Arc::as_ptr(prepared).addr(),
            form,
            coding,
        };
        let unmade = || match prepared.ready(form, coding) {
            Some(_) => Err(()),
            None => Ok(()),
        };
        let boarding = self.flights.board(
            rendering,
            |()| (),
            unmade,
            |ticket, ()| {
                let (cache, prepared) = (Arc::clone(&self.cache), Arc::clone(prepared));
                async move {
                    let rendered = {
                        let prepared = Arc::clone(&prepared);
                        let bytes = prepared.bytes() * coding.effort();
                        offload::run_cpu_bound(bytes, move || {
                            prepared.render(form, coding).map(|_| ())
                        })
                        .await
                    };
                    cache.reweigh(&prepared);
                    let _landed = ticket.land((), |()| ());
                    rendered.map_err(Arc::new)
                }
            },
        );
        match boarding {
            Ok(boarding) => boarding.outcome().await.unwrap_or(Ok(())),
            Err(()) => Ok(()),
        }
    }
}
