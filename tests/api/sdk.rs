//! Microsoft's SDKs before this service, .NET 3.4 and Java 3.4: what they send, and what they make of
//! what comes back.
//!
//! The requests are those of `PartnerServiceProxy` and of Java's `PartnerServiceClient`, and what is
//! expected of answers is what `ResourceCollectionConverter`, the enumerators and
//! `DefaultPartnerServiceErrorHandler` read.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use usage_proxy::simulator::{
    BodyFault, Faults, NO_RELATIONSHIP_CUSTOMER, SimulatedApi, documented_body,
    documented_deployment_body,
};
use uuid::Uuid;

use crate::support::{DOCUMENTED, Reply, TestApp, TestCaller, callers_file, customer, key_of};

const REQUEST_ID: &str = "25b6edd5-1f53-456b-b48c-c64f60ec2dda";
const CORRELATION_ID: &str = "6492b9d6-5629-429b-934c-040b1946e760";
const OWN_TOKEN: &str = "Bearer canary-token-of-the-sdk";

/// What the SDK's message handler puts on every request.
fn headers(authorization: &str) -> Vec<(&str, &str)> {
    vec![
        ("Authorization", authorization),
        ("Accept", "application/json"),
        ("MS-RequestId", REQUEST_ID),
        ("MS-CorrelationId", CORRELATION_ID),
        ("X-Locale", "en-US"),
        ("MS-PartnerCenter-Client", "Partner Center .NET SDK"),
        ("MS-SdkVersion", "3.4.0.0"),
        ("MS-PartnerCenter-Application", "Contoso dashboard"),
    ]
}

/// `PartnerServiceProxy.GetAsync`.
async fn get(app: &TestApp, path: &str, more: &[(&str, &str)]) -> Reply {
    let headers: Vec<_> = headers(OWN_TOKEN)
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    app.get_with(path, &headers).await
}

/// The URI that .NET's SDK makes of a link: relative ones are put below the API's version.
fn dotnet_uri(link: &str) -> String {
    if link.starts_with("/v1") {
        link.to_owned()
    } else {
        format!("/v1/{}", link.trim_start_matches('/'))
    }
}

/// The URI that Java's SDK makes of a link (`PartnerServiceClient.buildUrl`).
fn java_uri(link: &str) -> String {
    format!("/v1/{link}")
}

/// The ids of all customers, page by page, as `IResourceCollectionEnumerator` goes through them;
/// and how many customers each page has.
async fn enumerate(app: &TestApp, first: &str, uri: fn(&str) -> String) -> Vec<Vec<Value>> {
    let mut page = get(app, first, &[]).await;
    let mut pages = Vec::new();
    loop {
        let (total, items) = collection(&page);
        pages.push(items.into_iter().map(|item| item["id"].clone()).collect());
        let links = page.json()["links"].clone();
        assert_eq!(links["self"]["method"], "GET");
        let Some(next) = links.get("next") else {
            assert_eq!(pages.iter().map(Vec::len).sum::<usize>() as u64, total);
            return pages;
        };
        let headers: Vec<_> = next["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|header| {
                (
                    header["key"].as_str().unwrap(),
                    header["value"].as_str().unwrap(),
                )
            })
            .collect();
        page = get(app, &uri(next["uri"].as_str().unwrap()), &headers).await;
    }
}

/// A query as it is sent, `Customers.Query(BuildIndexedQuery(2, 0, new SimpleFieldFilter(…)))`.
fn filtered(filter: &Value) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("size", "2");
    query.append_pair("filter", &filter.to_string());
    format!("/v1/customers?{}", query.finish())
}

/// What its model classes make of a collection.
fn collection(reply: &Reply) -> (u64, Vec<Value>) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = reply.text();
    let body: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap();
    assert_eq!(body["attributes"]["objectType"], "Collection");
    (
        body["totalCount"].as_u64().unwrap(),
        body["items"].as_array().unwrap().clone(),
    )
}

