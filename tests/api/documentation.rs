//! The documentation keeps up with the service, and its links lead somewhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::prelude::*;

const README: &str = include_str!("../../README.md");
const KEYS: &str = include_str!("../../config/README.md");
const METRICS: &str = include_str!("../../deploy/prometheus/METRICS.md");
const OPERATING: &str = include_str!("../../deploy/README.md");

#[test]
fn the_readme_stays_short() {
    assert!(
        README.lines().count() <= 150,
        "the reference goes elsewhere"
    );
}

#[tokio::test]
async fn every_metric_is_documented() {
    let app = TestApp::with_every_metric().start_without_waiting().await;

    let scrape = app.admin_get("/metrics").await.text();

    let ours = scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE usage_proxy_"));
    let missing: Vec<_> = ours
        .filter_map(|line| line.split(' ').next())
        .filter(|name| !METRICS.contains(&format!("`usage_proxy_{name}`")))
        .collect();
    assert!(scrape.contains("# TYPE usage_proxy_"));
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_key_is_documented() {
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
            && !KEYS.contains(&format!("`{table}.{key}`"))
        {
            missing.push(format!("{table}.{key}"));
        }
    }

    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn every_error_code_has_a_row_in_the_troubleshooting_table() {
    let app = TestApp::start().await;
    let (_, table) = OPERATING.split_once("### By error code").unwrap();

    let description = app.get("/openapi.json").await.text();

    let codes: Vec<_> = description
        .split("urn:usage-proxy:problem:")
        .skip(1)
        .map(|rest| {
            let ends = |letter: char| !letter.is_ascii_lowercase() && letter != '-';
            rest.split(ends).next().unwrap()
        })
        .collect();
    assert!(codes.contains(&"throttled"), "{codes:?}");
    for code in codes {
        assert!(table.contains(&format!("`{code}`")), "no row for {code}");
    }
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = markdown_in(root);
    documents.extend(markdown_below(&root.join("config")));
    documents.extend(markdown_below(&root.join("deploy")));
    assert!(documents.len() > 10, "{documents:?}");

    let mut broken = Vec::new();
    for document in &documents {
        let text = fs::read_to_string(document).unwrap();
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => document.clone(),
                _ => document.parent().unwrap().join(file),
            };
            let leads = target.exists() && (anchor.is_empty() || has_heading(&target, anchor));
            if !leads {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

fn markdown_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = markdown_in(folder);
    for path in entries(folder).into_iter().filter(|path| path.is_dir()) {
        found.extend(markdown_below(&path));
    }
    found
}

fn markdown_in(folder: &Path) -> Vec<PathBuf> {
    let is_markdown = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    entries(folder).into_iter().filter(is_markdown).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The links and pictures of a document that lead to files of the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let markdown = text.split("](").skip(1).map(|rest| (rest, ')'));
    let pictures = text.split(" src=\"").skip(1).map(|rest| (rest, '"'));
    let sets = text.split("srcset=\"").skip(1).map(|rest| (rest, '"'));
    markdown
        .chain(pictures)
        .chain(sets)
        .filter_map(|(rest, end)| rest.split(end).next())
        .filter(|link| !link.contains("://"))
}

/// Checks if a document has a heading that GitHub gives this anchor.
fn has_heading(document: &Path, anchor: &str) -> bool {
    let text = fs::read_to_string(document).unwrap();
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim())
        .any(|heading| anchor_of(heading) == anchor)
}

fn anchor_of(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}
