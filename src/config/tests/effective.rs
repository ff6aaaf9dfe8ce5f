use super::*;

const CERTIFICATE: &str = "client_certificate_file = '/c'\nclient_key_file = '/k'";

/// A value other than the default for every key that goes with `kind`.
fn every_key(kind: &str, audience: &str, proof: &str) -> String {
    let callers = match kind {
        "token_file" => {
            r#"file = "./callers.toml"
        [callers.jwt]
        issuer = "https://issuer.example/"
        audience = "api://usage-proxy"
        jwks_url = "https://issuer.example/keys?appid=1"
        subject_claim = "azp"
        scopes_claim = "roles"
        customers_claim = "https://usage-proxy.example/customers""#
        }
        _ => "anonymous = true",
    };
    let auth = match kind {
        "token_file" => {
            "[upstream.auth]\nkind = \"token_file\"\ntoken_file = \"/a \\\"b\\\"\"".into()
        }
        _ => grant(kind, V2, audience),
    };
    let auth = match proof {
        "" => auth,
        _ => auth.replace("client_secret_file = \"/s\"", proof),
    };
    format!(
        r#"
        [server]
        listen = "[::1]:81"
        drain_timeout = "0s"
        header_timeout = "2s"
        idle_timeout = "2m"
        request_timeout = "3h"
        stall_timeout = "4s"
        max_connections = 50
        http2_cleartext = true
        cors_origins = ["https://dash.example.com", "http://[::1]:3000"]
        allowed_hosts = ["usage.example.com", "192.0.2.7", "[2001:db8::7]"]
        [server.tls]
        certificate_file = "/c"
        key_file = "/k"
        client_ca_file = "/ca"
        [admin]
        listen = "0.0.0.0:82"
        key_sha256 = ["{HASH}", "{OTHER_HASH}"]
        metrics_need_key = false
        [admin.tls]
        certificate_file = "/ac"
        key_file = "/ak"
        client_ca_file = "/aca"
        [callers]
        {callers}
        [upstream]
        base_url = "http://localhost:7070/partner/"
        source = "commercial"
        commercial_path = "/partner/v1/x"
        locale = "de-DE"
        application = 'Contoso "Dash" # boards'
        connect_timeout = "250ms"
        attempt_timeout = "1m30s"
        deadline = "2h"
        max_concurrency = "7"
        retries = 0
        max_body = 1000
        validate_mfa = true
        [cache]
        max_bytes = "1GB"
        fresh_for = "1ms"
        stale_while_revalidate = "2d"
        stale_if_error = "2d"
        soft_timeout = "3s500ms"
        negative_fresh_for = "0s"
        past_absence_fresh_for = "2d1h"
        min_refresh_interval = "1d1h1m1s1ms"
        suspect_confirm_after = "1d1h1m1s1ms"
        [store]
        url = "postgres://usage@db.example:5433/usage?sslmode=verify-full&application_name=x"
        listen_url = "postgres://usage@direct.example/usage?sslmode=verify-full"
        password_file = "/run/secrets/store"
        ca_file = "/etc/ssl/ca.pem"
        encryption_key_file = "/run/secrets/store_keys"
        flush_within = "2s"
        keep = "1000d"
        [fleet]
        refresh = false
        check_interval = "2h"
        [portfolio]
        file = "./portfolio.toml"
        [metrics]
        usage = true
        usage_max_series = 7
        [log]
        format = "text"
        filter = "warn,usage_proxy=trace"
        requests = "problems"
        [tracing]
        otlp_endpoint = "https://otlp.example"
        headers_file = "/h"
        sample_ratio = 0.05
        service_name = "other"
        {auth}"#
    )
}

#[test]
fn the_effective_configuration_loads_back_to_the_same() {
    for toml in [
        TOKEN_FILE.to_owned(),
        grant("refresh_token", V2, ""),
        grant("client_credentials", V1, ""),
        every_key("token_file", "", ""),
        every_key("refresh_token", "scope = 's'", ""),
        every_key("client_credentials", "resource = 'r'", CERTIFICATE),
        every_key("client_credentials", "", "federated_token_file = '/f'"),
    ] {
        let config = load(&toml);

        let again = load(&config.effective());

        assert_eq!(values(&again), values(&config), "{}", config.effective());
    }
}

#[test]
fn every_key_that_is_read_is_also_printed() {
    let all = [
        every_key("token_file", "", ""),
        every_key("refresh_token", "scope = 's'", ""),
        every_key("client_credentials", "resource = 'r'", CERTIFICATE),
        every_key("client_credentials", "", "federated_token_file = '/f'"),
    ];
    let printed: String = all.iter().map(|toml| load(toml).effective()).collect();

    for key in keys::all() {
        let name = key::last_part(key.name());
        let line = format!("{name} = ");
        let default = format!(
            "{name} = {} ",
            key.to_toml(key.default().unwrap_or_default())
        );

        // Keys that exclude each other are set one at a time.
        let is_set = printed
            .lines()
            .any(|found| found.starts_with(&line) && !found.starts_with(&default));
        assert!(is_set, "{}: {printed}", key.name());
    }
}

#[test]
fn the_effective_configuration_names_the_source_of_each_value() {
    let file = TomlFile::new(format!("{TOKEN_FILE}[cache]\nfresh_for = \"60s\"\n"));
    let sources = file
        .sources()
        .with_variable("USAGE_PROXY__UPSTREAM__RETRIES", "1")
        .with_flag("--listen", "server.listen", "127.0.0.1:0");

    let effective = Config::load(sources).unwrap().effective();

    let path = file.0.path().display();
    for line in [
        "listen = \"127.0.0.1:0\" # flag --listen".to_owned(),
        "listen = \"127.0.0.1:9090\" # default".to_owned(),
        "retries = 1 # environment variable USAGE_PROXY__UPSTREAM__RETRIES".to_owned(),
        format!("fresh_for = \"60s\" # {path}:5:13"),
        "max_bytes = \"256MiB\" # default".to_owned(),
    ] {
        assert!(
            effective.lines().any(|found| found == line),
            "{line}\n{effective}"
        );
    }
}
