//! `usage-proxy get`: the requests of a person to a running proxy, and the output.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::{Value, json};
use usage_proxy::simulator::{Faults, SimulatedApi};

use crate::{
    store::wait_for_metric,
    support::{
        Account, DOCUMENTED, Finished, PartnerCenter, Service, Stub, assert_has, free_address, get,
        run, usage_proxy,
    },
};

const KEY: &str = "canary-key-0123456789abcdef0123456789abcdef";

/// A proxy before a simulator that knows the documented customer.
async fn proxy(settings: &[(&str, &str)]) -> (Account, Service) {
    let account = PartnerCenter::with(Faults::default()).await.account();
    let mut serve = account.command(usage_proxy(), "serve");
    for (key, value) in settings {
        serve.args(["--set", &format!("{key}={value}")]);
    }
    let service = Service::start(&mut serve).await;
    (account, service)
}

/// `get` of a customer.
async fn usage(url: &str, args: &[&str]) -> Finished {
    let mut command = usage_proxy();
    command.arg("get").args(args).env("USAGE_PROXY_URL", url);
    run(command).await
}

#[tokio::test]
async fn usage_is_printed_with_totals_and_its_age() {
    let (_account, service) = proxy(&[]).await;

    for _ in 0..2 {
        let output = usage(&service.api, &[DOCUMENTED]).await;

        output.assert_printed(&[
            "DT DEMO CSP CUSTOMER 005\n",
            DOCUMENTED,
            "Counts of 2017-03-09.",
            "Checked just now, next check in ",
            "Microsoft's newest count is of",
            "EXCHANGE ONLINE (PLAN 1)",
            "All products",
        ]);
        let coloured = output.stdout.contains('\u{1b}');
        assert!(!coloured, "no colours in a pipe: {output:?}");
    }
}

#[tokio::test]
async fn json_and_csv_are_what_the_proxy_sends() {
    let (_account, service) = proxy(&[]).await;
    let url = format!("{}/v1/customers/{DOCUMENTED}/usage", service.api);

    for (format, media_type) in [("json", "application/json"), ("csv", "text/csv")] {
        let printed = usage(&service.api, &[DOCUMENTED, "--format", format]).await;

        let sent = get(&url, &[("accept", media_type)]).await;
        assert_eq!(printed.stdout, sent.body, "{format}");
    }
}

#[tokio::test]
async fn a_refusal_is_reported_with_what_to_do_and_the_request_id() {
    let (_account, service) = proxy(&[]).await;

    let output = usage(&service.api, &[DOCUMENTED, "--date", "2001-01-01"]).await;

    output.assert_failed(
        1,
        &[
            "usage-proxy: No data for this date (404)\n",
            "  what to do: Partner Center has no data of that date",
            "  request id: ",
        ],
    );
}

#[tokio::test]
async fn invalid_arguments_are_reported_before_any_request() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing").display().to_string();
    for (args, part) in [
        (&["--date", "2017-02-30"][..], "expected a calendar date"),
        (&["--url", "ftp://x"], "expected a URL such as"),
        (&["--url", "http://me:pw@x"], "expected no password in it"),
        (&["--key-file", &missing], "cannot read"),
        (&["--ca-file", &missing], "expected CA certificates in PEM"),
    ] {
        let args: Vec<_> = [&[DOCUMENTED], args].concat();

        let output = usage("http://127.0.0.1:9", &args).await;

        output.assert_failed(2, &[part]);
    }
}

#[tokio::test]
async fn an_unreachable_proxy_is_reported_in_one_line() {
    let url = format!("http://{}", free_address());

    let output = usage(&url, &[DOCUMENTED]).await;

    output.assert_failed_in_one_line(1, &[&url, "is it running"]);
}

#[tokio::test]
async fn a_key_is_read_from_a_file_and_never_printed() {
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

    let refused = usage(&service.api, &[DOCUMENTED]).await;
    let answered = usage(&service.api, &[DOCUMENTED, "--key-file", &key]).await;
    let mut by_variable = usage_proxy();
    by_variable
        .args(["get", DOCUMENTED, "--url", &service.api])
        .env("USAGE_PROXY_KEY_FILE", &key);
    let by_variable = run(by_variable).await;

    assert_eq!(refused.code, Some(1));
    assert_has(&refused.stderr, &["what to do: --key-file names"]);
    for output in [answered, by_variable] {
        output.assert_printed(&[]);
        assert_eq!(output.stderr, "");
        assert!(!output.stdout.contains(KEY));
    }
}

