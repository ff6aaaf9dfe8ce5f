use std::sync::Arc;

use askama::Template;

use super::{
    Frame,
    ask::{self, Ask},
};
use crate::{
    api::{Arrived, Inner},
    domain::{Caller, CustomerEntry, CustomerId},
    render::{
        Prepared,
        adoption::{displayable, grouped},
        customers::{CustomerIndex, Sought},
    },
    service::{Answer, Directive, Unanswered},
};

/// Customers on a page of the list: more would be slow to load and to read.
const PAGE_LENGTH: usize = 200;

/// Names that a browser is given to complete what is typed.
const MOST_SUGGESTED: usize = 250;

/// The customers that a caller may see; going through them is for [`offload`](crate::offload).
pub(super) struct Directory {
    list: Arc<Prepared>,
    caller: Caller,
}

/// Some of them.
struct Found<'a> {
    customers: Vec<&'a CustomerEntry>,
    /// Of how many.
    total: usize,
    /// Whether somebody looked for just one, and this is it.
    is_the_one: bool,
}

/// What a search comes to.
pub(super) enum Choosing {
    /// What was typed means this customer.
    Chosen(CustomerId),
    /// Nobody is called so.
    Nobody,
    /// A page to choose from.
    Among(askama::Result<String>),
}

/// Customers to choose from.
#[derive(Template)]
#[template(path = "api/page/customers.html", config = "src/askama.toml")]
struct CustomersPage {
    frame: Frame,
    sought: String,
    total: usize,
    count: String,
    shown: Vec<Choice>,
    previous: Option<String>,
    next: Option<String>,
    /// Whether these are all there are.
    is_everybody: bool,
    anonymous: bool,
}

struct Choice {
    link: String,
    name: String,
    domain: String,
}

/// The list of customers, of which a caller may see its own.
pub(super) async fn list<B>(
    api: &Inner,
    arrived: &Arrived<'_, B>,
    caller: &Caller,
    directive: Directive,
) -> Result<Answer, Unanswered> {
    let trace = || arrived.call_trace();
    api.usage.list(directive, caller, trace, arrived.at).await
}

// === impl Directory ===

impl Directory {
    pub(super) fn new(list: &Answer, caller: &Caller) -> Self {
        Self {
            list: Arc::clone(&list.held.prepared),
            caller: caller.clone(),
        }
    }

    /// Bytes that a search goes through.
    pub(super) fn search_bytes(&self) -> usize {
        self.list.customers().map_or(0, CustomerIndex::search_bytes)
    }

    /// Chooses by what was typed, or shows what there is to choose from.
    pub(super) fn choose(&self, frame: Frame, ask: &Ask) -> Choosing {
        let found = self.search(&ask.customer);
        if let Some(customer) = found.the_one() {
            return Choosing::Chosen(customer);
        }
        if found.customers.is_empty() && !ask.customer.is_empty() {
            return Choosing::Nobody;
        }
        let frame = Frame {
            form: Some(ask.form(self.suggestions())),
            ..frame
        };
        Choosing::Among(found.page(frame, ask, &self.caller).render())
    }

    /// Whose name or domain has this text in it. A name that is typed whole is that customer's,
    /// even where longer ones have it in them.
    fn search(&self, text: &str) -> Found<'_> {
        let sought = Sought::new(text);
        let customers = match self.only_named(&sought) {
            Some(named) => vec![named],
            None => {
                let found = self.index().flat_map(|index| index.search(&sought));
                found.filter(|entry| self.shows(entry)).collect()
            }
        };
        Found {
            is_the_one: !sought.is_everybody() && customers.len() == 1,
            customers,
            total: self.total(),
        }
    }

    /// What to call a customer so that a search finds it and no other.
    pub(super) fn handle(&self, customer: CustomerId) -> String {
        let name = self.name(customer).filter(|name| {
            let named = self.only_named(&Sought::new(name));
            named.is_some_and(|entry| entry.id == customer)
        });
        name.unwrap_or_else(|| customer.to_string())
    }

    /// What a customer is called, where it is called anything.
    pub(super) fn name(&self, customer: CustomerId) -> Option<String> {
        let entry = self.list.customers()?.find(customer)?;
        let name = displayable(&entry.name);
        Some(name).filter(|name| self.shows(entry) && !name.is_empty())
    }

    /// Names to complete what is typed by; none where there are too many of them.
    pub(super) fn suggestions(&self) -> Vec<String> {
        let visible = self.visible().take(MOST_SUGGESTED + 1);
        let names: Vec<_> = visible.map(|entry| displayable(&entry.name)).collect();
        if names.len() > MOST_SUGGESTED {
            return Vec::new();
        }
        names.into_iter().filter(|name| !name.is_empty()).collect()
    }

    /// The customer whose whole name this is, where there is just one.
    fn only_named(&self, sought: &Sought) -> Option<&CustomerEntry> {
        let named = self.index().flat_map(|index| index.named(sought));
        let mut named = named.filter(|entry| self.shows(entry));
        match (named.next(), named.next()) {
            (Some(named), None) => Some(named),
            _ => None,
        }
    }

    fn visible(&self) -> impl Iterator<Item = &CustomerEntry> {
        let entries = self.index().flat_map(CustomerIndex::entries);
        entries.filter(|entry| self.shows(entry))
    }

    fn total(&self) -> usize {
        if self.caller.may_read_all() {
            self.list.customers().map_or(0, CustomerIndex::len)
        } else {
            self.visible().count()
        }
    }

    fn index(&self) -> impl Iterator<Item = &CustomerIndex> {
        self.list.customers().into_iter()
    }

    fn shows(&self, entry: &CustomerEntry) -> bool {
        self.caller.may_read(entry.id)
    }
}

// === impl Found ===

impl Found<'_> {
    fn the_one(&self) -> Option<CustomerId> {
        let only = self.customers.first().filter(|_| self.is_the_one);
        only.map(|entry| entry.id)
    }

    fn page(&self, frame: Frame, ask: &Ask, caller: &Caller) -> CustomersPage {
        let sought = displayable(&ask.customer);
        let pages = self.customers.len().div_ceil(PAGE_LENGTH).max(1);
        let page = usize::try_from(ask.page.get()).map_or(pages, |page| page.min(pages));
        let before = (page - 1) * PAGE_LENGTH;
        let shown = self.customers.iter().skip(before).take(PAGE_LENGTH);
        let shown: Vec<_> = shown.map(|entry| Choice::of(entry, ask)).collect();
        let count = self.count(&sought);
        CustomersPage {
            frame,
            count: if pages == 1 {
                count
            } else {
                let (first, last) = (number(before + 1), number(before + shown.len()));
                format!("{count}, {first} to {last} shown")
            },
            sought,
            total: self.total,
            previous: (page > 1).then(|| ask.list_link(page - 1)),
            next: (page < pages).then(|| ask.list_link(page + 1)),
            is_everybody: shown.len() == self.total,
            shown,
            anonymous: caller.may_read_all(),
        }
    }

    fn count(&self, sought: &str) -> String {
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

fn number(count: usize) -> String {
    grouped(u64::try_from(count).unwrap_or(u64::MAX))
}

// === impl Choice ===

impl Choice {
    fn of(entry: &CustomerEntry, ask: &Ask) -> Self {
        let name = displayable(&entry.name);
        Self {
            link: ask::link(entry.id, ask.date),
            name: if name.is_empty() {
                entry.id.to_string()
            } else {
                name
            },
            domain: displayable(entry.domain.as_deref().unwrap_or_default()),
        }
    }
}
