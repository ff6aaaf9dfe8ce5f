use std::{collections::HashSet, sync::Arc};

use super::CustomerId;

/// A caller and its rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    name: Arc<str>,
    customers: CustomerAccess,
    /// The customers of its credential: both must include a customer.
    credential_customers: CustomerAccess,
    scopes: ScopeSet,
    is_anonymous: bool,
}

/// The customers whose usage a caller may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustomerAccess {
    /// All customers.
    All,
    /// These customers.
    Only(Arc<HashSet<CustomerId>>),
}

/// A right of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerScope {
    /// Read usage.
    UsageRead,
    /// Request that upstream is asked although an answer is fresh.
    CacheRefresh,
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeSet(u8);

// === impl Caller ===

impl Caller {
    /// Creates a caller with these rights.
    pub fn new(name: impl Into<Arc<str>>, customers: CustomerAccess, scopes: ScopeSet) -> Self {
        Self {
            name: name.into(),
            customers,
            credential_customers: CustomerAccess::All,
            scopes,
            is_anonymous: false,
        }
    }

    /// Returns the same caller with a credential that has fewer rights: it keeps its rights as far as they are
    /// among these too.
    #[must_use]
    pub fn restricted_to(&self, customers: &CustomerAccess, scopes: ScopeSet) -> Self {
        Self {
            name: Arc::clone(&self.name),
            customers: self.customers.clone(),
            credential_customers: customers.clone(),
            scopes: self.scopes.intersection(scopes),
            is_anonymous: self.is_anonymous,
        }
    }

    /// Returns the caller of all requests where no callers are configured. It has all rights.
    pub fn anonymous() -> Self {
        let scopes = CallerScope::ALL.into_iter().collect();
        Self {
            is_anonymous: true,
            ..Self::new("anonymous", CustomerAccess::All, scopes)
        }
    }

    /// Its name, for logs and limits.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns whether it is the anonymous caller. Another may have the same name.
    pub fn is_anonymous(&self) -> bool {
        self.is_anonymous
    }

    /// Returns whether it may read the usage of this customer.
    pub fn may_read(&self, customer_id: CustomerId) -> bool {
        self.has_scope(CallerScope::UsageRead)
            && self.customers.includes(customer_id)
            && self.credential_customers.includes(customer_id)
    }

    /// Returns whether it may read the usage of every customer there is and will be, and so totals over all of
    /// them.
    pub fn may_read_all(&self) -> bool {
        self.has_scope(CallerScope::UsageRead)
            && self.customers.is_all()
            && self.credential_customers.is_all()
    }

    /// Returns the customers whose usage it may read, by id; `None` for every customer there is and
    /// will be.
    pub fn readable_customers(&self) -> Option<Vec<CustomerId>> {
        if self.may_read_all() {
            return None;
        }
        let mut lists = [&self.customers, &self.credential_customers].into_iter();
        let list = lists.find_map(|access| match access {
            CustomerAccess::All => None,
            CustomerAccess::Only(these) => Some(these),
        });
        let listed = list.into_iter().flat_map(|these| these.iter().copied());
        let mut readable: Vec<_> = listed.filter(|id| self.may_read(*id)).collect();
        readable.sort_unstable();
        Some(readable)
    }

    /// Returns whether it has this scope.
    pub fn has_scope(&self, scope: CallerScope) -> bool {
        self.scopes.contains(scope)
    }
}

// === impl CustomerAccess ===

impl CustomerAccess {
    /// Returns whether a customer is included.
    pub fn includes(&self, customer_id: CustomerId) -> bool {
        match self {
            Self::All => true,
            Self::Only(these) => these.contains(&customer_id),
        }
    }

    /// Returns whether all customers are included.
    pub fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Returns whether no customer is included.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Only(these) if these.is_empty())
    }
}

// === impl CallerScope ===

impl CallerScope {
    /// Every scope.
    pub const ALL: [Self; 2] = [Self::UsageRead, Self::CacheRefresh];

    /// Its name, in the callers file and in tokens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UsageRead => "usage:read",
            Self::CacheRefresh => "cache:refresh",
        }
    }

    /// Returns the scope of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }

    const fn bit(self) -> u8 {
        match self {
            Self::UsageRead => 1,
            Self::CacheRefresh => 2,
        }
    }
}

// === impl ScopeSet ===

impl ScopeSet {
    /// Returns whether the scope is included.
    pub const fn contains(self, scope: CallerScope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Returns whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the scopes in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromIterator<CallerScope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = CallerScope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | scope.bit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::samples;

    fn other_customer() -> CustomerId {
        CustomerId::parse("00000000-0000-4000-8000-000000000001").unwrap()
    }

    #[test]
    fn a_caller_may_read_only_its_own_customers() {
        let its = Arc::new(HashSet::from([samples::customer()]));
        let scopes = ScopeSet::from_iter([CallerScope::UsageRead]);
        let caller = Caller::new("portal", CustomerAccess::Only(its), scopes);

        assert!(caller.may_read(samples::customer()));
        assert!(!caller.may_read(other_customer()));
        assert!(!caller.has_scope(CallerScope::CacheRefresh));
    }

    #[test]
    fn a_caller_without_the_scope_reads_nothing() {
        let scopes = ScopeSet::from_iter([CallerScope::CacheRefresh]);
        let caller = Caller::new("refresher", CustomerAccess::All, scopes);

        assert!(!caller.may_read(samples::customer()));
    }

    #[test]
    fn a_restricted_credential_only_removes_rights() {
        let only =
            |these: &[CustomerId]| CustomerAccess::Only(Arc::new(these.iter().copied().collect()));
        let read = ScopeSet::from_iter([CallerScope::UsageRead]);
        let all = ScopeSet::from_iter(CallerScope::ALL);
        let (one, two) = (samples::customer(), other_customer());

        for (has, says, may) in [
            (CustomerAccess::All, CustomerAccess::All, [true, true]),
            (CustomerAccess::All, only(&[one]), [true, false]),
            (only(&[one]), CustomerAccess::All, [true, false]),
            (only(&[one]), only(&[one, two]), [true, false]),
            (only(&[one]), only(&[two]), [false, false]),
            (only(&[one, two]), only(&[]), [false, false]),
        ] {
            let everybody = has.is_all() && says.is_all();
            let caller = Caller::new("portal", has, read).restricted_to(&says, all);

            assert_eq!(
                [one, two].map(|customer| caller.may_read(customer)),
                may,
                "{says:?}"
            );
            assert!(!caller.has_scope(CallerScope::CacheRefresh));
            assert_eq!(caller.may_read_all(), everybody);
            if let Some(readable) = caller.readable_customers() {
                assert_eq!([one, two].map(|customer| readable.contains(&customer)), may);
                assert!(readable.is_sorted());
            } else {
                assert!(everybody);
            }
        }
        let refresh = ScopeSet::from_iter([CallerScope::CacheRefresh]);
        let caller = Caller::anonymous().restricted_to(&CustomerAccess::All, refresh);
        assert!(!caller.may_read(one));
        assert!(!caller.may_read_all());
        assert_eq!(caller.readable_customers(), Some(Vec::new()));
    }

    #[test]
    fn every_scope_is_found_by_its_name() {
        for scope in CallerScope::ALL {
            assert_eq!(CallerScope::from_name(scope.as_str()), Some(scope));
        }
        assert_eq!(CallerScope::from_name("usage:write"), None);
    }
}
