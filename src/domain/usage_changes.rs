use std::collections::BTreeMap;

use super::UsageRow;

/// A difference between the usage of two dates, of one product in one workload.
///
/// The active licenses decide whether usage has grown; where they are equal, the qualified ones.
#[derive(Clone, Copy, Debug, PartialEq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum UsageChange<'a> {
    /// Only the later date has the row.
    Added(&'a UsageRow),
    /// Only the earlier date has the row.
    Removed(&'a UsageRow),
    /// The row of the later date has the larger count.
    Grown {
        /// The row of the earlier date.
        from: &'a UsageRow,
        /// The row of the later date.
        to: &'a UsageRow,
    },
    /// The row of the later date has the smaller count.
    Shrunk {
        /// The row of the earlier date.
        from: &'a UsageRow,
        /// The row of the later date.
        to: &'a UsageRow,
    },
}

/// Returns the changes from one date to another, by service, product and workload.
///
/// Rows are of the same product and workload if their names, service and channel agree, and their ids
/// and codes as far as both have them: the call that answers for past dates sends more of these than
/// the other call.
pub fn usage_changes<'a>(from: &'a [UsageRow], to: &'a [UsageRow]) -> Vec<UsageChange<'a>> {
    let mut namesakes: BTreeMap<_, [Vec<&UsageRow>; 2]> = BTreeMap::new();
    for row in from {
        let [earlier, _] = namesakes.entry(names(row)).or_default();
        earlier.push(row);
    }
    for row in to {
        let [_, later] = namesakes.entry(names(row)).or_default();
        later.push(row);
    }
    let mut changes = Vec::new();
    for [earlier, mut later] in namesakes.into_values() {
        let mut unpaired = Vec::new();
        let mut pair = |row: &'a UsageRow, is_same: fn(&UsageRow, &UsageRow) -> bool| {
            let found = later.iter().position(|other| is_same(row, other));
            let found = found.map(|index| later.remove(index));
            changes.extend(found.and_then(|other| UsageChange::between(row, other)));
            found.is_some()
        };
        for row in earlier {
            if !pair(row, has_equal_ids) {
                unpaired.push(row);
            }
        }
        unpaired.retain(|row| !pair(row, has_compatible_ids));
        changes.extend(unpaired.into_iter().map(UsageChange::Removed));
        changes.extend(later.into_iter().map(UsageChange::Added));
    }
    changes
}

/// The names that rows of the same product and workload always have in common.
fn names(row: &UsageRow) -> impl Ord + '_ {
    let product = (&row.service_name, &row.product_name, &row.channel);
    (product, &row.workload_name)
}

