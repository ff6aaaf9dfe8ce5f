//! Callers files, and keys to go with them.

use std::{fmt::Display, fs};

use usage_proxy::access_key::KeyHash;

use super::{Reply, TestApp};

/// A caller of a callers file.
#[derive(Clone)]
pub(crate) struct TestCaller {
    name: &'static str,
    keys: Vec<String>,
    customers: Vec<String>,
    scopes: &'static [&'static str],
    rate: Option<&'static str>,
}

// === impl TestCaller ===

impl TestCaller {
    /// It has one key, and may read everybody's usage.
    pub(crate) fn named(name: &'static str) -> Self {
        Self {
            name,
            keys: vec![key_of(name)],
            customers: vec!["*".to_owned()],
            scopes: &["usage:read"],
            rate: None,
        }
    }

    pub(crate) fn with_keys(mut self, keys: &[&str]) -> Self {
        self.keys = keys.iter().map(|key| (*key).to_owned()).collect();
        self
    }

    pub(crate) fn with_customers<C: Display>(mut self, customers: &[C]) -> Self {
        self.customers = customers.iter().map(ToString::to_string).collect();
        self
    }

    pub(crate) fn with_scopes(mut self, scopes: &'static [&'static str]) -> Self {
        self.scopes = scopes;
        self
    }

    pub(crate) fn with_rate(mut self, rate: &'static str) -> Self {
        self.rate = Some(rate);
        self
    }

    fn toml(&self) -> String {
        let hashes: Vec<_> = self
            .keys
            .iter()
            .map(|key| KeyHash::of_key(key.as_bytes()).to_string())
            .collect();
        let rate = self
            .rate
            .map_or_else(String::new, |rate| format!("rate = {rate:?}\n"));
        format!(
            "[[caller]]\nname = {:?}\nkey_sha256 = {hashes:?}\ncustomers = {:?}\nscopes = {:?}\n{rate}",
            self.name, self.customers, self.scopes,
        )
    }
}

/// The key of a caller that was given no other.
pub(crate) fn key_of(name: &str) -> String {
    format!("up_canary-key-of-{name}")
}

/// Returns the `Authorization` that a browser sends for this name and password.
pub(crate) fn basic(name: &str, password: &str) -> String {
    let pair = base64::Engine::encode(
        &base64::prelude::BASE64_STANDARD,
        format!("{name}:{password}"),
    );
    format!("Basic {pair}")
}

/// A callers file.
pub(crate) fn callers_file(callers: &[TestCaller]) -> String {
    callers.iter().map(TestCaller::toml).collect()
}

impl TestApp {
    /// The usage of a customer, as the caller of this name asks for it.
    pub(crate) async fn usage_for(&self, caller: &str, customer: impl Display) -> Reply {
        self.get_as(caller, &super::usage_path(customer)).await
    }

    /// `GET` of the API by the caller of this name.
    pub(crate) async fn get_as(&self, caller: &str, path: &str) -> Reply {
        self.get_with_key(&key_of(caller), path).await
    }

    /// `GET` of the API with this key.
    pub(crate) async fn get_with_key(&self, key: &str, path: &str) -> Reply {
        self.get_with(path, &[("x-api-key", key)]).await
    }

    /// Replaces the callers file, but does not reload it.
    pub(crate) fn write_callers(&self, content: &str) {
        fs::write(self.secrets.path().join(super::CALLERS_FILE), content).unwrap();
    }

    /// Replaces the callers, and waits until the file is read.
    pub(crate) async fn reload_callers(&self, callers: &[TestCaller]) {
        const READ_AT: &str = "usage_proxy_callers_last_reload_success_timestamp_seconds";
        let read_at = self.metric(READ_AT).await;
        self.advance(super::SECOND);
        self.write_callers(&callers_file(callers));
        self.reload.trigger();
        self.wait_for_metric(READ_AT, read_at + 1.0).await;
    }
}
