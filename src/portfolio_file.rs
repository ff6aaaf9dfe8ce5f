//! The portfolio in use: the portfolio file, read again when it changes.

mod parser;
#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use prometheus::{IntGauge, Registry, register_int_gauge_with_registry};

use crate::{
    clock::SharedClock,
    config::ConfigErrors,
    domain::Portfolio,
    reload::Reload,
    shutdown::Shutdown,
    tables_file::{TablesFile, TablesFileMetrics},
};

/// The portfolio in use; clones share it. Without a file it is empty, and its version is 0.
#[derive(Clone, Debug, Default)]
pub struct CurrentPortfolio {
    inner: Arc<PortfolioState>,
}

#[derive(Debug, Default)]
struct PortfolioState {
    portfolio: ArcSwap<Portfolio>,
    /// The version of the portfolio, for look-ups that need no more.
    version: AtomicU64,
}

/// Metrics of the portfolio file.
#[derive(Clone, Debug)]
pub struct PortfolioMetrics {
    products: IntGauge,
    groups: IntGauge,
    file: TablesFileMetrics,
}

/// Checks a portfolio file.
///
/// # Errors
///
/// [`ConfigErrors`] lists every error.
pub fn check_portfolio_file(path: &Path) -> Result<(), ConfigErrors> {
    parser::parse(path).content.map(|_portfolio| ())
}

// === impl CurrentPortfolio ===

impl CurrentPortfolio {
    /// Reads the portfolio file, and reads it again whenever it changes and when a reload is
    /// requested.
    ///
    /// # Errors
    ///
    /// [`ConfigErrors`] lists every error of the file.
    pub async fn load(
        path: &Path,
        clock: SharedClock,
        metrics: PortfolioMetrics,
        reload: &Reload,
        shutdown: &Shutdown,
    ) -> Result<Self, ConfigErrors> {
        let current = Self::default();
        let file = TablesFile {
            subject: PortfolioMetrics::SUBJECT,
            path: path.to_owned(),
            parse: parser::parse,
            apply: {
                let (current, clock, path) = (current.clone(), clock.clone(), path.to_owned());
                let (products, groups) = (metrics.products, metrics.groups);
                Box::new(move |portfolio: Portfolio, sha256: &str| {
                    products.set(gauge_value(portfolio.rule_count()));
                    groups.set(gauge_value(portfolio.group_names().count()));
                    tracing::info!(
                        file = %path.display(),
                        products = portfolio.rule_count(),
                        groups = portfolio.group_names().count(),
                        sha256,
                        "the portfolio file is in use"
                    );
                    current.replace(portfolio, &clock);
                })
            },
            metrics: metrics.file,
            clock,
        };
        file.load(reload, shutdown).await?;
        Ok(current)
    }

    /// Returns the portfolio in use now.
    pub fn get(&self) -> Arc<Portfolio> {
        self.inner.portfolio.load_full()
    }

    /// Returns [`Portfolio::version`] of the portfolio in use now.
    pub fn version(&self) -> u64 {
        self.inner.version.load(Ordering::Relaxed)
    }

    /// Applies a portfolio. One with the same content changes nothing.
    fn replace(&self, portfolio: Portfolio, clock: &SharedClock) {
        let before = self.get();
        if before.version() > 0 && before.has_same_content(&portfolio) {
            return;
        }
        let version = before.version() + 1;
        let portfolio = portfolio.with_version(version, clock.wall_time());
        self.inner.portfolio.store(Arc::new(portfolio));
        self.inner.version.store(version, Ordering::Relaxed);
    }
}

fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

// === impl PortfolioMetrics ===

impl PortfolioMetrics {
    const SUBJECT: &str = "portfolio";

    /// Registers all metrics, with the values that hold without a portfolio file.
    ///
    /// # Errors
    ///
    /// Fails if one of them is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            products: register_int_gauge_with_registry!(
                "usage_proxy_portfolio_products",
                "Products in the portfolio file in use.",
                registry
            )?,
            groups: register_int_gauge_with_registry!(
                "usage_proxy_portfolio_groups",
                "Groups of customers in the portfolio file in use.",
                registry
            )?,
            file: TablesFileMetrics::new(registry, Self::SUBJECT)?,
        })
    }
}
