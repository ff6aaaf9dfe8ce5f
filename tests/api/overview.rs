//! The overview at `/`: totals, what is missing, and a row for each customer.

use usage_proxy::domain::UsagePercent;

use crate::{
    page::{assert_reads, href_of, html, page, rows_of, text_without_tags},
    support::prelude::*,
};

const HOUR: Duration = Duration::from_secs(60 * 60);

const REFRESHES: &str = r#"usage_proxy_fleet_refreshes_total{outcome="success"}"#;

fn commercial() -> Builder {
    TestApp::builder()
        .set("upstream.source", "commercial")
        .set("fleet.refresh", "true")
}

async fn refreshed(builder: Builder) -> TestApp {
    let app = builder.start().await;
    app.wait_for_metric(REFRESHES, 1.0).await;
    app
}

/// Formats a number as the page does.
fn grouped(number: &Value) -> String {
    let digits = number.as_u64().unwrap().to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups
        .map(|group| std::str::from_utf8(group).unwrap())
        .collect();
    groups.join(",")
}

/// Asserts that the page has the numbers of an answer of `/v1/usage`.
fn assert_totals(html: &str, answer: &Value) {
    let totals = &answer["totals"];
    let figures = [
        ("Unused licences", "licensesUnused"),
        ("Active", "licensesActive"),
        ("Qualified", "licensesQualified"),
    ];
    for (title, field) in figures {
        let number = grouped(&totals[field]);
        assert_reads(html, &[&format!("<dt>{title}</dt><dd>{number}</dd>")]);
    }
}

fn names(html: &str) -> Vec<String> {
    rows_of(html).map(|row| row.name).collect()
}

