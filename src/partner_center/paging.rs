//! The pages of one answer: which links are followed, and whether the pages belong together.
//!
//! The bearer token goes only to the call that it was meant for.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, Hash, RandomState},
};

use url::Url;

use super::wire::{MalformedResponse, NextLink};

/// The most pages of one answer; at 10,000 rows each, far beyond any customer.
const MAX_PAGES: usize = 200;

/// The pages of one logical call.
///
/// The pages shift if rows are added, removed or reordered while they are read: one row comes twice, and
/// another not at all.
#[derive(Debug)]
pub(super) struct PageCursor {
    endpoint: Url,
    current: PageRequest,
    requested: HashSet<PageRequest>,
    hasher: RandomState,
    /// Hashes of the rows of earlier pages.
    earlier_rows: HashSet<u64>,
    /// The total of each page that has one, with the number of its own rows.
    totals: Vec<(u64, u64)>,
    received: u64,
}

/// The request for one page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PageRequest {
    /// At or below the endpoint.
    pub(super) url: Url,
    /// Sent as `MS-ContinuationToken`.
    pub(super) continuation_token: Option<String>,
}

// === impl PageCursor ===

impl PageCursor {
    /// Starts at the first page. All pages are at or below its path.
    pub(super) fn new(first: Url) -> Self {
        let current = PageRequest {
            url: first.clone(),
            continuation_token: None,
        };
        Self {
            endpoint: first,
            requested: HashSet::from([current.clone()]),
            current,
            hasher: RandomState::new(),
            earlier_rows: HashSet::new(),
            totals: Vec::new(),
            received: 0,
        }
    }

    /// The request for the current page.
    pub(super) fn request(&self) -> &PageRequest {
        &self.current
    }

    /// Records the total and the rows of the current page, each by what distinguishes it from others.
    /// Equal rows of one page are no shift.
    ///
    /// # Errors
    ///
    /// [`MalformedResponse`] where an earlier page had one of the rows.
    pub(super) fn record_page<T: Hash>(
        &mut self,
        total: Option<u64>,
        rows: impl Iterator<Item = T>,
    ) -> Result<(), MalformedResponse> {
        let rows: Vec<u64> = rows.map(|row| self.hasher.hash_one(row)).collect();
        if rows.iter().any(|row| self.earlier_rows.contains(row)) {
            return Err(MalformedResponse::new(
                "a page repeats a row of an earlier one, so another row may be missing: expected \
                 pages that do not shift while they are read",
            ));
        }
        let count = rows.len() as u64;
        self.received += count;
        self.totals.extend(total.map(|total| (total, count)));
        self.earlier_rows.extend(rows);
        Ok(())
    }

    /// Goes on to the page of a link in the current page.
    ///
    /// # Errors
    ///
    /// [`MalformedResponse`] for a link to another place or to an earlier page, or too many pages.
    pub(super) fn follow(&mut self, link: &NextLink) -> Result<(), MalformedResponse> {
        let url = resolve(&self.endpoint, &self.current.url, &link.uri).ok_or_else(|| {
            MalformedResponse::new("next link: leads elsewhere, expected the same call")
        })?;
        if self.requested.len() >= MAX_PAGES {
            return Err(MalformedResponse::new(format!(
                "next link: expected at most {MAX_PAGES} pages"
            )));
        }
        self.current = PageRequest {
            url,
            continuation_token: link.continuation_token.clone(),
        };
        if !self.requested.insert(self.current.clone()) {
            return Err(MalformedResponse::new(
                "next link: leads back to a page that was read",
            ));
        }
        Ok(())
    }

    /// Checks that the pages are the whole answer. Partner Center's reference does not say whether a
    /// total counts the rows of its page or of all pages, so either is accepted, for all pages alike.
    ///
    /// # Errors
    ///
    /// [`MalformedResponse`] where a total differs.
    pub(super) fn check_totals(&self) -> Result<(), MalformedResponse> {
        let received = self.received;
        let count_pages = self.totals.iter().all(|(total, rows)| total == rows);
        match self.totals.iter().find(|(total, _)| *total != received) {
            Some((total, _)) if !count_pages => Err(MalformedResponse::new(format!(
                "totalCount: is {total}, expected the number of items, which is {received}"
            ))),
            _ => Ok(()),
        }
    }
}

