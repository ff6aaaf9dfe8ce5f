//! The chart and the table: what people open in a browser, or put into a page of their own.

use crate::support::prelude::*;

fn chart(customer: impl std::fmt::Display) -> String {
    format!("/v1/customers/{customer}/usage/chart.svg")
}

fn table(customer: impl std::fmt::Display) -> String {
    format!("/v1/customers/{customer}/usage/table.csv")
}

#[tokio::test]
async fn the_chart_shows_the_same_answer() {
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;

    let reply = app
        .get_with(
            &chart(DOCUMENTED),
            &[("accept", "image/avif,image/*,*/*;q=0.8")],
        )
        .await;

    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "image/svg+xml");
    assert_eq!(reply.cache_status(), HIT);
    let svg = reply.text();
    let picture = roxmltree::Document::parse(&svg).unwrap();
    let title = picture.root_element().first_element_child().unwrap();
    assert_eq!(
        title.text(),
        Some("Licence adoption of DT DEMO CSP CUSTOMER 005, processed 2017-03-09")
    );
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn a_chart_has_the_requested_theme() {
    let app = TestApp::start().await;
    let path = chart(DOCUMENTED);
    let mut etags = std::collections::HashSet::new();

    for (query, follows_reader, paper) in [
        ("", true, "--paper: #fff;"),
        ("?theme=light", false, "--paper: #fff;"),
        ("?theme=dark", false, "--paper: #14181d;"),
        (
            "?theme=dark&processedDate=2017-03-09",
            false,
            "--paper: #14181d;",
        ),
    ] {
        let reply = app.get(&format!("{path}{query}")).await;

        assert_eq!(reply.status, 200, "{query}");
        let svg = reply.text();
        let follows = svg.contains("prefers-color-scheme");
        assert_eq!(follows, follows_reader, "{query}");
        assert!(svg.contains(paper), "{query}: {svg}");
        let etag = reply.header("etag").to_owned();
        let known = [("if-none-match", etag.as_str())];
        let unchanged = app.get_with(&format!("{path}{query}"), &known).await;
        assert_eq!(unchanged.status, 304);
        etags.insert(etag);
    }
    assert_eq!(etags.len(), 3, "one for each theme");
}

#[tokio::test]
async fn the_chart_runs_nothing_fetches_nothing_and_may_be_shown_anywhere() {
    let app = TestApp::start().await;

    let reply = app.get(&chart(DOCUMENTED)).await;

    let policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox";
    reply.assert_headers(&[
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "cross-origin"),
    ]);
    let svg = reply.text();
    for reference in ["href", "url(", "@import", "<script", "<image", "<use"] {
        assert!(!svg.contains(reference), "{reference}");
    }
}

#[tokio::test]
async fn the_table_is_csv_whatever_the_accept_header() {
    let app = TestApp::start().await;
    let by_accept = app.usage_with(DOCUMENTED, &[("accept", "text/csv")]).await;

    let reply = app
        .get_with(&table(DOCUMENTED), &[("accept", "text/html,*/*;q=0.8")])
        .await;

    let marked = reply.body.strip_prefix("\u{feff}".as_bytes());
    assert_eq!(marked, Some(&*by_accept.body));
    assert_eq!(by_accept.header("content-disposition"), "");
    for (name, value) in [
        ("content-type", "text/csv; charset=utf-8; header=present"),
        (
            "content-disposition",
            "attachment; filename=\"usage-DT DEMO CSP CUSTOMER 005-2017-03-09.csv\"; \
             filename*=UTF-8''usage-DT%20DEMO%20CSP%20CUSTOMER%20005-2017-03-09.csv",
        ),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(reply.header(name), value, "{name}");
    }
}

