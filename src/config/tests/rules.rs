use super::*;

#[test]
fn conflicting_keys_are_both_named() {
    for (toml, expected) in [
        (
            "upstream.attempt_timeout = '30s'",
            "FILE:1:28: upstream.attempt_timeout = \"30s\", but upstream.deadline = \"25s\" (by default)",
        ),
        (
            "upstream.deadline = '5s'",
            "FILE:1:21: upstream.deadline = \"5s\", but upstream.attempt_timeout = \"10s\" (by default)",
        ),
        (
            "upstream.connect_timeout = '11s'",
            "upstream.connect_timeout = \"11s\", but upstream.attempt_timeout = \"10s\"",
        ),
        (
            "cache.stale_if_error = '30m'",
            "FILE:1:24: cache.stale_if_error = \"30m\", but cache.stale_while_revalidate = \"1h\" (by default)",
        ),
        (
            "admin.listen = '127.0.0.1:8080'",
            "FILE:1:16: admin.listen = \"127.0.0.1:8080\", but server.listen = \"127.0.0.1:8080\" (by default)",
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
        let faults = config_errors(format!("{toml}\n{TOKEN_FILE}"));

        assert_eq!(faults.len(), 1, "{toml}: {faults:?}");
        assert!(faults[0].contains(expected), "{toml}: {faults:?}");
    }
}

#[test]
fn jwt_issuer_audience_and_jwks_url_are_required_together() {
    for (toml, missing) in [
        ("callers.jwt.issuer = 'i'", &["audience", "jwks_url"][..]),
        ("callers.jwt.audience = 'a'", &["issuer", "jwks_url"]),
        (
            "callers.jwt.jwks_url = 'https://i.example/k'",
            &["issuer", "audience"],
        ),
        (
            "callers.jwt.subject_claim = 'azp'",
            &["issuer", "audience", "jwks_url"],
        ),
        (
            "callers.jwt.scopes_claim = 'roles'",
            &["issuer", "audience", "jwks_url"],
        ),
    ] {
        let faults = config_errors(format!("callers.file = '/c'\n{toml}\n{TOKEN_FILE}"));

        let named: Vec<_> = missing
            .iter()
            .map(|key| format!("callers.jwt.{key}: missing, and callers.jwt."))
            .collect();
        assert_eq!(faults.len(), named.len(), "{toml}: {faults:?}");
        for (fault, named) in faults.iter().zip(&named) {
            assert!(fault.starts_with(named), "{toml}: {faults:?}");
        }
    }
}

#[test]
fn the_jwks_url_must_use_https() {
    let faults = config_errors(format!(
        "callers.file = '/c'\ncallers.jwt.issuer = 'i'\ncallers.jwt.audience = 'a'\n\
         callers.jwt.jwks_url = 'http://issuer.example/keys'\n{TOKEN_FILE}"
    ));

    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].contains("anybody could change"), "{faults:?}");
}

const JWT: &str = "callers.jwt.issuer = 'i'\ncallers.jwt.audience = 'a'\n\
     callers.jwt.jwks_url = 'https://issuer.example/keys'";

#[test]
fn token_rights_must_come_from_claims_or_the_callers_file() {
    let (scopes, customers) = (
        "callers.jwt.scopes_claim = 's'",
        "callers.jwt.customers_claim = 'c'",
    );

    for lacking in ["", scopes, customers] {
        let faults = config_errors(format!("{JWT}\n{lacking}\n{TOKEN_FILE}"));

        assert_eq!(faults.len(), 1, "{lacking}: {faults:?}");
        let expected = "FILE:1:22: callers.jwt.issuer: nothing says what its callers may have";
        assert!(faults[0].starts_with(expected), "{lacking}: {faults:?}");
    }
    load(&format!("{JWT}\n{scopes}\n{customers}\n{TOKEN_FILE}"));
    load(&format!("{JWT}\ncallers.file = '/c'\n{TOKEN_FILE}"));
}

#[test]
fn a_jwt_issuer_counts_as_caller_authentication() {
    let claims = "callers.jwt.scopes_claim = 's'\ncallers.jwt.customers_claim = 'c'";

    let faults = config_errors(format!(
        "{JWT}\n{claims}\ncallers.anonymous = true\n{TOKEN_FILE}"
    ));

    assert_eq!(faults.len(), 1, "{faults:?}");
    let expected = "callers.anonymous = true, but callers.jwt.issuer names callers (FILE:1:22)";
    assert!(faults[0].contains(expected), "{faults:?}");
    load(&format!(
        "{JWT}\n{claims}\nserver.listen = '0.0.0.0:80'\n{TOKEN_FILE}"
    ));
}