#[tokio::test]
async fn every_operation_of_ours_gets_the_collection_that_it_expects() {
    let app = TestApp::start().await;

    for (operation, path, kind, fields) in [
        (
            "Customers.ById(id).Analytics.Licenses.Usage.Get()",
            format!("/v1/customers/{DOCUMENTED}/analytics/licenses/usage"),
            "CustomerLicensesUsageInsights",
            &[
                "customerName",
                "productName",
                "workloadName",
                "licensesActive",
                "licensesQualified",
                "usagePercent",
            ][..],
        ),
        (
            "Customers.ById(id).Analytics.Licenses.Deployment.Get()",
            format!("/v1/customers/{DOCUMENTED}/analytics/licenses/deployment"),
            "CustomerLicensesDeploymentInsights",
            &[
                "customerName",
                "productName",
                "licensesDeployed",
                "licensesSold",
                "deploymentPercent",
            ],
        ),
        (
            "Analytics.Licenses.Usage.Get()",
            "/v1/analytics/licenses/usage".to_owned(),
            "PartnerLicensesUsageInsights",
            &["workloadName", "proratedLicensesUsagePercent"],
        ),
        (
            "Analytics.Licenses.Deployment.Get()",
            "/v1/analytics/licenses/deployment".to_owned(),
            "PartnerLicensesDeploymentInsights",
            &["licensesSold", "proratedDeploymentPercent"],
        ),
    ] {
        let (total, items) = collection(&get(&app, &path, &[]).await);

        assert_eq!(total, items.len() as u64, "{operation}");
        assert!(total > 0, "{operation}");
        for item in items {
            assert_eq!(item["attributes"]["objectType"], kind, "{operation}");
            for field in fields
                .iter()
                .chain(&["processedDateTime", "serviceName", "channel"])
            {
                assert!(item.get(field).is_some(), "{operation}: {field}");
            }
        }
    }
}

#[tokio::test]
async fn bodies_are_partner_centers_own() {
    let app = TestApp::start().await;

    for (rest, body) in [
        ("usage", documented_body()),
        ("deployment", documented_deployment_body()),
    ] {
        let path = format!("/v1/customers/{DOCUMENTED}/analytics/licenses/{rest}");
        assert_eq!(get(&app, &path, &[]).await.body, body, "{rest}");
    }
}

#[tokio::test]
async fn its_call_can_be_traced_and_its_token_goes_no_further() {
    let app = TestApp::start().await;

    let reply = get(&app, "/v1/customers", &[]).await;

    assert_eq!(reply.header("ms-correlationid"), CORRELATION_ID);
    let requests = app.simulator.requests().into_iter();
    let asked: Vec<_> = requests
        .filter(|request| request.api == SimulatedApi::Customers)
        .collect();
    assert_eq!(asked[0].header("ms-correlationid"), Some(CORRELATION_ID));
    let request_id = asked[0].header("ms-requestid").unwrap();
    assert_ne!(
        request_id, REQUEST_ID,
        "the call is not the caller's request"
    );
    assert_eq!(reply.header("ms-requestid"), request_id);
    assert_ne!(asked[0].header("authorization"), Some(OWN_TOKEN));
    assert_eq!(asked[0].header("ms-sdkversion"), None);
    assert_eq!(
        asked[0].header("ms-partnercenter-application"),
        Some("usage-proxy")
    );
}

#[tokio::test]
async fn customers_are_enumerated_page_by_page() {
    let app = TestApp::start().await;
    let (_, whole) = collection(&get(&app, "/v1/customers", &[]).await);
    let whole: Vec<_> = whole.iter().map(|item| item["id"].clone()).collect();

    // Customers.Query(QueryFactory.Instance.BuildIndexedQuery(10)), and the enumerator over it;
    // Java begins every query with an ampersand.
    let dotnet = enumerate(&app, "/v1/customers?size=10", dotnet_uri).await;
    let java = enumerate(&app, "/v1/customers?&size=10", java_uri).await;

    for pages in [dotnet, java] {
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 6]);
        assert_eq!(pages.concat(), whole);
    }
    assert_eq!(app.simulator.request_count(SimulatedApi::Customers), 1);
}

