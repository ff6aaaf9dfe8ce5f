use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use jiff::Timestamp;

use super::CustomerId;

/// The partner's own knowledge of products and customers: names, prices, exclusions, groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Portfolio {
    by_id: HashMap<String, Arc<ProductRule>>,
    by_name: HashMap<String, Arc<ProductRule>>,
    groups: BTreeMap<String, HashSet<CustomerId>>,
    version: u64,
    changed_at: Timestamp,
}

/// What the partner says of one product.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProductRule {
    /// The name that people know it by.
    pub display_name: Option<Arc<str>>,
    /// The price of a license.
    pub price: Option<LicensePrice>,
    /// True if the product counts in no fleet number.
    pub exclude: bool,
}

/// The price of a license and month.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LicensePrice {
    /// ISO 4217 code, such as `EUR`.
    pub currency: Arc<str>,
    /// The amount in ten-thousandths of the currency's unit, so that sums are exact.
    pub ten_thousandths: u64,
}

/// The product that a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductSelector<'a> {
    /// The GUID of the product; letter case does not count.
    Id(&'a str),
    /// Microsoft's name of the product; letter case does not count.
    Name(&'a str),
}

// === impl Portfolio ===

impl Portfolio {
    /// Returns the same portfolio with a version and the time of the change.
    #[must_use]
    pub fn with_version(self, version: u64, changed_at: Timestamp) -> Self {
        Self {
            version,
            changed_at,
            ..self
        }
    }

    /// A number that grows with each change; 0 without a portfolio file.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The time of the last change.
    pub fn changed_at(&self) -> Timestamp {
        self.changed_at
    }

    /// Returns true if both have the same rules and groups.
    pub fn has_same_content(&self, other: &Self) -> bool {
        self.by_id == other.by_id && self.by_name == other.by_name && self.groups == other.groups
    }

    /// The number of products with a rule.
    pub fn rule_count(&self) -> usize {
        self.by_id.len() + self.by_name.len()
    }

    /// Adds a rule; returns false if the product has one already.
    pub fn add_rule(&mut self, product: ProductSelector<'_>, rule: ProductRule) -> bool {
        let (rules, key) = match product {
            ProductSelector::Id(id) => (&mut self.by_id, id.to_ascii_lowercase()),
            ProductSelector::Name(name) => (&mut self.by_name, name.to_lowercase()),
        };
        rules.insert(key, Arc::new(rule)).is_none()
    }

    /// Adds a group; returns false if there is one of this name already.
    pub fn add_group(&mut self, name: String, customers: HashSet<CustomerId>) -> bool {
        self.groups.insert(name, customers).is_none()
    }

    /// Returns the rule of a product: that of its id, else that of its name.
    pub fn rule(&self, product_id: Option<&str>, product_name: &str) -> Option<&ProductRule> {
        let by_id = product_id.and_then(|id| self.by_id.get(&id.to_ascii_lowercase()));
        by_id
            .or_else(|| self.by_name.get(&product_name.to_lowercase()))
            .map(Arc::as_ref)
    }

    /// Returns the name that people know a product by, if the partner names it.
    pub fn display_name(&self, product_id: Option<&str>, product_name: &str) -> Option<&Arc<str>> {
        self.rule(product_id, product_name)?.display_name.as_ref()
    }

    /// Returns the ids and names of the products that people know by this name; letter case does not
    /// count.
    pub fn products_called(&self, display_name: &str) -> impl Iterator<Item = &str> {
        let wanted = display_name.to_lowercase();
        let rules = self.by_id.iter().chain(&self.by_name);
        let called = rules.filter(move |(_, rule)| {
            let name = rule.display_name.as_deref();
            name.is_some_and(|name| name.to_lowercase() == wanted)
        });
        called.map(|(product, _)| product.as_str())
    }

    /// Returns the ids and names of the products that count in no fleet number.
    pub fn excluded_products(&self) -> impl Iterator<Item = &str> {
        let rules = self.by_id.iter().chain(&self.by_name);
        let excluded = rules.filter(|(_, rule)| rule.exclude);
        excluded.map(|(product, _)| product.as_str())
    }

    /// Returns the ids of the products that count whatever the rule of their name.
    pub fn kept_ids(&self) -> impl Iterator<Item = &str> {
        let kept = self.by_id.iter().filter(|(_, rule)| !rule.exclude);
        kept.map(|(id, _)| id.as_str())
    }

    /// The currencies of all prices, in alphabetical order.
    pub fn currencies(&self) -> BTreeSet<&str> {
        let rules = self.by_id.values().chain(self.by_name.values());
        let prices = rules.filter_map(|rule| rule.price.as_ref());
        prices.map(|price| &*price.currency).collect()
    }

    /// Returns the customers of a group.
    pub fn group(&self, name: &str) -> Option<&HashSet<CustomerId>> {
        self.groups.get(name)
    }

    /// The names of all groups, in alphabetical order.
    pub fn group_names(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }

    /// Returns the names of the groups that a customer is in, in alphabetical order.
    pub fn groups_of(&self, customer: CustomerId) -> impl Iterator<Item = &str> {
        let groups = self.groups.iter();
        groups
            .filter(move |(_, customers)| customers.contains(&customer))
            .map(|(name, _)| name.as_str())
    }
}

/// Hashes the rules and groups in one order, and neither the version nor the time.
impl Hash for Portfolio {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for rules in [&self.by_id, &self.by_name] {
            rules.iter().collect::<BTreeMap<_, _>>().hash(state);
        }
        for (name, customers) in &self.groups {
            (name, customers.iter().collect::<BTreeSet<_>>()).hash(state);
        }
    }
}
