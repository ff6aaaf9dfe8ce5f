//! The page of a customer: its stored past, and the cost of its unused licenses.

use rusqlite::Connection;

use crate::{
    history::{DAY_BEFORE, EARLIER, FOUR_WEEKS_BEFORE, NEWEST, builder, with_dates},
    page::{assert_reads, href_of, page, page_of, page_of_date, text_without_tags},
    support::prelude::*,
};

const UNAVAILABLE: &str = "The history is not available now.";

/// Returns the texts of the rows of the table after a heading.
fn rows_after(html: &str, heading: &str) -> Vec<String> {
    let (_, after) = html.split_once(heading).unwrap();
    let (table, _) = after.split_once("</table>").unwrap();
    let rows = table.lines().filter(|line| line.contains("scope=\"row\""));
    rows.map(text_without_tags).collect()
}

fn row(date: &str, product: &str, active: u64, qualified: u64) -> SimulatedRow {
    SimulatedRow {
        licenses_active: active,
        ..SimulatedRow::new(product, "Teams", qualified, date.parse().unwrap())
    }
}

/// Replaces the past of a customer.
fn set_history(app: &TestApp, rows: Vec<SimulatedRow>) {
    let newest = NEWEST.parse().unwrap();
    app.set_answer(customer(0), CustomerOverride::History { newest, rows });
}

#[tokio::test]
async fn a_page_shows_the_trend_as_a_picture() {
    let app = with_dates(customer(0), &[EARLIER, DAY_BEFORE, NEWEST]).await;

    for (path, until) in [
        (page_of(customer(0)), NEWEST),
        (page_of_date(customer(0), DAY_BEFORE), DAY_BEFORE),
    ] {
        let html = page(&app, &path, 200).await;

        let history = format!("/v1/customers/{}/usage/history", customer(0));
        let query = format!("from={EARLIER}&#38;to={until}");
        let picture = format!(
            "<img src=\"{history}/chart.svg?{query}\" width=\"480\" alt=\"Chart of the licences in use \
             from {EARLIER} to {until}, with a line for each product\">"
        );
        let table = format!("<a href=\"{history}/table.csv?{query}\" download>");
        assert_reads(&html, &["<h2 id=\"trend\">Trend</h2>", &picture, &table]);
        let query = query.replace("&#38;", "&");
        let chart = app.get(&format!("{history}/chart.svg?{query}")).await;
        assert_eq!(chart.header("content-type"), "image/svg+xml");
        let table = app.get(&format!("{history}/table.csv?{query}")).await;
        assert_eq!(table.status, 200);
    }
}

#[tokio::test]
async fn a_page_shows_the_changes_since_the_last_month() {
    let app = builder().start().await;
    let rows = vec![
        row(FOUR_WEEKS_BEFORE, "A", 3, 8),
        row(FOUR_WEEKS_BEFORE, "B", 3, 8),
        row(FOUR_WEEKS_BEFORE, "C", 30, 80),
        row(FOUR_WEEKS_BEFORE, "D", 3, 8),
        row(EARLIER, "B", 1, 1),
        row(NEWEST, "B", 4, 8),
        row(NEWEST, "C", 10, 80),
        row(NEWEST, "D", 3, 9),
        row(NEWEST, "E", 2, 2),
    ];
    set_history(&app, rows);
    app.fetch_dates(customer(0), &[FOUR_WEEKS_BEFORE, EARLIER, NEWEST])
        .await;

    let html = page(&app, &page_of(customer(0)), 200).await;

    let heading = format!("<h2 id=\"changes\">Changes since {FOUR_WEEKS_BEFORE}</h2>");
    assert_eq!(
        rows_after(&html, &heading),
        [
            "C Teams 30 of 80 10 of 80 −20",
            "A Teams 3 of 8 – gone",
            "E Teams – 2 of 2 new",
            "B Teams 3 of 8 4 of 8 +1",
            "D Teams 3 of 8 3 of 9 +1 qualified",
        ]
    );
    let table = format!(
        "/v1/customers/{}/usage/changes/table.csv?from={FOUR_WEEKS_BEFORE}&to={NEWEST}",
        customer(0)
    );
    assert_reads(&html, &[&table.replace('&', "&#38;")]);
    // A line for each change, after the header.
    assert_eq!(app.get(&table).await.text().lines().count(), 6);
    let dated = page(&app, &page_of_date(customer(0), FOUR_WEEKS_BEFORE), 200).await;
    assert!(!dated.contains("Changes since"), "{dated}");
}

#[tokio::test]
async fn counts_that_are_not_stored_yet_are_compared_too() {
    let app = with_dates(customer(0), &[FOUR_WEEKS_BEFORE]).await;

    let html = page(&app, &page_of(customer(0)), 200).await;

    assert_reads(
        &html,
        &[
            &format!("<h2 id=\"changes\">Changes since {FOUR_WEEKS_BEFORE}</h2>"),
            &format!("<th scope=\"col\" class=\"number\">{NEWEST}</th>"),
        ],
    );
}

#[tokio::test]
async fn what_has_not_changed_is_said() {
    let app = builder().start().await;
    let rows = vec![row(FOUR_WEEKS_BEFORE, "A", 3, 8), row(NEWEST, "A", 3, 8)];
    set_history(&app, rows);
    app.fetch_dates(customer(0), &[FOUR_WEEKS_BEFORE, NEWEST])
        .await;

    let html = page(&app, &page_of(customer(0)), 200).await;

    assert_reads(
        &html,
        &["Changes since", "No counts have changed since then."],
    );
}

