use proptest::prelude::*;
use roxmltree::{Document, Node};

use super::{
    super::{HistoryCounts, HistoryItem, HistoryName},
    *,
};
use crate::{
    domain::{UsageRow, samples},
    render::svg_reader::{assert_has_labels, drawn_texts, tag_content},
};

const LAST_DAY: i32 = 365;

fn day(number: i32) -> ProcessedDate {
    let first = ProcessedDate::parse("2025-11-01").unwrap();
    first.plus_days(number).unwrap()
}

/// A product's active licenses by day, of so many qualified ones.
struct History {
    product: String,
    qualified: u64,
    active: Vec<(i32, u64)>,
}

fn history(product: &str, active: impl IntoIterator<Item = (i32, u64)>) -> History {
    History {
        product: product.to_owned(),
        qualified: 100,
        active: active.into_iter().collect(),
    }
}

fn chart_of(customer: &str, histories: &[History], theme: ChartTheme) -> String {
    let mut rows: Vec<(i32, UsageRow)> = Vec::new();
    for history in histories {
        rows.extend(history.active.iter().map(|(number, active)| {
            let row = UsageRow {
                product_name: history.product.as_str().into(),
                licenses_active: *active,
                licenses_qualified: history.qualified,
                ..samples::row()
            };
            (*number, row)
        }));
    }
    rows.sort_by_key(|(number, _)| *number);
    let mut dates: Vec<_> = rows.iter().map(|(number, _)| day(*number)).collect();
    dates.dedup();
    let range = DateRange {
        from: day(0),
        to: day(LAST_DAY),
    };
    let mut trend = UsageTrend::new(range, dates);
    for (number, row) in &rows {
        let name = HistoryName::of(row, None);
        trend.add(&HistoryItem::new(
            day(*number),
            name,
            HistoryCounts::of(row),
        ));
    }
    String::from_utf8(render_trend_chart(customer, trend, theme).unwrap()).unwrap()
}

fn chart(histories: &[History]) -> String {
    chart_of("Contoso", histories, ChartTheme::Reader)
}

/// The paths of the lines, without those beside the names.
fn paths(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).unwrap();
    let titled = document
        .descendants()
        .filter(|node| node.has_tag_name("path") && node.has_children());
    titled
        .map(|node| node.attribute("d").unwrap().to_owned())
        .collect()
}

#[test]
fn a_line_goes_from_the_first_date_to_the_last() {
    let svg = chart(&[history("E3", (0..=LAST_DAY).map(|day| (day, 50)))]);

    // Half of 100 licences, from the left end to the right.
    assert_eq!(paths(&svg), ["M62.0 184.0L440.0 184.0"]);
    let drawn = drawn_texts(&svg);
    for text in [
        "Contoso",
        "E3",
        "1",
        "50 of 100",
        "100",
        "2025-11-01",
        "2026-11-01",
    ] {
        assert!(
            drawn.iter().any(|drawn| drawn == text),
            "{text} in {drawn:?}"
        );
    }
}

#[test]
fn a_line_is_broken_at_a_gap_and_never_drawn_at_zero_there() {
    let days = (0..100).chain(200..=LAST_DAY);

    let svg = chart(&[history("E3", days.map(|day| (day, 50)))]);

    let [path] = &paths(&svg)[..] else {
        panic!("one line: {svg}");
    };
    assert_eq!(path.matches('M').count(), 2, "{path}");
    assert!(!path.contains("284.0"), "{path}");
    assert!(
        tag_content(&svg, "desc").contains("No data from 2026-02-09 to 2026-05-19. "),
        "{svg}"
    );
}

#[test]
fn a_single_date_is_a_dot() {
    let svg = chart(&[history("E3", [(300, 40)])]);

    assert_eq!(paths(&svg), ["M62.0 204.0h0"]);
}

#[test]
fn dates_before_the_first_data_take_no_room() {
    let svg = chart(&[history("E3", [(300, 40), (301, 40)])]);

    assert!(paths(&svg)[0].starts_with("M62.0 "));
    assert_eq!(
        tag_content(&svg, "title"),
        "Licences in use at Contoso, 2026-08-28 to 2026-08-29"
    );
}

#[test]
fn the_text_alternative_describes_every_line() {
    let first = history("E3", [(0, 10), (1, 30), (2, 20)]);
    let second = history("E5", [(2, 7)]);

    let svg = chart(&[first, second]);

    assert_eq!(
        tag_content(&svg, "desc"),
        "E3: 10 of 100 active on 2025-11-01, 20 of 100 on 2025-11-03, lowest 10, highest 30. \
         E5: 7 of 100 active on 2025-11-03. "
    );
    assert_has_labels(&svg);
}

