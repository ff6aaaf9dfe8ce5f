/// The routes of the API listener. Their URI space is Partner Center's own, plus `/usage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// `/v1/customers`: the customers that the caller may see.
    Customers,
    /// `/v1/customers/{customer_id}/usage`: the simplified form.
    Usage { customer: &'a str },
    /// `/v1/customers/{customer_id}/analytics/licenses/usage`: the native form.
    Native { customer: &'a str },
    /// `/v1/customers/{customer_id}/analytics/licenses/deployment`.
    Deployment { customer: &'a str },
    /// `/v1/analytics/licenses/usage`: over all customers.
    PartnerUsage,
    /// `/v1/analytics/licenses/deployment`: over all customers.
    PartnerDeployment,
    /// `/v1/customers/{customer_id}/usage/chart.svg`: the simplified form as a picture.
    Chart { customer: &'a str },
    /// `/v1/customers/{customer_id}/usage/table.csv`: the simplified form as CSV, whatever `Accept`
    /// says: no link of a page could say it.
    Table { customer: &'a str },
    /// `/`: the page for people.
    Page,
    /// `/assets/{file}`: what the page refers to.
    Asset,
    /// `/openapi.json`: the description of this API.
    OpenApi,
    /// `/docs`: the page that shows it.
    Docs,
    /// `/docs/{file}`: what that page is made of.
    DocsFile,
    /// Anything else.
    Unmatched,
}

// === impl Route ===

impl<'a> Route<'a> {
    /// The patterns, by [`Route::index`]: the values of the `route` label.
    pub(super) const PATTERNS: [&'static str; 14] = [
        "/v1/customers",
        "/v1/customers/{customer_id}/usage",
        "/v1/customers/{customer_id}/analytics/licenses/usage",
        "/v1/customers/{customer_id}/analytics/licenses/deployment",
        "/v1/analytics/licenses/usage",
        "/v1/analytics/licenses/deployment",
        "/v1/customers/{customer_id}/usage/chart.svg",
        "/v1/customers/{customer_id}/usage/table.csv",
        "/",
        "/assets/{file}",
        "/openapi.json",
        "/docs",
        "/docs/{file}",
        "unmatched",
    ];

    /// Every route, by [`Route::index`].
    pub(super) const ALL: [Route<'static>; 14] = [
        Route::Customers,
        Route::Usage { customer: "" },
        Route::Native { customer: "" },
        Route::Deployment { customer: "" },
        Route::PartnerUsage,
        Route::PartnerDeployment,
        Route::Chart { customer: "" },
        Route::Table { customer: "" },
        Route::Page,
        Route::Asset,
        Route::OpenApi,
        Route::Docs,
        Route::DocsFile,
        Route::Unmatched,
    ];

    /// The route of a path as it was sent: a percent-encoded slash stays within its segment.
    pub(super) fn from_path(path: &'a str) -> Self {
        let Some((customer, rest)) = path
            .strip_prefix("/v1/customers/")
            .and_then(|rest| rest.split_once('/'))
        else {
            return Self::without_customer(path);
        };
        match rest {
            "usage" => Self::Usage { customer },
            "analytics/licenses/usage" => Self::Native { customer },
            "usage/chart.svg" => Self::Chart { customer },
            "usage/table.csv" => Self::Table { customer },
            "analytics/licenses/deployment" => Self::Deployment { customer },
            _ => Self::Unmatched,
        }
    }

    /// The route of a path that names no customer.
    fn without_customer(path: &str) -> Self {
        match path {
            // Microsoft's Java SDK puts `/v1/` before the address of a link, whatever that is.
            "/v1/customers" | "/v1//customers" | "/v1/v1/customers" => Self::Customers,
            "/v1/analytics/licenses/usage" => Self::PartnerUsage,
            "/v1/analytics/licenses/deployment" => Self::PartnerDeployment,
            "/" => Self::Page,
            _ if path.starts_with("/assets/") => Self::Asset,
            "/openapi.json" => Self::OpenApi,
            "/docs" | "/docs/" => Self::Docs,
            _ if path.starts_with("/docs/") => Self::DocsFile,
            _ => Self::Unmatched,
        }
    }

    /// Whether there may be [files](super::assets) here, which everybody may have.
    pub(super) fn may_be_static(self) -> bool {
        matches!(
            self,
            Self::Asset | Self::OpenApi | Self::Docs | Self::DocsFile
        )
    }

    /// Whether it tells what the cache holds.
    pub(super) fn exposes_data(self) -> bool {
        !self.may_be_static() && self != Self::Unmatched
    }

    /// Whether people open it in a browser, which then has to ask them who they are.
    pub(super) fn is_opened_in_browsers(self) -> bool {
        matches!(self, Self::Page | Self::Chart { .. } | Self::Table { .. })
    }

    pub(super) fn index(self) -> usize {
        match self {
            Self::Customers => 0,
            Self::Usage { .. } => 1,
            Self::Native { .. } => 2,
            Self::Deployment { .. } => 3,
            Self::PartnerUsage => 4,
            Self::PartnerDeployment => 5,
            Self::Chart { .. } => 6,
            Self::Table { .. } => 7,
            Self::Page => 8,
            Self::Asset => 9,
            Self::OpenApi => 10,
            Self::Docs => 11,
            Self::DocsFile => 12,
            Self::Unmatched => 13,
        }
    }

    pub(super) fn pattern(self) -> &'static str {
        Self::PATTERNS
            .get(self.index())
            .copied()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_is_at_its_index() {
        for (index, route) in Route::ALL.into_iter().enumerate() {
            assert_eq!(route.index(), index, "{route:?}");
        }
    }

    #[test]
    fn each_path_matches_one_route() {
        for (path, route) in [
            ("/v1/customers/x/usage", Route::Usage { customer: "x" }),
            (
                "/v1/customers/a%2fb/usage",
                Route::Usage { customer: "a%2fb" },
            ),
            ("/v1/customers//usage", Route::Usage { customer: "" }),
            (
                "/v1/customers/x/analytics/licenses/usage",
                Route::Native { customer: "x" },
            ),
            (
                "/v1/customers/x/usage/chart.svg",
                Route::Chart { customer: "x" },
            ),
            (
                "/v1/customers/x/usage/table.csv",
                Route::Table { customer: "x" },
            ),
            ("/v1/customers/x/usage/", Route::Unmatched),
            ("/v1/customers/x/usage/chart.png", Route::Unmatched),
            ("/v1/customers/x/y/usage", Route::Unmatched),
            ("/v1/customers/x", Route::Unmatched),
            (
                "/v1/customers/x/analytics/licenses/deployment",
                Route::Deployment { customer: "x" },
            ),
            ("/v1/analytics/licenses/usage", Route::PartnerUsage),
            (
                "/v1/analytics/licenses/deployment",
                Route::PartnerDeployment,
            ),
            ("/v1/analytics/licenses", Route::Unmatched),
            ("/v1/customers", Route::Customers),
            ("/v1//customers", Route::Customers),
            ("/v1/v1/customers", Route::Customers),
            ("/v1/v1/v1/customers", Route::Unmatched),
            ("/v1/v1/analytics/licenses/usage", Route::Unmatched),
            ("/v1/customers/", Route::Unmatched),
            ("//v1/customers/x/usage", Route::Unmatched),
            ("/V1/customers/x/usage", Route::Unmatched),
            ("/openapi.json", Route::OpenApi),
            ("/openapi.json/", Route::Unmatched),
            ("/docs", Route::Docs),
            ("/docs/", Route::Docs),
            ("/docs/start.js", Route::DocsFile),
            ("/docsx", Route::Unmatched),
            ("/", Route::Page),
            ("/assets/page.css", Route::Asset),
            ("/assets", Route::Unmatched),
            ("//", Route::Unmatched),
            ("", Route::Unmatched),
        ] {
            assert_eq!(Route::from_path(path), route, "{path}");
        }
    }
}
