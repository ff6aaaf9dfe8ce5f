use super::*;

const JWT: &str = "callers.jwt.issuer = 'i'\ncallers.jwt.audience = 'a'\n\
     callers.jwt.jwks_url = 'https://issuer.example/keys'";
const CLAIMS: &str = "callers.jwt.scopes_claim = 's'\ncallers.jwt.customers_claim = 'c'";

#[test]
fn conflicting_keys_are_both_named() {
    for (toml, expected) in [
        (
            "upstream.attempt_timeout = '30s'",
            "FILE:1:28: upstream.attempt_timeout = \"30s\": conflicts with upstream.deadline = \"25s\" (by default)",
        ),
        (
            "upstream.deadline = '5s'",
            "FILE:1:21: upstream.deadline = \"5s\": conflicts with upstream.attempt_timeout = \"10s\" (by default)",
        ),
        (
            "upstream.connect_timeout = '11s'",
            "upstream.connect_timeout = \"11s\": conflicts with upstream.attempt_timeout = \"10s\"",
        ),
        (
            "cache.stale_if_error = '30m'",
            "FILE:1:24: cache.stale_if_error = \"30m\": conflicts with cache.stale_while_revalidate = \"1h\" (by default)",
        ),
        (
            "admin.listen = '127.0.0.1:8080'",
            "FILE:1:16: admin.listen = \"127.0.0.1:8080\": conflicts with server.listen = \"127.0.0.1:8080\" (by default)",
        ),
        (
            &format!("admin.listen = '0.0.0.0:8080'\nadmin.key_sha256 = '{HASH}'"),
            "both would listen on the same port",
        ),
        (
            &format!("admin.listen = '[::]:8080'\nadmin.key_sha256 = '{HASH}'"),
            "both would listen on the same port",
        ),
    ] {
        assert_error(toml, expected);
    }
}

#[test]
fn files_for_a_database_need_one() {
    for (toml, is_error) in [
        ("store.password_file = './p'", true),
        ("store.encryption_key_file = './k'", true),
        ("store.listen_url = 'postgres://u@localhost/d'", true),
        (
            "store.url = 'sqlite:/usage.db'\nstore.listen_url = 'postgres://u@localhost/d'",
            true,
        ),
        (
            "store.url = 'sqlite:/usage.db'\nstore.ca_file = './ca.pem'",
            true,
        ),
        (
            "store.url = 'postgres://u@localhost/d'\nstore.ca_file = './ca.pem'",
            false,
        ),
        (
            "store.url = 'postgres://u@localhost:6432/d'\nstore.listen_url = 'postgres://u@localhost/d'",
            false,
        ),
    ] {
        match is_error {
            true => assert_error(toml, "is for a `postgres://` URL in store.url"),
            false => drop(load_with_account(toml)),
        }
    }
}

#[test]
fn a_refresh_token_in_a_database_needs_a_key() {
    let postgres = "store.url = 'postgres://u@localhost/d'\n";
    let key = "store.encryption_key_file = './k'\n";
    for (store, kind, is_error) in [
        (postgres, "refresh_token", true),
        (&*format!("{postgres}{key}"), "refresh_token", false),
        ("store.url = 'sqlite:/usage.db'\n", "refresh_token", false),
        ("", "refresh_token", false),
        (postgres, "client_credentials", false),
    ] {
        let toml = format!("{store}{}", grant(kind, V2, ""));

        match is_error {
            true => {
                let errors = config_errors(&toml);
                let [error] = &errors[..] else {
                    panic!("{errors:?}");
                };
                assert!(
                    error.starts_with("store.encryption_key_file: missing, and"),
                    "{error}"
                );
                for part in ["refresh_token", "store.url", "openssl rand -base64 32"] {
                    assert!(error.contains(part), "{part} in {error}");
                }
            }
            false => drop(load(&toml)),
        }
    }
}

