//! The page at `/`: what people see, and what their browsers are told.

use std::time::Duration;

use http::{Method, StatusCode};
use jiff::civil::Date;
use serde_json::{Value, json};
use usage_proxy::simulator::{
    FaultScope, Faults, NO_RELATIONSHIP_CUSTOMER, Override, SimulatedApi, SimulatedRow,
};

use crate::support::{
    DOCUMENTED, Reply, TestApp, TestCaller, basic, callers_file, customer, key_of, seats,
};

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Past freshness and the revalidation window.
const STALE: Duration = Duration::from_secs(2 * 60 * 60);

fn listed(number: usize, name: &str) -> Value {
    json!({
        "id": customer(number).to_string(),
        "companyProfile": { "companyName": name, "domain": format!("{number}.example") },
    })
}

fn page_of(customer: impl std::fmt::Display) -> String {
    format!("/?customer={customer}")
}

/// A page of this status, looked through for what no page of ours may have.
fn html(reply: &Reply, status: u16) -> String {
    let html = reply.text();
    assert_eq!(reply.status, status, "{html}");
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("content-security-policy", POLICY),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        assert_eq!(reply.header(name), value, "{name}");
    }
    // The policy would stop these; a page that needs none of them is not broken by it.
    for inline in [" style=", "<style", " onclick=", "javascript:", "<script>"] {
        assert!(!html.contains(inline), "{inline} in {html}");
    }
    let id = format!("Request <code>{}</code>", reply.header("x-request-id"));
    assert!(html.contains(&id), "{id} in {html}");
    html
}

/// That these stand in a page, one after the other.
fn assert_reads(html: &str, texts: &[&str]) {
    let mut rest = html;
    for text in texts {
        let (_, after) = rest
            .split_once(text)
            .unwrap_or_else(|| panic!("no {text:?} after those before it in {html}"));
        rest = after;
    }
}

#[tokio::test]
async fn whoever_names_nobody_chooses_among_all_customers() {
    let app = TestApp::start().await;

    let html = html(&app.get("/").await, 200);

    let link = format!("<a href=\"/?customer={DOCUMENTED}\">DT DEMO CSP CUSTOMER 005</a>");
    assert_reads(
        &html,
        &["<h1>Choose a customer</h1>", "26 customers", &link],
    );
    assert_eq!(html.matches("<li><a href=\"/?customer=").count(), 26);
    assert_eq!(app.simulator.count(SimulatedApi::Insights), 0);
}

#[tokio::test]
async fn a_customer_without_a_name_hides_no_others() {
    let app = TestApp::start().await;
    app.simulator
        .replace_customers([listed(1, "Contoso"), listed(2, ""), listed(3, "Fabrikam")]);

    let html = html(&app.get("/").await, 200);

    let nameless = format!("\">{}</a>", customer(2));
    assert_reads(&html, &["3 customers", &nameless, "Contoso", "Fabrikam"]);
}

#[tokio::test]
async fn a_customer_is_shown_as_bars_with_counts_beside_them() {
    let app = TestApp::start().await;
    let mut row = SimulatedRow::new("E3", "Exchange", 8, app.simulator.newest_date());
    row.licenses_active = 3;
    let mut none = row.clone();
    (
        none.workload_name,
        none.licenses_active,
        none.licenses_qualified,
    ) = ("Teams".into(), 0, 0);
    app.simulator
        .replace(customer(0), Override::Rows(vec![row, none]));

    let html = html(&app.get(&page_of(customer(0))).await, 200);

    assert_reads(
        &html,
        &[
            "<h1>Overridden customer</h1>",
            "Counted by Microsoft on 2026-11-19, 3 days ago: the newest there is.",
            "<strong>Fresh.</strong> Partner Center said so just now.",
            "<caption>All products",
            "<th scope=\"row\">Exchange</th>",
            "<rect class=\"part\" width=\"37.5\" height=\"10\"/>",
            "37.5%",
            "3 of 8",
            "<caption>E3 <span class=\"note\">o365, 8 licences</span></caption>",
            "<th scope=\"row\">Teams</th>",
            "no licences qualified",
        ],
    );
    assert!(!html.contains(">0%<"), "of nothing there is no share");
}

