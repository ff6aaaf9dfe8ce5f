use super::*;

#[test]
fn an_unreadable_file_is_named_in_the_error() {
    let missing = Config::load(minimal().with_file("no/such.toml"))
        .unwrap_err()
        .to_string();
    let binary = config_errors(b"a = \"\xff\"");

    assert!(
        missing.starts_with("no/such.toml: cannot be read: "),
        "{missing}"
    );
    assert!(binary[0].starts_with("FILE: is not UTF-8: "), "{binary:?}");
}

#[test]
fn a_syntax_error_names_line_and_column_and_shows_the_line() {
    let errors = config_errors("[cache]\nfresh_for = 15m\n");

    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].starts_with("FILE:2:13: not TOML: "), "{errors:?}");
    assert!(errors[0].ends_with(", in `fresh_for = 15m`"), "{errors:?}");
}

#[test]
fn a_broken_line_with_a_secret_is_not_shown() {
    for line in [
        "client_secret = \"s3cr3t",
        "client_secret_file = s3cr3t",
        "upstream.auth = { refresh_token = s3cr3t }",
        "password = s3cr3t!",
        "base_url = https://me:s3cr3t@host",
        "key_sha256 = s3cr3t",
        "key_sha256 = [\n\"a\",\nup_s3cr3t\n]",
    ] {
        let errors = config_errors(line).join("\n");

        assert!(errors.contains("line not shown"), "{line}: {errors}");
        assert!(!errors.contains("s3cr3t"), "{line}: {errors}");
    }
}

#[test]
fn a_file_that_is_not_toml_does_not_hide_errors_in_other_sources() {
    let file = TomlFile::new("[");
    let sources = file
        .sources()
        .with_variable("USAGE_PROXY__LOG__REQUESTS", "some");

    let errors = file.errors(sources);

    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors[1].contains("USAGE_PROXY__LOG__REQUESTS"),
        "{errors:?}"
    );
}

#[test]
fn values_of_the_wrong_type_are_errors() {
    for (toml, expected) in [
        (
            "cache = 5",
            "FILE:1:1: cache: is a table; expected keys in it, such as cache.",
        ),
        ("[[cache]]", "cache: is a table"),
        (
            "cache.fresh_for.x = 1",
            "cache.fresh_for: is a table; expected a duration",
        ),
        (
            "cache.fresh_for = ['1m']",
            "cache.fresh_for: is an array; expected a duration",
        ),
        (
            "server.cors_origins = ['https://a.example', 5]",
            "server.cors_origins: is an array with items that are not text; expected origins",
        ),
        (
            "server.cors_origins = ['https://a.example,https://b.example']",
            "server.cors_origins: is an array with a comma in an item; expected origins",
        ),
        (
            "server.cors_origins = ['']",
            "server.cors_origins: is an array with an empty item; expected origins",
        ),
        (
            "server.cors_origins = 5",
            "server.cors_origins = 5: is a number; expected origins",
        ),
        (
            "cache.fresh_for = 1.5",
            "cache.fresh_for = 1.5: is a number with a fraction; expected",
        ),
        (
            "upstream.locale = true",
            "upstream.locale: is a boolean; expected text",
        ),
        (
            "upstream.locale = 7",
            "upstream.locale = 7: is a number; expected text",
        ),
        (
            "upstream.validate_mfa = 1",
            "upstream.validate_mfa = 1: is a number; expected `true` or `false`",
        ),
        (
            "upstream.validate_mfa = 'yes'",
            "upstream.validate_mfa = \"yes\": is none of these; expected `true` or `false`",
        ),
        (
            "upstream.locale = 1979-05-27",
            "upstream.locale: is a date or time",
        ),
        (
            "\"cache.fresh_for\" = '1m'",
            "\"cache.fresh_for\": unknown key",
        ),
        (
            "[tls]\ncert = 'x'",
            "FILE:2:1: tls.cert: unknown key; the nearest is ",
        ),
        ("[tls]", "tls: unknown key"),
        (
            "fresh_for = '1m'",
            "fresh_for: unknown key; the nearest is cache.fresh_for",
        ),
    ] {
        assert_error(toml, expected);
    }
}

#[test]
fn a_boolean_may_be_quoted_or_not() {
    for (stated, expected) in [("true", true), ("\"true\"", true), ("false", false)] {
        let config = load_with_account(&format!("upstream.validate_mfa = {stated}"));

        assert_eq!(config.upstream.validate_mfa, expected, "{stated}");
    }
}

#[test]
fn a_list_may_be_an_array_or_comma_separated_text() {
    for (stated, expected) in [
        ("[]", &[][..]),
        ("''", &[]),
        ("['https://a.example']", &["https://a.example"]),
        ("'https://a.example'", &["https://a.example"]),
        (
            "[' https://a.example', 'http://b.example:81']",
            &["https://a.example", "http://b.example:81"],
        ),
        (
            "'https://a.example , http://b.example:81'",
            &["https://a.example", "http://b.example:81"],
        ),
    ] {
        let config = load_with_account(&format!("server.cors_origins = {stated}"));

        let origins = config.server.cors_origins.iter();
        let origins: Vec<_> = origins.map(|origin| origin.header_value()).collect();
        assert_eq!(origins, expected, "{stated}");
    }
}

#[test]
fn an_empty_table_sets_nothing() {
    load_with_account("[server]\n[cache]");
}
