use super::rows::failure_words;
use crate::{
    api::page::query::{self, PageQuery},
    domain::FleetStatus,
    render::{
        adoption::grouped,
        display_text,
        fleet::{FleetSelection, FleetSort, FleetSortKey, FleetStatusCounts, SelectedCustomer},
    },
};

/// The customers that a sentence names; more would be a second list.
const MAX_NAMES: usize = 5;

/// The customers that the totals do not have, or have with older counts.
pub(super) struct MissingData {
    /// True if the totals have the newest counts of every customer.
    pub(super) is_complete: bool,
    pub(super) sentences: Vec<MissingSentence>,
}

/// A sentence about customers of one state.
pub(super) struct MissingSentence {
    /// The sentence, without a full stop if names follow.
    pub(super) text: String,
    pub(super) customers: Vec<NamedCustomer>,
    /// The number of customers that are not named.
    pub(super) others: Option<String>,
    /// The link to a list that has these customers first.
    pub(super) all: Option<String>,
}

/// A customer with a detail, such as its date.
pub(super) struct NamedCustomer {
    pub(super) link: String,
    pub(super) name: String,
    pub(super) detail: Option<String>,
}

/// Finds what is missing in the totals of a selection.
pub(super) fn missing_data(
    selection: &FleetSelection<'_>,
    counts: FleetStatusCounts,
    page_query: &PageQuery,
    is_refreshed: bool,
) -> MissingData {
    let sentence = |status: FleetStatus, text: String, sort: Option<FleetSort>| {
        MissingSentence::new(selection, page_query, status, text, sort)
    };
    let by_date = FleetSort {
        key: FleetSortKey::Date,
        reversed: true,
    };
    let mut sentences = Vec::new();
    if counts.not_fetched > 0 && (is_refreshed || page_query.date.is_some()) {
        let when = if page_query.date.is_some() {
            "was not fetched for this date"
        } else {
            "has no data yet"
        };
        let text = match counts.not_fetched {
            1 => format!("1 customer {when}"),
            many => {
                let when = when.replace("was", "were").replace("has", "have");
                format!("{} customers {when}", grouped(many))
            }
        };
        sentences.push(sentence(FleetStatus::NotFetched, text, None));
    }
    if counts.stale > 0 {
        let text = format!("Data of {} is older", customers(counts.stale));
        sentences.push(sentence(FleetStatus::Stale, text, Some(by_date)));
    }
    if counts.failed > 0 {
        let text = format!(
            "Partner Center returns no data for {}",
            customers(counts.failed)
        );
        sentences.push(sentence(FleetStatus::Failed, text, None));
    }
    if counts.empty > 0 {
        let verb = if counts.empty == 1 { "has" } else { "have" };
        let text = format!("{} {verb} no licences", customers(counts.empty));
        sentences.push(sentence(FleetStatus::Empty, text, None));
    }
    if selection.excluded > 0 {
        let text = match selection.excluded {
            1 => {
                "1 product of a customer does not count: the portfolio file excludes it".to_owned()
            }
            many => format!(
                "{} products of customers do not count: the portfolio file excludes them",
                grouped(many)
            ),
        };
        sentences.push(MissingSentence::without_names(text));
    }
    MissingData {
        is_complete: counts.is_complete(),
        sentences,
    }
}

/// A number of customers in words.
fn customers(count: u64) -> String {
    match count {
        1 => "1 customer".to_owned(),
        count => format!("{} customers", grouped(count)),
    }
}

// === impl MissingSentence ===

impl MissingSentence {
    fn new(
        selection: &FleetSelection<'_>,
        page_query: &PageQuery,
        status: FleetStatus,
        text: String,
        sort: Option<FleetSort>,
    ) -> Self {
        let of_status = selection.customers.iter();
        let mut of_status = of_status.filter(|customer| customer.entry.status == status);
        let named = of_status.by_ref().take(MAX_NAMES);
        let named: Vec<_> = named
            .map(|customer| NamedCustomer::new(customer, page_query))
            .collect();
        let others = of_status.count();
        let has_more = others > 0;
        Self {
            text,
            customers: named,
            others: has_more.then(|| grouped(u64::try_from(others).unwrap_or(u64::MAX))),
            all: sort
                .filter(|_| has_more)
                .map(|sort| page_query.sorted_link(sort)),
        }
    }

    fn without_names(text: String) -> Self {
        Self {
            text,
            customers: Vec::new(),
            others: None,
            all: None,
        }
    }
}

// === impl NamedCustomer ===

impl NamedCustomer {
    fn new(customer: &SelectedCustomer<'_>, page_query: &PageQuery) -> Self {
        let entry = customer.entry;
        let name = display_text(&entry.customer_name);
        let date = entry
            .usage
            .as_ref()
            .and_then(|usage| usage.processed_date());
        Self {
            link: query::customer_link(entry.customer_id, page_query.date),
            name: if name.is_empty() {
                entry.customer_id.to_string()
            } else {
                name
            },
            detail: match entry.status {
                FleetStatus::Stale => date.map(|date| date.to_string()),
                FleetStatus::Failed => Some(failure_words(entry.failure)),
                FleetStatus::Current | FleetStatus::Empty | FleetStatus::NotFetched => None,
            },
        }
    }
}
