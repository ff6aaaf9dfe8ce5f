//! `GET /v1/customers`: cached whole, cut to its caller, and page by page as Partner Center does it.

use std::{collections::BTreeSet, time::Duration};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use usage_proxy::simulator::{BodyFault, FaultScope, Faults, RecordedRequest, SimulatedApi};
use uuid::Uuid;

use crate::support::{Reply, TestApp, TestCaller, callers_file, customer, key_of};

const LIST: &str = "/v1/customers";
const HIT: &str = "usage-proxy; hit; ttl=900";

/// As `cache.fresh_for` is by default.
const FRESH: Duration = Duration::from_secs(15 * 60);

/// Past `fresh_for + stale_while_revalidate`: the next request asks, and waits.
const STALE: Duration = Duration::from_secs(2 * 60 * 60);

fn ids(body: &Value) -> Vec<Uuid> {
    let items = body["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["id"].as_str().unwrap().parse().unwrap())
        .collect()
}

fn all(app: &TestApp) -> BTreeSet<Uuid> {
    app.simulator.customers().into_iter().collect()
}

fn asked(app: &TestApp) -> Vec<RecordedRequest> {
    let requests = app.simulator.requests().into_iter();
    requests
        .filter(|request| request.api == SimulatedApi::Customers)
        .collect()
}

fn listed(number: u128, name: &str) -> Value {
    let id = Uuid::from_u128(number).to_string();
    json!({ "id": id, "companyProfile": { "companyName": name, "domain": "example.com" } })
}

fn faults(faults: Faults) -> Faults {
    Faults {
        api: FaultScope::Customers,
        ..faults
    }
}

async fn with_callers(callers: &[TestCaller]) -> TestApp {
    TestApp::builder()
        .callers(callers_file(callers))
        .start()
        .await
}

/// The page that the SDK's enumerator asks for after this one.
async fn next_page(app: &TestApp, page: &Reply) -> Option<Reply> {
    let body = page.json();
    let next = body["links"].get("next")?;
    assert_eq!(next["method"], "GET");
    let header = &next["headers"][0];
    let header = (header["key"].as_str()?, header["value"].as_str()?);
    let path = format!("/v1{}", next["uri"].as_str()?);
    Some(app.get_with(&path, &[header]).await)
}

// === The whole ===

#[tokio::test]
async fn the_list_is_read_to_its_end_once_and_held() {
    let app = TestApp::builder()
        .simulator(|options| options.customers = 1_200)
        .start()
        .await;

    let first = app.get(LIST).await;
    let second = app.get(LIST).await;

    assert_eq!(first.status, 200);
    assert_eq!(
        first.header("content-type"),
        "application/json; charset=utf-8"
    );
    let body = first.json();
    assert_eq!(body["totalCount"], 1_201);
    assert_eq!(body["attributes"]["objectType"], "Collection");
    let ids = ids(&body);
    assert_eq!(ids.len(), 1_201);
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), all(&app));
    assert_eq!(second.header("cache-status"), HIT);
    assert_eq!(second.body, first.body);

    let pages = asked(&app);
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
    assert_eq!(
        first.header("ms-requestid"),
        pages[0].header("ms-requestid").unwrap()
    );
    assert_eq!(second.header("ms-requestid"), "", "it made no call");
}

#[tokio::test]
async fn a_list_that_takes_longer_than_anybody_waits_is_read_on_and_held() {
    // Less than `upstream.deadline` for each of the pages, and more for all of them.
    const PAGE: Duration = Duration::from_secs(15);

    let app = TestApp::builder()
        .set("upstream.attempt_timeout", "20s")
        .simulator(|options| options.customers = 1_200)
        .start()
        .await;
    app.simulator.set_faults(faults(Faults {
        latency: Duration::from_millis(300),
        ..Faults::default()
    }));

    let pages_take_long = async {
        for page in 1..=3 {
            app.upstream_asked(SimulatedApi::Customers, page).await;
            app.advance(PAGE);
        }
    };
    let (first, ()) = tokio::join!(app.get(LIST), pages_take_long);
    let later = app.get(LIST).await;

    let problem = first.problem(504, "timed-out");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("still being read"), "{detail}");
    assert_eq!(first.header("retry-after"), "5");
    assert_eq!(later.status, 200);
    assert_eq!(later.json()["totalCount"], 1_201);
    assert_eq!(asked(&app).len(), 3, "who comes later joins the call");
}