#[tokio::test]
async fn a_view_says_how_a_program_gets_exactly_it() {
    let app = TestApp::start().await;
    let date = app.simulator.newest_date().yesterday().unwrap();
    let id = customer(0);

    for (query, dated) in [
        (String::new(), String::new()),
        (format!("&date={date}"), format!("?processedDate={date}")),
    ] {
        let html = html(&app.get(&format!("{}{query}", page_of(id))).await, 200);

        let usage = format!("/v1/customers/{id}/usage");
        for path in [
            format!("{usage}/table.csv{dated}"),
            format!("{usage}/chart.svg{dated}"),
            format!("{usage}{dated}"),
        ] {
            assert!(
                html.contains(&format!("<a href=\"{path}\"")),
                "{path} in {html}"
            );
            assert_eq!(app.get(&path).await.status, 200, "{path}");
        }
        let line = format!(
            "curl -s '<span data-origin>http://{}</span>{usage}{dated}'",
            app.api
        );
        assert!(html.contains(&line), "{line} in {html}");
    }
}

#[tokio::test]
async fn a_date_is_chosen_and_left_again() {
    let app = TestApp::start().await;
    let newest = app.simulator.newest_date();
    let [id, before] = [
        customer(0).to_string(),
        newest.yesterday().unwrap().to_string(),
    ];

    let first = html(&app.get(&page_of(&id)).await, 200);
    let dated = html(
        &app.get(&format!("/?customer={id}&date={before}")).await,
        200,
    );

    let earlier =
        format!("<a href=\"/?customer={id}&#38;date={before}\" rel=\"prev\">Earlier: {before}</a>");
    assert!(first.contains(&earlier), "{earlier} in {first}");
    assert!(
        !first.contains("rel=\"next\""),
        "nothing is later than the newest"
    );
    assert_reads(
        &dated,
        &[
            &format!("type=\"date\" value=\"{before}\" max=\"2026-11-22\""),
            &format!("Counted by Microsoft on {before}, 4 days ago."),
            &format!("rel=\"next\">Later: {newest}</a>"),
            &format!("<a href=\"/?customer={id}\">Newest</a>"),
        ],
    );
}

#[tokio::test]
async fn a_customer_is_found_by_what_people_call_it() {
    let app = TestApp::start().await;
    let documented = "<h1>DT DEMO CSP CUSTOMER 005</h1>";

    for (typed, texts) in [
        (DOCUMENTED.to_uppercase(), &[documented][..]),
        ("DT+DEMO+CSP+CUSTOMER+005".into(), &[documented]),
        ("+demo+csp+".into(), &[documented]),
        (
            "contoso".into(),
            &[
                "<h1>Customers like “contoso”</h1>",
                "3 of 26 customers",
                "Contoso Inc. 0007",
                "Contoso S.A. 0019",
            ],
        ),
    ] {
        let html = html(&app.get(&page_of(&typed)).await, 200);

        assert_reads(&html, texts);
    }
    let html = html(&app.get(&page_of("DEMO")).await, 200);
    assert!(
        html.contains("value=\"DT DEMO CSP CUSTOMER 005\""),
        "the field has the name"
    );
}

#[tokio::test]
async fn what_goes_wrong_is_said_in_words_with_the_status_of_the_api() {
    let app = TestApp::start().await;
    let nil = uuid::Uuid::nil();

    for (path, status, title) in [
        (page_of(nil), 404, "Unknown customer"),
        (page_of("Nobody+Ltd"), 404, "Unknown customer"),
        (
            page_of(NO_RELATIONSHIP_CUSTOMER),
            403,
            "No relationship with this customer",
        ),
        (
            format!("{}&date=2001-01-01", page_of(customer(0))),
            404,
            "Nothing was processed on that date",
        ),
        (
            format!("{}&date=2026-11-23", page_of(customer(0))),
            400,
            "Not a processed date",
        ),
        ("/?date=yesterday".into(), 400, "Not a processed date"),
        ("/?customers=1".into(), 400, "Unknown query parameter"),
        ("/?date=&date=".into(), 400, "Parameter given twice"),
    ] {
        let html = html(&app.get(&path).await, status);

        assert_reads(
            &html,
            &[
                "name=\"customer\"",
                &format!("<h1>{title}</h1>"),
                "<h2>What you can do</h2>",
                "<a href=\"/\">All customers</a>",
            ],
        );
    }
    let posted = app.call(Method::POST, "/", &[]).await;
    assert_eq!(posted.header("allow"), "GET, HEAD");
    assert_reads(&html(&posted, 405), &["<h1>Method not allowed</h1>"]);
}

