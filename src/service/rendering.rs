//! Renders formats on first request, once for all concurrent requests.

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;

use crate::{
    cache::{CachedAnswer, SingleFlight, UsageCache},
    domain::{CustomerId, Portfolio},
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

// === impl SharedRenderer ===

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
        cached: CachedAnswer,
        customer: CustomerId,
        seen_at: Timestamp,
        now: Instant,
    ) -> CachedAnswer {
        let Some(name) = self.cache.customer_name(customer, now) else {
            return cached;
        };
        let bytes = cached.rendered.largest_source_bytes();
        let nameless = Arc::clone(&cached.rendered);
        match offload::run_cpu_bound(bytes, move || nameless.with_customer_name(&name, seen_at))
            .await
        {
            Ok(named) => {
                let rendered = Arc::new(named);
                self.cache.replace_rendered(&cached.rendered, &rendered);
                CachedAnswer { rendered, ..cached }
            }
            Err(error) => {
                tracing::error!(customer.id = %customer, %error, "a stored answer could not be named");
                cached
            }
        }
    }

    /// Gives an answer the names of a portfolio. The result is stored, so that this happens once.
    pub(super) async fn with_portfolio(
        &self,
        cached: CachedAnswer,
        portfolio: Arc<Portfolio>,
    ) -> CachedAnswer {
        let bytes = cached.rendered.largest_source_bytes();
        let before = Arc::clone(&cached.rendered);
        match offload::run_cpu_bound(bytes, move || before.with_portfolio(&portfolio)).await {
            Ok(named) => {
                let rendered = Arc::new(named);
                self.cache.replace_rendered(&cached.rendered, &rendered);
                CachedAnswer { rendered, ..cached }
            }
            Err(error) => {
                let customer = cached.rendered.customer().map(tracing::field::display);
                tracing::error!(customer.id = customer, %error, "products could not be named");
                cached
            }
        }
    }

    /// Renders a format and coding, once for all concurrent requests.
    pub(super) async fn render(
        &self,
        rendered: &Arc<Rendered>,
        format: Format,
        coding: ContentCoding,
    ) -> Result<(), Arc<RenderError>> {
        let key = RenderKey {
            rendered_address: Arc::as_ptr(rendered).addr(),
            format,
            coding,
        };
        let lead = || match rendered.ready(format, coding) {
            Some(_) => Err(()),
            None => Ok(()),
        };
        let flight = self.flights.join_or_lead(
            key,
            |()| (),
            lead,
            |guard, ()| {
                let (cache, rendered) = (Arc::clone(&self.cache), Arc::clone(rendered));
                async move {
                    let bytes = rendered.largest_source_bytes() * coding.compression_cost();
                    let source = Arc::clone(&rendered);
                    let render = move || source.render(format, coding).map(|_| ());
                    let result = offload::run_cpu_bound(bytes, render).await;
                    cache.update_weight(&rendered);
                    let _completed = guard.complete((), |()| ());
                    result.map_err(Arc::new)
                }
            },
        );
        match flight {
            Ok(flight) => flight.outcome().await.unwrap_or(Ok(())),
            Err(()) => Ok(()),
        }
    }
}
