use prometheus::IntGauge;

/// Counts one more for as long as it lives.
#[derive(Debug)]
pub(super) struct GaugeGuard<'a>(&'a IntGauge);

// === impl Counted ===

impl<'a> GaugeGuard<'a> {
    pub(super) fn increment(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for GaugeGuard<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
