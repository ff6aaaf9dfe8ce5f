use super::*;

#[test]
fn a_bad_value_error_gives_the_reason_and_what_was_expected() {
    for (key, value, reason) in [
        (
            "server.listen",
            "127.0.0.1",
            "not an IP address with a port",
        ),
        ("server.drain_timeout", "25", "bare number"),
        ("admin.key_sha256", "9f86d081", "no hash of a key"),
        ("admin.key_sha256", "up_9f86d081", "a key itself"),
        ("server.cors_origins", "*", "every page of the Web"),
        ("server.cors_origins", "null", "any sandboxed page"),
        ("server.cors_origins", "https://a.example,", "empty item"),
        ("server.cors_origins", "dash.example.com", "no URL"),
        ("server.cors_origins", "ftp://a.example", "neither http nor"),
        ("server.cors_origins", "https://a@b.example", "user name"),
        (
            "server.cors_origins",
            "https://Dash.example.com:443",
            "browsers send as \"https://dash.example.com\"",
        ),
        (
            "server.cors_origins",
            "https://dash.example.com/",
            "browsers send as \"https://dash.example.com\"",
        ),
        (
            "server.cors_origins",
            "https://*.example.com",
            "every page of the Web",
        ),
        ("server.allowed_hosts", "*.example.com", "name each host"),
        ("server.allowed_hosts", "a.example,", "empty item"),
        ("server.allowed_hosts", "http://a.example", "a URL"),
        ("server.allowed_hosts", "a.example:8443", "with a port"),
        ("server.allowed_hosts", "[::1]:8443", "with a port"),
        ("server.allowed_hosts", "a b", "no host"),
        ("server.allowed_hosts", "::1", "with a port"),
        (
            "server.allowed_hosts",
            "Usage.example.com",
            "browsers send as \"usage.example.com\"",
        ),
        (
            "upstream.base_url",
            "api.partnercenter.microsoft.com",
            "not a URL",
        ),
        (
            "upstream.base_url",
            "ftp://localhost",
            "neither http nor https",
        ),
        (
            "tracing.otlp_endpoint",
            "collector:4318",
            "neither http nor",
        ),
        ("tracing.otlp_endpoint", "https://me:pw@host", "user name"),
        ("tracing.otlp_endpoint", "https://host/?a=b", "query or"),
        (
            "tracing.otlp_endpoint",
            "http://host:4318/v1/traces",
            "ends in `/v1/traces`",
        ),
        ("tracing.sample_ratio", "1.1", "out of range"),
        ("tracing.sample_ratio", "-0.1", "out of range"),
        ("tracing.sample_ratio", "NaN", "out of range"),
        ("tracing.sample_ratio", "all", "not a number"),
        ("tracing.service_name", "", "empty"),
        ("upstream.base_url", "https://", "not a URL"),
        ("upstream.base_url", "mailto:someone", "no host"),
        (
            "upstream.base_url",
            "https://host/?a=b",
            "query or fragment",
        ),
        ("upstream.base_url", "https://host/#a", "query or fragment"),
        (
            "upstream.base_url",
            "https://me:pw@host/",
            "user name or password",
        ),
        (
            "upstream.base_url",
            "http://api.partnercenter.microsoft.com",
            "in clear",
        ),
        ("upstream.base_url", "http://10.0.0.1:7070", "in clear"),
        (
            "upstream.base_url",
            "http://localhost.example.com",
            "in clear",
        ),
        (
            "upstream.auth.token_url",
            "http://login.example.com/oauth2/token",
            "in clear",
        ),
        ("upstream.source", "Insights", "none of these"),
        ("upstream.commercial_path", "v1/x", "does not begin"),
        (
            "upstream.commercial_path",
            "//evil.example.com/",
            "another host",
        ),
        ("upstream.commercial_path", "/v1/../../x", "climbs"),
        ("upstream.commercial_path", "/v1/..", "climbs"),
        ("upstream.commercial_path", "/v1?a=b", "query or fragment"),
        ("upstream.commercial_path", "/v1/%2e%2e/x", "characters"),
        ("upstream.commercial_path", "/v1\\x", "characters"),
        ("upstream.locale", "", "empty"),
        ("upstream.locale", " en-US", "white space"),
        ("upstream.application", "Übersicht", "outside visible ASCII"),
        ("upstream.application", "a\nb", "outside visible ASCII"),
        ("upstream.connect_timeout", "0s", "zero"),
        ("upstream.attempt_timeout", "0ms", "zero"),
        ("upstream.deadline", "0s", "zero"),
        ("upstream.max_concurrency", "0", "out of range"),
        ("upstream.max_concurrency", "10001", "out of range"),
        ("upstream.max_concurrency", "many", "not a whole number"),
        ("upstream.max_concurrency", "1.5", "not a whole number"),
        ("upstream.max_concurrency", "", "not a whole number"),
        ("server.max_connections", "many", "not a whole number"),
        ("server.max_connections", "0", "out of range"),
        (
            "server.max_connections",
            "999999999999999999999999999999999999999999",
            "out of range",
        ),
        ("upstream.retries", "many", "not a whole number"),
        ("upstream.retries", "-1", "out of range"),
        ("upstream.retries", "101", "out of range"),
        ("upstream.max_body", "0", "zero"),
        ("upstream.auth.kind", "password", "none of these"),
        ("upstream.auth.client_id", "", "empty"),
        ("upstream.auth.token_file", "", "empty"),
        ("cache.max_bytes", "0MiB", "zero"),
        ("cache.max_bytes", "256M", "unknown unit"),
        ("cache.fresh_for", "0s", "zero"),
        ("log.format", "xml", "none of these"),
        ("log.filter", "", "empty"),
        ("log.filter", "in\nfo", "printable"),
        ("log.filter", "\t0¡=", "printable"),
        ("log.filter", "usage_proxy=loud", "refused"),
        ("log.requests", "none", "none of these"),
    ] {
        let sources = ConfigSources::default().with_flag("--set", key, value);

        let errors = Config::load(sources).unwrap_err().to_string();

        let line = errors.lines().find(|line| line.starts_with("flag --set: "));
        let line = line.unwrap_or_else(|| panic!("{key} = {value:?}: {errors}"));
        assert!(
            line.contains(key) && line.contains(reason),
            "{key} = {value:?}: {line}"
        );
        assert!(line.contains("; expected "), "{key} = {value:?}: {line}");
    }
}

