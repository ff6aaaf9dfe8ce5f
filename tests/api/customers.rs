//! `GET /v1/customers`: cached whole, cut to its caller, and page by page as Partner Center does it.

use std::collections::BTreeSet;

use crate::support::prelude::*;

const LIST: &str = "/v1/customers";

fn ids(body: &Value) -> Vec<Uuid> {
    let items = body["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["id"].as_str().unwrap().parse().unwrap())
        .collect()
}

fn listed(number: u128, name: &str) -> Value {
    let id = Uuid::from_u128(number).to_string();
    json!({ "id": id, "companyProfile": { "companyName": name, "domain": "example.com" } })
}

/// The page that the SDK's enumerator asks for after this one.
async fn next_page(app: &TestApp, page: &Reply) -> Reply {
    let next = page.json()["links"]["next"].clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let header = &next["headers"][0];
    let (name, value) = (text(&header["key"]), text(&header["value"]));
    let path = format!("/v1{}", text(&next["uri"]));
    app.get_with(&path, &[(&name, &value)]).await
}

// === The whole ===

#[tokio::test]
async fn the_list_is_read_to_its_last_page_once_and_cached() {
    let app = TestApp::builder()
        .simulator(|options| options.customers = 1_200)
        .start()
        .await;

    let first = app.get(LIST).await;
    let second = app.get(LIST).await;

    first.assert_headers(&[("content-type", "application/json; charset=utf-8")]);
    let body = first.json();
    assert_eq!(body["totalCount"], 1_201);
    assert_eq!(body["attributes"]["objectType"], "Collection");
    let listed = ids(&body);
    assert_eq!(listed.len(), 1_201);
    let all: BTreeSet<_> = app.simulator.customers().into_iter().collect();
    assert_eq!(BTreeSet::from_iter(listed), all);
    assert_eq!(second.cache_status(), HIT);
    assert_eq!(second.body, first.body);

    let pages = app.calls_made(SimulatedApi::Customers);
    let tokens: Vec<_> = pages
        .iter()
        .map(|page| page.header("ms-continuationtoken").unwrap_or("none"))
        .collect();
    assert_eq!(tokens, ["none", "page-from-500", "page-from-1000"]);
    assert!(
        pages
            .iter()
            .all(|page| page.query.as_deref() == Some("size=500"))
    );
    let ids = |name| -> BTreeSet<_> { pages.iter().map(|page| page.header(name)).collect() };
    assert_eq!(ids("ms-requestid").len(), 3);
    assert_eq!(ids("ms-correlationid").len(), 1);
    let request_id = pages[0].header("ms-requestid");
    assert_eq!(Some(first.header("ms-requestid")), request_id);
    assert_eq!(second.header("ms-requestid"), "", "it made no call");
}

#[tokio::test]
async fn a_list_slower_than_the_deadline_is_still_read_and_cached() {
    // Less than `upstream.deadline` for each of the pages, and more for all of them.
    const PAGE: Duration = Duration::from_secs(15);

    let app = TestApp::builder()
        .set("upstream.attempt_timeout", "20s")
        .simulator(|options| options.customers = 1_200)
        .start()
        .await;
    app.set_faults(Faults {
        latency: Duration::from_millis(300),
        ..Faults::default()
    });

    let pages_take_long = async {
        for page in 1..=3 {
            app.wait_for_calls(SimulatedApi::Customers, page).await;
            app.advance(PAGE);
        }
    };
    let (first, ()) = tokio::join!(app.get(LIST), pages_take_long);
    let later = app.get(LIST).await;

    first.problem_with(504, "timed-out", &["still being read"]);
    assert_eq!(first.header("retry-after"), "5");
    assert_eq!(later.status, 200);
    assert_eq!(later.json()["totalCount"], 1_201);
    assert_eq!(
        app.calls(SimulatedApi::Customers),
        3,
        "who comes later joins the call"
    );
}

#[tokio::test]
async fn items_are_returned_unchanged() {
    let app = TestApp::start().await;
    let mut odd = listed(7, "Ö & \"Co\"");
    odd["somethingNew"] = json!({ "deep": [1, 2.50, null, true, "\u{1F600}"] });
    app.simulator
        .override_customer_list([odd.clone(), listed(8, "A first")]);

    let body = app.get(LIST).await.json();

    assert_eq!(body["items"], json!([listed(8, "A first"), odd]));
}

#[tokio::test]
async fn the_order_that_partner_center_chose_changes_nothing() {
    let app = TestApp::start().await;
    let two = [listed(1, "Contoso"), listed(2, "Adatum")];
    app.simulator.override_customer_list(two.clone());
    let first = app.get(LIST).await;
    app.simulator.override_customer_list(two.into_iter().rev());
    app.advance(STALE);

    let second = app.get(LIST).await;

    assert!(second.cache_status().contains("fwd=stale"));
    for name in ["etag", "last-modified"] {
        assert_eq!(second.header(name), first.header(name), "{name}");
    }
}

#[tokio::test]
async fn an_empty_list_is_data() {
    let app = TestApp::start().await;
    app.simulator.override_customer_list([]);

    let reply = app.get(LIST).await;
    let again = app.get(LIST).await;

    assert_eq!(reply.json()["totalCount"], 0);
    assert_eq!(reply.json()["items"], json!([]));
    assert_eq!(again.cache_status(), HIT);
}

#[tokio::test]
async fn conditions_codings_and_head_work_as_on_usage() {
    let app = TestApp::start().await;
    let whole = app.get(LIST).await;
    let page = app.get("/v1/customers?size=3").await;

    for (path, plain) in [(LIST, &whole), ("/v1/customers?size=3", &page)] {
        let gzip = app.get_with(path, &[("accept-encoding", "gzip")]).await;
        let head = app.call(Method::HEAD, path, &[]).await;
        let mut inflated = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(&gzip.body[..]);
        std::io::Read::read_to_end(&mut decoder, &mut inflated).unwrap();

        assert_eq!(gzip.header("content-encoding"), "gzip");
        assert_eq!(inflated, plain.body, "{path}");
        assert_ne!(gzip.header("etag"), plain.header("etag"));
        assert_eq!((head.status, head.body.len()), (200, 0));
        for (name, value) in [
            ("if-none-match", plain.header("etag")),
            ("if-modified-since", plain.header("last-modified")),
        ] {
            let reply = app.get_with(path, &[(name, value)]).await;
            assert_eq!((reply.status, reply.body.len()), (304, 0), "{path}: {name}");
            assert_eq!(reply.header("etag"), plain.header("etag"));
        }
        plain.assert_headers(&[
            (
                "cache-control",
                "private, max-age=900, stale-while-revalidate=3600",
            ),
            ("vary", "Accept, Accept-Encoding, MS-ContinuationToken"),
            ("age", "0"),
        ]);
    }
    assert_ne!(whole.header("etag"), page.header("etag"));
    let csv = app.get_with(LIST, &[("accept", "text/csv")]).await;
    csv.problem(406, "not-acceptable");
    let posted = app.call(Method::POST, LIST, &[]).await;
    posted.problem(405, "method-not-allowed");
    assert_eq!(posted.header("allow"), "GET, HEAD");
}

// === Pages ===

#[tokio::test]
async fn a_seek_query_repeats_the_token_alone() {
    let app = TestApp::start().await;
    let first = app.get("/v1/customers?size=7").await.json();
    let token = first["continuationToken"].as_str().unwrap();
    let page = async |query: &str| {
        let token = [("MS-ContinuationToken", token)];
        ids(&app
            .get_with(&format!("{LIST}?{query}"), &token)
            .await
            .json())
    };

    let second = page("seekOperation=Next").await;

    assert_eq!(second.len(), 7);
    assert!(second.iter().all(|id| !ids(&first).contains(id)));
    assert_eq!(page("size=9&seekOperation=Next").await.len(), 9);
    assert_eq!(page("size=0").await, second);
}

#[tokio::test]
async fn pages_have_few_sizes_so_that_callers_share_them() {
    let app = TestApp::start().await;

    for [requested, shown] in rows(
        "1     | 1
         19    | 19
         20    | 20
         49    | 20
         50    | 50
         99    | 50
         199   | 100
         499   | 200
         500   | 500
         10000 | 500",
    ) {
        let page = app.get(&format!("/v1/customers?size={requested}")).await;

        let uri = &page.json()["links"]["self"]["uri"];
        assert_eq!(*uri, format!("/customers?size={shown}"), "{requested}");
    }
}

#[tokio::test]
async fn no_size_or_zero_gives_the_largest_page() {
    let app = TestApp::start().await;

    let whole = app.get(LIST).await;

    for path in ["/v1/customers?size=0", "/v1/customers?"] {
        let reply = app.get(path).await;
        assert_eq!(reply.header("etag"), whole.header("etag"), "{path}");
    }
    let larger = app.get("/v1/customers?size=4294967295").await.json();
    assert_eq!(larger["items"], whole.json()["items"]);
    assert!(larger["links"].get("next").is_none());
}

#[tokio::test]
async fn a_wrong_page_is_refused_with_what_was_expected() {
    let app = TestApp::start().await;
    let first = app.get("/v1/customers?size=7").await.json();
    let token = first["continuationToken"].as_str().unwrap();
    app.simulator.clear_requests();

    for [query, tokens, kind, expected] in rows(
        r#"size=x             |         | page-size           | expected a whole number of customers
           size=-1            |         | page-size           | size is "-1"
           size=              |         | page-size           | 0 for all of them
           size=4294967296    |         | page-size           | expected a whole number
           size=1&size=2      |         | duplicate-parameter | size more than once
           Size=1             |         | unknown-parameter   | expected size, filter, seekOperation=Next
           filter=%7B%7D      |         | customer-filter     | filter is "{}"; expected JSON such as {"Field":"CompanyName"
           seekOperation=Last | its     | seek-operation      | expected Next
           seekOperation=Next |         | continuation-token  | MS-ContinuationToken
           size=2             | another | continuation-token  | expected the token of the page before
           size=2             | empty   | continuation-token  | expected the token
           size=2             | its its | continuation-token  | once"#,
    ) {
        let tokens = tokens.split_whitespace().map(|which| match which {
            "its" => token,
            "empty" => "",
            _ => "page-from-3",
        });
        let headers: Vec<_> = tokens
            .map(|token| ("ms-continuationtoken", token))
            .collect();

        let reply = app.get_with(&format!("{LIST}?{query}"), &headers).await;

        reply.problem_with(400, kind, &[expected]);
    }
    assert_eq!(app.calls(SimulatedApi::Customers), 0);
}

#[tokio::test]
async fn no_customer_is_skipped_when_the_list_is_fetched_again_between_pages() {
    let app = TestApp::start().await;
    let names = ["Adatum", "Contoso", "Fabrikam", "Litware"];
    let listed_at = |at: usize| listed(at as u128, names[at]);
    app.simulator
        .override_customer_list([0, 1, 2, 3].map(listed_at));
    let first = app.get("/v1/customers?size=2").await;
    // The one that the token names, and the one before it, have gone.
    app.simulator.override_customer_list([2, 3].map(listed_at));
    app.advance(STALE);

    let second = next_page(&app, &first).await;

    assert!(second.cache_status().contains("fwd-status=200"));
    assert_eq!(ids(&second.json()), [2, 3].map(Uuid::from_u128));
}

// === Whose list ===

#[tokio::test]
async fn a_caller_sees_its_own_customers_and_a_total_of_them() {
    let its = [customer(3), customer(1)];
    let app = TestApp::with_callers(&[
        TestCaller::named("portal").with_customers(&[its[0], its[1], Uuid::from_u128(9)]),
        TestCaller::named("grafana"),
        TestCaller::named("stranger").with_customers(&[Uuid::from_u128(9)]),
    ])
    .await;

    let whole = app.get_as("grafana", LIST).await.json();
    let own = app.get_as("portal", LIST).await.json();
    let none = app.get_as("stranger", LIST).await.json();

    assert_eq!(ids(&whole).len(), 26);
    assert_eq!(own["totalCount"], 2);
    assert_eq!(BTreeSet::from_iter(ids(&own)), BTreeSet::from(its));
    assert_eq!(none["totalCount"], 0);
    assert_eq!(none["items"], json!([]));
    assert_eq!(app.calls(SimulatedApi::Customers), 1);
}

#[tokio::test]
async fn a_validator_of_one_caller_does_not_match_for_another() {
    let app = TestApp::with_callers(&[
        TestCaller::named("portal").with_customers(&[customer(1)]),
        TestCaller::named("other").with_customers(&[customer(2)]),
        TestCaller::named("grafana"),
    ])
    .await;
    let callers = ["portal", "other", "grafana"];
    let mut etags = Vec::new();
    for caller in callers {
        let reply = app.get_as(caller, LIST).await;
        let vary = "Accept, Accept-Encoding, Authorization, X-Api-Key, MS-ContinuationToken";
        // Rights change too, so no date of the answer would do.
        reply.assert_headers(&[("last-modified", ""), ("vary", vary)]);
        etags.push(reply.header("etag").to_owned());
    }

    for (of, caller) in callers.into_iter().enumerate() {
        let key = key_of(caller);
        for (asker, etag) in etags.iter().enumerate() {
            let headers = [("x-api-key", &*key), ("if-none-match", &**etag)];
            let reply = app.get_with(LIST, &headers).await;
            let expected = if of == asker { 304 } else { 200 };
            assert_eq!(reply.status, expected, "{caller}: {etag}");
        }
        let since = ("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT");
        let reply = app.get_with(LIST, &[("x-api-key", &*key), since]).await;
        assert_eq!(reply.status, 200, "{caller}");
    }
}

#[tokio::test]
async fn a_continuation_token_of_another_caller_reveals_nothing() {
    let its: Vec<_> = (0..6).map(|index| customer(index * 2)).collect();
    let app = TestApp::with_callers(&[
        TestCaller::named("portal").with_customers(&its),
        TestCaller::named("grafana"),
    ])
    .await;
    let first = app.get_as("grafana", "/v1/customers?size=10").await.json();
    let token = first["continuationToken"].as_str().unwrap();
    let key = key_of("portal");
    let headers = [("x-api-key", &*key), ("ms-continuationtoken", token)];

    let rest = app
        .get_with("/v1/customers?seekOperation=Next", &headers)
        .await;

    assert_eq!(rest.json()["totalCount"], 6);
    let before = ids(&first);
    let expected = its.into_iter().filter(|id| !before.contains(id)).collect();
    assert_eq!(BTreeSet::from_iter(ids(&rest.json())), expected);
}

#[tokio::test]
async fn callers_that_may_read_nothing_get_no_list() {
    let app =
        TestApp::with_callers(&[TestCaller::named("refresher").with_scopes(&["cache:refresh"])])
            .await;

    let reply = app.get_as("refresher", LIST).await;

    reply.problem_with(403, "not-allowed", &["any customer"]);
    assert_eq!(reply.cache_status(), "detail=not-consulted");
    assert_eq!(app.calls(SimulatedApi::Customers), 0);
    assert_eq!(
        app.metric("usage_proxy_authorization_denied_total").await,
        1.0
    );
}

#[tokio::test]
async fn changed_rights_change_the_list_at_once() {
    let portal = || TestCaller::named("portal");
    let app = TestApp::with_callers(&[portal().with_customers(&[customer(1)])]).await;
    let narrow = app.get_as("portal", LIST).await;

    app.reload_callers(&[portal()]).await;
    let wide = app.get_as("portal", LIST).await;

    assert_eq!(narrow.json()["totalCount"], 1);
    assert_eq!(wide.json()["totalCount"], 26);
    assert_ne!(wide.header("etag"), narrow.header("etag"));
    assert_eq!(app.calls(SimulatedApi::Customers), 1);
}

// === Freshness and failures ===

#[tokio::test]
async fn cache_control_of_a_request_applies_to_the_list() {
    let app = TestApp::start().await;
    let only_if_cached = ("cache-control", "only-if-cached");
    let no_cache = ("cache-control", "no-cache");

    let absent = app.get_with(LIST, &[only_if_cached]).await;
    app.get(LIST).await;
    let too_soon = app.get_with(LIST, &[no_cache]).await;
    app.advance(Duration::from_secs(30));
    let fetched_again = app.get_with(LIST, &[no_cache]).await;

    absent.problem(504, "not-held");
    assert!(too_soon.cache_status().ends_with("min-refresh-interval"));
    assert!(fetched_again.cache_status().contains("fwd=request"));
    assert_eq!(app.calls(SimulatedApi::Customers), 2);
}

#[tokio::test]
async fn a_page_that_fails_does_not_replace_the_cached_list() {
    let app = TestApp::builder()
        .set("upstream.retries", "0")
        .simulator(|options| options.customers = 600)
        .start()
        .await;
    app.get(LIST).await;
    app.advance(STALE);
    // The first page comes, the second does not.
    app.simulator.hold_calls();
    let (reply, ()) = tokio::join!(app.get(LIST), async {
        app.simulator.clear_requests();
        app.wait_for_calls(SimulatedApi::Customers, 1).await;
        app.set_faults(bad_body(BodyFault::Truncated));
        app.simulator.release_calls();
    });

    assert_eq!(reply.json()["totalCount"], 601);
    assert!(reply.cache_status().ends_with("detail=stale-if-error"));
}

#[tokio::test]
async fn a_list_that_has_shrunk_to_nearly_nothing_is_suspect() {
    let app = TestApp::start().await;
    app.get(LIST).await;
    app.simulator.override_customer_list([listed(1, "Contoso")]);
    app.advance(STALE);

    let suspect = app.get(LIST).await;
    app.advance(Duration::from_secs(15 * 60));
    let confirmed = app.get(LIST).await;

    assert_eq!(suspect.json()["totalCount"], 26);
    assert!(suspect.cache_status().ends_with("detail=suspect"));
    assert_eq!(confirmed.json()["totalCount"], 1);
}

#[tokio::test]
async fn a_refusal_of_the_partners_own_call_is_about_no_customer() {
    let app = TestApp::start().await;
    for (status, code) in [(403, "20002"), (404, "1000")] {
        app.set_faults(refusing(status, code));

        let reply = app.get(LIST).await;

        let problem = reply.problem_with(502, "rejected", &["upstream.auth"]);
        assert_eq!(problem["upstream"]["code"], code);
        app.advance(Duration::from_secs(60));
    }
}

#[tokio::test]
async fn repeated_failures_of_the_customer_list_open_its_circuit() {
    let app = TestApp::without_retries().await;
    app.set_faults(Faults {
        api: FaultScope::Customers,
        ..failing(500)
    });
    for _ in 0..4 {
        app.get(LIST).await.problem(503, "unavailable");
        app.advance(Duration::from_secs(30));
    }
    let state = |state| format!("usage_proxy_circuit_state{{api=\"customers\",state=\"{state}\"}}");
    assert_eq!(app.metric(&state("closed")).await, 1.0);

    app.get(LIST).await.problem(503, "unavailable");

    assert_eq!(app.metric(&state("open")).await, 1.0);
    let usage = app.usage(customer(0)).await;
    assert_eq!(usage.status, 200, "other calls have a circuit of their own");
}

#[tokio::test]
async fn purging_everything_purges_the_list_and_purging_a_customer_does_not() {
    let app = TestApp::start().await;
    app.get(LIST).await;
    app.usage(customer(0)).await;

    let of_customer = app
        .admin_post(&format!("/cache/purge?customer={}&hard=true", customer(0)))
        .await;
    let cached = app.get(LIST).await;
    let of_all = app.admin_post("/cache/purge").await;
    let fetched_again = app.get(LIST).await;

    assert_eq!(of_customer.json()["purged"], 1);
    assert_eq!(cached.cache_status(), HIT);
    assert_eq!(of_all.json()["purged"], 1);
    assert!(fetched_again.cache_status().contains("fwd=stale"));
    let overview = app.admin_get("/cache").await.json();
    assert_eq!(
        (&overview["entries"], &overview["customers"]),
        (&json!(1), &json!(0))
    );
}