#[test]
fn listeners_on_different_addresses_are_allowed() {
    for (server, admin) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:8080", "127.0.0.2:8080"),
        ("0.0.0.0:8080", "[::1]:8080"),
    ] {
        let sources = minimal()
            .with_flag("--set", "callers.anonymous", "true")
            .with_flag("--listen", "server.listen", server)
            .with_flag("--admin-listen", "admin.listen", admin);

        assert!(Config::load(sources).is_ok(), "{server} {admin}");
    }
}

#[test]
fn a_public_listener_needs_authentication_or_anonymous() {
    for listen in [
        "0.0.0.0:80",
        "[::]:80",
        "192.0.2.1:80",
        "[::ffff:192.0.2.1]:80",
    ] {
        let toml = |callers: &str| format!("server.listen = '{listen}'\n{callers}\n{TOKEN_FILE}");

        let refused = config_errors(toml(""));

        assert_eq!(refused.len(), 1, "{listen}: {refused:?}");
        for part in [
            "FILE:1:17: server.listen",
            "callers.file",
            "callers.anonymous = true",
        ] {
            assert!(refused[0].contains(part), "{listen}: {refused:?}");
        }
        load(&toml("callers.anonymous = true"));
        load(&toml("callers.file = '/etc/callers.toml'"));
    }
}

#[test]
fn a_loopback_listener_needs_no_authentication() {
    for listen in [
        "127.0.0.1:80",
        "127.9.9.9:80",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
    ] {
        load(&format!("server.listen = '{listen}'\n{TOKEN_FILE}"));
    }
}

#[test]
fn anonymous_conflicts_with_configured_callers() {
    let faults = config_errors(format!(
        "callers.anonymous = true\ncallers.file = '/c'\n{TOKEN_FILE}"
    ));

    assert_eq!(faults.len(), 1, "{faults:?}");
    let expected =
        "FILE:1:21: callers.anonymous = true, but callers.file names callers (FILE:2:16)";
    assert!(faults[0].contains(expected), "{faults:?}");
}

#[test]
fn a_public_admin_listener_needs_a_key() {
    for address in [
        "0.0.0.0:9090",
        "192.0.2.1:9090",
        "[::]:9090",
        "[::ffff:192.0.2.1]:9090",
    ] {
        let stated = format!("admin.listen = '{address}'\n{TOKEN_FILE}");

        let open = config_errors(&stated);
        let closed = load(&format!("admin.key_sha256 = ['{HASH}']\n{stated}"));

        assert_eq!(
            open,
            [format!(
                "FILE:1:16: admin.listen = {address:?}: others can reach it, and admin.key_sha256 \
                 is empty; make a key by `usage-proxy hash-key` and state its hash there, or \
                 let certificates open it by admin.tls.client_ca_file, or listen on 127.0.0.1"
            )]
        );
        assert_eq!(closed.admin.key_hashes.len(), 1);
        load(&format!(
            "{stated}[admin.tls]\ncertificate_file = '/c'\nkey_file = '/k'\nclient_ca_file = '/ca'"
        ));
    }
}

#[test]
fn a_loopback_admin_listener_needs_no_key() {
    for address in [
        "127.0.0.1:9090",
        "127.1.2.3:9090",
        "[::1]:9090",
        "[::ffff:127.0.0.1]:9090",
    ] {
        load(&format!("admin.listen = '{address}'\n{TOKEN_FILE}"));
    }
}

#[test]
fn an_invalid_key_hash_is_reported_once() {
    let faults = config_errors(format!(
        "admin.listen = '0.0.0.0:9090'\nadmin.key_sha256 = ['abc']\n{TOKEN_FILE}"
    ));

    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        faults[0].contains("admin.key_sha256: has an item"),
        "{faults:?}"
    );
}

#[test]
fn equal_durations_are_allowed() {
    load(&format!(
        "upstream.connect_timeout = '25s'\nupstream.attempt_timeout = '25s'\n\
         cache.stale_if_error = '1h'\n{TOKEN_FILE}"
    ));
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
        let faults = config_errors(format!("upstream.auth.kind = {kind:?}"));

        assert_eq!(faults.len(), lacking.len(), "{kind}: {faults:?}");
        for (fault, key) in faults.iter().zip(lacking) {
            let expected =
                format!("upstream.auth.{key}: missing, and upstream.auth.kind = {kind:?} needs it");
            assert!(fault.starts_with(&expected), "{kind}: {fault}");
        }
    }
}

