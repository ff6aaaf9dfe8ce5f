//! Stores and answers for tests.

use std::sync::Arc;

use jiff::Timestamp;
use tempfile::TempDir;

use super::postgres_server::TestDatabase;
use crate::{
    clock::{ManualClock, SharedClock},
    config::{PostgresConfig, PostgresUrl},
    domain::{
        CustomerId, LicenseUsage, ProcessedAt, ProcessedDate, UpstreamApi, UsageRow, samples,
    },
    shutdown::Shutdown,
    store::{self, AcceptedSnapshot, DateRange, StoreWrite, UsageStore, copy::StorePlace},
};

/// A store in a place of its own.
pub(in crate::store) struct TestStore {
    pub(in crate::store) store: Arc<dyn UsageStore>,
    pub(in crate::store) place: TestPlace,
}

/// A place that several processes can open.
pub(in crate::store) enum TestPlace {
    File(TempDir),
    Database(TestDatabase),
    /// A database behind PgBouncer.
    Pooled(TestDatabase),
}

// === impl TestStore ===

impl TestStore {
    pub(in crate::store) async fn on(place: TestPlace) -> Self {
        let store = place.open(UpstreamApi::Insights).await;
        Self { store, place }
    }
}

// === impl TestPlace ===

impl TestPlace {
    pub(in crate::store) fn file() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    pub(in crate::store) fn database() -> Self {
        Self::Database(TestDatabase::create())
    }

    pub(in crate::store) fn pooled() -> Self {
        Self::Pooled(TestDatabase::create())
    }

    /// Returns the place as a copy names it.
    pub(in crate::store) fn store_place(&self) -> StorePlace {
        match self {
            Self::File(folder) => StorePlace::Sqlite(folder.path().join("usage.db")),
            Self::Database(place) => StorePlace::Postgres(Box::new(database(&place.url()))),
            Self::Pooled(place) => StorePlace::Postgres(Box::new(database(&place.pooler_url()))),
        }
    }

    pub(in crate::store) async fn open(&self, preferred: UpstreamApi) -> Arc<dyn UsageStore> {
        match self {
            Self::File(folder) => open(folder, preferred).await,
            Self::Database(database) => open_database(&database.url(), preferred).await,
            Self::Pooled(database) => open_database(&database.pooler_url(), preferred).await,
        }
    }
}

/// Opens a store in an SQLite file.
pub(in crate::store) async fn open(
    folder: &TempDir,
    preferred: UpstreamApi,
) -> Arc<dyn UsageStore> {
    let path = folder.path().join("usage.db");
    let opened = store::sqlite::open(path, preferred, clock());
    opened.await.unwrap()
}

/// Opens a store in a PostgreSQL database, with all its connections.
pub(in crate::store) async fn open_database(
    url: &str,
    preferred: UpstreamApi,
) -> Arc<dyn UsageStore> {
    let opened = store::postgres::open(database(url), preferred, clock(), Shutdown::new());
    let store = opened.await.unwrap();
    store.probe().await.unwrap();
    store
}

pub(in crate::store) fn database(url: &str) -> PostgresConfig {
    PostgresConfig {
        url: PostgresUrl::parse(url).unwrap(),
        listen_url: None,
        password_file: None,
        ca_file: None,
    }
}

pub(in crate::store) fn clock() -> SharedClock {
    Arc::new(ManualClock::at(at("2026-11-29T12:00:00Z")))
}

pub(in crate::store) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(in crate::store) fn date(text: &str) -> ProcessedDate {
    ProcessedDate::parse(text).unwrap()
}

pub(in crate::store) fn range(from: &str, to: &str) -> DateRange {
    DateRange {
        from: date(from),
        to: date(to),
    }
}

pub(in crate::store) fn customer(number: u32) -> CustomerId {
    CustomerId::parse(&format!("00000000-0000-0000-0000-{number:012}")).unwrap()
}

pub(in crate::store) fn row(
    product: &str,
    workload: &str,
    active: u64,
    qualified: u64,
    day: &str,
) -> UsageRow {
    UsageRow {
        product_name: product.into(),
        workload_name: workload.into(),
        licenses_active: active,
        licenses_qualified: qualified,
        processed_at: ProcessedAt(date(day).start()),
        ..samples::row()
    }
}

pub(in crate::store) fn usage(customer: CustomerId, rows: Vec<UsageRow>) -> Arc<LicenseUsage> {
    Arc::new(LicenseUsage::new(customer, Some("Contoso".to_owned()), rows).unwrap())
}

/// An answer to the question for the newest date.
pub(in crate::store) fn newest(
    api: UpstreamApi,
    usage: &Arc<LicenseUsage>,
    fetched_at: &str,
) -> StoreWrite {
    StoreWrite::Snapshot(AcceptedSnapshot {
        api,
        usage: Arc::clone(usage),
        native: None,
        asked_date: None,
        fetched_at: at(fetched_at),
        purge_generation: None,
        lease: None,
        is_of_refresh: false,
    })
}

/// An answer to the question for a date.
pub(in crate::store) fn dated(
    usage: &Arc<LicenseUsage>,
    day: &str,
    fetched_at: &str,
) -> StoreWrite {
    StoreWrite::Snapshot(AcceptedSnapshot {
        api: UpstreamApi::Commercial,
        usage: Arc::clone(usage),
        native: None,
        asked_date: Some(date(day)),
        fetched_at: at(fetched_at),
        purge_generation: None,
        lease: None,
        is_of_refresh: false,
    })
}
