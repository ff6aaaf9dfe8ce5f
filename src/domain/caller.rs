use std::{collections::HashSet, sync::Arc};

use super::CustomerId;

/// Who asks, and what they may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    name: Arc<str>,
    customers: Customers,
    /// And of these, only those of its credential: both have to say yes.
    within: Customers,
    scopes: Scopes,
    everybody: bool,
}

/// Whose usage a caller may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Customers {
    /// Everybody's.
    All,
    /// That of these.
    Only(Arc<HashSet<CustomerId>>),
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Read usage.
    UsageRead,
    /// Have upstream asked although an answer is fresh.
    CacheRefresh,
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

// === impl Caller ===

impl Caller {
    /// A caller of this name, with these rights.
    pub fn new(name: impl Into<Arc<str>>, customers: Customers, scopes: Scopes) -> Self {
        Self {
            name: name.into(),
            customers,
            within: Customers::All,
            scopes,
            everybody: false,
        }
    }

    /// The same caller by a credential that says less: it has what it had, as far as that is among
    /// these too.
    #[must_use]
    pub fn narrowed(&self, customers: &Customers, scopes: Scopes) -> Self {
        Self {
            name: Arc::clone(&self.name),
            customers: self.customers.clone(),
            within: customers.clone(),
            scopes: self.scopes.intersection(scopes),
            everybody: self.everybody,
        }
    }

    /// Anybody, where no callers are configured: they may do everything.
    pub fn anonymous() -> Self {
        let scopes = Scope::ALL.into_iter().collect();
        Self {
            everybody: true,
            ..Self::new("anonymous", Customers::All, scopes)
        }
    }

    /// Its name, for logs and limits.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether it stands for everybody, whatever the name of any other.
    pub fn is_anonymous(&self) -> bool {
        self.everybody
    }

    /// Whether it may read the usage of this customer.
    pub fn may_read(&self, customer_id: CustomerId) -> bool {
        self.holds(Scope::UsageRead)
            && self.customers.contain(customer_id)
            && self.within.contain(customer_id)
    }

    /// Whether it may read the usage of every customer there is and will be, and so what is told of
    /// all of them together.
    pub fn may_read_all(&self) -> bool {
        self.holds(Scope::UsageRead) && self.customers.are_all() && self.within.are_all()
    }

    /// Whether it has this scope.
    pub fn holds(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }
}

// === impl Customers ===

impl Customers {
    /// Whether this one is among them.
    pub fn contain(&self, customer_id: CustomerId) -> bool {
        match self {
            Self::All => true,
            Self::Only(these) => these.contains(&customer_id),
        }
    }

    /// Whether everybody is among them.
    pub fn are_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Whether nobody is among them.
    pub fn are_none(&self) -> bool {
        matches!(self, Self::Only(these) if these.is_empty())
    }
}

// === impl Scope ===

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 2] = [Self::UsageRead, Self::CacheRefresh];

    /// Its name, in the callers file and in tokens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UsageRead => "usage:read",
            Self::CacheRefresh => "cache:refresh",
        }
    }

    /// The scope of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }

    const fn bit(self) -> u8 {
        match self {
            Self::UsageRead => 1,
            Self::CacheRefresh => 2,
        }
    }
}

// === impl Scopes ===

impl Scopes {
    /// Whether the scope is among them.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are among both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | scope.bit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::samples;

    fn other() -> CustomerId {
        CustomerId::parse("00000000-0000-4000-8000-000000000001").unwrap()
    }

    #[test]
    fn a_caller_reads_its_own_customers_and_no_others() {
        let its = Arc::new(HashSet::from([samples::customer()]));
        let scopes = Scopes::from_iter([Scope::UsageRead]);
        let caller = Caller::new("portal", Customers::Only(its), scopes);

        assert!(caller.may_read(samples::customer()));
        assert!(!caller.may_read(other()));
        assert!(!caller.holds(Scope::CacheRefresh));
    }

    #[test]
    fn a_caller_without_the_scope_reads_nothing() {
        let scopes = Scopes::from_iter([Scope::CacheRefresh]);
        let caller = Caller::new("refresher", Customers::All, scopes);

        assert!(!caller.may_read(samples::customer()));
    }

    #[test]
    fn a_credential_that_says_less_takes_away_and_gives_nothing() {
        let only =
            |these: &[CustomerId]| Customers::Only(Arc::new(these.iter().copied().collect()));
        let read = Scopes::from_iter([Scope::UsageRead]);
        let all = Scopes::from_iter(Scope::ALL);
        let (one, two) = (samples::customer(), other());

        for (has, says, may) in [
            (Customers::All, Customers::All, [true, true]),
            (Customers::All, only(&[one]), [true, false]),
            (only(&[one]), Customers::All, [true, false]),
            (only(&[one]), only(&[one, two]), [true, false]),
            (only(&[one]), only(&[two]), [false, false]),
            (only(&[one, two]), only(&[]), [false, false]),
        ] {
            let everybody = has.are_all() && says.are_all();
            let caller = Caller::new("portal", has, read).narrowed(&says, all);

            assert_eq!(
                [one, two].map(|customer| caller.may_read(customer)),
                may,
                "{says:?}"
            );
            assert!(!caller.holds(Scope::CacheRefresh));
            assert_eq!(caller.may_read_all(), everybody);
        }
        let refresh = Scopes::from_iter([Scope::CacheRefresh]);
        let caller = Caller::anonymous().narrowed(&Customers::All, refresh);
        assert!(!caller.may_read(one));
        assert!(!caller.may_read_all());
    }

    #[test]
    fn every_scope_is_found_by_its_name() {
        for scope in Scope::ALL {
            assert_eq!(Scope::named(scope.as_str()), Some(scope));
        }
        assert_eq!(Scope::named("usage:write"), None);
    }
}
