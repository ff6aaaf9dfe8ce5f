use std::{collections::HashSet, sync::Arc};

use crate::{
    api::context::AuthenticatedRequest,
    domain::{Caller, CustomerEntry, CustomerId},
    render::{
        Rendered,
        customers::{CustomerIndex, CustomerSearch},
        display_text,
    },
    service::{CacheDirective, UsageAnswer, UsageError},
};

/// The most names for the browser's completion.
const MAX_SUGGESTIONS: usize = 250;

/// The customers that a caller may see; clones share the list. Searches take CPU: run them in
/// [`offload`](crate::offload).
#[derive(Clone)]
pub(super) struct CustomerDirectory {
    list: Arc<Rendered>,
    caller: Caller,
}

/// The result of a search.
pub(super) enum CustomerSearchResult {
    /// The search means this customer.
    Exact(CustomerId),
    /// The search is empty.
    All,
    /// The customers that match; perhaps none.
    Matches(HashSet<CustomerId>),
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

    /// Finds customers by a part of their name or domain. A whole name means that customer, even if
    /// longer names contain it.
    pub(super) fn search(&self, text: &str) -> CustomerSearchResult {
        let searched = CustomerSearch::new(text);
        if let Some(named) = self.unique_by_name(&searched) {
            return CustomerSearchResult::Exact(named.id);
        }
        if searched.matches_all() {
            return CustomerSearchResult::All;
        }
        let found = self.index().flat_map(|index| index.search(&searched));
        let found = found.filter(|entry| self.is_visible(entry));
        let found: HashSet<_> = found.map(|entry| entry.id).collect();
        match found.iter().next() {
            Some(only) if found.len() == 1 => CustomerSearchResult::Exact(*only),
            _ => CustomerSearchResult::Matches(found),
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
        let name = display_text(&self.find(customer)?.name);
        Some(name).filter(|name| !name.is_empty())
    }

    /// Returns the domain of a visible customer, if it has one.
    pub(super) fn domain(&self, customer: CustomerId) -> Option<String> {
        let domain = display_text(self.find(customer)?.domain.as_deref()?);
        Some(domain).filter(|domain| !domain.is_empty())
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

    /// The number of visible customers.
    pub(super) fn len(&self) -> usize {
        if self.caller.may_read_all() {
            self.list.customers().map_or(0, CustomerIndex::len)
        } else {
            self.visible().count()
        }
    }

    /// The caller that sees them.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
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

    fn find(&self, customer: CustomerId) -> Option<&CustomerEntry> {
        let entry = self.list.customers()?.find(customer)?;
        self.is_visible(entry).then_some(entry)
    }

    fn visible(&self) -> impl Iterator<Item = &CustomerEntry> {
        let entries = self.index().flat_map(CustomerIndex::entries);
        entries.filter(|entry| self.is_visible(entry))
    }

    fn index(&self) -> impl Iterator<Item = &CustomerIndex> {
        self.list.customers().into_iter()
    }

    fn is_visible(&self, entry: &CustomerEntry) -> bool {
        self.caller.may_read(entry.id)
    }
}
