/// A set of customers, as a bit for each number: small numbers, most of them in the set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CustomerSet(Vec<u8>);

// === impl CustomerSet ===

impl CustomerSet {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds a customer; numbers below 0 do not exist.
    pub(super) fn insert(&mut self, customer: i64) {
        let Ok(number) = usize::try_from(customer) else {
            return;
        };
        let (byte, bit) = (number / 8, number % 8);
        if byte >= self.0.len() {
            self.0.resize(byte + 1, 0);
        }
        if let Some(byte) = self.0.get_mut(byte) {
            *byte |= 1 << bit;
        }
    }

    /// Adds the customers of another set.
    pub(super) fn add_all(&mut self, other: &[u8]) {
        if other.len() > self.0.len() {
            self.0.resize(other.len(), 0);
        }
        for (mine, other) in self.0.iter_mut().zip(other) {
            *mine |= other;
        }
    }

    /// Keeps only the customers that another set has too.
    pub(super) fn retain_all(&mut self, other: &Self) {
        self.0.truncate(other.0.len());
        for (mine, other) in self.0.iter_mut().zip(&other.0) {
            *mine &= other;
        }
    }

    /// Removes the customers of another set.
    pub(super) fn remove_all(&mut self, other: &Self) {
        for (mine, other) in self.0.iter_mut().zip(&other.0) {
            *mine &= !other;
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// Returns the customers, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = i64> {
        (0..).zip(&self.0).flat_map(|(index, byte)| {
            (0..8)
                .filter(move |bit| byte & (1 << bit) != 0)
                .map(move |bit| index * 8 + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(of: &BTreeSet<i64>) -> CustomerSet {
        let mut set = CustomerSet::default();
        for customer in of {
            set.insert(*customer);
        }
        set
    }

    fn customers() -> impl Strategy<Value = BTreeSet<i64>> {
        prop::collection::btree_set(0..40_i64, 0..20)
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn it_is_a_set(one in customers(), other in customers()) {
            let list = |set: &CustomerSet| set.iter().collect::<BTreeSet<_>>();
            let (mut all, mut both, mut only) = (set(&one), set(&one), set(&one));
            all.add_all(set(&other).as_bytes());
            both.retain_all(&set(&other));
            only.remove_all(&set(&other));

            prop_assert_eq!(set(&one).len(), one.len() as u64);
            prop_assert_eq!(list(&set(&one)), one.clone());
            prop_assert_eq!(list(&all), &one | &other);
            prop_assert_eq!(list(&both), &one & &other);
            prop_assert_eq!(list(&only), &one - &other);
        }
    }
}
