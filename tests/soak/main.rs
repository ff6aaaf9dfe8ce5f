//! The soak: everything that a hostile client may do, for a minute, beside a caller that behaves.
//!
//! The built binary, before the simulator that `usage-proxy simulate` is, both processes of their
//! own. What must hold at the end: the caller that behaved was never failed, and memory stayed under
//! [`memory::BOUND`]. `tests/run soak` runs it; `SOAK_SECONDS` makes it longer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may fail in any way"
)]

mod burst;
mod flood;
mod hostile;
mod memory;
mod polite;
#[path = "../process/support.rs"]
#[allow(
    dead_code,
    reason = "the tests of the process use all of it, and this one a part"
)]
mod support;
mod target;

use std::time::Duration;

use support::{Account, Running, Service, usage_proxy};
use target::{STRANGERS_KEY, Target};
use tokio::time::Instant;
use usage_proxy::access_key::KeyHash;

/// Customers that the simulator knows: their usage is several times what the cache holds.
const CUSTOMERS: usize = 20_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute; `tests/run soak` runs it"]
async fn hostile_clients_neither_fill_memory_nor_fail_a_caller_that_behaves() {
    let (_partner_center, upstream) = partner_center().await;
    let account = Account::new(upstream.parse().unwrap(), "secret", "refresh-token");
    let running = Running::start_unread_after(&mut configured(&account), "\"listening\"");
    let mut service = Service::listening(running).await;
    let target = Target::new(&service.api, duration());
    let pid = service.running.id();
    let mut polite = polite::Caller::new(&service.api);
    polite.warm_up().await;
    let (at_rest, open_at_rest) = (memory::resident(pid), memory::open_files(pid));
    burst::run(&service.api).await;
    let burst = memory::Mebibytes(memory::peak(pid));
    println!("memory: {burst} at most in a burst of first compressions");

    let (polled, flooded, hostile, ()) = tokio::join!(
        polite.poll(target.until()),
        flood::run(&target),
        hostile::run(&target),
        memory::watch(pid, target.until()),
    );

    let ended = Instant::now();
    println!("{polled}\n{flooded}\n{hostile}");
    let (peak, left) = (memory::peak(pid), memory::resident(pid));
    println!(
        "memory: {} at rest, {} at most, {} at the end, {} allowed",
        memory::Mebibytes(at_rest),
        memory::Mebibytes(peak),
        memory::Mebibytes(left),
        memory::Mebibytes(memory::BOUND),
    );
    memory::wait_until_closed(pid, open_at_rest).await;
    println!("all connections were closed {:.1?} later", ended.elapsed());
    assert_eq!(
        polled.failures, [""; 0],
        "the caller that behaved was failed"
    );
    assert!(polled.answers > duration().as_secs(), "{polled}");
    assert!(peak < memory::BOUND, "more memory than the bound");
    flooded.check(duration());
    hostile.check();
    let dropped = service.metric("usage_proxy_log_lines_dropped_total").await;
    assert!(dropped > 0.0, "the log was full");
    for listener in ["api", "admin"] {
        let panics = format!("usage_proxy_handler_panics_total{{listener=\"{listener}\"}}");
        assert_eq!(service.metric(&panics).await, 0.0, "{listener}");
    }
    service.running.signal("TERM");
    assert_eq!(service.running.ended().await.code(), Some(0));
}

fn duration() -> Duration {
    let seconds = std::env::var("SOAK_SECONDS").map_or(60, |text| {
        text.parse().expect("SOAK_SECONDS is a whole number")
    });
    Duration::from_secs(seconds)
}

/// The simulator, and where it listens.
async fn partner_center() -> (Running, String) {
    let mut command = usage_proxy();
    command.args(["simulate", "--listen", "127.0.0.1:0"]);
    command.args(["--customers", &CUSTOMERS.to_string()]);
    let running = Running::start(&mut command);
    let line = running.stdout.line_with("upstream.base_url").await;
    let address = line.split('"').nth(1).unwrap();
    let address = address.strip_prefix("http://").unwrap().to_owned();
    (running, address)
}

/// Two callers with the same rights. The cache is small, so that it fills. Cached data becomes stale
/// within the soak. The log has a line for each request, which nothing reads.
fn configured(account: &Account) -> std::process::Command {
    let callers = [("dashboard", polite::KEY), ("stranger", STRANGERS_KEY)].map(|(name, key)| {
        let hash = KeyHash::of_key(key.as_bytes());
        format!(
            "[[caller]]\nname = {name:?}\nkey_sha256 = [\"{hash}\"]\ncustomers = [\"*\"]\n\
             scopes = [\"usage:read\"]\n"
        )
    });
    account.write("callers.toml", &callers.concat());
    let mut command = account.command(usage_proxy(), "serve");
    // Each thread keeps some memory; the bound is for as many on any machine.
    command.env("TOKIO_WORKER_THREADS", "2");
    for setting in [
        &format!("callers.file={}", account.path("callers.toml").display()),
        &format!("cache.max_bytes={}", memory::CACHE),
        "cache.fresh_for=2s",
        "cache.stale_while_revalidate=1h",
        "upstream.max_body=1MiB",
        // Short enough that slow readers meet it within a minute, again and again.
        "server.request_timeout=10s",
        "server.stall_timeout=2s",
        "server.http2_cleartext=true",
        "upstream.deadline=10s",
        "log.requests=all",
        "log.filter=warn,usage_proxy::cli=info,usage_proxy::request=info",
    ] {
        command.args(["--set", setting]);
    }
    command
}