#[test]
fn each_auth_kind_names_its_missing_keys() {
    for (kind, lacking) in [
        (
            "refresh_token",
            &[
                "token_url",
                "client_id",
                "refresh_token_file",
                "client_secret_file",
            ][..],
        ),
        (
            "client_credentials",
            &["token_url", "client_id", "client_secret_file"],
        ),
        ("token_file", &["token_file"]),
    ] {
        let errors = config_errors(format!("upstream.auth.kind = {kind:?}"));

        assert_eq!(errors.len(), lacking.len(), "{kind}: {errors:?}");
        for (error, key) in errors.iter().zip(lacking) {
            let expected =
                format!("upstream.auth.{key}: missing, and upstream.auth.kind = {kind:?} needs it");
            assert!(error.starts_with(&expected), "{kind}: {error}");
        }
    }
}

#[test]
fn unlikely_settings_give_warnings() {
    for (toml, expected) in [
        (TOKEN_FILE.to_owned(), None),
        (grant("refresh_token", V2, ""), None),
        (
            grant("client_credentials", V2, ""),
            Some("refuses that call without a user"),
        ),
        (
            grant("refresh_token", V1, "scope = 's'"),
            Some("needs upstream.auth.resource"),
        ),
        (
            grant("refresh_token", V2, "resource = 'r'"),
            Some("needs upstream.auth.scope"),
        ),
        (
            format!("cache.max_bytes = '1MiB'\n{TOKEN_FILE}"),
            Some("cache.max_bytes = 1MiB is below upstream.max_body = 32MiB"),
        ),
        (
            format!("server.drain_timeout = '5s'\n{TOKEN_FILE}"),
            Some("a shutdown may cut"),
        ),
        (
            format!("server.request_timeout = '5s'\n{TOKEN_FILE}"),
            Some("server.request_timeout = 5s is below upstream.deadline"),
        ),
        (
            format!("log.filter = 'inof'\n{TOKEN_FILE}"),
            Some("\"inof\" is not a level"),
        ),
        (
            format!("store.url = 'sqlite:usage.db'\n{TOKEN_FILE}"),
            Some("store.url: usage.db is relative"),
        ),
        (
            format!("store.url = 'sqlite:/tmp/usage.db'\n{TOKEN_FILE}"),
            Some("/tmp/usage.db is in a folder that the system empties"),
        ),
        (
            format!("store.url = 'sqlite:/tmpfiles/usage.db'\n{TOKEN_FILE}"),
            None,
        ),
        (
            format!("log.filter = 'INFO,hyper=warn,[span]=debug'\n{TOKEN_FILE}"),
            None,
        ),
    ] {
        let warnings = load(&toml).warnings();

        assert_eq!(
            warnings.len(),
            usize::from(expected.is_some()),
            "{toml}: {warnings:?}"
        );
        if let Some(expected) = expected {
            assert!(warnings[0].contains(expected), "{toml}: {warnings:?}");
        }
    }
}

#[test]
fn traces_are_sent_below_the_collector_path_only_if_it_is_set() {
    for (stated, url) in [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        (
            "https://otlp.example/tenant/",
            "https://otlp.example/tenant/v1/traces",
        ),
    ] {
        let sources = minimal().with_flag("--set", "tracing.otlp_endpoint", stated);

        let tracing = Config::load(sources).unwrap().tracing.unwrap();

        assert_eq!(tracing.traces_url().as_str(), url);
        assert!((tracing.sample_ratio - 1.0).abs() < f64::EPSILON);
        assert_eq!(tracing.service_name, "usage-proxy");
    }
    let ratio = minimal().with_flag("--set", "tracing.sample_ratio", "0.5");
    assert_eq!(Config::load(ratio).unwrap().tracing, None);
}