#[test]
fn exactly_one_client_authentication_method_is_allowed() {
    const SECRET: &str = "client_secret_file = '/s'";
    const CERTIFICATE: &str = "client_certificate_file = '/c'";
    const KEY: &str = "client_key_file = '/k'";
    const FEDERATED: &str = "federated_token_file = '/f'";
    for (stated, expected) in [
        (&[SECRET][..], &[][..]),
        (&[CERTIFICATE, KEY], &[]),
        (&[FEDERATED], &[]),
        (
            &[],
            &[
                "upstream.auth.client_secret_file: missing, and upstream.auth.kind = \
               \"client_credentials\" needs it, or upstream.auth.client_certificate_file with \
               upstream.auth.client_key_file, or upstream.auth.federated_token_file; expected",
            ],
        ),
        (
            &[CERTIFICATE],
            &[
                "FILE:5:27: upstream.auth.client_certificate_file: stands without \
               upstream.auth.client_key_file; expected both",
            ],
        ),
        (
            &[KEY],
            &["FILE:5:19: upstream.auth.client_key_file: stands without \
               upstream.auth.client_certificate_file; expected both"],
        ),
        (
            &[SECRET, CERTIFICATE, KEY],
            &[
                "FILE:6:27: upstream.auth.client_certificate_file: stands beside \
                 upstream.auth.client_secret_file (FILE:5:22); expected one way",
                "FILE:7:19: upstream.auth.client_key_file: stands beside \
                 upstream.auth.client_secret_file (FILE:5:22); expected one way",
            ],
        ),
        (
            &[CERTIFICATE, KEY, FEDERATED],
            &[
                "FILE:7:24: upstream.auth.federated_token_file: stands beside \
               upstream.auth.client_certificate_file (FILE:5:27); expected one way",
            ],
        ),
    ] {
        let file = TomlFile::new(format!(
            "[upstream.auth]\nkind = \"client_credentials\"\ntoken_url = {V2:?}\nclient_id = \"app\"\n{}\n",
            stated.join("\n")
        ));

        let path = file.0.path().display().to_string();
        let faults = Config::load(file.sources())
            .err()
            .map_or_else(Vec::new, |errors| {
                let text = errors.to_string().replace(&path, "FILE");
                text.lines().map(str::to_owned).collect()
            });

        assert_eq!(faults.len(), expected.len(), "{stated:?}: {faults:?}");
        for (fault, expected) in faults.iter().zip(expected) {
            assert!(fault.starts_with(expected), "{stated:?}: {fault}");
        }
    }
}

#[test]
fn keys_of_another_auth_kind_are_errors() {
    let faults = config_errors(grant(
        "client_credentials",
        V2,
        "refresh_token_file = '/r'\ntoken_file = '/t'",
    ));

    assert_eq!(
        faults,
        [
            "FILE:7:22: upstream.auth.refresh_token_file: does not belong to upstream.auth.kind = \
             \"client_credentials\", only to refresh_token",
            "FILE:8:14: upstream.auth.token_file: does not belong to upstream.auth.kind = \
             \"client_credentials\", only to token_file",
        ]
    );
}

#[test]
fn the_default_audience_follows_the_token_endpoint() {
    const API: &str = "https://api.partnercenter.microsoft.com";
    for (kind, token_url, more, audience) in [
        (
            "refresh_token",
            V2,
            "",
            TokenAudience::Scope(format!("{API}/user_impersonation")),
        ),
        (
            "client_credentials",
            V2,
            "",
            TokenAudience::Scope(format!("{API}/.default")),
        ),
        (
            "refresh_token",
            V1,
            "",
            TokenAudience::Resource(API.to_owned()),
        ),
        (
            "client_credentials",
            V1,
            "",
            TokenAudience::Resource(API.to_owned()),
        ),
        (
            "refresh_token",
            V2,
            "scope = 'a b'",
            TokenAudience::Scope("a b".to_owned()),
        ),
        (
            "refresh_token",
            "https://sts.example.com/token",
            "resource = 'r'",
            TokenAudience::Resource("r".to_owned()),
        ),
    ] {
        let config = load(&grant(kind, token_url, more));

        let found = config.upstream.auth.grant().map(|grant| &grant.audience);
        assert_eq!(found, Some(&audience), "{kind} {token_url} {more}");
    }
}

