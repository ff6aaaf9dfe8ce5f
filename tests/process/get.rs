//! `usage-proxy get`: what a person asks of a running proxy, and how it is told.

use std::process::{Command, Output};

use serde_json::json;
use usage_proxy::simulator::SimulatorOptions;

use crate::support::{Account, PartnerCenter, Service, Stub, get, usage_proxy};

const DOCUMENTED_CUSTOMER: &str = "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04";

const KEY: &str = "canary-key-0123456789abcdef0123456789abcdef";

/// A proxy before a stand-in that knows the documented customer.
async fn proxy(settings: &[(&str, &str)]) -> (Account, Service) {
    let upstream = PartnerCenter::start(SimulatorOptions::default()).await;
    let account = Account::new(
        upstream.address,
        "secret",
        &upstream.handle.issue_refresh_token(),
    );
    let mut serve = account.command(usage_proxy(), "serve");
    for (key, value) in settings {
        serve.args(["--set", &format!("{key}={value}")]);
    }
    let service = Service::start(&mut serve).await;
    (account, service)
}

/// `get` of a customer, without waiting on the thread that the stand-in needs.
async fn asked(url: &str, args: &[&str]) -> Output {
    let mut command = usage_proxy();
    command.arg("get").args(args).env("USAGE_PROXY_URL", url);
    run(command).await
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn usage_is_printed_with_totals_and_with_how_old_it_is() {
    let (_account, service) = proxy(&[]).await;

    let first = asked(&service.api, &[DOCUMENTED_CUSTOMER]).await;
    let second = asked(&service.api, &[DOCUMENTED_CUSTOMER]).await;

    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    let told = stdout(&first);
    for part in [
        "DT DEMO CSP CUSTOMER 005\n",
        DOCUMENTED_CUSTOMER,
        "Counts of 2017-03-09.",
        "Checked just now, next check in ",
        "Microsoft's newest count is of",
        "EXCHANGE ONLINE (PLAN 1)",
        "All products",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!told.contains('\u{1b}'), "no colours in a pipe: {told}");
    assert!(stdout(&second).contains("Checked just now"));
}

#[tokio::test]
async fn json_and_csv_are_what_the_proxy_sends() {
    let (_account, service) = proxy(&[]).await;
    let url = format!("{}/v1/customers/{DOCUMENTED_CUSTOMER}/usage", service.api);

    for (format, media_type) in [("json", "application/json"), ("csv", "text/csv")] {
        let printed = asked(&service.api, &[DOCUMENTED_CUSTOMER, "--format", format]).await;

        let sent = get(&url, &[("accept", media_type)]).await;
        assert_eq!(stdout(&printed), sent.body, "{format}");
    }
}

#[tokio::test]
async fn a_refusal_is_told_with_what_to_do_and_the_id_to_ask_about() {
    let (_account, service) = proxy(&[]).await;
    let args = [DOCUMENTED_CUSTOMER, "--date", "2001-01-01"];

    let output = asked(&service.api, &args).await;

    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let told = stderr(&output);
    for part in [
        "usage-proxy: Nothing was processed on that date (404)\n",
        "  what to do: Partner Center has no data of that date",
        "  request id: ",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
}

#[tokio::test]
async fn wrong_use_is_told_before_anybody_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing").display().to_string();
    for (args, part) in [
        (&["--date", "2017-02-30"][..], "expected a calendar date"),
        (&["--url", "ftp://x"], "expected a URL such as"),
        (&["--url", "http://me:pw@x"], "expected no password in it"),
        (&["--key-file", &missing], "cannot read"),
        (&["--ca-file", &missing], "expected CA certificates in PEM"),
    ] {
        let args: Vec<_> = [&[DOCUMENTED_CUSTOMER], args].concat();

        let output = asked("http://127.0.0.1:9", &args).await;

        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            stderr(&output).contains(part),
            "{part} in {}",
            stderr(&output)
        );
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_one_clear_line() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);

    let output = asked(&url, &[DOCUMENTED_CUSTOMER]).await;

    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(
        told.contains(&url) && told.contains("is it running"),
        "{told}"
    );
}

