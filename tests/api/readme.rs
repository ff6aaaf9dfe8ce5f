//! The README keeps up with the service: every metric and every key stands in it.

use crate::support::TestApp;

const README: &str = include_str!("../../README.md");

#[tokio::test]
async fn every_metric_stands_in_the_readme() {
    let app = TestApp::with_every_metric().start_without_waiting().await;

    let scrape = app.admin_get("/metrics").await.text();

    let ours = scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE usage_proxy_"));
    let missing: Vec<_> = ours
        .filter_map(|line| line.split(' ').next())
        .filter(|name| !README.contains(&format!("`usage_proxy_{name}`")))
        .collect();
    assert!(scrape.contains("# TYPE usage_proxy_"));
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_key_stands_in_the_readme() {
    let defaults = include_str!("../../config/usage-proxy.toml");
    let mut table = String::new();
    let mut missing = Vec::new();

    for line in defaults.lines().map(|line| line.trim_start_matches("# ")) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            table = name.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            && !README.contains(&format!("`{table}.{key}`"))
        {
            missing.push(format!("{table}.{key}"));
        }
    }

    assert!(missing.is_empty(), "{missing:?}");
}
