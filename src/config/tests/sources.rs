use super::*;

#[test]
fn flags_override_environment_override_file_override_defaults() {
    let file = TomlFile::new(format!(
        "server.listen = \"127.0.0.1:1\"\nlog.filter = \"warn\"\ncache.fresh_for = \"1m\"\n{TOKEN_FILE}"
    ));
    let sources = file
        .sources()
        .with_variable("USAGE_PROXY__SERVER__LISTEN", "127.0.0.1:2")
        .with_variable("USAGE_PROXY__LOG__FILTER", "debug")
        .with_flag("--listen", "server.listen", "127.0.0.1:3");

    let config = Config::load(sources).unwrap();

    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.log.filter, "debug");
    assert_eq!(config.cache.fresh_for.as_secs(), 60);
    assert_eq!(config.upstream.retries, 3);
}

#[test]
fn otel_variables_are_the_lowest_layer() {
    let environment = minimal()
        .with_variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
        .with_variable("OTEL_SERVICE_NAME", "usage")
        .with_variable("OTEL_TRACES_SAMPLER_ARG", "0.25")
        .with_variable("OTEL_EXPORTER_OTLP_HEADERS", "authorization=s3cr3t");
    let file = TomlFile::new("[tracing]\nservice_name = \"ours\"\n");

    let config = Config::load(environment.clone().with_file(file.0.path())).unwrap();

    let tracing = config.tracing.as_ref().unwrap();
    assert_eq!(
        tracing.traces_url().as_str(),
        "http://collector:4318/v1/traces"
    );
    assert_eq!(tracing.headers_file, None);
    let effective = config.effective();
    for line in [
        "otlp_endpoint = \"http://collector:4318\" # environment variable \
         OTEL_EXPORTER_OTLP_ENDPOINT",
        "sample_ratio = 0.25 # environment variable OTEL_TRACES_SAMPLER_ARG",
        &format!("service_name = \"ours\" # {}:2:16", file.0.path().display()),
    ] {
        assert!(
            effective.lines().any(|found| found == line),
            "{line}\n{effective}"
        );
    }
    // The variable for spans wins over the general one, and has the whole URL.
    for (traces, expected) in [
        (
            "https://spans.example/base/v1/traces",
            "https://spans.example/base/v1/traces",
        ),
        ("", "http://collector:4318/v1/traces"),
    ] {
        let sources = environment.clone();
        let sources = sources.with_variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", traces);
        let tracing = Config::load(sources).unwrap().tracing.unwrap();
        assert_eq!(tracing.traces_url().as_str(), expected);
    }
}

#[test]
fn otel_variables_that_have_no_effect_are_ignored() {
    let environment = minimal()
        .with_variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
        .with_variable("OTEL_TRACES_SAMPLER_ARG", "endpoint=http://jaeger:14250");
    for (switch, value, is_traced) in [
        ("OTEL_SDK_DISABLED", "true", false),
        ("OTEL_TRACES_EXPORTER", "none", false),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", true),
    ] {
        let config = Config::load(environment.clone().with_variable(switch, value)).unwrap();

        assert_eq!(config.tracing.is_some(), is_traced, "{switch}={value}");
    }
}

#[test]
fn a_bad_otel_variable_is_an_error() {
    for (name, value, reason) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector", "is not a URL"),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://c:4318",
            "does not end in `/v1/traces`",
        ),
        ("OTEL_TRACES_SAMPLER_ARG", "2", "is out of range"),
    ] {
        let errors = Config::load(minimal().with_variable(name, value)).unwrap_err();

        let errors = errors.to_string();
        let place = format!("environment variable {name}: tracing.");
        assert!(
            errors.starts_with(&place) && errors.contains(reason),
            "{errors}"
        );
    }
}

#[test]
fn every_key_can_be_given_in_the_environment() {
    for key in keys::all() {
        let variable = key.variable();

        let errors =
            Config::load(ConfigSources::default().with_variable(&variable, "\u{1}")).unwrap_err();

        let named = format!("environment variable {variable}: {}", key.name());
        assert!(errors.to_string().contains(&named), "{errors}");
    }
}

#[test]
fn variables_without_our_prefix_are_ignored() {
    let sources = minimal()
        .with_variable("USAGE_PROXY_SERVICE_HOST", "10.0.0.1")
        .with_variable("USAGE_PROXY_SERVICE_PORT", "8080")
        .with_variable("USAGE_PROXY_PORT", "tcp://10.0.0.1:8080")
        .with_variable("USAGE_PROXY_PORT_8080_TCP", "tcp://10.0.0.1:8080")
        .with_variable("USAGE_PROXY_PORT_8080_TCP_ADDR", "10.0.0.1")
        .with_variable("USAGE_PROXY_CONFIG", "/etc/usage-proxy.toml")
        .with_variable("USAGE_PROXY_KEY_FILE", "/run/key")
        .with_variable("PATH", "/bin");

    assert!(Config::load(sources).is_ok());
}

