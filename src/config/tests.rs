//! The configuration as an operator meets it: files and variables in, errors or values out.

mod effective;
mod file;
mod proptests;
mod rules;
mod shipped_files;
mod sources;
mod values;

use super::*;

const TOKEN_FILE: &str = "[upstream.auth]\nkind = \"token_file\"\ntoken_file = \"/t\"\n";
const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const OTHER_HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const V2: &str = "https://login.microsoftonline.com/t/oauth2/v2.0/token";
const V1: &str = "https://login.microsoftonline.com/t/oauth2/token";

/// A file that lives as long as the test.
struct TomlFile(tempfile::NamedTempFile);

impl TomlFile {
    fn new(content: impl AsRef<[u8]>) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        Self(file)
    }

    fn sources(&self) -> ConfigSources {
        ConfigSources::default().with_file(self.0.path())
    }

    /// Returns the errors, with the file called `FILE`.
    fn errors(&self, sources: ConfigSources) -> Vec<String> {
        let path = self.0.path().display().to_string();
        let errors = Config::load(sources).expect_err("the configuration has errors");
        errors
            .to_string()
            .lines()
            .map(|line| line.replace(&path, "FILE"))
            .collect()
    }
}

fn config_errors(toml: impl AsRef<[u8]>) -> Vec<String> {
    let file = TomlFile::new(toml);
    file.errors(file.sources())
}

/// Asserts that lines beside a valid account have one error, with this text.
fn assert_error(toml: &str, expected: &str) {
    let errors = config_errors(format!("{toml}\n{TOKEN_FILE}"));

    assert_eq!(errors.len(), 1, "{toml}: {errors:?}");
    assert!(errors[0].contains(expected), "{toml}: {errors:?}");
}

fn load(toml: &str) -> Config {
    Config::load(TomlFile::new(toml).sources()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Loads lines beside a valid account.
fn load_with_account(toml: &str) -> Config {
    load(&format!("{toml}\n{TOKEN_FILE}"))
}

/// The smallest configuration that loads: the defaults, and the account without an endpoint.
fn minimal() -> ConfigSources {
    ConfigSources::default()
        .with_variable("USAGE_PROXY__UPSTREAM__AUTH__KIND", "token_file")
        .with_variable("USAGE_PROXY__UPSTREAM__AUTH__TOKEN_FILE", "/t")
}

fn grant(kind: &str, token_url: &str, more: &str) -> String {
    let refresh_token = match kind {
        "refresh_token" => "refresh_token_file = \"/r\"",
        _ => "",
    };
    format!(
        "[upstream.auth]\nkind = {kind:?}\ntoken_url = {token_url:?}\nclient_id = \"app\"\n\
         client_secret_file = \"/s\"\n{refresh_token}\n{more}\n"
    )
}

/// Returns everything but the sources.
fn values(config: &Config) -> String {
    let Config {
        server,
        admin,
        callers,
        upstream,
        cache,
        store,
        fleet,
        portfolio,
        metrics,
        log,
        tracing,
        settings: _,
    } = config;
    format!(
        "{server:?} {admin:?} {callers:?} {upstream:?} {cache:?} {store:?} {fleet:?} \
         {portfolio:?} {metrics:?} {log:?} {tracing:?}"
    )
}