/// Returns the URL of a link; `None` if it is not at or below `endpoint`.
fn resolve(endpoint: &Url, current: &Url, uri: &str) -> Option<Url> {
    let mut url = current.join(uri).ok()?;
    url.set_fragment(None);
    if is_below(endpoint, &url) {
        return Some(url);
    }
    // Partner Center writes relative links from below its version prefix: `/customers?…` means
    // `/v1/customers?…`.
    let path = url.path().trim_end_matches('/');
    let relative = uri.starts_with('/') && !uri.starts_with("//");
    if relative && !path.is_empty() && endpoint.path().trim_end_matches('/').ends_with(path) {
        let mut same = endpoint.clone();
        same.set_query(url.query());
        return Some(same);
    }
    None
}

fn is_below(endpoint: &Url, url: &Url) -> bool {
    let same_origin = (url.scheme(), url.host(), url.port_or_known_default())
        == (
            endpoint.scheme(),
            endpoint.host(),
            endpoint.port_or_known_default(),
        );
    let anonymous = url.username().is_empty() && url.password().is_none();
    let below = url
        .path()
        .strip_prefix(endpoint.path().trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    same_origin && anonymous && below && !hides_separators(url.path())
}

/// Returns whether a path hides separators. Some servers decode a path before they split it, and would
/// leave the prefix.
fn hides_separators(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    ["%2f", "%5c", "%2e"]
        .into_iter()
        .any(|hidden| path.contains(hidden))
}

#[cfg(test)]
mod proptests;

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: &str = "https://api.example/partner/v1/analytics/commercial/usage/license/";

    fn cursor() -> PageCursor {
        PageCursor::new(format!("{ENDPOINT}?top=10000").parse().unwrap())
    }

    fn link(uri: &str) -> NextLink {
        NextLink {
            uri: uri.to_owned(),
            continuation_token: None,
        }
    }

    fn follow(uri: &str) -> Result<Url, MalformedResponse> {
        let mut pages = cursor();
        pages.follow(&link(uri)).map(|()| pages.current.url)
    }

    #[test]
    fn links_to_the_same_call_are_followed() {
        for uri in [
            "https://api.example/partner/v1/analytics/commercial/usage/license/?skip=1",
            "https://API.example:443/partner/v1/analytics/commercial/usage/license?skip=1",
            "/partner/v1/analytics/commercial/usage/license/?skip=1",
            "/v1/analytics/commercial/usage/license/?skip=1",
            "/analytics/commercial/usage/license?skip=1",
            "?skip=1",
            "./?skip=1#end",
        ] {
            let url = follow(uri);
            assert!(
                url.as_ref().is_ok_and(|url| url.query() == Some("skip=1")
                    && url.as_str().starts_with(ENDPOINT.trim_end_matches('/'))),
                "{uri}: {url:?}"
            );
        }
    }

    #[test]
    fn links_to_other_places_are_rejected() {
        for uri in [
            "https://evil.example/partner/v1/analytics/commercial/usage/license/?skip=1",
            "http://api.example/partner/v1/analytics/commercial/usage/license/?skip=1",
            "https://api.example:8443/partner/v1/analytics/commercial/usage/license/?skip=1",
            "https://api.example@evil.example/partner/v1/analytics/commercial/usage/license/",
            "https://user:pw@api.example/partner/v1/analytics/commercial/usage/license/",
            "https://api.example/partner/v1/analytics/commercial/usage/licenses?skip=1",
            "//evil.example/partner/v1/analytics/commercial/usage/license/",
            "//evil.example/license",
            "../../../../customers",
            "/partner/v1/analytics/commercial/usage/license/%2e%2e/%2e%2e/customers",
            "/partner/v1/analytics/commercial/usage/license/..%2f..%2fcustomers",
            "\\\\evil.example\\license",
            "/",
            "javascript:alert(1)",
            "https://",
        ] {
            assert!(follow(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn a_link_to_an_earlier_page_is_rejected() {
        let mut pages = cursor();
        pages.follow(&link("?skip=1")).unwrap();
        pages.follow(&link("?skip=2")).unwrap();

        assert!(pages.follow(&link("?skip=1")).is_err());
    }

    #[test]
    fn the_same_address_with_another_continuation_is_another_page() {
        let mut pages = cursor();
        let link = NextLink {
            uri: pages.current.url.to_string(),
            continuation_token: Some("abc".to_owned()),
        };

        pages.follow(&link).unwrap();

        let token = pages.request().continuation_token.as_deref();
        assert_eq!(token, Some("abc"));
    }

    #[test]
    fn totals_count_all_pages_or_each_its_own() {
        let check = |pages: &[(Option<u64>, usize)]| {
            let mut cursor = cursor();
            for (page, (total, rows)) in pages.iter().enumerate() {
                let rows = (0..*rows).map(|row| (page, row));
                cursor.record_page(*total, rows).unwrap();
            }
            cursor.check_totals().is_ok()
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