#[tokio::test]
async fn an_unknown_certificate_is_refused_unless_its_ca_is_named() {
    // The certificate is of another account: the proxy has its own files only after its start.
    let files = PartnerCenter::with(Faults::default()).await.account();
    files.write_certificate("certificate", "key");
    let [certificate, key] =
        ["certificate", "key"].map(|name| files.path(name).display().to_string());
    let (_account, service) = proxy(&[
        ("server.tls.certificate_file", &certificate),
        ("server.tls.key_file", &key),
    ])
    .await;
    let port = service.api.rsplit(':').next().unwrap();
    let url = format!("https://localhost:{port}");

    let unknown = usage(&url, &[DOCUMENTED]).await;
    let known = usage(&url, &[DOCUMENTED, "--ca-file", &certificate]).await;

    unknown.assert_failed(1, &["--ca-file"]);
    known.assert_printed(&[]);
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
        {"id": DOCUMENTED, "companyProfile": {"companyName": "Contoso East", "domain": "x"}},
        {"id": "no-id", "companyProfile": {"companyName": "Fabrikam\u{1b}[2J", "domain": "y"}},
    ]});
    // Without data Partner Center names nobody.
    let answer = json!({"customerId": ID, "customerName": null, "processedDate": null,
                       "products": [], "workloads": []});
    let list = Stub::json(200, &customers);
    let found = Stub::json(200, &answer);
    let url = Stub::start(move |path| match path {
        "/prefix/v1/customers" => list.clone(),
        path if path == format!("/prefix/v1/customers/{ID}/usage") => found.clone(),
        _ => Stub::json(500, &json!({})),
    })
    .await;
    let url = format!("{url}/prefix/");

    let found = usage(&url, &["west"]).await;
    let several = usage(&url, &["contoso"]).await;
    let none = usage(&url, &["proseware"]).await;
    let without_data = usage(&url, &["tailspin"]).await;
    let hostile = usage(&url, &["fabrikam"]).await;

    found.assert_printed(&[]);
    assert!(found.stdout.starts_with("Contoso West\n"), "{found:?}");
    several.assert_failed(2, &[&format!("{ID}  Contoso West")]);
    none.assert_failed(1, &["proseware"]);
    let name = format!("customer: Tailspin.example ({NAMELESS})");
    without_data.assert_failed(1, &[&name]);
    hostile.assert_failed(1, &[]);
    assert!(!hostile.stderr.contains('\u{1b}'), "{hostile:?}");
}

#[tokio::test]
async fn a_name_is_rejected_if_there_is_no_list_of_customers() {
    let url = Stub::start(|_| Stub::json(404, &json!({}))).await;

    let output = usage(&url, &["contoso"]).await;

    output.assert_failed(2, &["expected a GUID such as"]);
}

#[tokio::test]
async fn another_program_at_the_url_is_reported() {
    let url = Stub::start(|_| Stub::json(200, &json!("hello"))).await;

    let output = usage(&url, &[DOCUMENTED]).await;

    output.assert_failed(1, &["check --url"]);
}