/// Returns a field of every row of `/v1/usage/customers`.
async fn api_names(app: &TestApp, query: &str) -> Vec<String> {
    let path = format!("/v1/usage/customers?limit=5000{query}");
    let answer = app.get(&path).await.json();
    let items = answer["items"].as_array().unwrap().iter();
    items
        .map(|item| item["customerName"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn the_totals_are_those_of_the_api() {
    let app = refreshed(commercial()).await;
    app.simulator.clear_requests();

    let html = page(&app, "/", 200).await;

    let answer = app.get("/v1/usage").await.json();
    assert_totals(&html, &answer);
    let total = |field: &str| answer["totals"][field].as_u64().unwrap();
    let percent = UsagePercent::new(total("licensesActive"), total("licensesQualified")).unwrap();
    assert_reads(&html, &[&format!("<dt>Adoption</dt><dd>{percent}%</dd>")]);
    assert_eq!(app.calls(SimulatedApi::Commercial), 0);
    assert_eq!(app.simulator.request_count(SimulatedApi::FleetPage), 0);
}

#[tokio::test]
async fn a_caller_sees_its_customers_in_every_number() {
    let own = [customer(0), customer(1), customer(2)];
    let callers = [
        TestCaller::named("all"),
        TestCaller::named("three").with_customers(&own),
        TestCaller::named("none").with_customers(&[Uuid::from_u128(1)]),
    ];
    let groups = format!(
        "[[group]]\nname = \"Mine\"\ncustomers = [\"{}\", \"{}\"]\n\
         [[group]]\nname = \"Theirs\"\ncustomers = [\"{}\"]\n",
        customer(0),
        customer(9),
        customer(9)
    );
    let app = refreshed(commercial().callers(&callers).portfolio(&groups)).await;
    let get = async |caller: &str, path: &str| {
        let key = basic("", &key_of(caller));
        app.get_with(path, &[("authorization", &key)]).await
    };

    let page = html(&get("three", "/").await, 200);

    assert_totals(&page, &get("three", "/v1/usage").await.json());
    assert_reads(&page, &["3 customers"]);
    assert_eq!(rows_of(&page).count(), 3);
    assert_reads(&page, &["<option value=\"Mine\">Mine</option>"]);
    assert!(!page.contains("Theirs"), "{page}");
    let mine = html(&get("three", "/?group=Mine").await, 200);
    assert_reads(&mine, &["<h1>Customers in Mine</h1>", "1 of 3 customers"]);
    let theirs = html(&get("three", "/?group=Theirs").await, 400);
    assert_reads(&theirs, &["<h1>Invalid query parameter</h1>", "Group is"]);
    assert_totals(
        &html(&get("all", "/").await, 200),
        &get("all", "/v1/usage").await.json(),
    );
    let none = html(&get("none", "/").await, 200);
    assert_reads(&none, &["<h1>No customers</h1>", "has no right to see any"]);
}

#[tokio::test]
async fn customers_are_sorted_filtered_and_searched_on_the_server() {
    let group = format!(
        "[[group]]\nname = \"Two & more\"\ncustomers = [\"{}\", \"{}\"]\n",
        customer(3),
        customer(4)
    );
    let app = refreshed(commercial().portfolio(&group)).await;

    for sort in [
        "unused", "-unused", "name", "-name", "percent", "date", "-date",
    ] {
        let html = page(&app, &format!("/?sort={sort}"), 200).await;

        let expected = api_names(&app, &format!("&sort={sort}")).await;
        assert_eq!(names(&html), expected, "{sort}");
    }
    let of_group = page(&app, "/?group=Two+%26+more&sort=name", 200).await;
    let expected = api_names(&app, "&group=Two+%26+more&sort=name").await;
    assert_eq!(names(&of_group), expected);
    assert_reads(
        &of_group,
        &[
            "<h1>Customers in Two &#38; more</h1>",
            "2 of 26 customers",
            "<option value=\"Two &#38; more\" selected>",
        ],
    );
    assert_totals(
        &of_group,
        &app.get("/v1/usage?group=Two+%26+more").await.json(),
    );
    let searched = page(&app, "/?customer=contoso&sort=-name", 200).await;
    let mut expected = api_names(&app, "&sort=-name").await;
    expected.retain(|name| name.contains("Contoso"));
    assert_eq!(names(&searched), expected);
    assert_reads(&searched, &["3 of 26 customers"]);
}

#[tokio::test]
async fn a_heading_sorts_and_a_form_keeps_the_order() {
    let group = format!(
        "[[group]]\nname = \"One\"\ncustomers = [\"{}\"]\n",
        customer(3)
    );
    let app = refreshed(commercial().portfolio(&group)).await;

    let first = page(&app, "/", 200).await;
    let sorted = page(&app, "/?customer=o&group=One&sort=name", 200).await;

    assert_reads(
        &first,
        &[
            "<th scope=\"col\" class=\"name\"><a href=\"/?sort=name\">Customer</a>",
            "<a href=\"/?sort=percent\">Adoption</a>",
            "aria-sort=\"descending\"><a href=\"/?sort=-unused\">Unused</a>",
        ],
    );
    let hidden = |name: &str, value: &str| {
        format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">")
    };
    assert_reads(
        &sorted,
        &[
            "role=\"search\"",
            &hidden("group", "One"),
            &hidden("sort", "name"),
            "</form>",
            "<form class=\"filter\"",
            &hidden("customer", "o"),
            &hidden("sort", "name"),
            "</form>",
            "aria-sort=\"ascending\"><a href=\"/?customer=o&#38;group=One&#38;sort=-name\">",
        ],
    );
    // A form sends its empty fields too.
    let sent = page(&app, "/?customer=&date=&group=&sort=", 200).await;
    assert_eq!(names(&sent), names(&first));
}

#[tokio::test]
async fn what_is_missing_is_said_with_names() {
    let app = commercial().start_without_waiting().await;
    app.simulator.delay_customers([customer(0), customer(1)]);
    app.set_rows(customer(2), []);
    app.wait_for_metric(REFRESHES, 1.0).await;
    app.simulator.advance_day();
    app.clock.advance_when_sleeping(HOUR).await;
    app.wait_for_metric(REFRESHES, 2.0).await;

    let html = page(&app, "/", 200).await;

    let newest = app.simulator.newest_date();
    let before = newest.yesterday().unwrap();
    let text = text_without_tags(&html);
    assert_reads(
        &text,
        &[
            "Checked just now , next check within 75 min. Microsoft’s newest count is of",
            "The totals are not complete.",
            "Data of 3 customers is older:",
            &format!("({before})"),
            "customers have no licences:",
        ],
    );
    assert!(!text.contains("No customer is missing"), "{text}");
    let late = rows_of(&html).find(|row| row.link.contains(&customer(0).to_string()));
    let late = late.unwrap().text;
    assert!(late.contains(&format!("counts of {before}")), "{late}");
}

#[tokio::test]
async fn a_refused_customer_is_named_with_the_reason() {
    let app = TestApp::start().await;
    let refused = app.get(&usage_path(NO_RELATIONSHIP_CUSTOMER)).await;
    assert_eq!(refused.status, 403);
    app.set_refusal(customer(0), 403, "2032");
    app.usage(customer(0)).await;

    let html = page(&app, "/", 200).await;

    let text = text_without_tags(&html);
    assert_reads(
        &text,
        &[
            "Partner Center returns no data for 1 customer:",
            "(no relationship)",
        ],
    );
}

#[tokio::test]
async fn without_a_refresh_the_page_says_which_customers_are_loaded() {
    let app = TestApp::start().await;
    let before = page(&app, "/", 200).await;
    app.usage(DOCUMENTED).await;

    let after = page(&app, "/", 200).await;

    assert_reads(
        &before,
        &[
            "0 of 26 customers are loaded</strong>",
            "because fleet.refresh is off.",
        ],
    );
    assert_reads(&after, &["1 of 26 customers are loaded</strong>"]);
    assert_totals(&after, &app.get("/v1/usage").await.json());
    let rows: Vec<_> = rows_of(&after).collect();
    assert_eq!(rows[0].name, "DT DEMO CSP CUSTOMER 005");
    assert!(rows[1].text.ends_with("no data yet – – –"), "{rows:?}");
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn unused_licences_have_a_cost_by_currency() {
    let portfolio = "[[product]]\nproduct = \"E3\"\nprice = 12.5\ncurrency = \"EUR\"\n\
                     [[product]]\nproduct = \"E5\"\nprice = 3\ncurrency = \"PLN\"\n\
                     [[product]]\nproduct = \"Trial\"\nexclude = true\n";
    let app = TestApp::builder().portfolio(portfolio).start().await;
    let row = |product| SimulatedRow {
        licenses_active: 0,
        ..SimulatedRow::new(product, "Exchange", 1_000, app.simulator.newest_date())
    };
    app.set_rows(customer(0), [row("E3"), row("E5"), row("F1"), row("Trial")]);
    app.usage(customer(0)).await;

    let html = page(&app, "/?sort=cost", 200).await;

    let text = text_without_tags(&html);
    assert_reads(
        &text,
        &[
            "1 product of a customer does not count: the portfolio file excludes it.",
            "Unused licences 3,000",
            "Unused licences cost a month EUR 12,500.00 for 1,000 with a known price",
            "and PLN 3,000.00",
            "Cost a month",
            "EUR 12,500.00 PLN 3,000.00",
        ],
    );
}

#[tokio::test]
async fn a_date_shows_all_customers_on_that_date() {
    let app = refreshed(commercial()).await;
    let date = app.simulator.newest_date().yesterday().unwrap();

    let html = page(&app, &format!("/?date={date}"), 200).await;

    let answer = app.get(&format!("/v1/usage?processedDate={date}")).await;
    assert_totals(&html, &answer.json());
    let first = rows_of(&html).next().unwrap();
    assert!(first.link.ends_with(&format!("&date={date}")), "{first:?}");
    assert_reads(&html, &[&format!("type=\"date\" value=\"{date}\"")]);
    page(&app, "/?date=2001-01-01", 404).await;
}

#[tokio::test]
async fn an_invalid_parameter_is_explained() {
    let app = TestApp::start().await;

    for (query, detail) in [
        (
            "sort=price",
            "Sort is &#34;price&#34;; expected one of name, unused",
        ),
        ("sort=Name", "Sort is &#34;Name&#34;"),
        ("sort=name&sort=name", "sort more than once"),
        (
            "group=North",
            "Group is &#34;North&#34;; expected the name of a group",
        ),
        (
            "cursor=1",
            "has &#34;cursor&#34;; expected customer=…, date=YYYY-MM-DD",
        ),
        ("limit=5", "has &#34;limit&#34;"),
    ] {
        let html = page(&app, &format!("/?{query}"), 400).await;

        assert_reads(
            &html,
            &[
                "name=\"customer\"",
                detail,
                "<a href=\"/\">All customers</a>",
            ],
        );
    }
}

#[tokio::test]
async fn without_a_store_the_page_says_how_to_get_trends() {
    let app = refreshed(commercial()).await;

    let html = page(&app, "/", 200).await;

    assert!(!html.contains("class=\"trend\""), "{html}");
    assert_reads(&html, &["set store.url"]);
}

#[tokio::test]
async fn a_row_has_a_line_of_its_last_dates() {
    let app = refreshed(commercial().with_own_store()).await;
    let first = page(&app, "/", 200).await;
    assert_reads(&first, &["A trend needs a second date."]);
    for refreshes in [2.0, 3.0] {
        app.simulator.advance_day();
        app.clock.advance_when_sleeping(HOUR).await;
        app.wait_for_metric(REFRESHES, refreshes).await;
    }
    wait_until("both dates are stored", async || {
        page(&app, "/", 200).await.contains("last 3 dates")
    })
    .await;
    app.simulator.clear_requests();

    let html = page(&app, "/", 200).await;

    assert_eq!(app.simulator.requests().len(), 0);
    let newest = app.simulator.newest_date();
    let unused = async |date: jiff::civil::Date| {
        let path = format!(
            "/v1/usage/customers?customer={}&processedDate={date}",
            customer(0)
        );
        let answer = app.get(&path).await.json();
        answer["items"][0]["licensesUnused"].as_i64().unwrap()
    };
    let since = newest.yesterday().unwrap().yesterday().unwrap();
    let change = unused(newest).await - unused(since).await;
    let change = match change {
        0 => "±0".to_owned(),
        change => format!("{change:+}").replace('-', "−"),
    };
    let row = rows_of(&html).find(|row| row.link.contains(&customer(0).to_string()));
    let row = row.unwrap().text;
    assert!(row.ends_with(&format!("{change} since {since}")), "{row}");
    assert!(html.matches("<path d=\"M").count() >= 20, "{html}");
}

#[tokio::test]
async fn a_page_of_a_thousand_customers_is_small() {
    let builder = commercial().simulator(|options| {
        options.customers = 1_000;
        options.page_size = 10_000;
    });
    let app = refreshed(builder).await;

    let html = page(&app, "/", 200).await;

    assert!(html.len() < 200_000, "{} bytes", html.len());
    assert_eq!(rows_of(&html).count(), 100);
    assert_totals(&html, &app.get("/v1/usage").await.json());
    let next = href_of(&html, "next").unwrap();
    assert_eq!(next, "/?page=2");
    assert_reads(
        &page(&app, &next, 200).await,
        &["1,001 customers, 101 to 200 shown"],
    );
}
