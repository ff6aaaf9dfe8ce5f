//! The page at `/`: its text, and its headers for browsers.

use jiff::{ToSpan, civil::Date};

use crate::support::prelude::*;

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

fn listed(number: usize, name: &str) -> Value {
    json!({
        "id": customer(number).to_string(),
        "companyProfile": { "companyName": name, "domain": format!("{number}.example") },
    })
}

pub(crate) fn page_of(customer: impl Display) -> String {
    format!("/?customer={customer}")
}

pub(crate) fn page_of_date(customer: impl Display, date: impl Display) -> String {
    format!("/?customer={customer}&date={date}")
}

/// Gets a page of this status, and asserts what holds for every page.
pub(crate) async fn page(app: &TestApp, path: &str, status: u16) -> String {
    html(&app.get(path).await, status)
}

/// The text of a page of this status, which has nothing that no page of ours may have.
pub(crate) fn html(reply: &Reply, status: u16) -> String {
    let html = reply.text();
    assert_eq!(reply.status, status, "{html}");
    reply.assert_headers(&[
        ("content-type", "text/html; charset=utf-8"),
        ("content-security-policy", POLICY),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ]);
    // The policy would stop these; a page that needs none of them is not broken by it.
    for inline in [" style=", "<style", " onclick=", "javascript:", "<script>"] {
        assert!(!html.contains(inline), "{inline} in {html}");
    }
    let id = format!("Request <code>{}</code>", reply.header("x-request-id"));
    assert_reads(&html, &[&id]);
    html
}

/// Asserts that a page has these texts, in this order.
pub(crate) fn assert_reads(html: &str, texts: &[&str]) {
    let mut rest = html;
    for text in texts {
        let (_, after) = rest
            .split_once(text)
            .unwrap_or_else(|| panic!("no {text:?} after those before it in {html}"));
        rest = after;
    }
}

/// The target of the link with this `rel`.
pub(crate) fn href_of(html: &str, rel: &str) -> Option<String> {
    let (before, _) = html.split_once(&format!("\" rel=\"{rel}\""))?;
    let href = before.rsplit('"').next()?;
    Some(href.replace("&#38;", "&"))
}

/// Returns the text between `start` and the next tag.
fn text_of(html: &str, start: &str) -> String {
    let (_, rest) = html.split_once(start).unwrap();
    rest.split('<').next().unwrap().to_owned()
}

/// A row of the list of customers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ListedCustomer {
    pub(crate) link: String,
    pub(crate) name: String,
    /// The text of the whole row.
    pub(crate) text: String,
}

/// The rows of the list of customers.
pub(crate) fn rows_of(html: &str) -> impl Iterator<Item = ListedCustomer> {
    let rows = html
        .lines()
        .filter(|line| line.starts_with("<tr><th scope=\"row\"><a href="));
    rows.map(|row| ListedCustomer {
        link: unescaped(row.split('"').nth(3).unwrap()),
        name: unescaped(text_of(row, "<a href=").split_once('>').unwrap().1),
        text: text_without_tags(row),
    })
}