#[test]
fn the_required_keys_of_a_table_are_set_together() {
    for (toml, missing) in [
        (
            "callers.jwt.issuer = 'i'",
            &["callers.jwt.audience", "callers.jwt.jwks_url"][..],
        ),
        (
            "callers.jwt.jwks_url = 'https://i.example/k'",
            &["callers.jwt.issuer", "callers.jwt.audience"],
        ),
        (
            "callers.jwt.subject_claim = 'azp'",
            &[
                "callers.jwt.issuer",
                "callers.jwt.audience",
                "callers.jwt.jwks_url",
            ],
        ),
        (
            "server.tls.certificate_file = '/c'",
            &["server.tls.key_file"],
        ),
        ("admin.tls.key_file = '/k'", &["admin.tls.certificate_file"]),
        (
            "server.tls.client_ca_file = '/ca'",
            &["server.tls.certificate_file", "server.tls.key_file"],
        ),
    ] {
        let errors = config_errors(format!("callers.file = '/c'\n{toml}\n{TOKEN_FILE}"));

        let (set, _) = toml.split_once(" = ").unwrap();
        assert_eq!(errors.len(), missing.len(), "{toml}: {errors:?}");
        for (error, key) in errors.iter().zip(missing) {
            let expected = format!("{key}: missing, and {set} needs it; expected ");
            assert!(error.starts_with(&expected), "{toml}: {errors:?}");
        }
    }
}

#[test]
fn token_rights_must_come_from_claims_or_the_callers_file() {
    let (scopes, customers) = (
        "callers.jwt.scopes_claim = 's'",
        "callers.jwt.customers_claim = 'c'",
    );

    for lacking in ["", scopes, customers] {
        assert_error(
            &format!("{JWT}\n{lacking}"),
            "FILE:1:22: callers.jwt.issuer = \"i\": its callers have no rights; set callers.file, or",
        );
    }
    load_with_account(&format!("{JWT}\n{scopes}\n{customers}"));
    load_with_account(&format!("{JWT}\ncallers.file = '/c'"));
}

#[test]
fn a_public_listener_needs_authentication_or_anonymous() {
    for address in [
        "0.0.0.0:80",
        "[::]:80",
        "192.0.2.1:80",
        "[::ffff:192.0.2.1]:80",
    ] {
        let listen = format!("server.listen = '{address}'");

        let expected = "set callers.file or callers.jwt.issuer, which name who may, or \
                        callers.anonymous = true";
        assert_error(&listen, expected);
        assert_error(
            &listen,
            &format!("FILE:1:17: server.listen = {address:?}: anyone"),
        );
        load_with_account(&format!("{listen}\ncallers.anonymous = true"));
        load_with_account(&format!("{listen}\ncallers.file = '/etc/callers.toml'"));
        load_with_account(&format!("{listen}\n{JWT}\n{CLAIMS}"));
    }
}

#[test]
fn anonymous_conflicts_with_configured_callers() {
    assert_error(
        "callers.anonymous = true\ncallers.file = '/c'",
        "FILE:1:21: callers.anonymous = true: conflicts with callers.file = \"/c\" (FILE:2:16)",
    );
    assert_error(
        &format!("{JWT}\n{CLAIMS}\ncallers.anonymous = true"),
        "callers.anonymous = true: conflicts with callers.jwt.issuer = \"i\" (FILE:1:22)",
    );
}

#[test]
fn a_public_admin_listener_needs_a_key() {
    for address in [
        "0.0.0.0:9090",
        "192.0.2.1:9090",
        "[::]:9090",
        "[::ffff:192.0.2.1]:9090",
    ] {
        let listen = format!("admin.listen = '{address}'");

        assert_error(
            &listen,
            &format!(
                "FILE:1:16: admin.listen = {address:?}: others can reach it, and admin.key_sha256 \
                 is empty; make a key with `usage-proxy hash-key`"
            ),
        );
        load_with_account(&format!("{listen}\nadmin.key_sha256 = ['{HASH}']"));
        load_with_account(&format!(
            "{listen}\nadmin.tls.certificate_file = '/c'\nadmin.tls.key_file = '/k'\n\
             admin.tls.client_ca_file = '/ca'"
        ));
        // An invalid key is not reported as a missing one too.
        assert_error(
            &format!("{listen}\nadmin.key_sha256 = ['abc']"),
            "admin.key_sha256: has an item",
        );
    }
}

