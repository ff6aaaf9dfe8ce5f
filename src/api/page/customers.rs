use std::sync::Arc;

use askama::Template;

use super::{
    frame::PageFrame,
    query::{self, PageQuery},
};
use crate::{
    api::context::AuthenticatedRequest,
    domain::{Caller, CustomerEntry, CustomerId},
    render::{
        Rendered,
        adoption::grouped,
        customers::{CustomerIndex, CustomerSearch},
        display_text,
    },
    service::{CacheDirective, UsageAnswer, UsageError},
};

/// The customers on a page of the list; more would be slow to load and to read.
const PAGE_LENGTH: usize = 200;

/// The most names for the browser's completion.
const MAX_SUGGESTIONS: usize = 250;

/// The customers that a caller may see. Searches take CPU: run them in [`offload`](crate::offload).
pub(super) struct CustomerDirectory {
    list: Arc<Rendered>,
    caller: Caller,
}

/// The result of a search.
struct CustomerMatches<'a> {
    customers: Vec<&'a CustomerEntry>,
    /// The number of all visible customers.
    total: usize,
    /// True if the search means exactly one customer.
    is_exact_match: bool,
}

/// The page to show after a search.
pub(super) enum CustomerChoiceOutcome {
    /// The usage of this customer, which the search means.
    Chosen(CustomerId),
    /// No customer matches.
    NotFound,
    /// The list of customers.
    List(askama::Result<String>),
}

/// The page with the list of customers.
#[derive(Template)]
#[template(path = "api/page/customers.html", config = "src/askama.toml")]
struct CustomersPage {
    frame: PageFrame,
    searched: String,
    total: usize,
    count: String,
    shown: Vec<CustomerChoice>,
    previous: Option<String>,
    next: Option<String>,
    /// True if the page shows all customers.
    is_everybody: bool,
    anonymous: bool,
}

struct CustomerChoice {
    link: String,
    name: String,
    domain: String,
}

/// Returns the whole list of customers; a caller may see a part of it.
pub(super) async fn list(
    request: &AuthenticatedRequest,
    directive: CacheDirective,
) -> Result<UsageAnswer, UsageError> {
    let trace = || request.call_trace();
    let usage = &request.api.usage;
    usage
        .customer_list(directive, request.caller(), trace, request.received_at)
        .await
}

// === impl CustomerDirectory ===

impl CustomerDirectory {
    pub(super) fn new(list: &UsageAnswer, caller: &Caller) -> Self {
        Self {
            list: Arc::clone(&list.cached.rendered),
            caller: caller.clone(),
        }
    }

    /// The number of bytes that a search reads.
    pub(super) fn search_bytes(&self) -> usize {
        self.list.customers().map_or(0, CustomerIndex::search_bytes)
    }

    /// Searches for the entered customer, or lists all of them.
    pub(super) fn choose(&self, frame: PageFrame, page_query: &PageQuery) -> CustomerChoiceOutcome {
        let found = self.search(&page_query.customer);
        if let Some(customer) = found.exact_match() {
            return CustomerChoiceOutcome::Chosen(customer);
        }
        if found.customers.is_empty() && !page_query.customer.is_empty() {
            return CustomerChoiceOutcome::NotFound;
        }
        let frame = PageFrame {
            form: Some(page_query.search_form(self.suggestions())),
            ..frame
        };
        CustomerChoiceOutcome::List(found.page(frame, page_query, &self.caller).render())
    }