/// Returns the text of some HTML, with a blank for each tag.
pub(crate) fn text_without_tags(html: &str) -> String {
    let mut text = String::new();
    for part in html.split('<') {
        let part = part.split_once('>').map_or(part, |(_, text)| text);
        text += part.trim();
        text.push(' ');
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn unescaped(html: &str) -> String {
    let text = html.replace("&#34;", "\"").replace("&#39;", "'");
    text.replace("&#38;", "&")
}

fn escaped(path: &str) -> String {
    path.replace('&', "&#38;")
}

#[tokio::test]
async fn without_a_customer_the_page_lists_all() {
    let app = TestApp::start().await;

    let html = page(&app, "/", 200).await;

    let link = format!("<a href=\"/?customer={DOCUMENTED}\">DT DEMO CSP CUSTOMER 005</a>");
    assert_reads(&html, &["<h1>All customers</h1>", "26 customers", &link]);
    assert_eq!(rows_of(&html).count(), 26);
    assert_eq!(app.calls(SimulatedApi::Insights), 0);
}

#[tokio::test]
async fn a_customer_without_a_name_hides_no_others() {
    let app = TestApp::start().await;
    app.simulator.override_customer_list([
        listed(1, "Contoso"),
        listed(2, ""),
        listed(3, "Fabrikam"),
    ]);

    let html = page(&app, "/", 200).await;

    let nameless = format!("\">{}</a>", customer(2));
    assert_reads(&html, &["3 customers", &nameless, "Contoso", "Fabrikam"]);
}

#[tokio::test]
async fn a_customer_is_shown_as_bars_with_counts_beside_them() {
    let app = TestApp::start().await;
    let mut row = SimulatedRow::new("E3", "Exchange", 8, app.simulator.newest_date());
    row.licenses_active = 3;
    let none = SimulatedRow::new("E3", "Teams", 0, app.simulator.newest_date());
    app.set_rows(customer(0), [row, none]);

    let html = page(&app, &page_of(customer(0)), 200).await;

    assert_reads(
        &html,
        &[
            "<h1>Overridden customer</h1>",
            "Counts of 2026-11-19, 3 days ago.",
            "<strong>Checked just now</strong>, next check in 15 min. Microsoft’s newest count is of \
             2026-11-19.",
            "<caption>All products",
            "<th scope=\"row\">Exchange</th>",
            "<rect class=\"part\" width=\"37.5\" height=\"10\"/>",
            "37.5%",
            "3 of 8",
            "<caption>E3 <span class=\"note\">o365, 8 licences, 5 unused</span></caption>",
            "<th scope=\"row\">Teams</th>",
            "no licences qualified",
        ],
    );
    assert!(!html.contains(">0%<"), "of nothing there is no share");
    assert_reads(
        &html,
        &[
            "<dt>Active</dt>",
            "used at least once in the last 28 days",
            "<dt>Qualified</dt>",
            "entitled to the workload",
            "<dt>Unused</dt>",
            "<dt>Over 100%</dt>",
        ],
    );
}

#[tokio::test]
async fn a_view_links_to_the_same_data_for_programs() {
    let app = TestApp::start().await;
    let date = app.simulator.newest_date().yesterday().unwrap();
    let id = customer(0);

    for (query, dated) in [
        (String::new(), String::new()),
        (format!("&date={date}"), format!("?processedDate={date}")),
    ] {
        let html = page(&app, &format!("{}{query}", page_of(id)), 200).await;

        let usage = usage_path(id);
        for path in [
            format!("{usage}/table.csv{dated}"),
            format!("{usage}/chart.svg{dated}"),
            format!("{usage}{dated}"),
        ] {
            assert_reads(&html, &[&format!("<a href=\"{path}\"")]);
            assert_eq!(app.get(&path).await.status, 200, "{path}");
        }
        let origin = format!("<span data-origin>http://{}</span>", app.api);
        assert_reads(&html, &[&format!("curl -s '{origin}{usage}{dated}'")]);
    }
}

#[tokio::test]
async fn a_date_can_be_chosen_and_removed() {
    let app = TestApp::start().await;
    let newest = app.simulator.newest_date();
    let (id, before) = (customer(0), newest.yesterday().unwrap());

    let first = page(&app, &page_of(id), 200).await;
    let dated = page(&app, &page_of_date(id, before), 200).await;

    let earlier =
        format!("<a href=\"/?customer={id}&#38;date={before}\" rel=\"prev\">Earlier: {before}</a>");
    assert_reads(&first, &[&earlier]);
    assert_eq!(href_of(&first, "next"), None, "it is the newest");
    assert_reads(
        &dated,
        &[
            &format!("type=\"date\" value=\"{before}\" max=\"2026-11-22\""),
            &format!("Counts of {before}, 4 days ago."),
            &format!("rel=\"next\">Later: {newest}</a>"),
            &format!("<a href=\"/?customer={id}\">Newest</a>"),
        ],
    );
}

#[tokio::test]
async fn a_customer_is_found_by_id_or_by_a_part_of_its_name() {
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
        let html = page(&app, &page_of(&typed), 200).await;

        assert_reads(&html, texts);
    }
    let html = page(&app, &page_of("DEMO"), 200).await;
    assert!(
        html.contains("value=\"DT DEMO CSP CUSTOMER 005\""),
        "the field has the name"
    );
}

#[tokio::test]
async fn an_error_is_explained_with_the_status_of_the_api() {
    let app = TestApp::start().await;
    let none = NO_RELATIONSHIP_CUSTOMER;

    for (path, status, title) in [
        (page_of(uuid::Uuid::nil()), 404, "Unknown customer"),
        (page_of("Nobody+Ltd"), 404, "Unknown customer"),
        (page_of(none), 403, "No relationship with this customer"),
        (
            page_of_date(customer(0), "2001-01-01"),
            404,
            "No data for this date",
        ),
        (
            page_of_date(customer(0), "2026-11-23"),
            400,
            "Invalid processed date",
        ),
        ("/?date=yesterday".into(), 400, "Invalid processed date"),
        ("/?customers=1".into(), 400, "Unknown query parameter"),
        ("/?date=&date=".into(), 400, "Repeated query parameter"),
    ] {
        let html = page(&app, &path, status).await;

        let title = format!("<h1>{title}</h1>");
        let advice = "<h2>What to do</h2>";
        let all = "<a href=\"/\">All customers</a>";
        assert_reads(&html, &["name=\"customer\"", &title, advice, all]);
    }
    let posted = app.call(Method::POST, "/", &[]).await;
    assert_eq!(posted.header("allow"), "GET, HEAD");
    assert_reads(&html(&posted, 405), &["<h1>Method not allowed</h1>"]);
}

#[tokio::test]
async fn while_partner_center_is_down_the_page_says_when_to_retry() {
    let app = TestApp::start().await;
    app.set_faults(throttling("300"));

    let reply = app.get(&page_of(customer(0))).await;

    assert_eq!(reply.header("retry-after"), "300");
    assert_reads(
        &html(&reply, 503),
        &[
            "<h1>Throttled by Partner Center</h1>",
            "Try again after 5 min.",
        ],
    );
}

#[tokio::test]
async fn a_page_shows_when_it_was_checked_and_the_date_of_the_counts() {
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;
    app.advance(Duration::from_secs(56));

    let newest = page(&app, &page_of(DOCUMENTED), 200).await;
    let dated = page(&app, &page_of_date(DOCUMENTED, "2017-03-09"), 200).await;

    assert_reads(
        &newest,
        &[
            "Counts of 2017-03-09, 9 years ago.",
            "<strong>Checked 56 s ago</strong>, next check in 14 min. Microsoft’s newest count is of \
             2017-03-09.",
        ],
    );
    assert_reads(
        &dated,
        &["<strong>Checked 56 s ago</strong>. Microsoft seldom changes the counts of a past date."],
    );
    assert!(!newest.contains("Fresh"), "{newest}");
}

#[tokio::test]
async fn a_page_explains_why_its_counts_are_old() {
    let app = TestApp::start().await;
    let path = page_of(customer(0));
    let date = app.simulator.newest_date();
    app.set_rows(customer(0), seats(5, date));
    app.usage(customer(0)).await;
    app.get("/").await;

    app.advance(Duration::from_secs(1_200));
    let updating = page(&app, &path, 200).await;
    app.wait_until_filled().await;
    app.set_faults(failing(400));
    app.advance(STALE);
    let old = page(&app, &path, 200).await;
    app.clear_faults();
    app.set_rows(customer(0), []);
    app.advance(STALE);
    let suspect = page(&app, &path, 200).await;

    for (html, checked, text) in [
        (
            updating,
            "Checked 20 min ago",
            ". A new check is running: load this page again in a moment. Microsoft’s newest count was \
             of 2026-11-19.",
        ),
        (
            old,
            "Checked 2 h ago",
            ". Partner Center answered the last check with an error. Microsoft’s newest count was of \
             2026-11-19.",
        ),
        (
            suspect,
            "Checked 4 h ago",
            "is implausible, and is shown only after a second check confirms it. Next check in",
        ),
    ] {
        assert_reads(&html, &[&format!("<strong>{checked}</strong>"), text]);
    }
}

#[tokio::test]
async fn a_name_is_never_more_than_text() {
    let app = TestApp::start().await;
    let name = "</title><script>alert(1)</script>\u{202e}\"'&<img src=x onerror=alert(1)>";
    let mut row = SimulatedRow::new(name, name, 8, app.simulator.newest_date());
    row.customer_name = name.into();
    app.set_rows(customer(0), [row]);
    let typed = "%22%3E%3Cscript%3Ealert(1)%3C/script%3E";

    for (path, status) in [
        (page_of(customer(0)), 200),
        (page_of(typed), 404),
        (format!("/?{typed}=1"), 400),
    ] {
        let html = page(&app, &path, status).await;

        for broken_out in ["<script>", "<img src=x", "alert(1)\"", "\u{202e}"] {
            assert!(!html.contains(broken_out), "{broken_out} in {html}");
        }
        assert_reads(&html, &["&#60;script&#62;"]);
    }
}

#[tokio::test]
async fn the_requested_host_stays_within_its_line() {
    let app = TestApp::with("server.allowed_hosts", "usage.example,a'b").await;
    let path = page_of(DOCUMENTED);

    for (host, line) in [
        (
            "usage.example:8443",
            "<span data-origin>http://usage.example:8443</span>",
        ),
        ("a'b", "<span data-origin></span>"),
    ] {
        let html = html(&app.get_with(&path, &[("host", host)]).await, 200);

        assert_reads(&html, &[line]);
    }
}

#[tokio::test]
async fn without_a_key_the_page_shows_nothing() {
    let app = limited().await;

    let anonymous = app.get(&page_of(DOCUMENTED)).await;
    let wrong = [("authorization", &*basic("", "wrong"))];
    let wrong = app.get_with("/", &wrong).await;

    for reply in [anonymous, wrong] {
        let html = html(&reply, 401);

        assert_reads(
            &html,
            &[
                "<h1>Authentication required</h1>",
                "The password is your key",
            ],
        );
        assert!(!html.contains("<form"), "there is nothing to choose yet");
        let mut challenges = reply.headers.get_all("www-authenticate").iter();
        let basic = "Basic realm=\"usage-proxy\", charset=\"UTF-8\"";
        assert!(challenges.any(|challenge| challenge == basic), "{reply:?}");
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
    let headers = [("authorization", &*key)];

    let all = html(&app.get_with("/", &headers).await, 200);
    let own = html(&app.get_with(&page_of(DOCUMENTED), &headers).await, 200);
    let other = html(&app.get_with(&page_of(customer(7)), &headers).await, 403);
    let searched = html(&app.get_with(&page_of("contoso"), &headers).await, 404);

    assert_reads(&all, &["1 customer", "DT DEMO CSP CUSTOMER 005"]);
    assert_eq!(rows_of(&all).count(), 1);
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
async fn a_rate_limited_caller_gets_a_page_that_says_so() {
    let caller = TestCaller::named("wiki").with_rate("1/h");
    let app = TestApp::with_callers(&[caller]).await;
    let key = basic("", &key_of("wiki"));
    app.get_with("/", &[("authorization", &key)]).await;

    let reply = app.get_with("/", &[("authorization", &key)]).await;

    assert_reads(
        &html(&reply, 429),
        &["<h1>Too many requests</h1>", "after 60 min"],
    );
    assert_eq!(reply.header("retry-after"), "3600");
}

#[tokio::test]
async fn a_long_list_is_read_page_by_page() {
    let app = TestApp::builder()
        .simulator(|options| options.customers = 500)
        .start()
        .await;
    let mut path = "/".to_owned();
    let mut listed = Vec::new();
    let mut counts = Vec::new();

    loop {
        let html = page(&app, &path, 200).await;
        assert!(html.len() < 64 * 1024, "{} bytes", html.len());
        // Or a script would search this page only.
        assert!(!html.contains("data-complete"), "{html}");
        listed.extend(rows_of(&html).map(|row| row.link));
        counts.push(text_of(&html, "id=\"count\" role=\"status\">"));
        let Some(next) = href_of(&html, "next") else {
            break;
        };
        let previous = format!("<a href=\"{}\" rel=\"prev\">", escaped(&path));
        let following = page(&app, &next, 200).await;
        assert_reads(&following, &[&previous]);
        path = next;
    }

    assert_eq!(
        counts,
        [
            "501 customers, 1 to 100 shown",
            "501 customers, 101 to 200 shown",
            "501 customers, 201 to 300 shown",
            "501 customers, 301 to 400 shown",
            "501 customers, 401 to 500 shown",
            "501 customers, 501 to 501 shown",
        ]
    );
    assert_eq!(listed.len(), 501);
    listed.sort_unstable();
    listed.dedup();
    assert_eq!(listed.len(), 501, "every customer is on one page only");
    let beyond = page(&app, "/?page=99", 200).await;
    assert_reads(&beyond, &["501 to 501 shown"]);
    for number in ["0", "x", "-1", ""] {
        let html = page(&app, &format!("/?page={number}"), 400).await;

        assert_reads(&html, &["expected a whole number, 1 or more"]);
    }
}

#[tokio::test]
async fn search_results_have_pages_too() {
    let app = TestApp::builder()
        .simulator(|options| options.customers = 3_000)
        .start()
        .await;
    let date = app.simulator.newest_date();

    let first = page(&app, &format!("/?customer=muller&date={date}"), 200).await;
    let next = href_of(&first, "next").unwrap();
    let second = page(&app, &next, 200).await;

    assert_eq!(next, format!("/?customer=muller&date={date}&page=2"));
    assert_reads(&first, &["of 3,001 customers, 1 to 100 shown"]);
    assert_reads(&second, &["value=\"muller\"", "customers, 101 to "]);
}

#[tokio::test]
async fn a_search_needs_no_accents() {
    let app = TestApp::start().await;

    for (typed, found) in [
        ("muller", "Müller &#38; Söhne Inc. 0021"),
        ("M%C3%9CLLER", "Müller &#38; Söhne Inc. 0021"),
        ("cafe", "Café Crème, Frères GmbH 0014"),
        ("lodz", "Łódzkie Zakłady Przemysłowe Inc. 0006"),
        ("zaklady", "Łódzkie Zakłady Przemysłowe Inc. 0006"),
        ("zubr", "Żubr Logistyka Sp. z o.o. 0003"),
    ] {
        let html = page(&app, &page_of(typed), 200).await;

        assert_reads(&html, &[found]);
    }
}

#[tokio::test]
async fn cached_usage_is_shown_even_if_the_list_of_customers_fails() {
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;
    app.set_faults(Faults {
        api: FaultScope::Customers,
        ..failing(400)
    });
    assert_eq!(app.get("/").await.status, 502);

    let html = page(&app, &page_of(DOCUMENTED), 200).await;

    assert_reads(
        &html,
        &[
            &format!("value=\"{DOCUMENTED}\""),
            "<h1>DT DEMO CSP CUSTOMER 005</h1>",
            "The list of customers is not available right now.",
        ],
    );
    assert!(!html.contains("data-reload"), "{html}");
}

#[tokio::test]
async fn cached_usage_does_not_wait_for_the_list_of_customers() {
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;
    app.simulator.hold_calls();

    let path = page_of(DOCUMENTED);
    let early = page(&app, &path, 200).await;
    app.wait_for_calls(SimulatedApi::Customers, 1).await;
    app.simulator.release_calls();
    app.wait_until_filled().await;
    let later = page(&app, &path, 200).await;

    assert_reads(
        &early,
        &[
            "<noscript><meta http-equiv=\"refresh\" content=\"3\"></noscript>",
            "data-reload",
            "The list of customers is being fetched. This page reloads by itself.",
        ],
    );
    assert!(!early.contains("<datalist"));
    assert!(!later.contains("data-reload"), "{later}");
    assert_reads(&later, &["value=\"DT DEMO CSP CUSTOMER 005\"", "<datalist"]);
    assert_eq!(app.calls(SimulatedApi::Customers), 1);
}

#[tokio::test]
async fn direction_overrides_in_names_are_removed_everywhere() {
    let app = TestApp::start().await;
    let mut turned = listed(1, "Con\u{202e}toso");
    turned["companyProfile"]["domain"] = json!("\u{202e}moc.example");
    app.simulator
        .override_customer_list([turned, listed(2, "Contoso Ltd")]);

    let all = page(&app, "/", 200).await;
    let found = page(&app, &page_of("CON%E2%80%ACTOSO"), 200).await;
    let typed = page(&app, &page_of("con%E2%80%AEt"), 200).await;

    assert_reads(&all, &["<option value=\"Contoso\">", ">moc.example<"]);
    assert_reads(&found, &["id=\"customer\"", "value=\"Contoso\""]);
    assert_reads(&typed, &["value=\"cont\"", "2 of 2 customers"]);
    for html in [all, found, typed] {
        assert!(!html.contains(['\u{202c}', '\u{202e}']), "{html}");
    }
}

#[tokio::test]
async fn a_customer_without_data_has_the_name_from_the_list() {
    let app = TestApp::start().await;
    app.simulator.override_customer_list([listed(1, "Contoso")]);
    app.set_rows(customer(1), []);
    app.get("/").await;

    let html = page(&app, &page_of(customer(1)), 200).await;

    assert_reads(
        &html,
        &[
            "<title>Contoso, ",
            "<h1>Contoso</h1>",
            "Microsoft has no counts for this customer.",
            "Partner Center counts no licences for this customer.",
        ],
    );
    assert!(!html.contains("<table"));
}

#[tokio::test]
async fn no_link_leads_beyond_the_newest_date() {
    let app = TestApp::start().await;
    let newest = app.simulator.newest_date();
    let path = format!("/?customer={}&date={newest}", customer(0));

    let unknown = page(&app, &path, 200).await;
    app.usage(customer(0)).await;
    let known = page(&app, &path, 200).await;

    for html in [unknown, known] {
        assert_reads(&html, &["3 days ago.", ">Newest</a>"]);
        assert_eq!(href_of(&html, "next"), None, "{html}");
    }
}

#[tokio::test]
async fn links_to_other_dates_lead_to_counts() {
    let app = TestApp::start().await;
    let newest = app.simulator.newest_date();
    let oldest = newest.checked_sub(13.months()).unwrap();
    let row = |date: Date| SimulatedRow::new("A", "Exchange", 5, date);
    let gap = vec![row(newest), row(newest.checked_sub(2.days()).unwrap())];
    app.set_rows(customer(1), gap);
    let skipped = page_of_date(customer(1), newest.yesterday().unwrap());

    // Partner Center keeps 13 months.
    let documented = page(&app, &page_of(DOCUMENTED), 200).await;
    let last = page(&app, &page_of_date(customer(0), oldest), 200).await;
    page(&app, &skipped, 404).await;
    let beside_gap = page(&app, &page_of(customer(1)), 200).await;

    assert_eq!(href_of(&documented, "prev"), None);
    assert_eq!(href_of(&last, "prev"), None);
    let earlier = href_of(&beside_gap, "prev").unwrap();
    assert!(earlier.ends_with("2026-11-17"), "{earlier}");
    page(&app, &earlier, 200).await;
}

#[tokio::test]
async fn a_date_without_data_links_to_the_newest() {
    let app = TestApp::start().await;

    let html = page(
        &app,
        "/?customer=DT+DEMO+CSP+CUSTOMER+005&date=2001-01-01",
        404,
    )
    .await;

    assert_reads(
        &html,
        &[
            "value=\"DT DEMO CSP CUSTOMER 005\"",
            "type=\"date\" value=\"2001-01-01\"",
            "Choose another date",
            "<a href=\"/?customer=DT+DEMO+CSP+CUSTOMER+005\">Newest usage of this customer</a>",
        ],
    );
}

#[tokio::test]
async fn a_page_is_counted_and_has_a_cache_status_like_any_answer() {
    const PAGES: &str = r#"usage_proxy_http_requests_total{method="GET",route="/",status="200"}"#;
    const SERVED: &str = "usage_proxy_served_age_seconds_count";
    let app = TestApp::start().await;
    app.usage(DOCUMENTED).await;

    let reply = app.get(&page_of(DOCUMENTED)).await;
    let head = app.call(Method::HEAD, &page_of(DOCUMENTED), &[]).await;

    assert_eq!(reply.cache_status(), HIT);
    assert!(head.body.is_empty() && head.status == 200);
    assert_eq!(app.metric(PAGES).await, 1.0);
    assert_eq!(app.get("/").await.status, 200);
    assert_eq!(app.get("/v1/customers").await.status, 200);
    assert_eq!(app.metric(SERVED).await, 5.0);
    assert_eq!(app.calls(SimulatedApi::Insights), 1);
}

#[tokio::test]
async fn rows_of_another_date_show_it() {
    let app = TestApp::start().await;
    let newest = app.simulator.newest_date();
    let row = |product, date: Date| SimulatedRow::new(product, "Exchange", 5, date);
    let rows = vec![row("A", newest), row("B", newest.yesterday().unwrap())];
    app.set_rows(customer(0), rows);

    let html = page(&app, &page_of(customer(0)), 200).await;

    let own = format!(
        "Exchange <span class=\"note\">processed {}</span>",
        newest.yesterday().unwrap()
    );
    assert_eq!(html.matches(&own).count(), 1, "{html}");
}

/// A service with one caller, which may see the documented customer.
async fn limited() -> TestApp {
    let caller = TestCaller::named("wiki").with_customers(&[DOCUMENTED]);
    let builder = TestApp::builder().callers(&[caller]).with_own_store();
    builder.start().await
}
