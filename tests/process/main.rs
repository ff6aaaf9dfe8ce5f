//! The built binary, as an operator meets it: exit codes, signals, output.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may fail in any way"
)]

use std::process::Command;

/// The binary under test.
fn usage_proxy() -> Command {
    Command::new(env!("CARGO_BIN_EXE_usage-proxy"))
}

#[test]
fn a_wrong_flag_is_wrong_use() {
    let output = usage_proxy().arg("serve").arg("--port").output().unwrap();

    assert_eq!(output.status.code(), Some(2));
}
