//! Searches among customers by name, domain or a part of them.

use super::super::display_text::display_text;
use crate::{domain::CustomerEntry, text::fold_case_and_accents};

/// A searched text, compared with names and domains as they are displayed. Letter case and accents
/// make no difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerSearch(String);

/// Separates name and domain in a [`SearchText`]; no displayed text has it.
const SEPARATOR: char = '\n';

/// The text by which a customer is found.
pub(super) struct SearchText(Box<str>);

// === impl CustomerSearch ===

impl CustomerSearch {
    /// The search for a text; an empty one matches all customers.
    pub fn new(text: &str) -> Self {
        Self(fold_for_search(text))
    }

    /// Returns true if the search matches all customers.
    pub fn matches_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if the name or the domain of a customer contains the text.
    pub(super) fn matches(&self, text: &SearchText) -> bool {
        text.0.contains(&self.0)
    }

    /// Returns true if the text is the name of a customer; false for an empty text.
    pub(super) fn matches_name(&self, text: &SearchText) -> bool {
        !self.matches_all() && text.name() == self.0
    }
}

// === impl SearchText ===

impl SearchText {
    pub(super) fn new(entry: &CustomerEntry) -> Self {
        let domain = entry.domain.as_deref().unwrap_or_default();
        let (name, domain) = (fold_for_search(&entry.name), fold_for_search(domain));
        Self(format!("{name}{SEPARATOR}{domain}").into())
    }

    pub(super) fn name(&self) -> &str {
        self.0.split_once(SEPARATOR).map_or("", |(name, _)| name)
    }

    pub(super) fn domain(&self) -> &str {
        self.0
            .split_once(SEPARATOR)
            .map_or("", |(_, domain)| domain)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

pub(super) fn fold_for_search(text: &str) -> String {
    fold_case_and_accents(&display_text(text))
}
