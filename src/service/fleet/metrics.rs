use std::time::Duration;

use prometheus::{
    Histogram, IntCounter, IntGauge, Registry, register_histogram_with_registry,
    register_int_counter_vec_with_registry, register_int_gauge_vec_with_registry,
    register_int_gauge_with_registry,
};
use strum::VariantArray;

use crate::domain::{FleetStatus, FleetUsage};

/// The metrics of the refresh of all customers.
#[derive(Clone, Debug)]
pub struct FleetMetrics {
    checks_succeeded: IntCounter,
    checks_failed: IntCounter,
    refreshes_succeeded: IntCounter,
    refreshes_failed: IntCounter,
    refresh_duration: Histogram,
    /// By discriminant.
    customers: Vec<IntGauge>,
    processed_date: IntGauge,
}

// === impl FleetMetrics ===

impl FleetMetrics {
    /// Registers all metrics.
    ///
    /// # Errors
    ///
    /// If one of them is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let checks = register_int_counter_vec_with_registry!(
            "usage_proxy_fleet_checks_total",
            "Checks for a newer processed date, by outcome; with insights, customers asked for.",
            &["outcome"],
            registry
        )?;
        let refreshes = register_int_counter_vec_with_registry!(
            "usage_proxy_fleet_refreshes_total",
            "Refreshes of all customers together, by outcome.",
            &["outcome"],
            registry
        )?;
        let customers = register_int_gauge_vec_with_registry!(
            "usage_proxy_fleet_customers",
            "Customers by the state of their data.",
            &["status"],
            registry
        )?;
        Ok(Self {
            checks_succeeded: checks.with_label_values(&["success"]),
            checks_failed: checks.with_label_values(&["failure"]),
            refreshes_succeeded: refreshes.with_label_values(&["success"]),
            refreshes_failed: refreshes.with_label_values(&["failure"]),
            refresh_duration: register_histogram_with_registry!(
                "usage_proxy_fleet_refresh_duration_seconds",
                "Time to fetch all pages of a refresh of all customers.",
                vec![0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0],
                registry
            )?,
            customers: FleetStatus::VARIANTS
                .iter()
                .map(|status| customers.with_label_values(&[status.as_str()]))
                .collect(),
            processed_date: register_int_gauge_with_registry!(
                "usage_proxy_fleet_processed_date_timestamp_seconds",
                "Start of the newest processed date of the fleet; 0 before any is known.",
                registry
            )?,
        })
    }

    pub(super) fn record_check(&self, succeeded: bool) {
        if succeeded {
            self.checks_succeeded.inc();
        } else {
            self.checks_failed.inc();
        }
    }

    pub(super) fn observe_duration(&self, duration: Duration) {
        self.refresh_duration.observe(duration.as_secs_f64());
    }

    pub(super) fn record_refresh(&self, succeeded: bool) {
        if succeeded {
            self.refreshes_succeeded.inc();
        } else {
            self.refreshes_failed.inc();
        }
    }

    /// Sets the gauges of the fleet.
    pub(in crate::service) fn update(&self, fleet: &FleetUsage) {
        let mut counts = [0_i64; FleetStatus::VARIANTS.len()];
        for entry in &fleet.entries {
            if let Some(count) = counts.get_mut(entry.status as usize) {
                *count += 1;
            }
        }
        for (gauge, count) in self.customers.iter().zip(counts) {
            gauge.set(count);
        }
        let date = fleet
            .processed_date
            .map_or(0, |date| date.start().as_second());
        self.processed_date.set(date);
    }
}