    /// Finds customers by a part of their name or domain. A whole name means that customer, even if
    /// longer names contain it.
    fn search(&self, text: &str) -> CustomerMatches<'_> {
        let searched = CustomerSearch::new(text);
        let customers = match self.unique_by_name(&searched) {
            Some(named) => vec![named],
            None => {
                let found = self.index().flat_map(|index| index.search(&searched));
                found.filter(|entry| self.is_visible(entry)).collect()
            }
        };
        CustomerMatches {
            is_exact_match: !searched.matches_all() && customers.len() == 1,
            customers,
            total: self.total(),
        }
    }

    /// Returns a text that finds only this customer: its name, or else its id.
    pub(super) fn search_label(&self, customer: CustomerId) -> String {
        let name = self.name(customer).filter(|name| {
            let named = self.unique_by_name(&CustomerSearch::new(name));
            named.is_some_and(|entry| entry.id == customer)
        });
        name.unwrap_or_else(|| customer.to_string())
    }

    /// Returns the name of a visible customer, if it has one.
    pub(super) fn name(&self, customer: CustomerId) -> Option<String> {
        let entry = self.list.customers()?.find(customer)?;
        let name = display_text(&entry.name);
        Some(name).filter(|name| self.is_visible(entry) && !name.is_empty())
    }

    /// Returns the names for completion; none if there are too many.
    pub(super) fn suggestions(&self) -> Vec<String> {
        let visible = self.visible().take(MAX_SUGGESTIONS + 1);
        let names: Vec<_> = visible.map(|entry| display_text(&entry.name)).collect();
        if names.len() > MAX_SUGGESTIONS {
            return Vec::new();
        }
        names.into_iter().filter(|name| !name.is_empty()).collect()
    }

    /// Returns the only customer with exactly this name.
    fn unique_by_name(&self, searched: &CustomerSearch) -> Option<&CustomerEntry> {
        let named = self
            .index()
            .flat_map(|index| index.with_exact_name(searched));
        let mut named = named.filter(|entry| self.is_visible(entry));
        match (named.next(), named.next()) {
            (Some(named), None) => Some(named),
            _ => None,
        }
    }

    fn visible(&self) -> impl Iterator<Item = &CustomerEntry> {
        let entries = self.index().flat_map(CustomerIndex::entries);
        entries.filter(|entry| self.is_visible(entry))
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

    fn is_visible(&self, entry: &CustomerEntry) -> bool {
        self.caller.may_read(entry.id)
    }
}

// === impl CustomerMatches ===

impl CustomerMatches<'_> {
    fn exact_match(&self) -> Option<CustomerId> {
        let only = self.customers.first().filter(|_| self.is_exact_match);
        only.map(|entry| entry.id)
    }

    fn page(&self, frame: PageFrame, page_query: &PageQuery, caller: &Caller) -> CustomersPage {
        let searched = display_text(&page_query.customer);
        let pages = self.customers.len().div_ceil(PAGE_LENGTH).max(1);
        let page = usize::try_from(page_query.page.get()).map_or(pages, |page| page.min(pages));
        let before = (page - 1) * PAGE_LENGTH;
        let shown = self.customers.iter().skip(before).take(PAGE_LENGTH);
        let shown: Vec<_> = shown
            .map(|entry| CustomerChoice::new(entry, page_query))
            .collect();
        let count = self.count(&searched);
        CustomersPage {
            frame,
            count: if pages == 1 {
                count
            } else {
                let (first, last) = (number(before + 1), number(before + shown.len()));
                format!("{count}, {first} to {last} shown")
            },
            searched,
            total: self.total,
            previous: (page > 1).then(|| page_query.list_page_link(page - 1)),
            next: (page < pages).then(|| page_query.list_page_link(page + 1)),
            is_everybody: shown.len() == self.total,
            shown,
            anonymous: caller.may_read_all(),
        }
    }

    fn count(&self, searched: &str) -> String {
        match (searched, self.total) {
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

// === impl CustomerChoice ===

impl CustomerChoice {
    fn new(entry: &CustomerEntry, page_query: &PageQuery) -> Self {
        let name = display_text(&entry.name);
        Self {
            link: query::customer_link(entry.id, page_query.date),
            name: if name.is_empty() {
                entry.id.to_string()
            } else {
                name
            },
            domain: display_text(entry.domain.as_deref().unwrap_or_default()),
        }
    }
}
