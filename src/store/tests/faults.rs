//! Faults of the file while the service runs.

use std::{fs, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use futures_util::future::join_all;
use tempfile::TempDir;

use super::fixtures::{clock, customer, newest, open, row, usage};
use crate::{
    domain::{Resource, UpstreamApi},
    store::{StoreError, StoreWrite, StoredSnapshot, UsageStore, sqlite},
};

const PREFERRED: UpstreamApi = UpstreamApi::Insights;

struct FileScene {
    folder: TempDir,
    path: PathBuf,
    store: Arc<dyn UsageStore>,
}

impl FileScene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder, PREFERRED).await;
        store.write(vec![snapshot(1)]).await.unwrap();
        Self {
            path: folder.path().join("usage.db"),
            folder,
            store,
        }
    }

    async fn look_up(&self, number: u32) -> Result<Option<StoredSnapshot>, StoreError> {
        let resource = Resource::InsightsUsage(customer(number));
        self.store.snapshot(resource).await
    }

    async fn assert_works(&self) {
        self.store.write(vec![snapshot(9)]).await.unwrap();
        assert!(self.look_up(9).await.unwrap().is_some());
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    /// Overwrites all pages after the first, or that one too.
    fn damage(&self, from: u64) {
        let file = fs::OpenOptions::new().write(true).open(&self.path).unwrap();
        let length = file.metadata().unwrap().len();
        let noise = vec![0xa5; usize::try_from(length - from).unwrap()];
        file.write_all_at(&noise, from).unwrap();
    }
}

fn snapshot(number: u32) -> StoreWrite {
    let rows = vec![row("E3", "Teams", 3, 5, "2026-11-26")];
    newest(
        PREFERRED,
        &usage(customer(number), rows),
        "2026-11-28T06:00:00Z",
    )
}

#[tokio::test]
async fn a_deleted_file_is_begun_anew() {
    let scene = FileScene::new().await;
    assert!(scene.look_up(1).await.unwrap().is_some());
    for name in scene.files() {
        fs::remove_file(scene.folder.path().join(name)).unwrap();
    }

    let gone = scene.look_up(1).await;
    scene.store.probe().await.unwrap();

    assert!(matches!(gone, Err(StoreError::NotOpen(_))), "{gone:?}");
    assert!(scene.look_up(1).await.unwrap().is_none());
    scene.assert_works().await;
}

#[tokio::test]
async fn a_file_put_in_place_of_another_is_used() {
    let scene = FileScene::new().await;
    let other = FileScene::new().await;
    other.store.write(vec![snapshot(2)]).await.unwrap();
    other.store.close().await.unwrap();
    for name in scene.files() {
        fs::remove_file(scene.folder.path().join(name)).unwrap();
    }
    fs::rename(&other.path, &scene.path).unwrap();

    scene.store.probe().await.unwrap();

    assert!(scene.look_up(2).await.unwrap().is_some());
    scene.assert_works().await;
}

#[tokio::test]
async fn a_damaged_file_is_kept_aside_and_a_new_one_begun() {
    // Its beginning, so that it is no database at all; its content.
    for from in [0, 4096] {
        let FileScene {
            folder,
            path,
            store,
        } = FileScene::new().await;
        store.close().await.unwrap();
        let scene = FileScene {
            folder,
            path,
            store,
        };
        scene.damage(from);
        let damaged = fs::read(&scene.path).unwrap();

        let store = sqlite::open(scene.path.clone(), PREFERRED, clock())
            .await
            .unwrap();
        let scene = FileScene { store, ..scene };
        // Damage of the content shows when it is read.
        drop(scene.look_up(1).await);
        scene.store.probe().await.unwrap();

        assert!(scene.look_up(1).await.unwrap().is_none());
        scene.assert_works().await;
        let aside = scene.files();
        let aside = aside
            .iter()
            .find(|name| name.contains(".corrupt-2026"))
            .unwrap();
        assert_eq!(fs::read(scene.folder.path().join(aside)).unwrap(), damaged);
    }
}

#[tokio::test]
async fn a_file_locked_by_another_program_can_be_read_but_not_written() {
    let scene = FileScene::new().await;
    let other = rusqlite::Connection::open(&scene.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let error = scene.store.write(vec![snapshot(2)]).await.unwrap_err();

    assert!(error.to_string().contains("locked"), "{error}");
    assert!(scene.look_up(1).await.unwrap().is_some());
    other.execute_batch("ROLLBACK").unwrap();
    scene.assert_works().await;
}

#[tokio::test]
async fn a_file_that_another_program_locks_for_itself_is_opened_later() {
    let FileScene {
        folder,
        path,
        store,
    } = FileScene::new().await;
    store.close().await.unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other
        .execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; COMMIT")
        .unwrap();

    let store = sqlite::open(path.clone(), PREFERRED, clock())
        .await
        .unwrap();
    let scene = FileScene {
        folder,
        path,
        store,
    };
    let locked = scene.look_up(1).await;
    drop(other);
    scene.store.probe().await.unwrap();

    assert!(matches!(locked, Err(StoreError::NotOpen(_))), "{locked:?}");
    assert!(scene.look_up(1).await.unwrap().is_some());
    scene.assert_works().await;
}

#[tokio::test]
async fn a_folder_that_is_missing_is_used_once_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("data");
    let path = missing.join("usage.db");

    let store = sqlite::open(path.clone(), PREFERRED, clock())
        .await
        .unwrap();
    let scene = FileScene {
        folder,
        path,
        store,
    };
    let error = scene.look_up(1).await.unwrap_err();
    fs::create_dir(&missing).unwrap();
    scene.store.probe().await.unwrap();

    assert!(
        error.to_string().contains("usage.db: No such file"),
        "{error}"
    );
    scene.assert_works().await;
}

#[tokio::test]
async fn two_processes_write_one_file() {
    let scene = FileScene::new().await;
    let other = open(&scene.folder, PREFERRED).await;
    let stores = [&scene.store, &other].into_iter().cycle();
    let writes = (10..50)
        .zip(stores)
        .map(|(number, store)| store.write(vec![snapshot(number)]));

    let written = join_all(writes).await;

    assert!(written.iter().all(Result::is_ok), "{written:?}");
    for store in [&scene.store, &other] {
        assert_eq!(store.newest_of_all().await.unwrap().len(), 41);
    }
}

#[tokio::test]
async fn a_symbolic_link_stays_and_all_else_is_beside_the_file() {
    let FileScene {
        folder,
        path,
        store,
    } = FileScene::new().await;
    store.close().await.unwrap();
    let link_folder = tempfile::tempdir().unwrap();
    let link = link_folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let scene = FileScene {
        folder,
        path,
        store,
    };
    scene.damage(0);

    let store = sqlite::open(link.clone(), PREFERRED, clock())
        .await
        .unwrap();
    let scene = FileScene { store, ..scene };
    scene.assert_works().await;

    assert_eq!(fs::read_link(&link).unwrap(), scene.path);
    assert_eq!(fs::read_dir(link_folder.path()).unwrap().count(), 1);
    let files = scene.files();
    for suffix in ["-wal", "-shm", ".corrupt-2026"] {
        let name = format!("usage.db{suffix}");
        assert!(
            files.iter().any(|file| file.starts_with(&name)),
            "{files:?}"
        );
    }
}
