use std::path::{Path, PathBuf};

use super::*;
use crate::domain::UpstreamApi;

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

#[test]
fn the_commented_config_file_loads_as_the_default() {
    let built_in = Config::load(minimal()).unwrap();

    let shipped = Config::load(minimal().with_file(shipped().join("usage-proxy.toml")))
        .unwrap_or_else(|errors| panic!("{errors}"));

    assert_eq!(values(&shipped), values(&built_in));
    assert_eq!(shipped.upstream.source, UpstreamApi::Insights);
    assert_eq!(shipped.log.format, None);
}

#[test]
fn the_commented_config_file_lists_every_key_with_its_default() {
    let text = std::fs::read_to_string(shipped().join("usage-proxy.toml")).unwrap();
    // A key without a default is commented out.
    let mut table = String::new();
    let mut stated = Vec::new();
    for line in text.lines().map(|line| line.trim_start_matches("# ")) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            table = name.to_owned();
        } else if let Some((name, value)) = line.split_once(" = ") {
            stated.push((
                format!("{table}.{name}"),
                value.trim_matches(['"', '[', ']']).to_owned(),
            ));
        }
    }

    for key in keys::all() {
        let values: Vec<_> = stated
            .iter()
            .filter(|(name, _)| name == key.name())
            .collect();

        assert_eq!(values.len(), 1, "{}: {values:?}", key.name());
        if let Some(default) = key.default() {
            assert_eq!(values[0].1, default, "{}", key.name());
        }
    }
}

#[test]
fn every_example_loads_and_only_warns_about_placeholders() {
    let examples = std::fs::read_dir(shipped().join("examples")).unwrap();

    let mut count = 0;
    for example in examples {
        let path = example.unwrap().path();
        if path.ends_with("callers.toml") || path.ends_with("portfolio.toml") {
            continue;
        }
        let config = Config::load(ConfigSources::default().with_file(&path))
            .unwrap_or_else(|errors| panic!("{errors}"));
        let warnings = config.warnings();
        assert_eq!(warnings.len(), 2, "{}: {warnings:?}", path.display());
        for (warning, key) in warnings.iter().zip(["token_url", "client_id"]) {
            let expected = format!("upstream.auth.{key} still has the placeholder ");
            assert!(warning.starts_with(&expected), "{warnings:?}");
        }
        count += 1;
    }
    assert_eq!(count, 7);
}
