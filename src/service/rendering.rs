//! Renders formats on first request, once for all concurrent requests.

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;

use crate::{
    cache::{CachedAnswer, SingleFlight, UsageCache},
    domain::CustomerId,
    offload,
    render::{ContentCoding, Format, RenderError, Rendered},
    shutdown::Shutdown,
};

/// The renderings in progress.
#[derive(Debug)]
pub(super) struct SharedRenderer {
    flights: SingleFlight<RenderKey, Result<(), Arc<RenderError>>>,
    cache: Arc<UsageCache>,
}

/// One format and coding of one snapshot. The address identifies the snapshot, since a rendering
/// keeps it alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct RenderKey {
    rendered_address: usize,
    format: Format,
    coding: ContentCoding,
}

// === impl Renderings ===

impl SharedRenderer {
    pub(super) fn new(cache: Arc<UsageCache>, shutdown: Shutdown) -> Self {
        Self {
            flights: SingleFlight::new(shutdown),
            cache,
        }
    }

    /// Adds the customer's name from the cached list of customers to an answer whose rows have none.
    /// The result is stored, so that this happens once.
    pub(super) async fn with_customer_name(
        &self,
        held: CachedAnswer,
        customer: CustomerId,
        seen_at: Timestamp,
        now: Instant,
    ) -> CachedAnswer {
        let Some(name) = self.cache.customer_name(customer, now) else {
            return held;
        };
        let bytes = held.rendered.largest_source_bytes();
        let nameless = Arc::clone(&held.rendered);
        match offload::run_cpu_bound(bytes, move || nameless.with_customer_name(&name, seen_at))
            .await
        {
            Ok(named) => {
                let prepared = Arc::new(named);
                self.cache.replace_rendered(&held.rendered, &prepared);
                CachedAnswer {
                    rendered: prepared,
                    ..held
                }
            }
            Err(error) => {
                tracing::error!(customer.id = %customer, %error, "a stored answer could not be named");
                held
            }
        }
    }

    pub(super) async fn render(
        &self,
        prepared: &Arc<Rendered>,
        form: Format,
        coding: ContentCoding,
    ) -> Result<(), Arc<RenderError>> {
        let rendering = RenderKey {
            rendered_address: Arc::as_ptr(prepared).addr(),
            format: form,
            coding,
        };
        let unmade = || match prepared.ready(form, coding) {
            Some(_) => Err(()),
            None => Ok(()),
        };
        let boarding = self.flights.join_or_lead(
            rendering,
            |()| (),
            unmade,
            |ticket, ()| {
                let (cache, prepared) = (Arc::clone(&self.cache), Arc::clone(prepared));
                async move {
                    let rendered = {
                        let prepared = Arc::clone(&prepared);
                        let bytes = prepared.largest_source_bytes() * coding.compression_cost();
                        offload::run_cpu_bound(bytes, move || {
                            prepared.render(form, coding).map(|_| ())
                        })
                        .await
                    };
                    cache.update_weight(&prepared);
                    let _landed = ticket.complete((), |()| ());
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