#[tokio::test]
async fn items_are_handed_out_as_they_came() {
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

    assert!(second.header("cache-status").contains("fwd=stale"));
    assert_eq!(second.header("etag"), first.header("etag"));
    assert_eq!(
        second.header("last-modified"),
        first.header("last-modified")
    );
}

#[tokio::test]
async fn an_empty_list_is_data() {
    let app = TestApp::start().await;
    app.simulator.override_customer_list([]);

    let reply = app.get(LIST).await;
    let again = app.get(LIST).await;

    assert_eq!(reply.json()["totalCount"], 0);
    assert_eq!(reply.json()["items"], json!([]));
    assert_eq!(again.header("cache-status"), HIT);
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
        assert_eq!(
            plain.header("cache-control"),
            "private, max-age=900, stale-while-revalidate=3600"
        );
        assert_eq!(
            plain.header("vary"),
            "Accept, Accept-Encoding, MS-ContinuationToken"
        );
        assert_eq!(plain.header("age"), "0");
    }
    assert_ne!(whole.header("etag"), page.header("etag"));
    app.get_with(LIST, &[("accept", "text/csv")])
        .await
        .problem(406, "not-acceptable");
    let posted = app.call(Method::POST, LIST, &[]).await;
    posted.problem(405, "method-not-allowed");
    assert_eq!(posted.header("allow"), "GET, HEAD");
}

// === Pages ===

#[tokio::test]
async fn an_enumerator_meets_every_customer_once() {
    let app = TestApp::start().await;
    let whole = ids(&app.get(LIST).await.json());

    let mut page = app.get("/v1/customers?size=7").await;
    let mut met = Vec::new();
    let mut sizes = Vec::new();
    loop {
        let body = page.json();
        assert_eq!(body["totalCount"], 26);
        sizes.push(ids(&body).len());
        met.extend(ids(&body));
        match next_page(&app, &page).await {
            Some(next) => page = next,
            None => break,
        }
    }

    assert_eq!(sizes, [7, 7, 7, 5]);
    assert_eq!(met, whole);
    assert_eq!(asked(&app).len(), 1, "pages come from what is held");
}

#[tokio::test]
async fn a_seek_query_repeats_the_token_alone() {
    let app = TestApp::start().await;
    let first = app.get("/v1/customers?size=7").await.json();
    let token = first["continuationToken"].as_str().unwrap();
    let token = ("MS-ContinuationToken", token);

    let second = app
        .get_with("/v1/customers?seekOperation=Next", &[token])
        .await
        .json();
    let larger = app
        .get_with("/v1/customers?size=9&seekOperation=Next", &[token])
        .await
        .json();
    let bare = app.get_with("/v1/customers?size=0", &[token]).await.json();

    assert_eq!(ids(&second).len(), 7);
    assert!(ids(&second).iter().all(|id| !ids(&first).contains(id)));
    assert_eq!(ids(&larger).len(), 9);
    assert_eq!(ids(&bare), ids(&second));
}

#[tokio::test]
async fn pages_have_few_sizes_so_that_callers_share_them() {
    let app = TestApp::start().await;

    for (asked, shown) in [
        (1, 1),
        (19, 19),
        (20, 20),
        (49, 20),
        (50, 50),
        (99, 50),
        (199, 100),
        (499, 200),
        (500, 500),
        (10_000, 500),
    ] {
        let page = app.get(&format!("/v1/customers?size={asked}")).await;

        let uri = &page.json()["links"]["self"]["uri"];
        assert_eq!(*uri, format!("/customers?size={shown}"), "{asked}");
    }
}