#[test]
fn a_key_with_single_underscores_is_an_error_that_names_the_right_variable() {
    for key in keys::all() {
        let right = key.variable();
        let wrong = right.replace("__", "_");

        let errors = Config::load(minimal().with_variable(&wrong, "s3cr3t")).unwrap_err();

        let expected = format!(
            "environment variable {wrong}: is not read; expected {right}, with two underscores \
             before each part of {}",
            key.name()
        );
        assert_eq!(errors.to_string(), expected);
    }
    let errors = Config::load(minimal().with_variable("USAGE_PROXY_CACHE__FRESH_FOR", "1m"));
    let errors = errors.unwrap_err().to_string();
    assert!(
        errors.contains("expected USAGE_PROXY__CACHE__FRESH_FOR"),
        "{errors}"
    );
}

#[test]
fn a_start_without_a_configuration_says_where_to_begin() {
    let errors = Config::load(ConfigSources::default())
        .unwrap_err()
        .to_string();

    for part in [
        "in a file that `--config FILE` names, such as one of config/examples, or as USAGE_PROXY__",
        "`usage-proxy demo` runs without",
    ] {
        assert!(errors.contains(part), "{errors}");
    }
}

#[test]
fn all_errors_of_all_sources_are_reported_at_once_in_order() {
    let file = TomlFile::new(
        "[cache]\nfresh_for = 15\nfresh_fro = \"30s\"\n[server]\nlisten = \"localhost\"\n",
    );
    let sources = file
        .sources()
        .with_variable("USAGE_PROXY__UPSTREAM__RETRIES", "-1")
        .with_variable("USAGE_PROXY__CAHCE__MAX_BYTES", "1GiB")
        .with_flag("--admin-listen", "admin.listen", ":9090");

    let errors = file.errors(sources);

    assert_eq!(
        errors,
        [
            "FILE:2:13: cache.fresh_for = 15: is a number; expected a duration above zero, such as `250ms`, `30s`, `15m`, `1h30m` or `7d`",
            "FILE:3:1: cache.fresh_fro: unknown key; the nearest is cache.fresh_for",
            "FILE:5:10: server.listen = \"localhost\": is not an IP address with a port; expected an \
             IP address and a port, such as `127.0.0.1:8080` or `[::1]:8080`",
            "environment variable USAGE_PROXY__CAHCE__MAX_BYTES: cahce.max_bytes: unknown key; the \
             nearest is cache.max_bytes, as USAGE_PROXY__CACHE__MAX_BYTES",
            "environment variable USAGE_PROXY__UPSTREAM__RETRIES: upstream.retries = \"-1\": is out \
             of range; expected a whole number from 0 to 100",
            "flag --admin-listen: admin.listen = \":9090\": is not an IP address with a port; \
             expected an IP address and a port, such as `127.0.0.1:8080` or `[::1]:8080`",
            "upstream.auth.kind: missing; expected `refresh_token`, `client_credentials` or \
             `token_file`, in the file or as USAGE_PROXY__UPSTREAM__AUTH__KIND",
        ]
    );
}

#[test]
fn a_bad_value_is_an_error_even_if_another_source_overrides_it() {
    let file = TomlFile::new(format!("log.requests = \"some\"\n{TOKEN_FILE}"));
    let sources = file
        .sources()
        .with_variable("USAGE_PROXY__LOG__REQUESTS", "all");

    let errors = file.errors(sources);

    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].starts_with("FILE:1:16: log.requests = \"some\""),
        "{errors:?}"
    );
}

#[test]
fn a_lower_case_variable_error_gives_the_right_spelling() {
    let sources = minimal().with_variable("USAGE_PROXY__cache__fresh_for", "30s");

    let errors = Config::load(sources).unwrap_err().to_string();

    assert!(
        errors.contains("as USAGE_PROXY__CACHE__FRESH_FOR"),
        "{errors}"
    );
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf_8_is_an_error() {
    use std::os::unix::ffi::OsStringExt as _;

    let value = std::ffi::OsString::from_vec(vec![0xff]);
    let errors =
        Config::load(minimal().with_variable("USAGE_PROXY__UPSTREAM__LOCALE", value)).unwrap_err();

    assert!(
        errors.to_string().contains("upstream.locale: is not UTF-8"),
        "{errors}"
    );
}