#[tokio::test]
async fn while_partner_center_is_down_the_page_says_when_to_come_back() {
    let app = TestApp::start().await;
    app.simulator.set_faults(Faults {
        status: Some(StatusCode::TOO_MANY_REQUESTS),
        retry_after: Some("300".into()),
        ..Faults::default()
    });

    let reply = app.get(&page_of(customer(0))).await;

    assert_eq!(reply.header("retry-after"), "300");
    assert_reads(
        &html(&reply, 503),
        &[
            "<h1>Partner Center throttles</h1>",
            "Asking again may help after 5 minutes.",
        ],
    );
}

#[tokio::test]
async fn how_old_it_is_and_why_is_told_in_words() {
    let app = TestApp::start().await;
    let page = page_of(customer(0));
    let date = app.simulator.newest_date();
    app.simulator.replace(customer(0), seats(5, date));
    app.usage(customer(0)).await;
    app.get("/").await;

    app.advance(Duration::from_secs(300));
    let fresh = html(&app.get(&page).await, 200);
    app.advance(Duration::from_secs(900));
    let renewed = html(&app.get(&page).await, 200);
    app.wait_until_filled().await;
    app.simulator.set_faults(Faults {
        status: Some(StatusCode::BAD_REQUEST),
        ..Faults::default()
    });
    app.advance(STALE);
    let old = html(&app.get(&page).await, 200);
    app.simulator.set_faults(Faults::default());
    app.simulator
        .replace(customer(0), Override::Rows(Vec::new()));
    app.advance(STALE);
    let kept = html(&app.get(&page).await, 200);

    for (html, label, text) in [
        (
            fresh,
            "Fresh.",
            "Partner Center said so 5 minutes ago. It is asked again in 10 minutes at the earliest.",
        ),
        (
            renewed,
            "Being renewed.",
            "These are what Partner Center said 20 minutes ago. It is being asked for newer ones",
        ),
        (
            kept,
            "Kept.",
            "is not believed yet. These are what it said 4 hours ago.",
        ),
        (
            old,
            "Old.",
            "Partner Center was asked for newer numbers and answered with an error. These are what it \
             said 2 hours ago.",
        ),
    ] {
        assert_reads(&html, &[&format!("<strong>{label}</strong>"), text]);
    }
}

#[tokio::test]
async fn a_name_is_never_more_than_text() {
    let app = TestApp::start().await;
    let name = "</title><script>alert(1)</script>\u{202e}\"'&<img src=x onerror=alert(1)>";
    let mut row = SimulatedRow::new(name, name, 8, app.simulator.newest_date());
    row.customer_name = name.into();
    app.simulator
        .replace(customer(0), Override::Rows(vec![row]));
    let typed = "%22%3E%3Cscript%3Ealert(1)%3C/script%3E";

    for (path, status) in [
        (page_of(customer(0)), 200),
        (page_of(typed), 404),
        (format!("/?{typed}=1"), 400),
    ] {
        let html = html(&app.get(&path).await, status);

        for broken_out in ["<script>", "<img src=x", "alert(1)\"", "\u{202e}"] {
            assert!(!html.contains(broken_out), "{broken_out} in {html}");
        }
        assert!(html.contains("&#60;script&#62;"), "{html}");
    }
}

#[tokio::test]
async fn the_host_that_was_asked_for_stays_within_its_line() {
    let app = TestApp::start().await;
    let path = page_of(DOCUMENTED);

    for (host, line) in [
        (
            "usage.example:8443",
            "<span data-origin>http://usage.example:8443</span>",
        ),
        ("a'b", "<span data-origin></span>"),
    ] {
        let html = html(&app.get_with(&path, &[("host", host)]).await, 200);

        assert!(html.contains(line), "{line} in {html}");
    }
}

#[tokio::test]
async fn nobody_sees_anything_before_the_browser_has_asked_who_it_is() {
    let app = limited().await;

    let nobody = app.get(&page_of(DOCUMENTED)).await;
    let wrong = app
        .get_with("/", &[("authorization", &basic("", "wrong"))])
        .await;

    for reply in [nobody, wrong] {
        let html = html(&reply, 401);

        assert_reads(
            &html,
            &["<h1>Unauthenticated</h1>", "The password is your key"],
        );
        assert!(!html.contains("<form"), "there is nothing to choose yet");
        let challenges = reply.headers.get_all("www-authenticate").iter();
        let basic = "Basic realm=\"usage-proxy\", charset=\"UTF-8\"";
        assert_eq!(
            challenges.filter(|challenge| *challenge == basic).count(),
            1
        );
    }
    for file in ["page.css", "page.js", "icon.svg"] {
        let reply = app.get(&format!("/assets/{file}")).await;
        assert_eq!(reply.status, 200, "{file} has no secrets");
    }
    assert_eq!(app.get("/assets/page.html").await.status, 401);
}

