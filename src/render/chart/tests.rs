use proptest::prelude::*;
use roxmltree::{Document, Node};

use super::*;
use crate::{
    domain::{
        LicenseUsage, UsageRow,
        samples::{self, usage_row as row},
    },
    render::{
        simplified,
        svg_reader::{assert_has_labels, drawn_texts, tag_content},
    },
};

fn chart(name: Option<&str>, rows: Vec<UsageRow>) -> String {
    let snapshot = LicenseUsage::new(samples::customer(), name.map(str::to_owned), rows).unwrap();
    let simplified = simplified::render(&snapshot).unwrap();
    String::from_utf8(render(&simplified, ChartTheme::Reader).unwrap().into_vec()).unwrap()
}

fn bar_widths(svg: &str) -> Vec<f64> {
    let document = Document::parse(svg).unwrap();
    let bars = document
        .descendants()
        .filter(|node| node.attribute("class") == Some("bar"));
    bars.map(|node| node.attribute("width").unwrap().parse().unwrap())
        .collect()
}

#[test]
fn a_bar_is_as_long_as_its_share_and_shows_its_counts() {
    let svg = chart(Some("Contoso"), vec![row("E3", "Exchange", 3, 8)]);

    assert_eq!(
        bar_widths(&svg),
        [96.0, 96.0],
        "over all products, and of one"
    );
    let drawn = drawn_texts(&svg);
    for text in ["Contoso", "E3", "8 licences", "Exchange", "37.5%", "3 of 8"] {
        assert!(
            drawn.iter().any(|drawn| drawn == text),
            "{text} in {drawn:?}"
        );
    }
}

#[test]
fn products_of_the_same_name_are_distinguished() {
    let sold = |channel: &str| UsageRow {
        channel: Some(channel.into()),
        ..row("E3", "Exchange", 3, 8)
    };

    let svg = chart(Some("Contoso"), vec![sold("reseller"), sold("direct")]);

    let drawn = drawn_texts(&svg);
    for note in ["reseller, 8 licences", "direct, 8 licences"] {
        assert!(drawn.contains(&note.to_owned()), "{note} in {drawn:?}");
    }
    assert!(
        tag_content(&svg, "desc").contains("E3 (direct): Exchange"),
        "{svg}"
    );
}

#[test]
fn a_workload_without_qualified_licenses_has_no_bar_and_no_percentage() {
    let svg = chart(Some("Contoso"), vec![row("E3", "Exchange", 0, 0)]);

    assert!(bar_widths(&svg).is_empty());
    assert!(!svg.contains("0%"));
    let counts = drawn_texts(&svg);
    let counts = counts
        .iter()
        .filter(|text| *text == "no licences qualified");
    assert_eq!(counts.count(), 2);
}

#[test]
fn the_text_alternative_lists_every_bar() {
    let rows = vec![row("E3", "Exchange", 3, 8), row("E3", "Teams", 0, 0)];

    let svg = chart(Some("Contoso"), rows);

    assert_eq!(
        tag_content(&svg, "title"),
        "Licence adoption of Contoso, processed 2017-03-09"
    );
    assert_eq!(
        tag_content(&svg, "desc"),
        "Over all products: Exchange 3 of 8 (37.5%), Teams no licences qualified. \
         E3: Exchange 3 of 8 (37.5%), Teams no licences qualified. "
    );
    assert_has_labels(&svg);
}

#[test]
fn without_rows_the_chart_says_so() {
    let svg = chart(Some("Contoso"), Vec::new());

    assert_eq!(
        tag_content(&svg, "desc"),
        "Partner Center counts no licences for this customer."
    );
    assert_eq!(
        tag_content(&svg, "title"),
        "Licence adoption of Contoso, no data"
    );
}

#[test]
fn a_customer_without_a_name_is_shown_by_its_id() {
    let svg = chart(None, vec![row("E3", "Exchange", 3, 8)]);

    assert!(drawn_texts(&svg).contains(&samples::customer().to_string()));
}

#[test]
fn a_long_name_is_truncated_and_complete_in_the_tooltip() {
    let long = "EXCHANGE ONLINE ARCHIVING FOR EXCHANGE ONLINE, FOR ALL OF US";

    let svg = chart(Some("Contoso"), vec![row(long, "Exchange", 3, 8)]);

    let document = Document::parse(&svg).unwrap();
    let heading = document
        .descendants()
        .find(|node| node.text().is_some_and(|text| text.ends_with('…')));
    let whole = heading.unwrap().first_element_child().unwrap();
    assert_eq!(whole.tag_name().name(), "title");
    assert_eq!(whole.text(), Some(long));
}

#[test]
fn the_chart_says_how_many_bars_are_left_out() {
    let rows = (0..1_234).map(|number| row("E3", &number.to_string(), 1, 2));

    let svg = chart(Some("Contoso"), rows.collect());

    assert_eq!(bar_widths(&svg).len(), 800);
    assert!(
        drawn_texts(&svg)
            .contains(&"834 more are not drawn; the CSV form has them all.".to_owned())
    );
}

/// Names that would break XML without escaping.
fn hostile_text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "",
            "<script>alert(1)</script>",
            "</text></svg>",
            "\"'><g onload=\"x\">",
            "]]>",
            "&lt;&#0;&bogus;",
            "<!--",
            "<?xml ?>",
            "{{ 1 }}",
            "\u{0}\u{8}\u{b}\u{1f}\u{7f}\u{9f}",
            "\u{202e}x\u{2066}",
            "\u{fffe}\u{ffff}\u{feff}",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,80}",
        prop::collection::vec(any::<char>(), 0..80).prop_map(String::from_iter),
    ]
}

proptest! {
    #![proptest_config(crate::proptest_support::proptest_config())]

    #[test]
    fn hostile_names_do_not_break_the_svg(
        customer in prop::option::of(hostile_text()),
        names in prop::collection::vec((hostile_text(), hostile_text(), 0..=u64::MAX / 32, 0..=u64::MAX / 32), 0..12),
    ) {
        let rows = names.iter().map(|(product, workload, active, qualified)| {
            row(product, workload, *active, *qualified)
        });

        let svg = chart(customer.as_deref(), rows.collect());

        let document = Document::parse(&svg).unwrap();
        for node in document.descendants().filter(Node::is_element) {
            let known = ["svg", "title", "desc", "style", "rect", "text"];
            prop_assert!(known.contains(&node.tag_name().name()));
            prop_assert!(node.attributes().all(|attribute| !attribute.name().starts_with("on")));
        }
        prop_assert!(document.descendants().all(|node| !node.is_comment() && !node.is_pi()));
        let turned = |text: char| matches!(text, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        prop_assert!(!svg.contains(turned));
        prop_assert!(bar_widths(&svg).iter().all(|width| (0.0..=TRACK_PIXELS).contains(width)));
    }
}
