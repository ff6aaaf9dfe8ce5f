use std::time::Duration;

use super::*;

#[test]
fn a_bad_value_error_gives_the_reason_and_what_was_expected() {
    for (key, cases) in [
        (
            "server.listen",
            &[("127.0.0.1", "not an IP address with a port")][..],
        ),
        (
            "admin.key_sha256",
            &[
                ("9f86d081", "not the hash of a key"),
                ("up_9f86d081", "a key itself"),
            ],
        ),
        (
            "server.cors_origins",
            &[
                ("*", "allow every web page"),
                ("https://*.example.com", "allow every web page"),
                ("null", "any sandboxed page"),
                ("https://a.example,", "empty item"),
                ("dash.example.com", "not a URL"),
                ("ftp://a.example", "neither http nor"),
                ("https://a@b.example", "user name"),
                (
                    "https://Dash.example.com:443",
                    "send as \"https://dash.example.com\"",
                ),
                (
                    "https://dash.example.com/",
                    "send as \"https://dash.example.com\"",
                ),
            ],
        ),
        (
            "server.allowed_hosts",
            &[
                ("*.example.com", "name each host"),
                ("a.example,", "empty item"),
                ("http://a.example", "a URL"),
                ("a.example:8443", "with a port"),
                ("[::1]:8443", "with a port"),
                ("::1", "with a port"),
                ("a b", "not a host"),
                ("Usage.example.com", "send as \"usage.example.com\""),
            ],
        ),
        ("server.max_connections", &[("0", "out of range")]),
        (
            "upstream.base_url",
            &[
                ("api.partnercenter.microsoft.com", "not a URL"),
                ("https://", "not a URL"),
                ("ftp://localhost", "neither http nor https"),
                ("mailto:someone", "neither http nor https"),
                ("https://host/?a=b", "query or fragment"),
                ("https://host/#a", "query or fragment"),
                ("https://me:pw@host/", "user name or password"),
                ("http://api.partnercenter.microsoft.com", "unencrypted"),
                ("http://10.0.0.1:7070", "unencrypted"),
                ("http://localhost.example.com", "unencrypted"),
            ],
        ),
        (
            "upstream.auth.token_url",
            &[("http://login.example.com/oauth2/token", "unencrypted")],
        ),
        (
            "callers.jwt.jwks_url",
            &[("http://issuer.example/keys", "anybody could change")],
        ),
        (
            "tracing.otlp_endpoint",
            &[
                ("collector:4318", "neither http nor"),
                ("https://me:pw@host", "user name"),
                ("https://host/?a=b", "query or"),
                ("http://host:4318/v1/traces", "ends in `/v1/traces`"),
            ],
        ),
        (
            "tracing.sample_ratio",
            &[
                ("1.1", "out of range"),
                ("-0.1", "out of range"),
                ("NaN", "out of range"),
                ("all", "not a number"),
            ],
        ),
        ("tracing.service_name", &[("", "empty")]),
        ("upstream.source", &[("Insights", "none of these")]),
        (
            "upstream.commercial_path",
            &[
                ("v1/x", "does not begin"),
                ("//evil.example.com/", "another host"),
                ("/v1/../../x", "the segment"),
                ("/v1/..", "the segment"),
                ("/v1?a=b", "query or fragment"),
                ("/v1/%2e%2e/x", "characters"),
                ("/v1\\x", "characters"),
            ],
        ),
        (
            "upstream.locale",
            &[("", "empty"), (" en-US", "white space")],
        ),
        (
            "upstream.application",
            &[
                ("Übersicht", "outside visible ASCII"),
                ("a\nb", "outside visible ASCII"),
            ],
        ),
        (
            "upstream.max_concurrency",
            &[
                ("0", "out of range"),
                ("10001", "out of range"),
                ("999999999999999999999999999999999999999999", "out of range"),
                ("many", "not a whole number"),
                ("1.5", "not a whole number"),
                ("", "not a whole number"),
            ],
        ),
        (
            "upstream.retries",
            &[("-1", "out of range"), ("101", "out of range")],
        ),
        ("upstream.max_body", &[("0", "zero")]),
        ("upstream.auth.kind", &[("password", "none of these")]),
        ("upstream.auth.client_id", &[("", "empty")]),
        ("upstream.auth.token_file", &[("", "empty")]),
        (
            "callers.file",
            &[("callers.toml", "no slash"), ("a", "as `./callers.toml`")],
        ),
        (
            "portfolio.file",
            &[
                ("portfolio.toml", "no slash"),
                ("a", "as `./portfolio.toml`"),
            ],
        ),
        (
            "cache.max_bytes",
            &[
                ("0MiB", "zero"),
                ("", "not a size"),
                ("-1", "not a size"),
                ("1XB", "not a size"),
                ("99999999999TiB", "too large"),
            ],
        ),
        (
            "cache.fresh_for",
            &[
                ("0s", "zero"),
                ("", "not a duration"),
                ("15", "time unit needed"),
                ("-5s", "not a duration"),
                ("5x", "unknown time unit"),
                ("15M", "in months"),
                ("1month", "in months"),
                ("5us", "whole milliseconds"),
                ("3650d1ms", "longer than"),
                ("99999999999999999d", "not a duration"),
            ],
        ),
        ("log.format", &[("xml", "none of these")]),
        (
            "log.filter",
            &[
                ("", "empty"),
                ("in\nfo", "printable"),
                ("\t0¡=", "printable"),
                ("usage_proxy=loud", "invalid"),
            ],
        ),
        ("log.requests", &[("none", "none of these")]),
    ] {
        for (value, reason) in cases {
            let sources = ConfigSources::default().with_flag("--set", key, *value);

            let errors = Config::load(sources).unwrap_err().to_string();

            let line = errors.lines().find(|line| line.starts_with("flag --set: "));
            let line = line.unwrap_or_else(|| panic!("{key} = {value:?}: {errors}"));
            for part in [key, reason, "; expected "] {
                assert!(line.contains(part), "{key} = {value:?}: {line}");
            }
        }
    }
}