fn has_equal_ids(row: &UsageRow, other: &UsageRow) -> bool {
    let mut ids = ids(row).into_iter().zip(ids(other));
    ids.all(|pair| match pair {
        (Some(id), Some(other)) => id.eq_ignore_ascii_case(other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    })
}

/// Returns true if no id is different on both sides.
fn has_compatible_ids(row: &UsageRow, other: &UsageRow) -> bool {
    let mut ids = ids(row).into_iter().zip(ids(other));
    ids.all(|pair| match pair {
        (Some(id), Some(other)) => id.eq_ignore_ascii_case(other),
        (None, _) | (_, None) => true,
    })
}

fn ids(row: &UsageRow) -> [Option<&str>; 3] {
    [&row.product_id, &row.service_code, &row.workload_code].map(|id| id.as_deref())
}

// === impl UsageChange ===

impl<'a> UsageChange<'a> {
    /// Returns the change from one row to another; `None` if their counts are equal.
    fn between(from: &'a UsageRow, to: &'a UsageRow) -> Option<Self> {
        let counts = |row: &UsageRow| (row.licenses_active, row.licenses_qualified);
        match counts(from).cmp(&counts(to)) {
            std::cmp::Ordering::Less => Some(Self::Grown { from, to }),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(Self::Shrunk { from, to }),
        }
    }

    /// The name in answers, such as `added`.
    pub fn name(&self) -> &'static str {
        self.into()
    }

    /// The row of the earlier date.
    pub fn from(&self) -> Option<&'a UsageRow> {
        match *self {
            Self::Added(_) => None,
            Self::Removed(from) | Self::Grown { from, .. } | Self::Shrunk { from, .. } => {
                Some(from)
            }
        }
    }

    /// The row of the later date.
    pub fn to(&self) -> Option<&'a UsageRow> {
        match *self {
            Self::Removed(_) => None,
            Self::Added(to) | Self::Grown { to, .. } | Self::Shrunk { to, .. } => Some(to),
        }
    }

    /// The row with the names: that of the later date, where there is one.
    pub fn row(&self) -> &'a UsageRow {
        match *self {
            Self::Removed(row)
            | Self::Added(row)
            | Self::Grown { to: row, .. }
            | Self::Shrunk { to: row, .. } => row,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{
        LicenseUsage,
        samples::{self, usage_row as row},
    };

    fn with_id(id: &str, row: UsageRow) -> UsageRow {
        UsageRow {
            product_id: Some(id.into()),
            ..row
        }
    }

    fn shown(from: &[UsageRow], to: &[UsageRow]) -> Vec<(&'static str, String)> {
        let changes = usage_changes(from, to).into_iter();
        changes
            .map(|change| {
                let row = change.row();
                let name = format!("{} {}", row.product_name, row.workload_name);
                (change.name(), name)
            })
            .collect()
    }

    #[test]
    fn the_active_licenses_decide_and_then_the_qualified_ones() {
        for (from, to, expected) in [
            ((3, 8), (4, 2), Some("grown")),
            ((3, 8), (2, 9), Some("shrunk")),
            ((3, 8), (3, 9), Some("grown")),
            ((3, 8), (3, 7), Some("shrunk")),
            ((3, 8), (3, 8), None),
        ] {
            let counts = |(active, qualified)| [row("E3", "Teams", active, qualified)];
            let changes = shown(&counts(from), &counts(to));

            let change = changes.first().map(|(change, _)| *change);
            assert_eq!(change, expected, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn changes_are_sorted_by_product_and_workload() {
        let from = [row("A", "Teams", 1, 1), row("B", "Teams", 1, 1)];
        let to = [row("B", "Exchange", 1, 1), row("B", "Teams", 2, 2)];

        let expected = [
            ("removed", "A Teams"),
            ("added", "B Exchange"),
            ("grown", "B Teams"),
        ];
        assert_eq!(
            shown(&from, &to),
            expected.map(|(change, name)| (change, name.to_owned()))
        );
    }

    #[test]
    fn an_id_that_only_one_date_has_makes_no_other_product() {
        let nameless = row("E3", "Teams", 1, 1);
        let identified = with_id("6FD2C87F", row("E3", "Teams", 1, 1));
        let lowercase = with_id("6fd2c87f", row("E3", "Teams", 1, 1));

        assert!(shown(&[nameless], std::slice::from_ref(&identified)).is_empty());
        assert!(shown(&[identified], &[lowercase]).is_empty());
    }

    #[test]
    fn products_of_the_same_name_are_told_apart_by_id() {
        let from = [
            row("E3", "Teams", 1, 1),
            with_id("a", row("E3", "Teams", 2, 2)),
        ];
        let to = [
            with_id("a", row("E3", "Teams", 2, 2)),
            with_id("b", row("E3", "Teams", 3, 3)),
        ];

        let [change] = usage_changes(&from, &to)[..] else {
            panic!("one change");
        };

        assert_eq!(change.from(), Some(&from[0]));
        assert_eq!(change.to(), Some(&to[1]));
    }

    fn usage() -> impl Strategy<Value = LicenseUsage> {
        let id = prop::option::of("[pq]");
        let row = (id.clone(), "[AB]", id, "[XY]", 0..3_u64, 0..3_u64).prop_map(
            |(id, product, code, workload, active, qualified)| UsageRow {
                product_id: id.map(Into::into),
                workload_code: code.map(Into::into),
                ..row(&product, &workload, active, qualified)
            },
        );
        prop::collection::vec(row, 0..12)
            .prop_map(|rows| LicenseUsage::new(samples::customer(), None, rows).unwrap())
    }

    /// Names and counts, sorted.
    fn counts<'a>(rows: impl IntoIterator<Item = &'a UsageRow>) -> Vec<(String, u64, u64)> {
        let rows = rows.into_iter();
        let mut counts: Vec<_> = rows
            .map(|row| {
                let name = format!("{} {}", row.product_name, row.workload_name);
                (name, row.licenses_active, row.licenses_qualified)
            })
            .collect();
        counts.sort();
        counts
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn applying_the_changes_turns_one_date_into_the_other(from in usage(), to in usage()) {
            let changes = usage_changes(from.rows(), to.rows());

            let is_changed = |row: &UsageRow| {
                changes.iter().filter_map(UsageChange::from).any(|from| std::ptr::eq(from, row))
            };
            let unchanged = from.rows().iter().filter(|row| !is_changed(row));
            let applied = unchanged.chain(changes.iter().filter_map(UsageChange::to));
            prop_assert_eq!(counts(applied), counts(to.rows()));
        }

        #[test]
        fn a_date_has_no_changes_from_itself(usage in usage()) {
            prop_assert_eq!(usage_changes(usage.rows(), usage.rows()), []);
        }
    }
}
