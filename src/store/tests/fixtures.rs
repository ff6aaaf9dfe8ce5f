//! Stores and answers for tests.

use std::sync::Arc;

use jiff::Timestamp;
use tempfile::TempDir;

use crate::{
    clock::{ManualClock, SharedClock},
    domain::{
        CustomerId, LicenseUsage, ProcessedAt, ProcessedDate, UpstreamApi, UsageRow, samples,
    },
    store::{self, AcceptedSnapshot, DateRange, StoreWrite, UsageStore},
};

/// A store in a file of its own.
pub(in crate::store) struct TestStore {
    pub(in crate::store) store: Arc<dyn UsageStore>,
    pub(in crate::store) _folder: TempDir,
}

pub(in crate::store) async fn sqlite() -> TestStore {
    let folder = tempfile::tempdir().unwrap();
    TestStore {
        store: open(&folder, UpstreamApi::Insights).await,
        _folder: folder,
    }
}

pub(in crate::store) async fn open(
    folder: &TempDir,
    preferred: UpstreamApi,
) -> Arc<dyn UsageStore> {
    let path = folder.path().join("usage.db");
    let opened = store::sqlite::open(path, preferred, clock());
    opened.await.unwrap()
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
    })
}
