//! Forms that are made when first asked for, once however many ask.

use std::sync::Arc;

use crate::{
    cache::{SingleFlight, UsageCache},
    offload,
    representation::{Coding, Form, Prepared, RenderError},
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
                        offload::elsewhere(move || prepared.render(form, coding).map(|_| ())).await
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
