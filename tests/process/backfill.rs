//! `usage-proxy backfill`: past dates come into the store, by the running service or without one.

use jiff::civil::Date;
use usage_proxy::{
    access_key::KeyHash,
    simulator::{Faults, SimulatedApi},
};

use crate::{
    store::{open, with_store},
    support::{
        Account, Finished, PartnerCenter, Running, Service, assert_has, free_address, run,
        usage_proxy,
    },
};

const KEY: &str = "canary-key-0123456789abcdef0123456789abcdef";

/// An account with a store, and its Partner Center.
struct Scene {
    partner_center: PartnerCenter,
    account: Account,
}

// === impl Scene ===

impl Scene {
    async fn new() -> Self {
        let partner_center = PartnerCenter::with(Faults::default()).await;
        let account = with_store(partner_center.account());
        Self {
            partner_center,
            account,
        }
    }

    /// The newest processed date, and the one `days` before it.
    fn range(&self, days: i32) -> [String; 2] {
        let newest: Date = self.partner_center.handle.newest_date();
        let from = newest - jiff::Span::new().days(days);
        [from.to_string(), newest.to_string()]
    }

    /// `backfill` of so many days, with the admin listener at this address.
    fn command(&self, admin: &str, days: i32, args: &[&str]) -> std::process::Command {
        let [from, to] = self.range(days);
        let admin = admin.trim_start_matches("http://");
        let mut command = self.account.command(usage_proxy(), "backfill");
        command
            .args(["--admin-listen", admin, "--from", &from, "--to", &to])
            .args(args);
        command
    }

    async fn backfill(&self, admin: &str, days: i32, args: &[&str]) -> Finished {
        run(self.command(admin, days, args)).await
    }

    fn calls(&self) -> usize {
        self.partner_center
            .handle
            .request_count(SimulatedApi::FleetPage)
    }

    fn stored_dates(&self) -> i64 {
        let statement = "SELECT count(DISTINCT processed_date) FROM snapshots";
        open(&self.account)
            .query_row(statement, [], |row| row.get(0))
            .unwrap()
    }
}

#[tokio::test]
async fn the_running_service_fetches_what_is_not_stored() {
    let scene = Scene::new().await;
    let service = scene.account.serve().await;

    let first = scene.backfill(&service.admin, 2, &[]).await;
    let again = scene.backfill(&service.admin, 3, &[]).await;

    first.assert_printed(&["3 of 3 dates: 3 fetched, 0 stored before, 0 without data\n"]);
    again.assert_printed(&["4 of 4 dates: 1 fetched, 3 stored before, 0 without data\n"]);
    assert_eq!((&*first.stderr, &*again.stderr), ("", ""));
    assert_eq!(scene.stored_dates(), 4);
    assert_eq!(scene.calls(), 4);
}

#[tokio::test]
async fn where_nothing_listens_the_command_fetches_them_itself() {
    let scene = Scene::new().await;

    let alone = scene.backfill(&free_address(), 10, &[]).await;

    alone.assert_printed(&["11 of 11 dates: 11 fetched, 0 stored before, 0 without data\n"]);
    assert_has(
        &alone.stderr,
        &[
            "no service listens on 127.0.0.1:",
            "so this command fetches the dates itself\n",
        ],
    );
    assert!(!alone.stderr.contains("\"level\""), "{}", alone.stderr);
    assert_eq!(scene.stored_dates(), 11);
}

#[tokio::test]
async fn a_service_with_keys_is_asked_with_a_key_only() {
    let scene = Scene::new().await;
    let hash = KeyHash::of_key(KEY.as_bytes());
    let mut serve = scene.account.command(usage_proxy(), "serve");
    serve.args(["--set", &format!("admin.key_sha256={hash}")]);
    let service = Service::start(&mut serve).await;
    scene.account.write("key", KEY);
    let key = scene.account.path("key").display().to_string();

    let refused = scene.backfill(&service.admin, 0, &[]).await;
    let calls = scene.calls();
    let accepted = scene
        .backfill(&service.admin, 0, &["--key-file", &key])
        .await;

    refused.assert_failed_in_one_line(1, &["--key-file names a file with the key"]);
    assert_eq!(calls, 0);
    accepted.assert_printed(&["1 of 1 dates: 1 fetched"]);
}

#[tokio::test]
async fn nothing_is_fetched_beside_what_may_be_the_service() {
    let scene = Scene::new().await;
    scene.account.write_certificate("certificate", "key");
    let [certificate, key] = [("certificate", "certificate_file"), ("key", "key_file")]
        .map(|(name, key)| format!("admin.tls.{key}={}", scene.account.path(name).display()));
    let with_tls = ["--set", &certificate, "--set", &key];
    let other = Scene::new().await;
    let other_service = other.account.serve().await;
    let without_tls = scene.account.serve().await;

    for (admin, args, reason) in [
        (&*without_tls.admin, &with_tls[..], "127.0.0.1:"),
        (
            &other_service.admin,
            &[],
            "another usage-proxy listens there",
        ),
        ("127.0.0.1:0", &[], "port 0"),
    ] {
        let refused = scene.backfill(admin, 0, args).await;

        let nothing = "nothing was started, because the service may be running: ";
        refused.assert_failed_in_one_line(1, &[nothing, reason, "--admin-listen"]);
    }
    assert_eq!((scene.calls(), other.calls()), (0, 0));
}