#[tokio::test]
async fn a_key_comes_from_a_file_and_is_shown_to_nobody() {
    let callers = tempfile::NamedTempFile::new().unwrap();
    let hash = usage_proxy::access_key::KeyHash::of_key(KEY.as_bytes());
    let caller = format!(
        "[[caller]]\nname = \"a\"\nkey_sha256 = [\"{hash}\"]\ncustomers = [\"*\"]\nscopes = [\"usage:read\"]\n"
    );
    std::fs::write(callers.path(), caller).unwrap();
    let (account, service) =
        proxy(&[("callers.file", &callers.path().display().to_string())]).await;
    account.write("key", &format!("{KEY}\n"));
    let key = account.path("key").display().to_string();

    let refused = asked(&service.api, &[DOCUMENTED_CUSTOMER]).await;
    let answered = asked(&service.api, &[DOCUMENTED_CUSTOMER, "--key-file", &key]).await;
    let mut by_variable = usage_proxy();
    by_variable
        .args(["get", DOCUMENTED_CUSTOMER, "--url", &service.api])
        .env("USAGE_PROXY_KEY_FILE", &key);
    let by_variable = run(by_variable).await;

    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("what to do: --key-file names"),
        "{}",
        stderr(&refused)
    );
    for output in [answered, by_variable] {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
        assert!(!stdout(&output).contains(KEY));
    }
}

#[tokio::test]
async fn a_certificate_of_nobodys_is_refused_unless_its_ca_is_named() {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let certificate = write("certificate", &pair.cert.pem());
    let key = write("key", &pair.signing_key.serialize_pem());
    let (_account, service) = proxy(&[
        ("server.tls.certificate_file", &certificate),
        ("server.tls.key_file", &key),
    ])
    .await;
    let port = service.api.rsplit(':').next().unwrap();
    let url = format!("https://localhost:{port}");

    let unknown = asked(&url, &[DOCUMENTED_CUSTOMER]).await;
    let known = asked(&url, &[DOCUMENTED_CUSTOMER, "--ca-file", &certificate]).await;

    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        stderr(&unknown).contains("--ca-file"),
        "{}",
        stderr(&unknown)
    );
    assert_eq!(known.status.code(), Some(0), "{}", stderr(&known));
}

#[tokio::test]
async fn a_customer_is_found_by_a_part_of_its_name() {
    const ID: &str = "11111111-2222-3333-4444-555555555555";
    const NAMELESS: &str = "22222222-2222-3333-4444-555555555555";
    let customers = json!({"totalCount": 6, "items": [
        {"id": "null-profile", "companyProfile": null},
        {"id": "null-names", "companyProfile": {"companyName": null, "domain": null}},
        {"id": NAMELESS, "companyProfile": {"companyName": null, "domain": "Tailspin.example"}},
        {"id": ID, "companyProfile": {"companyName": "Contoso West", "domain": "west.example"}},
        {"id": DOCUMENTED_CUSTOMER, "companyProfile": {"companyName": "Contoso East", "domain": "x"}},
        {"id": "no-id", "companyProfile": {"companyName": "Fabrikam\u{1b}[2J", "domain": "y"}},
    ]});
    // Without data Partner Center names nobody.
    let usage = json!({"customerId": ID, "customerName": null, "processedDate": null,
                       "products": [], "workloads": []});
    let list = Stub::json(200, &customers);
    let found = Stub::json(200, &usage);
    let url = Stub::start(move |path| match path {
        "/prefix/v1/customers" => list.clone(),
        path if path == format!("/prefix/v1/customers/{ID}/usage") => found.clone(),
        _ => Stub::json(500, &json!({})),
    })
    .await;
    let url = format!("{url}/prefix/");

    let found = asked(&url, &["west"]).await;
    let several = asked(&url, &["contoso"]).await;
    let none = asked(&url, &["proseware"]).await;
    let without_data = asked(&url, &["tailspin"]).await;
    let hostile = asked(&url, &["fabrikam"]).await;

    assert!(
        stdout(&found).starts_with("Contoso West\n"),
        "{}",
        stderr(&found)
    );
    assert_eq!(several.status.code(), Some(2));
    assert!(
        stderr(&several).contains(&format!("{ID}  Contoso West")),
        "{several:?}"
    );
    assert_eq!(none.status.code(), Some(1));
    assert!(stderr(&none).contains("proseware"), "{none:?}");
    assert_eq!(without_data.status.code(), Some(1));
    assert!(
        stderr(&without_data).contains(&format!("customer: Tailspin.example ({NAMELESS})")),
        "{without_data:?}"
    );
    assert_eq!(hostile.status.code(), Some(1));
    assert!(!stderr(&hostile).contains('\u{1b}'), "{hostile:?}");
}

#[tokio::test]
async fn a_name_is_no_use_where_nobody_lists_customers() {
    let url = Stub::start(|_| Stub::json(404, &json!({}))).await;

    let output = asked(&url, &["contoso"]).await;

    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("expected a GUID such as"),
        "{output:?}"
    );
}

#[tokio::test]
async fn what_is_no_usage_proxy_is_told_apart() {
    let url = Stub::start(|_| Stub::json(200, &json!("hello"))).await;

    let output = asked(&url, &[DOCUMENTED_CUSTOMER]).await;

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("check --url"), "{output:?}");
}