#[tokio::test]
async fn a_size_of_nothing_is_as_large_as_may_be() {
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
async fn what_is_no_page_is_refused_with_what_was_expected() {
    let app = TestApp::start().await;
    let first = app.get("/v1/customers?size=7").await.json();
    let token = first["continuationToken"].as_str().unwrap().to_owned();
    app.simulator.clear_requests();

    for (query, tokens, kind, expected) in [
        (
            "size=x",
            &[][..],
            "page-size",
            "expected a whole number of customers",
        ),
        ("size=-1", &[], "page-size", "size is \"-1\""),
        ("size=", &[], "page-size", "0 for all of them"),
        (
            "size=4294967296",
            &[],
            "page-size",
            "expected a whole number",
        ),
        (
            "size=1&size=2",
            &[],
            "duplicate-parameter",
            "size more than once",
        ),
        (
            "Size=1",
            &[],
            "unknown-parameter",
            "expected size, filter, seekOperation=Next",
        ),
        (
            "filter=%7B%7D",
            &[],
            "customer-filter",
            "filter is \"{}\"; expected JSON such as {\"Field\":\"CompanyName\"",
        ),
        (
            "seekOperation=Last",
            &[&*token],
            "seek-operation",
            "expected Next",
        ),
        (
            "seekOperation=Next",
            &[],
            "continuation-token",
            "MS-ContinuationToken",
        ),
        (
            "size=2",
            &["page-from-3"],
            "continuation-token",
            "expected the token of the page before",
        ),
        ("size=2", &[""], "continuation-token", "expected the token"),
        ("size=2", &[&*token, &*token], "continuation-token", "once"),
    ] {
        let headers: Vec<_> = tokens
            .iter()
            .map(|token| ("ms-continuationtoken", *token))
            .collect();

        let reply = app.get_with(&format!("{LIST}?{query}"), &headers).await;

        let problem = reply.problem(400, kind);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(expected), "{query}: {detail}");
    }
    assert!(asked(&app).is_empty());
}

#[tokio::test]
async fn nobody_is_skipped_though_the_list_is_read_anew_between_two_pages() {
    let app = TestApp::start().await;
    let names = ["Adatum", "Contoso", "Fabrikam", "Litware"];
    let listed_at = |at: usize| listed(at as u128, names[at]);
    app.simulator
        .override_customer_list([0, 1, 2, 3].map(listed_at));
    let first = app.get("/v1/customers?size=2").await;
    // The one that the token names, and the one before it, have gone.
    app.simulator.override_customer_list([2, 3].map(listed_at));
    app.advance(STALE);

    let second = next_page(&app, &first).await.unwrap();

    assert!(second.header("cache-status").contains("fwd-status=200"));
    assert_eq!(ids(&second.json()), [2, 3].map(Uuid::from_u128));
}

// === Whose list ===

#[tokio::test]
async fn a_caller_sees_its_own_customers_and_a_total_of_them() {
    let its = [customer(3), customer(1)];
    let app = with_callers(&[
        TestCaller::named("portal").with_customers(&[its[0], its[1], Uuid::from_u128(9)]),
        TestCaller::named("grafana"),
        TestCaller::named("stranger").with_customers(&[Uuid::from_u128(9)]),
    ])
    .await;

    let whole = app.get_as(&key_of("grafana"), LIST).await.json();
    let own = app.get_as(&key_of("portal"), LIST).await.json();
    let none = app.get_as(&key_of("stranger"), LIST).await.json();

    assert_eq!(ids(&whole).len(), 26);
    assert_eq!(own["totalCount"], 2);
    assert_eq!(
        ids(&own).into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from(its)
    );
    assert_eq!(
        (&none["totalCount"], &none["items"]),
        (&json!(0), &json!([]))
    );
    assert_eq!(asked(&app).len(), 1);
}

#[tokio::test]
async fn no_caller_is_told_that_it_has_what_another_was_shown() {
    let app = with_callers(&[
        TestCaller::named("portal").with_customers(&[customer(1)]),
        TestCaller::named("other").with_customers(&[customer(2)]),
        TestCaller::named("grafana"),
    ])
    .await;
    let callers = ["portal", "other", "grafana"];
    let mut etags = Vec::new();
    for caller in callers {
        let reply = app.get_as(&key_of(caller), LIST).await;
        assert_eq!(reply.header("last-modified"), "", "rights change too");
        assert_eq!(
            reply.header("vary"),
            "Accept, Accept-Encoding, Authorization, X-Api-Key, MS-ContinuationToken"
        );
        etags.push(reply.header("etag").to_owned());
    }

    for (of, caller) in callers.into_iter().enumerate() {
        let key = key_of(caller);
        for (asker, etag) in etags.iter().enumerate() {
            let headers = [("x-api-key", &*key), ("if-none-match", &**etag)];
            let status = app.get_with(LIST, &headers).await.status;
            assert_eq!(
                status,
                if of == asker { 304 } else { 200 },
                "{caller}: {etag}"
            );
        }
        let since = ("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT");
        let reply = app.get_with(LIST, &[("x-api-key", &*key), since]).await;
        assert_eq!(reply.status, 200, "{caller}");
    }
}