#[tokio::test]
async fn all_customers_are_printed_by_a_handful_of_calls() {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = partner_center.account();
    let portfolio = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/config/examples/portfolio.toml"
    );
    let mut serve = account.command(usage_proxy(), "serve");
    serve.args(["--set", "upstream.source=commercial"]);
    serve.args(["--set", &format!("portfolio.file={portfolio}")]);
    let service = Service::start(&mut serve).await;
    let refreshed = "usage_proxy_fleet_refreshes_total{outcome=\"success\"}";
    wait_for_metric(&service, refreshed, 1.0).await;

    let table = usage(&service.api, &["--all"]).await;
    let csv = usage(&service.api, &["--all", "--format", "csv"]).await;
    let json = usage(&service.api, &["--all", "--format", "json"]).await;

    let url = format!("{}/v1/usage/unused", service.api);
    let sent = get(&format!("{url}?limit=5000"), &[]).await.body;
    let sent: Value = serde_json::from_str(&sent).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&json.stdout).unwrap(), sent);
    assert_eq!(csv.stdout, get(&url, &[("accept", "text/csv")]).await.body);
    let items = sent["items"].as_array().unwrap();
    table.assert_printed(&["Cost a month\n", "Exchange Online P1", " EUR\n"]);
    // The heading, an empty line, the names of the columns and the sums.
    assert_eq!(table.stdout.lines().count(), items.len() + 4);
    for (line, item) in table.stdout.lines().skip(3).zip(items) {
        let text = |field: &str| item[field].as_str().unwrap();
        let name = item["customerName"].as_str().unwrap_or(text("customerId"));
        assert_has(line, &[name, text("displayName"), text("busiestWorkload")]);
        assert_has(line, &[&item["licensesUnused"].to_string()]);
    }
    let handle = &partner_center.handle;
    assert_eq!(handle.request_count(SimulatedApi::FleetPage), 1);
    assert_eq!(handle.request_count(SimulatedApi::Customers), 1);
    assert!(handle.requests().len() <= 5, "{:?}", handle.requests());
}

/// A proxy with these customers, and two pages of rows.
async fn proxy_of_all(customers: Value, licenses: u64) -> String {
    let sums =
        json!({"licensesQualified": licenses, "licensesActive": 0, "licensesUnused": licenses});
    let failed =
        json!([{"customerId": DOCUMENTED, "customerName": "A\u{1b}", "reason": "no-relationship"}]);
    let header = json!({"processedDate": "2026-11-25", "complete": false, "customers": customers,
                        "failed": failed, "excluded": 0});
    let with = |more: Value| {
        let mut whole = header.clone();
        whole
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        whole
    };
    let totals = Stub::json(200, &with(json!({"totals": sums})));
    let page = |name: &str, cursor: Value| {
        let mut item = json!({"customerId": DOCUMENTED, "customerName": name, "displayName": "E3",
                              "busiestWorkload": null});
        item.as_object_mut()
            .unwrap()
            .extend(sums.as_object().unwrap().clone());
        Stub::json(200, &with(json!({"items": [item], "nextCursor": cursor})))
    };
    let expired = json!({"type": "urn:usage-proxy:problem:cursor-expired", "title": "x"});
    let pages = [
        page("Too old", json!("first")),
        Stub::json(400, &expired),
        page("Contoso", json!("second")),
        page("Fabrikam", Value::Null),
    ];
    let next = AtomicUsize::new(0);
    Stub::start(move |path| match path {
        "/v1/usage" => totals.clone(),
        _ => pages[next.fetch_add(1, Relaxed) % pages.len()].clone(),
    })
    .await
}

#[tokio::test]
async fn what_is_missing_of_all_customers_goes_to_standard_error() {
    let customers =
        json!({"total": 6, "current": 1, "stale": 1, "empty": 1, "failed": 1, "notFetched": 2});
    let url = proxy_of_all(customers, 5).await;

    for format in ["table", "json"] {
        let output = usage(&url, &["--all", "--format", format]).await;

        output.assert_printed(&["Contoso", "Fabrikam"]);
        assert!(!output.stdout.contains("Too old"), "{output:?}");
        assert_eq!(
            output.stderr,
            format!(
                "not fetched yet: 2 customers\n\
                 without rows of 2026-11-25: 1 customer, with an older date each\n\
                 failed: 1 customer\n  {DOCUMENTED}  A?: no-relationship\n"
            )
        );
    }
}

#[tokio::test]
async fn no_usage_of_any_customer_is_a_failure() {
    let customers =
        json!({"total": 3, "current": 0, "stale": 0, "empty": 0, "failed": 1, "notFetched": 2});
    let url = proxy_of_all(customers, 0).await;

    let nothing = usage(&url, &["--all"]).await;
    let unknown = usage(&format!("http://{}", free_address()), &["--all"]).await;
    let both = usage(&url, &["contoso", "--all"]).await;

    nothing.assert_failed(
        1,
        &[
            "not fetched yet: 2 customers",
            "no usage of any customer yet",
        ],
    );
    unknown.assert_failed_in_one_line(1, &["is it running"]);
    both.assert_failed(2, &["cannot be used with"]);
}
