//! What an operator meets: files and variables in, faults or a configuration out.

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

/// A file that lives as long as the test, and where faults say it is.
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

    /// The faults, with the file called `FILE`.
    fn errors(&self, sources: ConfigSources) -> Vec<String> {
        let path = self.0.path().display().to_string();
        let errors = Config::load(sources).expect_err("the configuration has faults");
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

fn load(toml: &str) -> Config {
    Config::load(TomlFile::new(toml).sources()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The smallest thing that loads: everything by default, and the one kind without an endpoint.
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

fn values(
    config: &Config,
) -> (
    &ServerConfig,
    &AdminConfig,
    &CallersConfig,
    &UpstreamConfig,
    &CacheConfig,
    &LogConfig,
    Option<&TracingConfig>,
) {
    let Config {
        server,
        admin,
        callers,
        upstream,
        cache,
        log,
        tracing,
        ..
    } = config;
    (
        server,
        admin,
        callers,
        upstream,
        cache,
        log,
        tracing.as_ref(),
    )
}
