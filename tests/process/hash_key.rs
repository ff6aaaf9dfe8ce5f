//! `usage-proxy hash-key`: a key for whoever calls, a hash for configuration.

use std::{
    io::Write,
    process::{Output, Stdio},
};

use usage_proxy::access_key::KeyHash;

use crate::support::usage_proxy;

fn hash_of(input: &str) -> Output {
    let mut child = usage_proxy()
        .args(["hash-key", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
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
fn a_new_key_comes_with_its_hash_and_where_each_goes() {
    let output = usage_proxy().arg("hash-key").output().unwrap();

    assert!(output.status.success());
    let (told, advice) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    let (key, hash) = (value(&told, "key"), value(&told, "key_sha256"));
    assert_eq!(
        KeyHash::parse(hash).unwrap(),
        KeyHash::of_key(key.as_bytes())
    );
    assert!(!advice.contains(key), "advice may be kept, the key may not");
    for place in ["X-Api-Key", "callers.file", "admin.key_sha256"] {
        assert!(advice.contains(place), "{place} in {advice}");
    }
}

#[test]
fn the_key_on_standard_input_is_hashed_and_not_shown() {
    let key = "canary-key-that-is-long-enough-0123456789";

    let output = hash_of(&format!("{key}\n"));

    assert!(output.status.success());
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        value(&told, "key_sha256"),
        KeyHash::of_key(key.as_bytes()).to_string()
    );
    assert!(!told.contains(key));
    assert!(output.stderr.is_empty(), "{:?}", output.stderr);
}

#[test]
fn a_key_that_could_be_guessed_is_warned_of() {
    let output = hash_of("hunter2");

    assert!(output.status.success());
    let advice = String::from_utf8(output.stderr).unwrap();
    assert!(advice.contains("may be guessed"), "{advice}");
    assert!(!advice.contains("hunter2"), "{advice}");
}

#[test]
fn what_is_no_key_is_wrong_use() {
    for input in ["", "two words"] {
        let output = hash_of(input);

        assert_eq!(output.status.code(), Some(2), "{input:?}");
        assert!(output.stdout.is_empty(), "{input:?}");
    }
}
