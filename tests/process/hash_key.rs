//! `usage-proxy hash-key`: a key for a caller, a hash for configuration.

use std::{io::Write, process::Stdio};

use usage_proxy::access_key::KeyHash;

use crate::support::{Finished, assert_has, usage_proxy};

fn hash_of(input: &str) -> Finished {
    let mut child = usage_proxy()
        .args(["hash-key", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    Finished::of(child.wait_with_output().unwrap())
}

/// The value of `name = "value"`.
fn value<'a>(stdout: &'a str, name: &str) -> &'a str {
    stdout
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))
        .map(|value| value.trim_matches('"'))
        .unwrap_or_else(|| panic!("{name} in {stdout}"))
}

#[test]
fn a_new_key_is_printed_with_its_hash_and_where_to_put_each() {
    let Finished { stdout, stderr, .. } =
        Finished::of(usage_proxy().arg("hash-key").output().unwrap());

    let (key, hash) = (value(&stdout, "key"), value(&stdout, "key_sha256"));
    assert_eq!(hash, KeyHash::of_key(key.as_bytes()).to_string());
    // The advice may be kept, the key may not.
    assert!(!stderr.contains(key), "{stderr}");
    assert_has(&stderr, &["X-Api-Key", "callers.file", "admin.key_sha256"]);
}

#[test]
fn the_key_on_standard_input_is_hashed_and_not_shown() {
    let key = "canary-key-that-is-long-enough-0123456789";

    let output = hash_of(&format!("{key}\n"));

    output.assert_printed(&[]);
    let hash = KeyHash::of_key(key.as_bytes()).to_string();
    assert_eq!(value(&output.stdout, "key_sha256"), hash);
    assert!(!output.stdout.contains(key));
    assert_eq!(output.stderr, "");
}

#[test]
fn a_key_that_could_be_guessed_gets_a_warning() {
    let output = hash_of("hunter2");

    output.assert_printed(&[]);
    assert_has(&output.stderr, &["can be guessed"]);
    assert!(!output.stderr.contains("hunter2"), "{output:?}");
}

#[test]
fn a_malformed_key_is_wrong_use() {
    for input in ["", "two words"] {
        hash_of(input).assert_failed(2, &[]);
    }
}
