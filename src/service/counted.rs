use prometheus::IntGauge;

/// Counts one more for as long as it lives.
#[derive(Debug)]
pub(super) struct Counted<'a>(&'a IntGauge);

// === impl Counted ===

impl<'a> Counted<'a> {
    pub(super) fn on(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