#[tokio::test]
async fn links_lead_to_the_nearest_stored_dates() {
    let app = with_dates(customer(0), &[FOUR_WEEKS_BEFORE, EARLIER, NEWEST]).await;
    let link = |date: &str| Some(page_of_date(customer(0), date));

    for (date, before, after) in [
        (NEWEST, link(EARLIER), None),
        (EARLIER, link(FOUR_WEEKS_BEFORE), link(NEWEST)),
        (FOUR_WEEKS_BEFORE, None, link(EARLIER)),
        // It is fetched for the page.
        (DAY_BEFORE, link(EARLIER), link(NEWEST)),
    ] {
        let html = page(&app, &page_of_date(customer(0), date), 200).await;

        assert_eq!(href_of(&html, "prev"), before, "{date}");
        assert_eq!(href_of(&html, "next"), after, "{date}");
    }
}

#[tokio::test]
async fn a_date_without_earlier_ones_has_no_trend_and_says_why() {
    let app = with_dates(customer(0), &[NEWEST]).await;
    let path = page_of(customer(0));

    let first = page(&app, &path, 200).await;
    app.fetch_dates(customer(0), &[EARLIER]).await;
    app.advance(Duration::from_secs(5));
    let second = page(&app, &path, 200).await;

    assert_reads(
        &first,
        &["No earlier date is stored, so there is no trend."],
    );
    assert!(!first.contains("chart.svg?from"), "{first}");
    assert_reads(
        &second,
        &[
            "chart.svg?from",
            &format!("No date at least 28 days before {NEWEST} is stored"),
        ],
    );
}

#[tokio::test]
async fn a_customer_without_counts_still_has_its_past() {
    let app = with_dates(customer(0), &[FOUR_WEEKS_BEFORE, NEWEST]).await;
    app.set_rows(customer(0), []);
    app.admin_post("/cache/purge?hard=true").await;

    let html = page(&app, &page_of(customer(0)), 200).await;

    assert_reads(
        &html,
        &[
            "Microsoft has no counts for this customer.",
            "<h2 id=\"trend\">",
        ],
    );
    assert_eq!(
        href_of(&html, "prev"),
        Some(page_of_date(customer(0), NEWEST))
    );
    assert!(!html.contains("Changes since"), "{html}");
}

#[tokio::test]
async fn without_a_store_the_past_is_left_out() {
    let app = TestApp::start().await;

    let html = page(&app, &page_of(customer(0)), 200).await;

    for absent in [
        "Trend",
        "chart.svg?from",
        "Changes",
        "28 days before",
        UNAVAILABLE,
    ] {
        assert!(!html.contains(absent), "{absent} in {html}");
    }
    assert_reads(&html, &["<h2 id=\"unused\">Unused licences</h2>"]);
}

#[tokio::test]
async fn a_store_that_fails_costs_only_the_past() {
    let app = with_dates(customer(0), &[FOUR_WEEKS_BEFORE, NEWEST]).await;
    app.usage(customer(0)).await;
    let store = Connection::open(app.secrets().join("usage.db")).unwrap();
    store
        .execute_batch("ALTER TABLE snapshot RENAME TO lost")
        .unwrap();

    let html = page(&app, &page_of(customer(0)), 200).await;

    assert_reads(&html, &["<h2 id=\"unused\">", UNAVAILABLE, "All products"]);
    for absent in ["chart.svg?from", "Changes since"] {
        assert!(!html.contains(absent), "{absent} in {html}");
    }
    // A date that may have counts.
    assert_eq!(
        href_of(&html, "prev"),
        Some(page_of_date(customer(0), DAY_BEFORE))
    );
}

#[tokio::test]
async fn unused_licences_have_a_cost_by_product_and_currency() {
    let portfolio = "[[product]]\nproduct = \"E3\"\nname = \"Office\"\nprice = 12.5\ncurrency = \"EUR\"\n\
                     [[product]]\nproduct = \"E5\"\nprice = 3\ncurrency = \"PLN\"\n\
                     [[product]]\nproduct = \"Trial\"\nexclude = true\n";
    let app = TestApp::builder().portfolio(portfolio).start().await;
    let rows = vec![
        row(NEWEST, "E3", 200, 1_200),
        row(NEWEST, "E5", 0, 7),
        row(NEWEST, "F1", 5, 5),
        row(NEWEST, "Trial", 1, 10),
    ];
    app.set_rows(customer(0), rows);

    let html = page(&app, &page_of(customer(0)), 200).await;

    assert_eq!(
        rows_after(&html, "<h2 id=\"unused\">Unused licences</h2>"),
        [
            "Office 1,000 of 1,200 EUR 12,500.00 a month",
            "Trial not counted in the overview 9 of 10",
            "E5 7 of 7 PLN 21.00 a month",
            "Total 1,016 of 1,222 EUR 12,500.00 a month for 1,000 of them PLN 21.00 a month for 7 of \
             them",
        ]
    );
}

#[tokio::test]
async fn without_prices_unused_licences_have_no_cost() {
    let app = TestApp::start().await;
    app.set_rows(customer(0), [row(NEWEST, "E3", 1, 3)]);
    app.set_rows(customer(1), [row(NEWEST, "E3", 3, 3)]);

    let some = page(&app, &page_of(customer(0)), 200).await;
    let none = page(&app, &page_of(customer(1)), 200).await;

    let rows = rows_after(&some, "<h2 id=\"unused\">");
    assert_eq!(rows, ["E3 2 of 3", "Total 2 of 3"]);
    assert!(!some.contains("a month"), "{some}");
    assert_reads(&none, &["No licence is unused."]);
}