#[tokio::test]
async fn only_the_table_escapes_spreadsheet_formulas() {
    let app = TestApp::start().await;
    let newest = app.simulator.newest_date();
    let mut row = SimulatedRow::new("=1+1", "Exchange", 8, newest);
    row.customer_name = "Müller;@SUM(1)".into();
    app.set_rows(customer(0), [row]);
    let usage = usage_path(customer(0));

    let program = app.get_with(&usage, &[("accept", "text/csv")]).await;
    let spreadsheet = app.get(&table(customer(0))).await;

    for (form, cells) in [
        (&program, [",Müller;@SUM(1),", ",=1+1,"]),
        (&spreadsheet, [",Müller;'@SUM(1),", ",'=1+1,"]),
    ] {
        for cell in cells {
            assert!(form.text().contains(cell), "{cell} in {}", form.text());
        }
    }
    let file = spreadsheet.header("content-disposition");
    let name = format!("filename*=UTF-8''usage-M%C3%BCller%3B%40SUM%281%29-{newest}.csv");
    assert!(file.ends_with(&name), "{file}");
    assert_ne!(program.header("etag"), spreadsheet.header("etag"));
}

#[tokio::test]
async fn the_chart_and_the_table_have_the_requested_date() {
    let app = TestApp::start().await;
    let newest = app.simulator.newest_date();
    let before = newest.yesterday().unwrap();

    for (path, date) in [
        (chart(customer(0)), format!("processed {before}")),
        (table(customer(0)), format!(",{before},")),
    ] {
        let reply = app.get(&format!("{path}?processedDate={before}")).await;

        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.text().contains(&date), "{}", reply.text());
        assert!(!reply.text().contains(&newest.to_string()));
    }
}

#[tokio::test]
async fn wrong_requests_for_charts_and_tables_get_problem_documents() {
    let app = TestApp::start().await;

    for [path, accept, status, kind] in rows(
        "ID/usage/chart.svg                          | application/json | 406 | not-acceptable
         ID/usage/table.csv                          | image/svg+xml    | 406 | not-acceptable
         no-guid/usage/chart.svg                     | */*              | 400 | customer-id
         ID/usage/chart.svg?size=2                   | */*              | 400 | unknown-parameter
         ID/usage/table.csv?processedDate=2017-02-30 | */*              | 400 | processed-date
         ID/usage/chart.svg?theme=sepia              | */*              | 400 | theme
         ID/usage/chart.svg?theme=dark&theme=dark    | */*              | 400 | duplicate-parameter
         ID/usage/table.csv?theme=dark               | */*              | 400 | unknown-parameter",
    ) {
        let path = format!("/v1/customers/{}", path.replace("ID", DOCUMENTED));
        let reply = app.get_with(&path, &[("accept", accept)]).await;
        reply.problem(status.parse().unwrap(), kind);
    }
    let unknown = app.get(&chart(uuid::Uuid::nil())).await;
    unknown.problem(404, "unknown-customer");
    let reply = app.call(Method::POST, &chart(DOCUMENTED), &[]).await;
    reply.problem(405, "method-not-allowed");
}

#[tokio::test]
async fn browsers_get_a_basic_challenge_and_send_the_key_as_password() {
    let callers = [
        TestCaller::named("wiki").with_customers(&[DOCUMENTED]),
        TestCaller::named("other").with_customers(&[customer(0)]),
    ];
    let app = TestApp::with_callers(&callers).await;

    for path in [chart(DOCUMENTED), table(DOCUMENTED)] {
        let anonymous = app.get(&path).await;

        anonymous.problem(401, "unauthenticated");
        let challenges = anonymous.headers.get_all("www-authenticate").iter();
        let challenges: Vec<_> = challenges.map(|value| value.to_str().unwrap()).collect();
        assert_eq!(
            challenges,
            [
                "Bearer realm=\"usage-proxy\"",
                "Basic realm=\"usage-proxy\", charset=\"UTF-8\""
            ]
        );
        for (password, status) in [
            (key_of("wiki"), 200),
            (key_of("other"), 403),
            ("wrong".to_owned(), 401),
        ] {
            let headers = [("authorization", &*basic("anybody", &password))];

            assert_eq!(app.get_with(&path, &headers).await.status, status, "{path}");
        }
    }
}