#[tokio::test]
async fn a_caller_sees_its_own_customers_and_no_others() {
    let app = limited().await;
    let key = basic("anybody", &key_of("wiki"));
    let asked = [("authorization", &*key)];

    let all = html(&app.get_with("/", &asked).await, 200);
    let own = html(&app.get_with(&page_of(DOCUMENTED), &asked).await, 200);
    let other = html(&app.get_with(&page_of(customer(7)), &asked).await, 403);
    let searched = html(&app.get_with(&page_of("contoso"), &asked).await, 404);

    assert_reads(&all, &["1 customer", "DT DEMO CSP CUSTOMER 005"]);
    assert_eq!(all.matches("<li><a href=").count(), 1);
    assert_reads(
        &own,
        &["<h1>DT DEMO CSP CUSTOMER 005</h1>", "$USAGE_PROXY_KEY"],
    );
    assert_reads(&other, &["<h1>Not allowed</h1>"]);
    for html in [all, own, other, searched] {
        assert!(!html.contains("Contoso"), "{html}");
    }
}

#[tokio::test]
async fn a_caller_that_comes_too_often_is_told_so_in_words() {
    let caller = TestCaller::named("wiki").with_rate("1/h");
    let app = TestApp::builder()
        .callers(callers_file(&[caller]))
        .start()
        .await;
    let key = basic("", &key_of("wiki"));
    app.get_with("/", &[("authorization", &key)]).await;

    let reply = app.get_with("/", &[("authorization", &key)]).await;

    assert_reads(
        &html(&reply, 429),
        &["<h1>Too many requests</h1>", "after 1 hour"],
    );
    assert_eq!(reply.header("retry-after"), "3600");
}

#[tokio::test]
async fn thousands_of_customers_do_not_make_a_slow_page() {
    let app = TestApp::builder()
        .simulator(|options| options.customers = 5_000)
        .start()
        .await;

    let all = html(&app.get("/").await, 200);
    let one = html(&app.get(&page_of(customer(4_999))).await, 200);

    assert_reads(&all, &["5,001 customers", "These are the first of them."]);
    assert!(all.len() < 64 * 1024, "{} bytes", all.len());
    assert!(one.len() < 32 * 1024, "{} bytes", one.len());
    assert!(
        !all.contains("data-complete"),
        "a script would hide what is only not shown"
    );
}

#[tokio::test]
async fn what_is_held_is_shown_also_where_the_list_of_customers_cannot_be_had() {
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;
    app.simulator.set_faults(Faults {
        api: FaultScope::Customers,
        status: Some(StatusCode::BAD_REQUEST),
        ..Faults::default()
    });

    let html = html(&app.get(&page_of(DOCUMENTED)).await, 200);

    assert_reads(
        &html,
        &[
            &format!("value=\"{DOCUMENTED}\""),
            "<h1>DT DEMO CSP CUSTOMER 005</h1>",
            "The list of customers cannot be had right now.",
        ],
    );
}

#[tokio::test]
async fn usage_that_is_held_waits_for_no_list_of_customers() {
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;
    app.simulator.hold();

    let page = page_of(DOCUMENTED);
    let early = tokio::time::timeout(Duration::from_secs(20), app.get(&page)).await;
    app.upstream_asked(SimulatedApi::Customers, 1).await;
    app.simulator.release();
    app.wait_until_filled().await;
    let later = html(&app.get(&page).await, 200);

    let early = html(&early.expect("it does not wait"), 200);
    assert!(early.contains("The list of customers cannot be had right now."));
    assert!(!early.contains("<datalist"));
    assert_reads(&later, &["value=\"DT DEMO CSP CUSTOMER 005\"", "<datalist"]);
    assert_eq!(app.simulator.count(SimulatedApi::Customers), 1);
}

#[tokio::test]
async fn names_turn_nothing_around_wherever_they_stand() {
    let app = TestApp::start().await;
    let mut turned = listed(1, "Con\u{202e}toso");
    turned["companyProfile"]["domain"] = json!("\u{202e}moc.example");
    app.simulator
        .replace_customers([turned, listed(2, "Contoso Ltd")]);

    let all = html(&app.get("/").await, 200);
    let found = html(&app.get(&page_of("CON%E2%80%ACTOSO")).await, 200);
    let typed = html(&app.get(&page_of("con%E2%80%AEt")).await, 200);

    assert_reads(&all, &["<option value=\"Contoso\">", ">moc.example<"]);
    assert_reads(&found, &["id=\"customer\"", "value=\"Contoso\""]);
    assert_reads(&typed, &["value=\"cont\"", "2 of 2 customers"]);
    for html in [all, found, typed] {
        assert!(!html.contains(['\u{202c}', '\u{202e}']), "{html}");
    }
}