#[test]
fn an_unknown_token_endpoint_needs_an_explicit_audience() {
    for (toml, expected) in [
        (
            grant("refresh_token", V2, "scope = 's'\nresource = 'r'"),
            "FILE:8:12: upstream.auth.resource: stands beside upstream.auth.scope (FILE:7:9)",
        ),
        (
            grant("client_credentials", "https://sts.example.com/token", ""),
            "FILE:3:13: upstream.auth.token_url: ends neither in /oauth2/token nor",
        ),
    ] {
        let faults = config_errors(&toml);

        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with(expected), "{faults:?}");
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
            Some("wants upstream.auth.resource"),
        ),
        (
            grant("refresh_token", V2, "resource = 'r'"),
            Some("wants upstream.auth.scope"),
        ),
        (
            format!("cache.max_bytes = '1MiB'\n{TOKEN_FILE}"),
            Some("below upstream.max_body"),
        ),
        (
            format!("server.drain_timeout = '5s'\n{TOKEN_FILE}"),
            Some("at shutdown"),
        ),
        (
            format!("server.request_timeout = '5s'\n{TOKEN_FILE}"),
            Some("server.request_timeout = 5s is below upstream.deadline"),
        ),
        (
            format!("log.filter = 'inof'\n{TOKEN_FILE}"),
            Some("\"inof\" is no level"),
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
fn a_certificate_requires_its_key() {
    for (toml, missing) in [
        (
            "server.tls.certificate_file = '/c'",
            "without server.tls.key_file",
        ),
        (
            "admin.tls.key_file = '/k'",
            "without admin.tls.certificate_file",
        ),
        (
            "server.tls.client_ca_file = '/ca'",
            "without server.tls.certificate_file",
        ),
    ] {
        let faults = config_errors(format!("{toml}\n{TOKEN_FILE}"));

        assert_eq!(faults.len(), 1, "{toml}: {faults:?}");
        assert!(faults[0].contains(missing), "{toml}: {faults:?}");
    }
}

#[test]
fn tracing_headers_need_an_endpoint_with_https() {
    let headers = "tracing.headers_file = '/h'";
    for (endpoint, expected) in [
        ("", Some("stands without tracing.otlp_endpoint")),
        ("http://collector:4318", Some("in clear to another machine")),
        ("http://127.0.0.1:4318", None),
        ("https://collector.example", None),
    ] {
        let stated = match endpoint {
            "" => String::new(),
            url => format!("tracing.otlp_endpoint = '{url}'\n"),
        };

        let file = TomlFile::new(format!("{stated}{headers}\n{TOKEN_FILE}"));
        let loaded = Config::load(file.sources());

        match expected {
            None => assert!(loaded.is_ok(), "{endpoint}: {loaded:?}"),
            Some(expected) => {
                let faults = loaded.unwrap_err().to_string();
                assert!(faults.contains(expected), "{endpoint}: {faults}");
            }
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
fn a_ratio_may_be_any_number_format() {
    for (written, ratio) in [("0.05", 0.05), ("'0.05'", 0.05), ("1", 1.0), ("0", 0.0)] {
        let endpoint = "tracing.otlp_endpoint = 'http://127.0.0.1:4318'";
        let file = TomlFile::new(format!(
            "{endpoint}\ntracing.sample_ratio = {written}\n{TOKEN_FILE}"
        ));

        let config = Config::load(file.sources()).unwrap_or_else(|faults| panic!("{faults}"));

        let effective = config.effective();
        let tracing = config.tracing.unwrap();
        assert!(
            (tracing.sample_ratio - ratio).abs() < f64::EPSILON,
            "{written}"
        );
        let line = format!("sample_ratio = {ratio} ");
        assert!(effective.contains(&line), "{effective}");
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
            format!("{login}/{{tenant}}/oauth2/v2.0/token"),
            "{tenant}",
        ),
        (
            "upstream.auth.client_id",
            "00000000-0000-0000-0000-000000000000".to_owned(),
            "00000000-0000-0000-0000-000000000000",
        ),
        (
            "upstream.auth.client_id",
            "CLIENT_ID".to_owned(),
            "CLIENT_ID",
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
        let file = TomlFile::new(grant("refresh_token", V2, ""));
        let sources = file
            .sources()
            .with_flag("--set", "callers.file", "/c")
            .with_flag("--set", "callers.jwt.issuer", "https://issuer.example")
            .with_flag("--set", "callers.jwt.audience", "usage-proxy")
            .with_flag(
                "--set",
                "callers.jwt.jwks_url",
                "https://issuer.example/keys",
            );
        assert_eq!(
            Config::load(sources.clone()).unwrap().warnings(),
            Vec::<String>::new()
        );

        let warnings = Config::load(sources.with_flag("--set", key, &value))
            .unwrap()
            .warnings();

        let expected = format!(
            "{key} still has the placeholder {placeholder:?}; put your own value in its place"
        );
        assert_eq!(warnings, [expected], "{value}");
    }
}