#[tokio::test]
async fn a_link_that_has_the_version_already_is_taken_for_what_it_means() {
    let app = TestApp::start().await;
    let whole = get(&app, "/v1/customers?size=10", &[]).await;

    for path in ["/v1//customers?size=10", "/v1/v1/customers?size=10"] {
        assert_eq!(get(&app, path, &[]).await.body, whole.body, "{path}");
    }
}

#[tokio::test]
async fn a_simple_filter_is_answered_from_the_cached_list_page_by_page() {
    let app = TestApp::start().await;
    let (_, whole) = collection(&get(&app, "/v1/customers", &[]).await);
    let profile = |item: &Value, member: &str| {
        let text = item["companyProfile"][member].as_str().unwrap();
        text.to_lowercase()
    };

    for (field, member, sdk) in [
        (
            "CompanyName",
            "companyName",
            dotnet_uri as fn(&str) -> String,
        ),
        ("Domain", "domain", java_uri),
    ] {
        // The beginning that most of them share, in another letter case.
        let begins = (b'a'..=b'z').map(|letter| char::from(letter).to_string());
        let of = |begin: &str| -> Vec<Value> {
            let found = whole
                .iter()
                .filter(|item| profile(item, member).starts_with(begin));
            found.map(|item| item["id"].clone()).collect()
        };
        let begin = begins
            .into_iter()
            .max_by_key(|begin| of(begin).len())
            .unwrap();
        let expected = of(&begin);
        assert!(
            (3..whole.len()).contains(&expected.len()),
            "{member}: {begin}"
        );
        let begin = begin.to_uppercase();
        let dotnet = json!({ "Field": field, "Value": begin, "Operator": "starts_with" });
        let java = json!({
            "fieldType": "STRING", "operator": "StartsWith", "field": field, "value": begin,
        });

        for filter in [dotnet, java] {
            let pages = enumerate(&app, &filtered(&filter), sdk).await;

            assert_eq!(pages.concat(), expected, "{filter}");
            assert!(pages.iter().all(|page| page.len() <= 2), "{filter}");
            // BuildSeekQuery(SeekOperation.Next, token: …) repeats neither size nor filter.
            let first = get(&app, &filtered(&filter), &[]).await.json();
            let token = first["continuationToken"].as_str().unwrap();
            let token = [("MS-ContinuationToken", token)];
            let sought = get(&app, "/v1/customers?seekOperation=Next", &token).await;
            let (_, sought) = collection(&sought);
            let sought: Vec<_> = sought.iter().map(|item| item["id"].clone()).collect();
            assert_eq!(sought, pages[1], "{filter}");
        }
    }
    assert_eq!(app.simulator.request_count(SimulatedApi::Customers), 1);
}

#[tokio::test]
async fn a_filter_shows_nobody_whom_its_caller_may_not_see() {
    let app = TestApp::builder()
        .callers(callers_file(&[
            TestCaller::named("portal").with_customers(&[customer(0)])
        ]))
        .start()
        .await;
    let key = format!("Bearer {}", key_of("portal"));
    let everybody = json!({ "Field": "CompanyName", "Value": "", "Operator": "starts_with" });

    let own = app.get_with(&filtered(&everybody), &headers(&key)).await;

    let (total, items) = collection(&own);
    assert_eq!((total, items.len()), (1, 1));
    assert_eq!(items[0]["id"], customer(0).to_string());
}

#[tokio::test]
async fn a_filter_that_is_not_supported_is_refused_with_those_that_are() {
    let app = TestApp::start().await;
    let reseller = json!({ "Field": "IndirectReseller", "Value": "a", "Operator": "starts_with" });

    let reply = get(&app, &filtered(&reseller), &[]).await;

    fault(&reply, 400, "BadInput");
    let problem = reply.problem(400, "customer-filter");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("CompanyName or Domain"), "{detail}");
}

