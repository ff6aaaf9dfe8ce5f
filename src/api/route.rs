//! The routes of a request: found by its path before anything else, since metrics, logs and the
//! check of credentials depend on it.

use std::ops::Range;

/// A route of the API listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The value of the `route` label.
    pub(super) pattern: &'static str,
    /// The position of the route in its table.
    pub(super) index: usize,
    kind: RouteKind,
    prefix: &'static str,
    /// The text after the parameter; `None` if the pattern has no parameter.
    suffix: Option<&'static str>,
}

/// The kinds of routes that are handled differently before their handlers are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteKind {
    /// Data for programs.
    Data,
    /// Data that people open in a browser.
    BrowserData,
    /// The page.
    Page,
    /// Static files, which need no credential.
    StaticFile,
    /// No route.
    Unmatched,
}

/// The routes of the API listener, in the order in which they are compared with a path.
#[derive(Clone, Debug)]
pub(super) struct RouteTable {
    routes: Vec<Route>,
    unmatched: Route,
}

/// Paths that mean another one. Microsoft's Java SDK puts `/v1/` before the address of a link,
/// whatever that is.
pub(super) const ALIASES: [(&str, &str); 3] = [
    ("/v1//customers", "/v1/customers"),
    ("/v1/v1/customers", "/v1/customers"),
    ("/docs/", "/docs"),
];

// === impl Route ===

impl Route {
    /// A route with at most one parameter, `{name}`, which spans a path segment.
    fn new(index: usize, kind: RouteKind, pattern: &'static str) -> Self {
        let (prefix, suffix) = match pattern.split_once('{') {
            Some((prefix, rest)) => (prefix, rest.split_once('}').map(|(_, suffix)| suffix)),
            None => (pattern, None),
        };
        Self {
            pattern,
            index,
            kind,
            prefix,
            suffix,
        }
    }

    /// The range of the parameter in a path that matches; empty where the pattern has no parameter.
    /// A percent-encoded slash stays within its segment.
    fn parameter(&self, path: &str) -> Option<Range<usize>> {
        let Some(suffix) = self.suffix else {
            return (path == self.prefix).then_some(0..0);
        };
        let range = self.prefix.len()..path.len().checked_sub(suffix.len())?;
        let parameter = path.as_bytes().get(range.clone())?;
        let matches = !parameter.is_empty()
            && path.ends_with(suffix)
            && path.starts_with(self.prefix)
            && memchr::memchr(b'/', parameter).is_none();
        matches.then_some(range)
    }

    /// Returns true where the answer depends on cached data.
    pub(super) fn exposes_data(self) -> bool {
        match self.kind {
            RouteKind::Data | RouteKind::BrowserData | RouteKind::Page => true,
            RouteKind::StaticFile | RouteKind::Unmatched => false,
        }
    }

    /// Returns true where people open the route in a browser, which then has to ask them for a
    /// credential.
    pub(super) fn is_opened_in_browsers(self) -> bool {
        matches!(self.kind, RouteKind::Page | RouteKind::BrowserData)
    }

    pub(super) fn is_page(self) -> bool {
        self.kind == RouteKind::Page
    }

    pub(super) fn is_static(self) -> bool {
        self.kind == RouteKind::StaticFile
    }

    pub(super) fn is_unmatched(self) -> bool {
        self.kind == RouteKind::Unmatched
    }
}

// === impl RouteTable ===

impl RouteTable {
    /// A table of patterns; what fits none of them is unmatched.
    pub(super) fn new(patterns: impl IntoIterator<Item = (RouteKind, &'static str)>) -> Self {
        let patterns = patterns.into_iter().enumerate();
        let routes: Vec<_> = patterns
            .map(|(index, (kind, pattern))| Route::new(index, kind, pattern))
            .collect();
        Self {
            unmatched: Route::new(routes.len(), RouteKind::Unmatched, "unmatched"),
            routes,
        }
    }

    /// Every route, by its index; the last is the unmatched one.
    pub(super) fn iter(&self) -> impl Iterator<Item = Route> {
        self.routes.iter().copied().chain([self.unmatched])
    }

    /// The route of a path, and the range of its parameter in the path.
    pub(super) fn find(&self, path: &str) -> (Route, Range<usize>) {
        let matching = |path| {
            let mut routes = self.routes.iter();
            routes.find_map(|route| Some((*route, route.parameter(path)?)))
        };
        let alias = || ALIASES.iter().find(|(alias, _)| *alias == path);
        matching(path)
            .or_else(|| matching(alias()?.1))
            .unwrap_or((self.unmatched, 0..0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern_of(path: &str) -> &'static str {
        let table = RouteTable::new([
            (RouteKind::Data, "/v1/customers/{customer_id}/usage"),
            (
                RouteKind::Data,
                "/v1/customers/{customer_id}/analytics/licenses/usage",
            ),
            (RouteKind::Data, "/v1/customers"),
            (RouteKind::StaticFile, "/assets/{file}"),
            (RouteKind::Page, "/"),
        ]);
        table.find(path).0.pattern
    }

    #[test]
    fn each_path_matches_one_route() {
        for (path, pattern) in [
            ("/", "/"),
            ("/v1/customers", "/v1/customers"),
            ("/v1/customers/a/usage", "/v1/customers/{customer_id}/usage"),
            (
                "/v1/customers/a%2Fb/usage",
                "/v1/customers/{customer_id}/usage",
            ),
            (
                "/v1/customers/a/analytics/licenses/usage",
                "/v1/customers/{customer_id}/analytics/licenses/usage",
            ),
            ("/assets/page.css", "/assets/{file}"),
            ("/assets/", "unmatched"),
            ("/assets/a/b", "unmatched"),
            ("/v1/customers/", "unmatched"),
            ("/v1/customers/a/b/usage", "unmatched"),
            ("/v1/customers/a/usage/", "unmatched"),
            ("/v1/Customers", "unmatched"),
            ("*", "unmatched"),
            ("", "unmatched"),
        ] {
            assert_eq!(pattern_of(path), pattern, "{path}");
        }
    }
}