#[test]
fn keys_that_do_not_conflict_are_allowed() {
    for address in ["127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"] {
        load_with_account(&format!("server.listen = '{address}:80'"));
        load_with_account(&format!("admin.listen = '{address}:80'"));
    }
    for (server, admin) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:8080", "127.0.0.2:8080"),
        ("0.0.0.0:8080", "[::1]:8080"),
    ] {
        load_with_account(&format!(
            "callers.anonymous = true\nserver.listen = '{server}'\nadmin.listen = '{admin}'"
        ));
    }
    load_with_account(
        "upstream.connect_timeout = '25s'\nupstream.attempt_timeout = '25s'\n\
         cache.stale_if_error = '1h'",
    );
}

#[test]
fn exactly_one_client_authentication_method_is_allowed() {
    let secret = "client_secret_file = '/s'";
    let certificate = "client_certificate_file = '/c'";
    let key = "client_key_file = '/k'";
    let federated = "federated_token_file = '/f'";
    let account = |set: &[&str]| {
        format!(
            "[upstream.auth]\nkind = \"client_credentials\"\ntoken_url = {V2:?}\n\
             client_id = \"app\"\n{}\n",
            set.join("\n")
        )
    };

    for set in [&[secret][..], &[certificate, key], &[federated]] {
        load(&account(set));
    }
    for (set, expected) in [
        (
            &[][..],
            &[
                "upstream.auth.client_secret_file: missing, and upstream.auth.kind = \
                 \"client_credentials\" needs it, or upstream.auth.client_certificate_file with \
                 upstream.auth.client_key_file, or upstream.auth.federated_token_file; expected",
            ][..],
        ),
        (
            &[certificate],
            &[
                "FILE:5:27: upstream.auth.client_certificate_file: needs upstream.auth.client_key_file",
            ],
        ),
        (
            &[key],
            &[
                "FILE:5:19: upstream.auth.client_key_file: needs upstream.auth.client_certificate_file",
            ],
        ),
        (
            &[secret, certificate, key],
            &[
                "FILE:6:27: upstream.auth.client_certificate_file: conflicts with \
                 upstream.auth.client_secret_file (FILE:5:22): use one way",
                "FILE:7:19: upstream.auth.client_key_file: conflicts with \
                 upstream.auth.client_secret_file (FILE:5:22): use one way",
            ],
        ),
        (
            &[certificate, key, federated],
            &[
                "FILE:7:24: upstream.auth.federated_token_file: conflicts with \
               upstream.auth.client_certificate_file (FILE:5:27): use one way",
            ],
        ),
    ] {
        let errors = config_errors(account(set));

        assert_eq!(errors.len(), expected.len(), "{set:?}: {errors:?}");
        for (error, expected) in errors.iter().zip(expected) {
            assert!(error.starts_with(expected), "{set:?}: {error}");
        }
    }
}

#[test]
fn keys_of_another_auth_kind_are_errors() {
    let errors = config_errors(grant(
        "client_credentials",
        V2,
        "refresh_token_file = '/r'\ntoken_file = '/t'",
    ));

    assert_eq!(
        errors,
        [
            "FILE:7:22: upstream.auth.refresh_token_file: only valid with refresh_token, not with \
             upstream.auth.kind = \"client_credentials\"",
            "FILE:8:14: upstream.auth.token_file: only valid with token_file, not with \
             upstream.auth.kind = \"client_credentials\"",
        ]
    );
}

#[test]
fn the_default_audience_follows_the_token_endpoint() {
    const API: &str = "https://api.partnercenter.microsoft.com";
    let scope = |scope: &str| TokenAudience::Scope(scope.to_owned());
    let resource = |resource: &str| TokenAudience::Resource(resource.to_owned());
    let other = "https://sts.example.com/token";
    for (kind, token_url, more, audience) in [
        (
            "refresh_token",
            V2,
            "",
            scope(&format!("{API}/user_impersonation")),
        ),
        (
            "client_credentials",
            V2,
            "",
            scope(&format!("{API}/.default")),
        ),
        ("refresh_token", V1, "", resource(API)),
        ("client_credentials", V1, "", resource(API)),
        ("refresh_token", V2, "scope = 'a b'", scope("a b")),
        ("refresh_token", other, "resource = 'r'", resource("r")),
    ] {
        let config = load(&grant(kind, token_url, more));

        let found = config.upstream.auth.grant().map(|grant| &grant.audience);
        assert_eq!(found, Some(&audience), "{kind} {token_url} {more}");
    }
}