#[tokio::test]
async fn customers_are_sought_by_the_token_of_the_collection() {
    let app = TestApp::start().await;
    let first = get(&app, "/v1/customers?size=10", &[]).await;
    let body = first.json();
    // SeekBasedResourceCollection.ContinuationToken
    let token = body["continuationToken"].as_str().unwrap();

    // BuildSeekQuery(SeekOperation.Next, token: …)
    let token = [("MS-ContinuationToken", token)];
    let second = get(&app, "/v1/customers?seekOperation=Next", &token).await;

    let (_, items) = collection(&second);
    assert_eq!(items.len(), 10);
    let (_, before) = collection(&first);
    assert!(items.iter().all(|item| !before.contains(item)));
}

#[tokio::test]
async fn a_query_without_a_size_gets_everybody() {
    let app = TestApp::start().await;

    // Customers.Get(), and Customers.Query(BuildSimpleQuery()) .
    for path in ["/v1/customers", "/v1/customers?size=0"] {
        let reply = get(&app, path, &[]).await;

        let (total, items) = collection(&reply);
        assert_eq!((total, items.len()), (26, 26), "{path}");
        assert!(reply.json()["links"].get("next").is_none());
    }
}

#[tokio::test]
async fn a_request_as_the_framework_writes_it_is_answered() {
    let app = TestApp::start().await;
    let lines: String = headers(OWN_TOKEN)
        .into_iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let request = format!(
        "GET /v1/customers?size=2 HTTP/1.1\r\n{lines}Host: {}\r\nExpect: 100-continue\r\n\
         Connection: close\r\n\r\n",
        app.api
    );

    let answer = app.raw(request.as_bytes()).await;

    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\"totalCount\":26"), "{answer}");
}

#[tokio::test]
async fn a_key_in_place_of_its_token_says_which_caller_it_is() {
    let app = TestApp::builder()
        .callers(callers_file(&[
            TestCaller::named("portal").with_customers(&[customer(0)])
        ]))
        .start()
        .await;
    let key = format!("Bearer {}", key_of("portal"));

    let own = app.get_with("/v1/customers", &headers(&key)).await;
    let unknown = app.get_with("/v1/customers", &headers(OWN_TOKEN)).await;

    assert_eq!(collection(&own).0, 1);
    fault(&unknown, 401, "Unauthorized");
    assert!(!unknown.text().contains("canary"));
}

// === Errors ===

/// What `DefaultPartnerServiceErrorHandler` makes of an error: its category goes by the status, and
/// `Retry-After` is lost, or worse, where the body looks like an `ApiFault`.
#[track_caller]
fn fault(reply: &Reply, status: u16, category: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    let of = match status {
        400 => "BadInput",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "InvalidOperation",
        406 => "UnsupportedDataFormat",
        429 => "TooManyRequests",
        503 => "ServerBusy",
        504 => "GatewayTimeout",
        _ => "ServerError",
    };
    assert_eq!(of, category);
    let body = reply.json();
    for (name, _) in body.as_object().unwrap() {
        // Newtonsoft's names are blind to case.
        let name = name.to_lowercase();
        assert!(
            !["code", "description", "data", "source"].contains(&&*name),
            "{body}"
        );
    }
    match reply.headers.get("retry-after") {
        Some(seconds) => {
            let seconds = seconds.to_str().unwrap();
            assert!(
                seconds.bytes().all(|byte| byte.is_ascii_digit()),
                "{seconds}"
            );
            assert!(seconds.parse::<u32>().unwrap() >= 1);
        }
        // It reads the header of a 429 without looking whether there is one.
        None => assert!(![429, 503].contains(&status), "{body}"),
    }
}

