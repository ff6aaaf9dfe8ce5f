//! `usage-proxy store copy`: from SQLite to PostgreSQL and back.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;
use usage_proxy::simulator::Faults;

use crate::{
    postgres::with_database,
    postgres_server::{TestDatabase, certificate},
    store::{answer_without_upstream, open, wait_until, with_store},
    support::{Finished, PartnerCenter, Running, assert_has, run, usage_proxy, usage_proxy_after},
};

fn command(program: Command, from: &str, to: &str) -> Command {
    let mut command = program;
    command.args(["store", "copy", "--from", from, "--to", to]);
    command
}

async fn copied(from: &str, to: &str) -> Finished {
    run(command(usage_proxy(), from, to)).await
}

fn url_of(file: &Path) -> String {
    format!("sqlite:{}", file.display())
}

/// A file in which a service has stored the usage of a customer, and its answer.
struct Stored {
    partner_center: PartnerCenter,
    folder: TempDir,
    url: String,
    answer: String,
}

impl Stored {
    async fn new() -> Self {
        let partner_center = PartnerCenter::with(Faults::default()).await;
        let account = with_store(partner_center.account());
        let service = account.serve().await;
        let answer = service.usage(partner_center.handle.customers()[0]).await;
        service.end().await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("usage.db");
        let copy = format!("VACUUM INTO '{}'", file.display());
        open(&account).execute(&copy, []).unwrap();
        Self {
            url: url_of(&file),
            partner_center,
            folder,
            answer: answer.body,
        }
    }
}