#[test]
fn the_audience_is_unambiguous() {
    for (toml, expected) in [
        (
            grant("refresh_token", V2, "scope = 's'\nresource = 'r'"),
            "FILE:8:12: upstream.auth.resource = \"r\": conflicts with upstream.auth.scope = \"s\" \
             (FILE:7:9)",
        ),
        (
            grant("client_credentials", "https://sts.example.com/token", ""),
            "FILE:3:13: upstream.auth.token_url = \"https://sts.example.com/token\": ends neither",
        ),
    ] {
        let errors = config_errors(&toml);

        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with(expected), "{errors:?}");
    }
}

#[test]
fn tracing_headers_need_an_endpoint_with_https() {
    let headers = "tracing.headers_file = '/h'";

    assert_error(headers, "tracing.headers_file: needs tracing.otlp_endpoint");
    assert_error(
        &format!("{headers}\ntracing.otlp_endpoint = 'http://collector:4318'"),
        "unencrypted to another machine",
    );
    for endpoint in ["http://127.0.0.1:4318", "https://collector.example"] {
        load_with_account(&format!("{headers}\ntracing.otlp_endpoint = '{endpoint}'"));
    }
}

#[test]
fn a_ratio_may_be_any_number_format() {
    for (written, ratio) in [("0.05", 0.05), ("'.05'", 0.05), ("1", 1.0), ("0", 0.0)] {
        let config = load_with_account(&format!(
            "tracing.otlp_endpoint = 'http://127.0.0.1:4318'\ntracing.sample_ratio = {written}"
        ));

        let line = format!("sample_ratio = {ratio} ");
        assert!(config.effective().contains(&line), "{}", config.effective());
        let found = config.tracing.unwrap().sample_ratio;
        assert!((found - ratio).abs() < f64::EPSILON, "{written}");
    }
}

#[test]
fn placeholders_of_the_examples_give_warnings() {
    let login = "https://login.microsoftonline.com";
    for (key, value, placeholder) in [
        (
            "upstream.auth.token_url",
            format!("{login}/TENANT/oauth2/v2.0/token"),
            "TENANT",
        ),
        (
            "upstream.auth.token_url",
            format!("{login}/contoso.onmicrosoft.com/oauth2/v2.0/token"),
            "contoso.onmicrosoft.com",
        ),
        (
            "upstream.auth.token_url",
            format!("{login}/%7Btenant%7D/oauth2/v2.0/token"),
            "{tenant}",
        ),
        (
            "upstream.auth.client_id",
            "00000000-0000-0000-0000-000000000000".to_owned(),
            "00000000-0000-0000-0000-000000000000",
        ),
        (
            "upstream.auth.client_id",
            "<client id>".to_owned(),
            "<client id>",
        ),
        (
            "callers.jwt.issuer",
            format!("{login}/TENANT/v2.0"),
            "TENANT",
        ),
        (
            "callers.jwt.audience",
            "CLIENT_ID_OF_USAGE_PROXY".to_owned(),
            "CLIENT_ID_OF_USAGE_PROXY",
        ),
        (
            "callers.jwt.jwks_url",
            "https://keycloak.example.com/realms/REALM/protocol/openid-connect/certs".to_owned(),
            "REALM",
        ),
    ] {
        let file = TomlFile::new(format!(
            "{JWT}\ncallers.file = '/c'\n{}",
            grant("refresh_token", V2, "")
        ));
        let sources = file.sources().with_flag("--set", key, &value);

        let warnings = Config::load(sources).unwrap().warnings();

        let expected = format!(
            "{key} still has the placeholder {placeholder:?}; replace it with your own value"
        );
        assert_eq!(warnings, [expected], "{value}");
    }
}
