//! Microsoft's SDKs as clients of this service: .NET 3.4 and Java 3.4.
//!
//! The requests are those of `PartnerServiceProxy` and of Java's `PartnerServiceClient`. The tests
//! read the answers as `ResourceCollectionConverter`, the enumerators and
//! `DefaultPartnerServiceErrorHandler` do.

use usage_proxy::simulator::documented_deployment_body;

use crate::support::prelude::*;

const REQUEST_ID: &str = "25b6edd5-1f53-456b-b48c-c64f60ec2dda";
const CORRELATION_ID: &str = "6492b9d6-5629-429b-934c-040b1946e760";
const OWN_TOKEN: &str = "Bearer canary-token-of-the-sdk";

/// The headers that the SDK's message handler sets on every request.
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

/// Returns the URI that .NET's SDK builds from a link. It puts relative links below the API's version.
fn dotnet_uri(link: &str) -> String {
    if link.starts_with("/v1") {
        link.to_owned()
    } else {
        format!("/v1/{}", link.trim_start_matches('/'))
    }
}

/// Returns the URI that Java's SDK builds from a link (`PartnerServiceClient.buildUrl`).
fn java_uri(link: &str) -> String {
    format!("/v1/{link}")
}

/// The ids of all customers, page by page, as `IResourceCollectionEnumerator` goes through them.
async fn enumerate(app: &TestApp, first: &str, uri: fn(&str) -> String) -> Vec<Vec<Value>> {
    let mut page = get(app, first, &[]).await;
    let mut pages = Vec::new();
    loop {
        let (total, items) = collection(&page);
        pages.push(ids(&items));
        let links = page.json()["links"].clone();
        assert_eq!(links["self"]["method"], "GET");
        let Some(next) = links.get("next") else {
            assert_eq!(pages.iter().map(Vec::len).sum::<usize>() as u64, total);
            return pages;
        };
        let headers = next["headers"].as_array().unwrap().iter();
        let headers: Vec<_> = headers
            .map(|header| {
                let text = |name| header[name].as_str().unwrap();
                (text("key"), text("value"))
            })
            .collect();
        page = get(app, &uri(next["uri"].as_str().unwrap()), &headers).await;
    }
}

fn ids(items: &[Value]) -> Vec<Value> {
    items.iter().map(|item| item["id"].clone()).collect()
}

/// A query as it is sent, `Customers.Query(BuildIndexedQuery(2, 0, new SimpleFieldFilter(…)))`.
fn filtered(filter: &Value) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("size", "2");
    query.append_pair("filter", &filter.to_string());
    format!("/v1/customers?{}", query.finish())
}