fn failing(status: StatusCode, code: &str) -> Faults {
    Faults {
        status: Some(status),
        code: Some(code.to_owned()),
        retry_after: Some("7".to_owned()),
        ..Faults::default()
    }
}

#[tokio::test]
async fn every_error_is_told_by_its_status_and_never_as_a_fault_of_partner_centers() {
    let app = TestApp::builder()
        .set("upstream.retries", "0")
        .start()
        .await;
    let unknown = Uuid::from_u128(1);
    let usage = |id: &dyn std::fmt::Display| format!("/v1/customers/{id}/analytics/licenses/usage");
    let deployment =
        |id: &dyn std::fmt::Display| format!("/v1/customers/{id}/analytics/licenses/deployment");

    for (path, faults, status, category) in [
        (usage(&"x"), Faults::default(), 400, "BadInput"),
        (
            "/v1/customers?size=x".to_owned(),
            Faults::default(),
            400,
            "BadInput",
        ),
        (
            "/v1/customers?filter=%7B%7D".to_owned(),
            Faults::default(),
            400,
            "BadInput",
        ),
        (
            "/v1/customers?seekOperation=Next".to_owned(),
            Faults::default(),
            400,
            "BadInput",
        ),
        (usage(&unknown), Faults::default(), 404, "NotFound"),
        (deployment(&unknown), Faults::default(), 404, "NotFound"),
        (
            usage(&NO_RELATIONSHIP_CUSTOMER),
            Faults::default(),
            403,
            "Forbidden",
        ),
        (
            "/v1/invoices".to_owned(),
            Faults::default(),
            404,
            "NotFound",
        ),
        (
            usage(&customer(0)),
            failing(StatusCode::TOO_MANY_REQUESTS, "429"),
            503,
            "ServerBusy",
        ),
        (
            "/v1/customers".to_owned(),
            failing(StatusCode::TOO_MANY_REQUESTS, "429"),
            503,
            "ServerBusy",
        ),
        (
            deployment(&customer(1)),
            failing(StatusCode::SERVICE_UNAVAILABLE, "503"),
            503,
            "ServerBusy",
        ),
        (
            "/v1/analytics/licenses/usage".to_owned(),
            failing(StatusCode::FORBIDDEN, "20002"),
            502,
            "ServerError",
        ),
        (
            usage(&customer(2)),
            Faults {
                body: Some(BodyFault::Truncated),
                ..Faults::default()
            },
            502,
            "ServerError",
        ),
        (
            "/v1/analytics/licenses/deployment".to_owned(),
            failing(StatusCode::UNAUTHORIZED, "900421"),
            502,
            "ServerError",
        ),
    ] {
        app.simulator.set_faults(faults);

        let reply = get(&app, &path, &[]).await;

        fault(&reply, status, category);
        app.simulator.set_faults(Faults::default());
        app.advance(Duration::from_secs(60));
    }
    let only_if_cached = [("Cache-Control", "only-if-cached")];
    let not_held = get(&app, &usage(&customer(9)), &only_if_cached).await;
    fault(&not_held, 504, "GatewayTimeout");
    let posted = app
        .call(http::Method::POST, "/v1/customers", &headers(OWN_TOKEN))
        .await;
    fault(&posted, 405, "InvalidOperation");
    let not_acceptable = app
        .get_with("/v1/customers", &[("Accept", "application/pdf")])
        .await;
    fault(&not_acceptable, 406, "UnsupportedDataFormat");
}

#[tokio::test]
async fn too_many_requests_say_when_to_come_back() {
    let app = TestApp::builder()
        .callers(callers_file(
            &[TestCaller::named("portal").with_rate("1/m")],
        ))
        .start()
        .await;
    let key = format!("Bearer {}", key_of("portal"));
    app.get_with("/v1/customers", &headers(&key)).await;

    let refused = app.get_with("/v1/customers", &headers(&key)).await;

    fault(&refused, 429, "TooManyRequests");
    assert_eq!(refused.header("retry-after"), "60");
}