#[tokio::test]
async fn a_token_of_anothers_page_shows_nothing_of_it() {
    let its: Vec<_> = (0..6).map(|index| customer(index * 2)).collect();
    let app = with_callers(&[
        TestCaller::named("portal").with_customers(&its),
        TestCaller::named("grafana"),
    ])
    .await;
    let first = app
        .get_as(&key_of("grafana"), "/v1/customers?size=10")
        .await
        .json();
    let token = first["continuationToken"].as_str().unwrap();
    let key = key_of("portal");
    let headers = [("x-api-key", &*key), ("ms-continuationtoken", token)];

    let rest = app
        .get_with("/v1/customers?seekOperation=Next", &headers)
        .await
        .json();

    assert_eq!(rest["totalCount"], 6);
    let before = ids(&first);
    let expected = its.iter().filter(|id| !before.contains(id));
    assert_eq!(
        ids(&rest).into_iter().collect::<BTreeSet<_>>(),
        expected.copied().collect()
    );
}

#[tokio::test]
async fn who_may_read_nothing_has_no_list() {
    let app = with_callers(&[TestCaller::named("refresher").with_scopes(&["cache:refresh"])]).await;

    let reply = app.get_as(&key_of("refresher"), LIST).await;

    let problem = reply.problem(403, "not-allowed");
    assert!(problem["detail"].as_str().unwrap().contains("any customer"));
    assert_eq!(
        reply.header("cache-status"),
        "usage-proxy; detail=not-consulted"
    );
    assert!(asked(&app).is_empty());
    assert_eq!(
        app.metric("usage_proxy_authorization_denied_total").await,
        1.0
    );
}

#[tokio::test]
async fn rights_that_change_change_the_list_at_once() {
    let portal = || TestCaller::named("portal");
    let app = with_callers(&[portal().with_customers(&[customer(1)])]).await;
    let narrow = app.get_as(&key_of("portal"), LIST).await;
    app.write_callers(&callers_file(&[portal()]));
    app.reload.trigger();

    let mut wide = app.get_as(&key_of("portal"), LIST).await;
    while wide.header("etag") == narrow.header("etag") {
        tokio::task::yield_now().await;
        wide = app.get_as(&key_of("portal"), LIST).await;
    }

    assert_eq!(wide.json()["totalCount"], 26);
    assert_eq!(asked(&app).len(), 1);
}

// === Freshness and failures ===

#[tokio::test]
async fn it_ages_as_usage_does() {
    let app = TestApp::start().await;
    app.get(LIST).await;
    app.simulator.override_customer_list([
        listed(1, "Contoso"),
        listed(2, "Adatum"),
        listed(3, "Litware"),
    ]);

    app.advance(FRESH - Duration::from_secs(1));
    let fresh = app.get(LIST).await;
    app.advance(Duration::from_secs(1));
    let stale = app.get(LIST).await;
    app.upstream_asked(SimulatedApi::Customers, 2).await;
    app.wait_until_filled().await;
    let renewed = app.get(LIST).await;

    assert_eq!(fresh.header("cache-status"), "usage-proxy; hit; ttl=1");
    assert_eq!(fresh.header("age"), "899");
    assert_eq!(
        stale.header("cache-status"),
        "usage-proxy; hit; ttl=0; detail=stale-while-revalidate"
    );
    assert_eq!(stale.json()["totalCount"], 26);
    assert_eq!(renewed.json()["totalCount"], 3);
}

#[tokio::test]
async fn what_is_held_stands_in_for_a_failure() {
    let app = TestApp::builder()
        .set("upstream.retries", "0")
        .start()
        .await;
    app.get(LIST).await;
    app.simulator.set_faults(faults(Faults {
        status: Some(StatusCode::SERVICE_UNAVAILABLE),
        ..Faults::default()
    }));
    app.advance(STALE);

    let stale = app.get(LIST).await;
    app.admin_post("/cache/purge?hard=true").await;
    let failed = app.get(LIST).await;

    assert!(
        stale
            .header("cache-status")
            .ends_with("detail=stale-if-error")
    );
    assert_eq!(stale.status, 200);
    let problem = failed.problem(503, "unavailable");
    assert_eq!(problem["upstream"]["status"], 503);
    assert_eq!(failed.header("retry-after"), "1");
}

#[tokio::test]
async fn a_caller_says_what_may_be_asked() {
    let app = TestApp::start().await;
    let only_if_cached = ("cache-control", "only-if-cached");
    let no_cache = ("cache-control", "no-cache");

    app.get_with(LIST, &[only_if_cached])
        .await
        .problem(504, "not-held");
    app.get(LIST).await;
    let too_soon = app.get_with(LIST, &[no_cache]).await;
    app.advance(Duration::from_secs(30));
    let asked_again = app.get_with(LIST, &[no_cache]).await;

    assert!(
        too_soon
            .header("cache-status")
            .ends_with("detail=min-refresh-interval")
    );
    assert!(asked_again.header("cache-status").contains("fwd=request"));
    assert_eq!(asked(&app).len(), 2);
}

