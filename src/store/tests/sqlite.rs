use super::fixtures::{at, customer, newest, open, row, usage};
use crate::{
    domain::{Resource, UpstreamApi},
    store::{StoreStartError, sqlite},
};

const PREFERRED: UpstreamApi = UpstreamApi::Insights;

#[tokio::test]
async fn a_reopened_file_has_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let stored = usage(customer(1), vec![row("E3", "Teams", 3, 5, "2026-11-26")]);
    let change = newest(PREFERRED, &stored, "2026-11-28T06:00:00Z");
    let first = open(&folder, PREFERRED).await;
    first.write(vec![change]).await.unwrap();
    first.close().await.unwrap();

    let second = open(&folder, PREFERRED).await;

    let resource = Resource::InsightsUsage(customer(1));
    let found = second.snapshot(resource).await.unwrap().unwrap();
    assert_eq!(found.usage, stored);
    assert_eq!(found.fetched_at, at("2026-11-28T06:00:00Z"));
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, PREFERRED).await;
    store.close().await.unwrap();
    let path = folder.path().join("usage.db");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute("INSERT INTO schema_version VALUES (999, 0)", [])
        .unwrap();

    let error = sqlite::open(path, PREFERRED, super::fixtures::clock())
        .await
        .unwrap_err();

    let StoreStartError::NewerSchema { found, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(found, 999);
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("usage.db");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute("CREATE TABLE photo (id INTEGER)", []).unwrap();

    let error = sqlite::open(path, PREFERRED, super::fixtures::clock())
        .await
        .unwrap_err();

    assert!(
        matches!(error, StoreStartError::OtherProgram(_)),
        "{error:?}"
    );
}