#[tokio::test]
async fn a_customer_without_data_is_called_what_the_list_calls_it() {
    let app = TestApp::start().await;
    app.simulator.replace_customers([listed(1, "Contoso")]);
    app.simulator
        .replace(customer(1), Override::Rows(Vec::new()));
    app.get("/").await;

    let html = html(&app.get(&page_of(customer(1))).await, 200);

    assert_reads(&html, &["<title>Contoso, ", "<h1>Contoso</h1>"]);
}

#[tokio::test]
async fn no_link_leads_beyond_the_newest_date_that_is_known() {
    let app = TestApp::start().await;
    let newest = app.simulator.newest_date();
    let page = format!("/?customer={}&date={newest}", customer(0));

    let unknown = html(&app.get(&page).await, 200);
    app.usage(customer(0)).await;
    let known = html(&app.get(&page).await, 200);

    assert_reads(&unknown, &["3 days ago.<", "rel=\"next\""]);
    assert_reads(&known, &["3 days ago: the newest there is.", ">Newest</a>"]);
    assert!(!known.contains("rel=\"next\""), "{known}");
}

#[tokio::test]
async fn a_date_of_which_there_is_nothing_leads_on() {
    let app = TestApp::start().await;

    let html = html(
        &app.get("/?customer=DT+DEMO+CSP+CUSTOMER+005&date=2001-01-01")
            .await,
        404,
    );

    assert_reads(
        &html,
        &[
            "value=\"DT DEMO CSP CUSTOMER 005\"",
            "type=\"date\" value=\"2001-01-01\"",
            "Choose another date",
            "<a href=\"/?customer=DT+DEMO+CSP+CUSTOMER+005\">Newest of this customer</a>",
        ],
    );
}

#[tokio::test]
async fn a_page_is_counted_and_its_cache_status_told_like_any_answer() {
    const PAGES: &str = r#"usage_proxy_http_requests_total{method="GET",route="/",status="200"}"#;
    const SERVED: &str = "usage_proxy_served_age_seconds_count";
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;

    let reply = app.get(&page_of(DOCUMENTED)).await;
    let head = app.call(Method::HEAD, &page_of(DOCUMENTED), &[]).await;

    assert_eq!(reply.header("cache-status"), "usage-proxy; hit; ttl=900");
    assert!(head.body.is_empty() && head.status == 200);
    assert!((app.metric(PAGES).await - 1.0).abs() < f64::EPSILON);
    assert_eq!(app.get("/").await.status, 200);
    assert_eq!(app.get("/v1/customers").await.status, 200);
    assert!((app.metric(SERVED).await - 5.0).abs() < f64::EPSILON);
    assert_eq!(app.simulator.count(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn nothing_processed_is_said_and_no_bars_are_drawn() {
    let app = TestApp::start().await;
    app.simulator
        .replace(customer(0), Override::Rows(Vec::new()));

    let html = html(&app.get(&page_of(customer(0))).await, 200);

    assert_reads(
        &html,
        &[
            "Microsoft has processed nothing for this customer.",
            "Partner Center tells of no licences for this customer.",
        ],
    );
    assert!(!html.contains("<table"));
}

#[tokio::test]
async fn rows_of_another_date_say_so() {
    let app = TestApp::start().await;
    let newest = app.simulator.newest_date();
    let row = |product, date: Date| SimulatedRow::new(product, "Exchange", 5, date);
    let rows = vec![row("A", newest), row("B", newest.yesterday().unwrap())];
    app.simulator.replace(customer(0), Override::Rows(rows));

    let html = html(&app.get(&page_of(customer(0))).await, 200);

    let own = format!(
        "Exchange <span class=\"note\">processed {}</span>",
        newest.yesterday().unwrap()
    );
    assert_eq!(html.matches(&own).count(), 1, "{html}");
}

/// A service with one caller, which may see the documented customer.
async fn limited() -> TestApp {
    let caller = TestCaller::named("wiki").with_customers(&[DOCUMENTED]);
    TestApp::builder()
        .callers(callers_file(&[caller]))
        .start()
        .await
}
