use askama::Template;

use super::{
    Frame,
    ask::{self, Ask},
};
use crate::{
    api::{Arrived, Inner},
    domain::{Caller, CustomerEntry, CustomerId},
    representation::adoption::{displayable, grouped},
    usage::{CustomersAnswer, Unanswered},
};

/// Customers that are named at once: beyond that, a page would be slow to load and to read.
const MOST_NAMED: usize = 250;

/// The customers that a caller may see.
pub(super) struct Directory<'a>(&'a [CustomerEntry]);

/// Some of them.
pub(super) struct Found<'a> {
    customers: Vec<&'a CustomerEntry>,
    /// Of how many.
    total: usize,
    /// Whether somebody looked for just one, and this is it.
    is_the_one: bool,
}

/// Customers to choose from.
#[derive(Template)]
#[template(path = "api/page/customers.html", config = "src/askama.toml")]
pub(super) struct CustomersPage<'a> {
    frame: Frame,
    sought: String,
    total: usize,
    count: String,
    shown: Vec<Choice<'a>>,
    /// Whether these are all that were found.
    is_complete: bool,
    /// Whether these are all there are.
    is_everybody: bool,
    anonymous: bool,
}

struct Choice<'a> {
    link: String,
    name: String,
    domain: &'a str,
}

/// The customers that a caller may see, as the API lists them.
pub(super) async fn list<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    caller: &Caller,
) -> Result<CustomersAnswer, Unanswered> {
    let trace = || arrived.call_trace();
    let directive = arrived.directive();
    api.usage
        .customers(directive, caller, trace, arrived.at)
        .await
}

// === impl Directory ===

impl<'a> Directory<'a> {
    pub(super) fn new(customers: &'a [CustomerEntry]) -> Self {
        Self(customers)
    }

    /// Whose name or domain has this text in it. A name that is typed whole is that customer's,
    /// even where longer ones have it in them.
    pub(super) fn search(&self, text: &str) -> Found<'a> {
        let sought = text.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&sought);
        let customers: Vec<_> = self
            .0
            .iter()
            .filter(|entry| has(&entry.name) || entry.domain.as_deref().is_some_and(has))
            .collect();
        let mut named = customers
            .iter()
            .filter(|entry| entry.name.to_lowercase() == sought);
        let found = match (named.next(), named.next()) {
            (Some(named), None) if !sought.is_empty() => vec![*named],
            _ => customers,
        };
        Found {
            is_the_one: !sought.is_empty() && found.len() == 1,
            customers: found,
            total: self.0.len(),
        }
    }

    /// What to call a customer so that a search finds it and no other.
    pub(super) fn handle(&self, customer: CustomerId) -> String {
        let name = self
            .0
            .iter()
            .find(|entry| entry.id == customer)
            .map(|entry| &entry.name);
        match name {
            Some(name) if self.search(name).the_one() == Some(customer) => name.clone(),
            _ => customer.to_string(),
        }
    }

    /// Names to complete what is typed by; none where there are too many of them.
    pub(super) fn suggestions(&self) -> Vec<String> {
        if self.0.len() > MOST_NAMED {
            return Vec::new();
        }
        let names = self.0.iter().map(|entry| entry.name.clone());
        names.filter(|name| !name.is_empty()).collect()
    }
}

// === impl Found ===

impl<'a> Found<'a> {
    pub(super) fn the_one(&self) -> Option<CustomerId> {
        let only = self.customers.first().filter(|_| self.is_the_one);
        only.map(|entry| entry.id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.customers.is_empty()
    }

    pub(super) fn page(&self, frame: Frame, ask: &Ask, caller: &Caller) -> CustomersPage<'a> {
        let shown = self.customers.iter().take(MOST_NAMED);
        let shown: Vec<_> = shown.map(|entry| Choice::of(entry, ask)).collect();
        CustomersPage {
            frame,
            sought: displayable(&ask.customer),
            total: self.total,
            count: self.count(&ask.customer),
            is_complete: shown.len() == self.customers.len(),
            is_everybody: shown.len() == self.total,
            shown,
            anonymous: caller.may_read_all(),
        }
    }

    fn count(&self, sought: &str) -> String {
        let number = |count: usize| grouped(u64::try_from(count).unwrap_or(u64::MAX));
        match (sought, self.total) {
            ("", 1) => "1 customer".to_owned(),
            ("", total) => format!("{} customers", number(total)),
            (_, total) => format!(
                "{} of {} customers",
                number(self.customers.len()),
                number(total)
            ),
        }
    }
}

// === impl Choice ===

impl<'a> Choice<'a> {
    fn of(entry: &'a CustomerEntry, ask: &Ask) -> Self {
        let name = displayable(&entry.name);
        Self {
            link: ask::link(entry.id, ask.date),
            name: if name.is_empty() {
                entry.id.to_string()
            } else {
                name
            },
            domain: entry.domain.as_deref().unwrap_or_default(),
        }
    }
}