#[test]
fn plain_http_is_only_allowed_to_loopback() {
    for url in [
        "http://localhost:7070",
        "http://127.0.0.1:7070/x",
        "http://[::1]",
        "http://a.localhost",
    ] {
        let sources = minimal().with_flag("--upstream", "upstream.base_url", url);

        assert!(Config::load(sources).is_ok(), "{url}");
    }
}

#[test]
fn spaces_around_log_filter_directives_are_ignored() {
    let sources = minimal().with_flag("--set", "log.filter", " info, usage_proxy=debug\n");

    let config = Config::load(sources).unwrap();

    assert_eq!(config.log.filter, "info,usage_proxy=debug");
}

#[test]
fn a_value_that_could_be_secret_is_never_printed() {
    for (key, value) in [
        ("upstream.base_url", "http://me:s3cr3t@host"),
        ("upstream.base_url", "https://host/?sig=s3cr3t"),
        ("upstream.auth.client_secret_file", "s3cr3t\n"),
        ("upstream.auth.token_file", "s3cr3t"),
        ("upstream.auth.client_id", "s3cr3t\n"),
        ("admin.key_sha256", "s3cr3t"),
        ("admin.key_sha256", "up_s3cr3t"),
        ("admin.key", "s3cr3t"),
        ("upstream.auth.token_url", "https://host/#s3cr3t"),
        ("upstream.auth.client_secret", "s3cr3t"),
        ("upstream.auth.clientsecret", "s3cr3t"),
        ("upstream.clent_scret", "s3cr3t"),
        ("password", "s3cr3t"),
    ] {
        let errors = Config::load(minimal().with_flag("--set", key, value)).unwrap_err();

        assert!(!errors.to_string().contains("s3cr3t"), "{key}: {errors}");
        assert!(
            !format!("{errors:?}").contains("s3cr3t"),
            "{key}: {errors:?}"
        );
    }
}

#[test]
fn a_secret_in_configuration_names_the_file_key_to_use() {
    for (key, file) in [
        ("client_secret", "client_secret_file"),
        ("refresh_token", "refresh_token_file"),
        ("access_token", "token_file"),
        ("token", "token_file"),
        ("password", "client_secret_file"),
    ] {
        let faults = config_errors(format!("{TOKEN_FILE}{key} = \"s3cr3t\""));

        let expected = format!(
            "FILE:4:1: upstream.auth.{key}: secrets never stand in configuration; write it to a \
             file of its own, and name that file in upstream.auth.{file} or \
             USAGE_PROXY__UPSTREAM__AUTH__{}",
            file.to_uppercase()
        );
        assert_eq!(faults, [expected]);
    }
}

#[test]
fn a_mistyped_file_key_is_reported_as_a_typing_error() {
    let faults = config_errors(format!("{TOKEN_FILE}token_fiel = \"/t\""));

    assert!(
        faults[0].ends_with("the nearest is upstream.auth.token_file"),
        "{faults:?}"
    );
}