#[tokio::test]
async fn a_service_moves_from_sqlite_to_postgres_and_back() {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let customer = partner_center.handle.customers()[0];
    let on_file = with_store(partner_center.account());
    let service = on_file.serve().await;
    let stored = service.usage(customer).await.body;
    let rows = "SELECT count(*) FROM newest_usage";
    let count = async || {
        open(&on_file)
            .query_row(rows, [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    wait_until(async || count().await > 0).await;
    let file = url_of(&on_file.path("store").join("usage.db"));
    let database = TestDatabase::create();

    // While the service uses the file.
    let there = copied(&file, &database.url()).await;
    let again = copied(&file, &database.url()).await;
    service.end().await;
    let account = with_database(partner_center.account(), &database.url(), "");
    let on_database = account.serve().await;
    let answer = answer_without_upstream(&partner_center, &on_database, customer).await;
    on_database.end().await;
    let folder = tempfile::tempdir().unwrap();
    let back = copied(&database.url(), &url_of(&folder.path().join("back.db"))).await;

    assert_eq!(answer, stored);
    there.assert_printed(&["1 customers, 1 of 1 snapshots: 1 copied with 0 earlier revisions"]);
    again.assert_printed(&["1 of 1 snapshots: 0 copied", "1 were there"]);
    back.assert_printed(&["1 of 1 snapshots: 1 copied"]);
    assert!(
        there.stderr.lines().all(|line| line.contains("snapshots")),
        "{}",
        there.stderr
    );
}

#[tokio::test]
async fn wrong_use_is_refused_and_nothing_is_created() {
    let stored = Stored::new().await;
    let database = TestDatabase::create();
    let here = stored.folder.path();
    let newer = TestDatabase::create();
    copied(&stored.url, &newer.url()).await.assert_printed(&[]);
    newer.psql("INSERT INTO usage_proxy.schema_version VALUES (999, 0)");
    let (missing, new) = (
        url_of(&here.join("missing.db")),
        url_of(&here.join("new.db")),
    );
    let with_password = "postgres://u:s3cr3t@localhost/d";

    for (from, to, more, expected) in [
        (
            &*missing,
            &*new,
            None,
            &["--from: ", "missing.db does not exist"][..],
        ),
        (&database.url(), &new, None, &["--from: ", "has no store"]),
        (
            &newer.url(),
            &new,
            None,
            &["--from: ", "version 999", "newer release"],
        ),
        (&stored.url, &newer.url(), None, &["--to: ", "version 999"]),
        (&stored.url, &stored.url, None, &["the same store"]),
        (
            &stored.url,
            "usage.db",
            None,
            &["--to: ", "neither `sqlite:` nor `postgres://`"],
        ),
        (
            &stored.url,
            with_password,
            None,
            &["--to: ", "--to-password-file"],
        ),
        (
            with_password,
            &new,
            None,
            &["--from: ", "--from-password-file"],
        ),
        (
            &stored.url,
            "postgres://u@db.example.com/d",
            None,
            &["sslmode=verify-full"],
        ),
        (
            &stored.url,
            &new,
            Some("--to-password-file"),
            &["are for a `postgres://` URL"],
        ),
        (
            &stored.url,
            &new,
            Some("--from-ca-file"),
            &["are for a `postgres://` URL"],
        ),
    ] {
        let mut command = command(usage_proxy(), from, to);
        command.args(more.map(|flag| [flag, "file"]).into_iter().flatten());

        let refused = run(command).await;

        refused.assert_failed_in_one_line(2, expected);
        assert!(!refused.stderr.contains("s3cr3t"), "{}", refused.stderr);
    }
    assert_eq!(std::fs::read_dir(here).unwrap().count(), 1);
    let schemas = database.psql("SELECT count(*) FROM pg_namespace WHERE nspname = 'usage_proxy'");
    assert_eq!(schemas, "0");
}

#[tokio::test]
async fn a_store_that_cannot_be_used_is_named_with_advice() {
    let stored = Stored::new().await;
    let database = TestDatabase::create();
    let no_folder = url_of(&stored.folder.path().join("missing/usage.db"));
    let unreachable = "postgres://u@127.0.0.1:9/d";
    let ca = certificate("ca").display().to_string();

    for (from, to, more, expected) in [
        (
            &*stored.url,
            &*no_folder,
            &[][..],
            &["--to: ", "make the folder"][..],
        ),
        (
            &stored.url,
            unreachable,
            &[],
            &["--to: ", "that PostgreSQL runs"],
        ),
        (
            unreachable,
            &no_folder,
            &[],
            &["--from: ", "that PostgreSQL runs"],
        ),
        (
            &stored.url,
            &database.tls_url("nobody"),
            &["--to-ca-file", &ca],
            &["--to: ", "password missing", "--to-password-file"],
        ),
        (
            &database.tls_url("nobody"),
            &no_folder,
            &[],
            &["--from: ", "UnknownIssuer", "--from-ca-file"],
        ),
    ] {
        let mut command = command(usage_proxy(), from, to);
        command.args(more);

        let failed = run(command).await;

        failed.assert_failed_in_one_line(1, expected);
        assert_has(&failed.stderr, &["run the same command again to continue"]);
    }
}

#[tokio::test]
async fn a_password_comes_from_a_file() {
    let stored = Stored::new().await;
    let database = TestDatabase::create();
    let user = format!("copies_{}", database.name());
    database.psql(&format!(
        "CREATE ROLE {user} LOGIN PASSWORD 'secret'; GRANT CREATE ON DATABASE {} TO {user}",
        database.name()
    ));
    let password_file = stored.folder.path().join("password");
    std::fs::write(&password_file, "secret\n").unwrap();
    let mut command = command(usage_proxy(), &stored.url, &database.tls_url(&user));
    command.arg("--to-password-file").arg(password_file);
    command.arg("--to-ca-file").arg(certificate("ca"));

    run(command)
        .await
        .assert_printed(&["1 of 1 snapshots: 1 copied"]);
}

#[tokio::test]
async fn a_disk_that_takes_no_more_ends_a_copy_that_continues_later() {
    let stored = Stored::new().await;
    let target = url_of(&stored.folder.path().join("target.db"));
    // A write beyond the limit is then an error and not a signal.
    let limited = usage_proxy_after("trap '' XFSZ; ulimit -f 64");

    let full = run(command(limited, &stored.url, &target)).await;
    let continued = copied(&stored.url, &target).await;

    full.assert_failed(
        1,
        &["--to: ", "disk", "run the same command again to continue"],
    );
    continued.assert_printed(&["1 of 1 snapshots: 1 copied"]);
}

#[tokio::test]
async fn ctrl_c_ends_a_copy_that_continues_later() {
    let stored = Stored::new().await;
    let database = TestDatabase::create();
    let url = database.url();
    copied(&stored.url, &url).await.assert_printed(&[]);
    database.psql("DELETE FROM usage_proxy.snapshot; DELETE FROM usage_proxy.fact");
    // A transaction of another process keeps the copy from writing.
    let mut other = Command::new("psql");
    other.args(["-d", &url, "-c", "BEGIN", "-c"]);
    other.arg("SELECT 1 FROM usage_proxy.store_state FOR UPDATE");
    other
        .args(["-c", "SELECT pg_sleep(600)"])
        .stderr(Stdio::null());
    let other = Running::start(&mut other);
    let waiting = |event: &str| {
        let query = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event_type = '{event}'",
            database.name()
        );
        database.psql(&query) != "0"
    };
    wait_until(async || waiting("Timeout")).await;

    let mut copy = Running::start(&mut command(usage_proxy(), &stored.url, &url));
    wait_until(async || waiting("Lock")).await;
    copy.signal("INT");
    let ended = copy.ended().await;
    other.kill();
    let sleeping = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity \
                    WHERE datname = current_database() AND pid <> pg_backend_pid()";
    database.psql(sleeping);
    let continued = copied(&stored.url, &url).await;

    assert_eq!(ended.code(), Some(130), "{}", copy.transcript());
    assert_has(
        &copy.stderr.text(),
        &["stopped; ", "run the same command again to continue"],
    );
    continued.assert_printed(&["1 of 1 snapshots: 1 copied"]);
    let account = with_database(stored.partner_center.account(), &url, "");
    let service = account.serve().await;
    let customer = stored.partner_center.handle.customers()[0];
    let answer = answer_without_upstream(&stored.partner_center, &service, customer).await;
    assert_eq!(answer, stored.answer);
    service.end().await;
}
