//! The portfolio: the partner's own names of products.

use crate::support::prelude::*;

const SUCCESSFUL: &str = "usage_proxy_portfolio_last_reload_successful";
const PRODUCTS: &str = "usage_proxy_portfolio_products";

/// The product of Microsoft's own example that is sold most.
const EXCHANGE: &str = "EXCHANGE ONLINE (PLAN 1)";

/// A portfolio with one name.
fn naming(product: &str, name: &str) -> String {
    format!("[[product]]\nproduct = \"{product}\"\nname = \"{name}\"\n")
}

async fn app_naming(product: &str, name: &str) -> TestApp {
    let portfolio = naming(product, name);
    TestApp::builder().portfolio(&portfolio).start().await
}

/// The names of the portfolio in an answer, by product.
fn display_names(reply: &Reply) -> Vec<Value> {
    let json = reply.json();
    let products = json["products"].as_array().unwrap().iter();
    products
        .map(|product| product["displayName"].clone())
        .collect()
}

#[tokio::test]
async fn the_portfolio_names_products_in_every_form_but_the_native_one() {
    let app = app_naming("Exchange Online (Plan 1)", "Mail & more").await;
    let usage = usage_path(DOCUMENTED);

    let json = app.usage(DOCUMENTED).await;
    let csv = app.get_with(&usage, &[("accept", "text/csv")]).await.text();
    let table = app.get(&format!("{usage}/table.csv")).await.text();
    let chart = app.get(&format!("{usage}/chart.svg")).await.text();
    let page = app.get(&format!("/?customer={DOCUMENTED}")).await.text();
    let native = app.native(DOCUMENTED).await;

    assert_eq!(json.json()["products"][0]["productName"], EXCHANGE);
    let named = [json!("Mail & more"), Value::Null, Value::Null];
    assert_eq!(display_names(&json), named);
    for csv in [csv, table] {
        let mut lines = csv.lines();
        assert!(lines.next().unwrap().ends_with(",displayName"), "{csv}");
        assert!(lines.next().unwrap().ends_with(",0.0,0.0,Mail & more"));
        assert!(lines.next().unwrap().ends_with(",0.0,0.0,"), "{csv}");
    }
    assert!(chart.contains(">Mail &#38; more<title>"), "{chart}");
    let caption = format!("<caption>Mail &#38; more <span class=\"note\">{EXCHANGE}, o365, ");
    assert!(page.contains(&caption), "{page}");
    assert_eq!(native.body, documented_body());
}

#[tokio::test]
async fn a_named_answer_is_a_hit_like_any_other() {
    let app = app_naming(EXCHANGE, "Mail").await;

    let first = app.usage(DOCUMENTED).await;
    let second = app.usage(DOCUMENTED).await;
    app.advance(STALE);
    let refreshed = app.usage(DOCUMENTED).await;

    assert_eq!(first.cache_status(), STORED);
    assert_eq!(second.cache_status(), HIT);
    assert_eq!(refreshed.cache_status(), STORED_AGAIN);
    for later in [second, refreshed] {
        assert_eq!(later.body, first.body);
        for header in ["etag", "last-modified"] {
            assert_eq!(later.header(header), first.header(header));
        }
    }
}

#[tokio::test]
async fn a_reload_changes_the_answers_with_the_product_and_no_others() {
    let app = app_naming(EXCHANGE, "Mail").await;
    let other = customer(0);
    app.set_rows(
        other,
        [SimulatedRow::new(
            "E3",
            "Teams",
            8,
            app.simulator.newest_date(),
        )],
    );
    let (before, untouched) = (app.usage(DOCUMENTED).await, app.usage(other).await);
    let usage = usage_path(DOCUMENTED);
    let since = [("if-modified-since", before.header("last-modified"))];
    assert_eq!(app.get_with(&usage, &since).await.status, 304);

    app.reload_portfolio(&naming(EXCHANGE, "Post")).await;

    let renamed = app.get_with(&usage, &since).await;
    assert_eq!(renamed.status, 200);
    assert_eq!(display_names(&renamed)[0], "Post");
    assert_eq!(renamed.cache_status(), "hit; ttl=899");
    assert_ne!(renamed.header("etag"), before.header("etag"));
    let chart = app.get(&format!("{usage}/chart.svg")).await.text();
    assert!(chart.contains(">Post<title>"), "{chart}");
    let still = app.usage(other).await;
    for header in ["etag", "last-modified"] {
        assert_eq!(still.header(header), untouched.header(header));
    }

    let since = [("if-modified-since", renamed.header("last-modified"))];
    app.reload_portfolio(&naming("E3", "Office")).await;

    let nameless = app.get_with(&usage, &since).await;
    assert_eq!(nameless.status, 200);
    assert_eq!(display_names(&nameless)[0], Value::Null);
    assert_eq!(display_names(&app.usage(other).await), ["Office"]);
    assert_eq!(app.calls(SimulatedApi::Insights), 2);
}

#[tokio::test]
async fn an_invalid_portfolio_file_keeps_the_previous_portfolio() {
    let app = app_naming(EXCHANGE, "Mail").await;
    assert_eq!(app.metric(SUCCESSFUL).await, 1.0);

    app.write_portfolio("[[product]]\nname = \"of what?\"\n");
    app.wait_for_metric(SUCCESSFUL, 0.0).await;

    assert_eq!(display_names(&app.usage(DOCUMENTED).await)[0], "Mail");
    assert_eq!(app.metric(PRODUCTS).await, 1.0);

    app.reload_portfolio("[[product]]\nproduct = \"A\"\n[[product]]\nproduct = \"B\"\n")
        .await;

    assert_eq!(app.metric(SUCCESSFUL).await, 1.0);
    assert_eq!(app.metric(PRODUCTS).await, 2.0);
    assert_eq!(display_names(&app.usage(DOCUMENTED).await)[0], Value::Null);
}

#[tokio::test]
async fn an_excluded_product_stays_in_the_answers_for_one_customer() {
    let portfolio = format!("[[product]]\nproduct = \"{EXCHANGE}\"\nexclude = true\n");
    let app = TestApp::builder().portfolio(&portfolio).start().await;

    let reply = app.usage(DOCUMENTED).await;

    assert_eq!(reply.json()["products"][0]["productName"], EXCHANGE);
}