#[tokio::test]
async fn a_store_that_cannot_be_used_or_is_in_use_is_reported() {
    let scene = Scene::new().await;
    scene.backfill(&free_address(), 0, &[]).await;
    let service = scene.account.serve().await;
    let missing = format!(
        "store.url=sqlite:{}",
        scene.account.path("missing/x").display()
    );

    let in_use = scene.backfill(&free_address(), 2, &[]).await;
    let unusable = scene
        .backfill(&free_address(), 2, &["--set", &missing])
        .await;

    let process = format!("process {} has ", service.running.id());
    in_use.assert_failed_in_one_line(1, &["nothing was started", &process, "--admin-listen"]);
    unusable.assert_failed_in_one_line(1, &["store.url: ", "make the folder"]);
    assert_eq!(scene.calls(), 1);
}

#[tokio::test]
async fn an_admin_listener_with_tls_is_asked_over_tls() {
    let scene = Scene::new().await;
    scene.account.write_certificate("certificate", "key");
    let [certificate, key] = ["certificate", "key"].map(|name| scene.account.path(name));
    let tls = format!(
        "[admin.tls]\ncertificate_file = \"{}\"\nkey_file = \"{}\"\n[upstream]",
        certificate.display(),
        key.display()
    );
    scene.account.reconfigure("[upstream]", &tls);
    let service = scene.account.serve().await;

    let done = scene.backfill(&service.admin, 1, &[]).await;

    done.assert_printed(&["2 of 2 dates: 2 fetched"]);
    assert_eq!(done.stderr, "");
}

#[tokio::test]
async fn wrong_dates_are_wrong_use() {
    let scene = Scene::new().await;
    for (from, to, expected) in [
        ("2026-11-31", "2026-11-30", "expected a calendar date"),
        ("2026-11-02", "2026-11-01", "from not after to"),
        ("2026-11-02", "9999-01-01", "to not after today"),
        ("2010-01-01", "2026-11-01", "keeps 13 months"),
    ] {
        let mut command = scene.account.command(usage_proxy(), "backfill");
        command.args([
            "--from",
            from,
            "--to",
            to,
            "--admin-listen",
            &free_address(),
        ]);

        let refused = run(command).await;

        refused.assert_failed(2, &[expected]);
    }
    assert_eq!(scene.calls(), 0);
}

#[tokio::test]
async fn a_failed_date_is_named_with_its_reason() {
    let scene = Scene::new().await;
    let service = scene.account.serve().await;
    scene.backfill(&service.admin, 0, &[]).await;
    let mut faults = Faults::default();
    faults.set("status", "401").unwrap();
    faults.set("code", "900421").unwrap();
    scene.partner_center.handle.set_faults(faults);

    let failed = scene.backfill(&service.admin, 1, &[]).await;

    let [date, _] = scene.range(1);
    let named = format!("{date} failed after attempt 1: credentials-refused: ");
    let summary = "failed: 1 of 2 dates: 0 fetched, 1 stored before, 0 without data, 1 failed; run the \
                   same command again";
    failed.assert_failed(1, &[&named, summary]);
}

#[tokio::test]
async fn ctrl_c_keeps_what_was_fetched() {
    for with_service in [true, false] {
        let scene = Scene::new().await;
        let service = if with_service {
            Some(scene.account.serve().await)
        } else {
            None
        };
        let admin = service
            .as_ref()
            .map_or_else(free_address, |service| service.admin.clone());
        scene.backfill(&admin, 0, &[]).await;
        scene.partner_center.handle.clear_requests();
        scene.partner_center.handle.hold_calls();
        let mut command = Running::start(&mut scene.command(&admin, 2, &[]));
        scene
            .partner_center
            .wait_for_calls(SimulatedApi::FleetPage, 1)
            .await;

        command.signal("INT");
        let ended = command.ended().await;

        assert_eq!(ended.code(), Some(130), "{}", command.transcript());
        assert_has(
            &command.stderr.text(),
            &["stopped; 1 of 3 dates: 0 fetched"],
        );
        assert_eq!(scene.stored_dates(), 1);
        scene.partner_center.handle.release_calls();
        let rest = scene.backfill(&admin, 2, &[]).await;
        rest.assert_printed(&["3 of 3 dates: 2 fetched, 1 stored before"]);
    }
}
