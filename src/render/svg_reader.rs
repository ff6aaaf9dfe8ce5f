//! Reads charts, for tests.

use roxmltree::Document;

/// The drawn text, without tooltips.
pub(super) fn drawn_texts(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).unwrap();
    let texts = document
        .descendants()
        .filter(|node| node.has_tag_name("text"));
    texts
        .map(|node| node.text().unwrap_or_default().to_owned())
        .collect()
}

/// The text of the first such tag at the top.
pub(super) fn tag_content(svg: &str, tag: &str) -> String {
    let document = Document::parse(svg).unwrap();
    let mut children = document.root_element().children();
    let found = children.find(|node| node.has_tag_name(tag));
    found.unwrap().text().unwrap_or_default().to_owned()
}

/// Fails unless the labels of the chart exist.
pub(super) fn assert_has_labels(svg: &str) {
    let document = Document::parse(svg).unwrap();
    let labels = document.root_element().attribute("aria-labelledby");
    for id in labels.unwrap().split(' ') {
        let mut nodes = document.descendants();
        assert!(nodes.any(|node| node.attribute("id") == Some(id)), "{id}");
    }
}