#[tokio::test]
async fn concurrent_misses_make_one_call() {
    let app = TestApp::start().await;
    app.simulator.hold_calls();

    let (first, second, ()) = tokio::join!(app.get(LIST), app.get("/v1/customers?size=3"), async {
        app.wait_for_metric("usage_proxy_collapsed_total", 1.0)
            .await;
        app.simulator.release_calls();
    });

    assert_eq!(asked(&app).len(), 1);
    assert_eq!(first.json()["totalCount"], 26);
    assert_eq!(ids(&second.json()).len(), 3);
}

#[tokio::test]
async fn a_page_that_fails_leaves_what_is_held_in_place() {
    let app = TestApp::builder()
        .set("upstream.retries", "0")
        .simulator(|options| options.customers = 600)
        .start()
        .await;

    for body in [
        BodyFault::Truncated,
        BodyFault::Html,
        BodyFault::Empty,
        BodyFault::Garbage,
        BodyFault::WrongTotal,
    ] {
        app.simulator.set_faults(faults(Faults {
            body: Some(body),
            ..Faults::default()
        }));
        app.get(LIST).await.problem(502, "malformed");
        app.advance(Duration::from_secs(60));
    }
    app.simulator.set_faults(Faults::default());
    app.get(LIST).await;
    app.advance(STALE);
    // The first page comes, the second does not.
    app.simulator.hold_calls();
    let (reply, ()) = tokio::join!(app.get(LIST), async {
        app.simulator.clear_requests();
        app.upstream_asked(SimulatedApi::Customers, 1).await;
        app.simulator.set_faults(faults(Faults {
            body: Some(BodyFault::Truncated),
            ..Faults::default()
        }));
        app.simulator.release_calls();
    });

    assert_eq!(reply.json()["totalCount"], 601);
    assert!(
        reply
            .header("cache-status")
            .ends_with("detail=stale-if-error")
    );
}

#[tokio::test]
async fn a_list_that_has_shrunk_to_nearly_nothing_is_doubted() {
    let app = TestApp::start().await;
    app.get(LIST).await;
    app.simulator.override_customer_list([listed(1, "Contoso")]);
    app.advance(STALE);

    let doubted = app.get(LIST).await;
    app.advance(FRESH);
    let conceded = app.get(LIST).await;

    assert_eq!(doubted.json()["totalCount"], 26);
    assert!(doubted.header("cache-status").ends_with("detail=suspect"));
    assert_eq!(conceded.json()["totalCount"], 1);
}

#[tokio::test]
async fn a_refusal_of_the_partners_own_call_is_about_no_customer() {
    let app = TestApp::start().await;
    for (status, code) in [
        (StatusCode::FORBIDDEN, "20002"),
        (StatusCode::NOT_FOUND, "1000"),
    ] {
        app.simulator.set_faults(faults(Faults {
            status: Some(status),
            code: Some(code.to_owned()),
            ..Faults::default()
        }));

        let problem = app.get(LIST).await.problem(502, "rejected");

        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains("upstream.auth")
        );
        assert_eq!(problem["upstream"]["code"], code);
        app.advance(Duration::from_secs(60));
    }
}

#[tokio::test]
async fn a_call_that_fails_again_and_again_is_left_alone_though_it_is_the_partners() {
    let app = TestApp::builder()
        .set("upstream.retries", "0")
        .start()
        .await;
    app.simulator.set_faults(faults(Faults {
        status: Some(StatusCode::INTERNAL_SERVER_ERROR),
        ..Faults::default()
    }));
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
    let held = app.get(LIST).await;
    let of_all = app.admin_post("/cache/purge").await;
    let asked_again = app.get(LIST).await;

    assert_eq!(of_customer.json()["purged"], 1);
    assert_eq!(held.header("cache-status"), HIT);
    assert_eq!(of_all.json()["purged"], 1);
    assert!(asked_again.header("cache-status").contains("fwd=stale"));
    let overview = app.admin_get("/cache").await.json();
    assert_eq!(
        (&overview["entries"], &overview["customers"]),
        (&json!(1), &json!(0))
    );
}