#[test]
fn the_chart_says_how_many_products_are_left_out() {
    let histories: Vec<_> = (0..12_u64)
        .map(|number| history(&format!("P{number}"), [(0, number), (1, number)]))
        .collect();

    let svg = chart(&histories);

    assert_eq!(paths(&svg).len(), 8);
    let drawn = drawn_texts(&svg);
    assert!(drawn.contains(&"P11".to_owned()) && !drawn.contains(&"P3".to_owned()));
    let note = "4 other products are not drawn; the CSV has all.";
    assert!(drawn.contains(&note.to_owned()), "{drawn:?}");
    assert!(tag_content(&svg, "desc").contains(note));
}

#[test]
fn the_qualified_licenses_are_drawn_only_beside_a_single_line() {
    let one = chart(&[history("E3", [(0, 1), (1, 1)])]);
    let two = chart(&[history("E3", [(0, 1)]), history("E5", [(0, 1)])]);

    let dashed = "class=\"qualified\"";
    assert!(one.contains(dashed) && !two.contains(dashed));
    assert!(one.contains("The dashed line shows the qualified licences."));
}

#[test]
fn a_product_that_ended_says_when() {
    let svg = chart(&[
        history("E3", (0..=LAST_DAY).map(|day| (day, 50))),
        history("E1", (0..100).map(|day| (day, 20))),
    ]);

    assert!(
        drawn_texts(&svg).contains(&"until 2026-02-08".to_owned()),
        "{svg}"
    );
}

#[test]
fn the_numbers_at_the_ends_of_equal_lines_do_not_overlap() {
    let histories: Vec<_> = (0..8)
        .map(|number| history(&format!("P{number}"), [(0, 0), (LAST_DAY, 0)]))
        .collect();

    let svg = chart(&histories);

    let document = Document::parse(&svg).unwrap();
    let numbers = document.descendants().filter(|node| {
        node.attribute("class")
            .is_some_and(|class| class.starts_with("number"))
            && node.attribute("x") == Some("448.0")
    });
    let mut places: Vec<f64> = numbers
        .map(|node| node.attribute("y").unwrap().parse().unwrap())
        .collect();
    places.sort_by(f64::total_cmp);
    assert_eq!(places.len(), 8);
    assert!(
        places
            .windows(2)
            .all(|pair| pair[1] - pair[0] >= NUMBER_DISTANCE)
    );
    assert!(places[7] <= BOTTOM + 5.0);
}

#[test]
fn without_data_the_chart_says_so() {
    let svg = chart(&[]);

    assert_eq!(
        tag_content(&svg, "desc"),
        "Nothing is stored for these dates."
    );
}

#[test]
fn an_axis_ends_at_a_round_number() {
    for (number, expected) in [
        (0, 2),
        (1, 2),
        (3, 4),
        (5, 6),
        (9, 10),
        (11, 12),
        (61, 80),
        (13, 14),
        (1_003, 1_200),
        (8_001, 10_000),
        (u64::MAX, u64::MAX),
    ] {
        assert_eq!(round_up(number), expected);
    }
}

proptest! {
    #![proptest_config(crate::proptest_support::proptest_config())]

    #[test]
    fn whatever_the_history_the_lines_stay_in_the_picture(
        customer in "\\PC{0,80}",
        histories in prop::collection::vec(
            ("[<>&\"']?\\PC{0,60}", 0..=u64::MAX / 32, prop::collection::btree_map(0..=LAST_DAY, 0..=u64::MAX / 32, 0..40)),
            0..12,
        ),
    ) {
        let histories: Vec<_> = histories
            .into_iter()
            .map(|(product, qualified, active)| History {
                product,
                qualified,
                active: active.into_iter().collect(),
            })
            .collect();

        let svg = chart_of(&customer, &histories, ChartTheme::Reader);

        let document = Document::parse(&svg).unwrap();
        for node in document.descendants().filter(Node::is_element) {
            let known = ["svg", "title", "desc", "style", "rect", "text", "path"];
            prop_assert!(known.contains(&node.tag_name().name()));
            prop_assert!(node.attributes().all(|attribute| !attribute.name().starts_with("on")));
        }
        for path in paths(&svg) {
            for place in path.split(['M', 'L']).filter(|place| !place.is_empty()) {
                let (x, y) = place.trim_end_matches("h0").split_once(' ').unwrap();
                prop_assert!((LEFT..=RIGHT).contains(&x.parse::<f64>().unwrap()));
                prop_assert!((TOP..=BOTTOM).contains(&y.parse::<f64>().unwrap()));
            }
        }
    }
}