#[test]
fn durations_and_sizes_are_read_as_people_write_them() {
    for (written, millis) in [
        ("250ms", 250),
        ("15m", 900_000),
        ("1h30m", 5_400_000),
        ("1h 30min", 5_400_000),
        ("1.5h", 5_400_000),
        ("1d2h3m4s5ms", 93_784_005),
        ("3650d", 315_360_000_000),
    ] {
        assert_eq!(
            parse_duration(written),
            Ok(Duration::from_millis(millis)),
            "{written}"
        );
    }
    for (written, bytes) in [
        ("64KiB", 64 << 10),
        ("2TiB", 2 << 40),
        ("1GB", 1_000_000_000),
        ("1.5 mib", 1_572_864),
        ("5K", 5_000),
        ("4096", 4096),
        ("4096B", 4096),
    ] {
        let config = Config::load(minimal().with_flag("--set", "cache.max_bytes", written));

        assert_eq!(config.unwrap().cache.max_bytes, bytes, "{written}");
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
        ("upstream.auth.client_id", "s3cr3t"),
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

        let printed = format!("{errors} {errors:?}");
        assert!(!printed.contains("s3cr3t"), "{key}: {printed}");
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
        let errors = config_errors(format!("{TOKEN_FILE}{key} = \"s3cr3t\""));

        let expected = format!(
            "FILE:4:1: upstream.auth.{key}: secrets must not be in configuration; write it to a \
             file of its own, and name that file in upstream.auth.{file} or \
             USAGE_PROXY__UPSTREAM__AUTH__{}",
            file.to_uppercase()
        );
        assert_eq!(errors, [expected]);
    }
}

#[test]
fn a_mistyped_file_key_is_reported_as_a_typing_error() {
    let errors = config_errors(format!("{TOKEN_FILE}token_fiel = \"/t\""));

    let expected = "the nearest is upstream.auth.token_file";
    assert!(errors[0].ends_with(expected), "{errors:?}");
}