/// Returns the total count and the items that the SDK's model classes read from a collection.
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
async fn every_operation_gets_the_collection_that_it_expects() {
    let app = TestApp::start().await;

    // Customers.ById(id).Analytics.Licenses.Usage.Get() and the like.
    for [path, kind, fields] in rows(
        "customers/ID/analytics/licenses/usage      | CustomerLicensesUsageInsights      | customerName productName workloadName licensesActive licensesQualified usagePercent
         customers/ID/analytics/licenses/deployment | CustomerLicensesDeploymentInsights | customerName productName licensesDeployed licensesSold deploymentPercent
         analytics/licenses/usage                   | PartnerLicensesUsageInsights       | workloadName proratedLicensesUsagePercent
         analytics/licenses/deployment              | PartnerLicensesDeploymentInsights  | licensesSold proratedDeploymentPercent",
    ) {
        let path = format!("/v1/{}", path.replace("ID", DOCUMENTED));
        let (total, items) = collection(&get(&app, &path, &[]).await);

        assert_eq!(total, items.len() as u64, "{path}");
        assert!(total > 0, "{path}");
        for item in items {
            assert_eq!(item["attributes"]["objectType"], kind, "{path}");
            let common = ["processedDateTime", "serviceName", "channel"];
            for field in fields.split(' ').chain(common) {
                assert!(item.get(field).is_some(), "{path}: {field}");
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
async fn its_call_can_be_traced_and_its_token_is_not_passed_on() {
    let app = TestApp::start().await;

    let reply = get(&app, "/v1/customers", &[]).await;

    assert_eq!(reply.header("ms-correlationid"), CORRELATION_ID);
    let calls = app.calls_made(SimulatedApi::Customers);
    let sent = |name| calls[0].header(name);
    assert_eq!(sent("ms-correlationid"), Some(CORRELATION_ID));
    assert_eq!(sent("ms-requestid"), Some(reply.header("ms-requestid")));
    assert_ne!(
        sent("ms-requestid"),
        Some(REQUEST_ID),
        "the call is not the caller's request"
    );
    assert_ne!(sent("authorization"), Some(OWN_TOKEN));
    assert_eq!(sent("ms-sdkversion"), None);
    assert_eq!(sent("ms-partnercenter-application"), Some("usage-proxy"));
}

#[tokio::test]
async fn customers_are_enumerated_page_by_page() {
    let app = TestApp::start().await;
    let (_, whole) = collection(&get(&app, "/v1/customers", &[]).await);
    let whole = ids(&whole);

    // Customers.Query(QueryFactory.Instance.BuildIndexedQuery(10)), and the enumerator over it;
    // Java begins every query with an ampersand.
    let dotnet = enumerate(&app, "/v1/customers?size=10", dotnet_uri).await;
    let java = enumerate(&app, "/v1/customers?&size=10", java_uri).await;

    for pages in [dotnet, java] {
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 6]);
        assert_eq!(pages.concat(), whole);
    }
    assert_eq!(app.calls(SimulatedApi::Customers), 1);
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

    for (field, member, sdk) in [
        ("CompanyName", "companyName", dotnet_uri as fn(&_) -> _),
        ("Domain", "domain", java_uri),
    ] {
        let of = |begin: &str| -> Vec<Value> {
            let text = |item: &Value| {
                item["companyProfile"][member]
                    .as_str()
                    .unwrap()
                    .to_lowercase()
            };
            let found = whole.iter().filter(|item| text(item).starts_with(begin));
            found.map(|item| item["id"].clone()).collect()
        };
        // The beginning that most of them share, in another letter case.
        let begins = (b'a'..=b'z').map(|letter| char::from(letter).to_string());
        let begin = begins.max_by_key(|begin| of(begin).len()).unwrap();
        let expected = of(&begin);
        assert!((3..whole.len()).contains(&expected.len()), "{begin}");
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
            assert_eq!(ids(&collection(&sought).1), pages[1], "{filter}");
        }
    }
    assert_eq!(app.calls(SimulatedApi::Customers), 1);
}

#[tokio::test]
async fn a_filter_that_is_not_supported_is_refused_with_those_that_are() {
    let app = TestApp::start().await;
    let reseller = json!({ "Field": "IndirectReseller", "Value": "a", "Operator": "starts_with" });

    let reply = get(&app, &filtered(&reseller), &[]).await;

    reply.problem_with(400, "customer-filter", &["CompanyName or Domain"]);
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
async fn a_key_in_place_of_its_token_identifies_the_caller() {
    let portal = TestCaller::named("portal").with_customers(&[customer(0)]);
    let app = TestApp::with_callers(&[portal]).await;
    let key = format!("Bearer {}", key_of("portal"));
    let everybody = json!({ "Field": "CompanyName", "Value": "", "Operator": "starts_with" });

    for path in ["/v1/customers", &filtered(&everybody)] {
        let own = app.get_with(path, &headers(&key)).await;
        let unknown = app.get_with(path, &headers(OWN_TOKEN)).await;

        let (total, items) = collection(&own);
        assert_eq!(
            (total, ids(&items)),
            (1, vec![json!(customer(0).to_string())]),
            "{path}"
        );
        unknown.problem(401, "unauthenticated");
        assert!(!unknown.text().contains("canary"));
    }
}
