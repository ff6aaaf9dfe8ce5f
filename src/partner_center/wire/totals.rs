//! Whether pages are all that was announced.

use super::MalformedResponse;

/// What the pages of one answer announce, and what they bring.
#[derive(Debug, Default)]
pub(in crate::partner_center) struct PageTotals {
    /// Of each page that has a total: the total, and the page's own rows.
    announced: Vec<(u64, u64)>,
    brought: u64,
}

// === impl PageTotals ===

impl PageTotals {
    /// Takes note of a page.
    pub(in crate::partner_center) fn add(&mut self, total: Option<u64>, rows: usize) {
        let rows = rows as u64;
        self.brought += rows;
        self.announced.extend(total.map(|total| (total, rows)));
    }

    /// Whether the pages are the whole answer. Partner Center's reference does not say whether a total
    /// counts the rows of its page or of all pages, so either will do, for all pages alike.
    ///
    /// # Errors
    ///
    /// [`MalformedResponse`] where a total differs.
    pub(in crate::partner_center) fn check(&self) -> Result<(), MalformedResponse> {
        let brought = self.brought;
        let of_all = |(total, _): &(u64, u64)| *total == brought;
        let of_pages = self.announced.iter().all(|(total, rows)| total == rows);
        match self.announced.iter().find(|page| !of_all(page)) {
            Some((total, _)) if !of_pages => Err(MalformedResponse(format!(
                "totalCount: is {total}, expected the number of items, which is {brought}"
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_count_all_pages_or_each_its_own() {
        let check = |pages: &[(Option<u64>, usize)]| {
            let mut totals = PageTotals::default();
            for (total, rows) in pages {
                totals.add(*total, *rows);
            }
            totals.check().is_ok()
        };

        for whole in [
            &[(Some(2), 2)][..],
            &[(Some(0), 0)],
            &[(None, 2)],
            &[(Some(3), 2), (Some(3), 1)],
            &[(Some(2), 2), (Some(1), 1)],
            &[(Some(3), 2), (None, 1)],
        ] {
            assert!(check(whole), "{whole:?}");
        }
        for part in [
            &[(Some(3), 2)][..],
            &[(Some(1), 2)],
            &[(Some(0), 2)],
            &[(Some(4), 2), (Some(4), 1)],
            &[(Some(2), 2), (Some(2), 1)],
            &[(Some(2), 2), (Some(3), 1)],
            &[(Some(3), 2), (Some(4), 1)],
        ] {
            assert!(!check(part), "{part:?}");
        }
    }
}
