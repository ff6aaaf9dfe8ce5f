use http::StatusCode;

/// Makes [`Kind`] of the lines of its table.
///
/// A kind's documentation is what clients read of it in the description of the API.
macro_rules! kinds {
    (
        api { $($(#[doc = $about:literal])+ $kind:ident: $status:ident $name:literal $title:literal;)+ }
        admin { $($(#[doc = $admin_about:literal])+ $admin:ident: $admin_status:ident $admin_name:literal $admin_title:literal;)+ }
    ) => {
        /// What kinds of problems there are: no answer names another.
        ///
        /// A kind has one status and one title, the same for every occurrence (RFC 9457 §3.1).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[doc = $about])+ $kind,)+
            $($(#[doc = $admin_about])+ $admin,)+
        }

        impl Kind {
            /// What the API listener may answer with, its edge included.
            pub const OF_API: &[Self] = &[$(Self::$kind),+];

            /// Its name: the last part of `type`, and what the log calls it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ $(Self::$admin => $admin_name,)+ }
            }

            /// `type`: what clients know it by.
            pub fn uri(self) -> String {
                format!("urn:usage-proxy:problem:{}", self.name())
            }

            /// What it is called for people.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)+ $(Self::$admin => $admin_title,)+ }
            }

            /// The status that it is answered with.
            pub const fn status(self) -> StatusCode {
                match self {
                    $(Self::$kind => StatusCode::$status,)+
                    $(Self::$admin => StatusCode::$admin_status,)+
                }
            }
        }
    };
}

kinds! {
    api {
        /// There is nothing at this path.
        NotFound: NOT_FOUND "not-found" "No such resource";
        /// The resource has no such method; `Allow` names those that it has.
        MethodNotAllowed: METHOD_NOT_ALLOWED "method-not-allowed" "Method not allowed";
        /// The customer id is no GUID.
        CustomerId: BAD_REQUEST "customer-id" "Not a customer id";
        /// The processed date is no calendar date, or one in the future.
        ProcessedDate: BAD_REQUEST "processed-date" "Not a processed date";
        /// The theme is neither light nor dark.
        Theme: BAD_REQUEST "theme" "Not a theme";
        /// The query has a parameter that means nothing here.
        UnknownParameter: BAD_REQUEST "unknown-parameter" "Unknown query parameter";
        /// The query has a parameter more than once.
        DuplicateParameter: BAD_REQUEST "duplicate-parameter" "Parameter given twice";
        /// The number of a page is no whole number, or 0.
        PageNumber: BAD_REQUEST "page-number" "Not the number of a page";
        /// The page size is no whole number.
        PageSize: BAD_REQUEST "page-size" "Not a page size";
        /// The filter of customers is none that is supported.
        CustomerFilter: BAD_REQUEST "customer-filter" "Not a supported filter";
        /// The way to seek is another than the next page.
        SeekOperation: BAD_REQUEST "seek-operation" "Cannot seek so";
        /// The continuation token is none of ours.
        ContinuationToken: BAD_REQUEST "continuation-token" "Not a continuation token";
        /// Neither form fits `Accept`, or no coding `Accept-Encoding`.
        NotAcceptable: NOT_ACCEPTABLE "not-acceptable" "Not acceptable";

        /// No credential was sent, or none of a caller.
        Unauthenticated: UNAUTHORIZED "unauthenticated" "Unauthenticated";
        /// More than one credential was sent.
        SeveralCredentials: BAD_REQUEST "several-credentials" "Several credentials";
        /// The token cannot be checked, since its issuer's keys cannot be had.
        IssuerUnavailable: SERVICE_UNAVAILABLE "issuer-unavailable" "The token issuer is unavailable";
        /// The caller sends more requests than it may, or causes more calls for given dates.
        RateLimited: TOO_MANY_REQUESTS "rate-limited" "Too many requests";
        /// Web pages of this origin may not read answers: said to a browser's own question alone.
        OriginNotAllowed: FORBIDDEN "origin-not-allowed" "Origin not allowed";
        /// The caller may not read this customer's usage.
        NotAllowed: FORBIDDEN "not-allowed" "Not allowed";

        /// `only-if-cached` was asked for, and nothing that may be served is held.
        NotHeld: GATEWAY_TIMEOUT "not-held" "Nothing held";
        /// The usage is held, but this form of it could not be made; the log says why.
        NotRendered: INTERNAL_SERVER_ERROR "not-rendered" "The answer could not be rendered";
        /// The service has a fault, which its log names.
        InternalError: INTERNAL_SERVER_ERROR "internal-error" "Internal error";

        /// Partner Center knows no such customer.
        UnknownCustomer: NOT_FOUND "unknown-customer" "Unknown customer";
        /// The partner has no relationship with the customer.
        NoRelationship: FORBIDDEN "no-relationship" "No relationship with this customer";
        /// The customer is known, but nothing was processed on the date.
        NothingProcessed: NOT_FOUND "nothing-processed" "Nothing was processed on that date";
        /// Partner Center wants fewer calls, and nothing that may be served is held.
        Throttled: SERVICE_UNAVAILABLE "throttled" "Partner Center throttles";
        /// Partner Center failed one call after the other, and is left alone for a moment.
        CircuitOpen: SERVICE_UNAVAILABLE "circuit-open" "Partner Center fails, and is not asked for a moment";
        /// Partner Center is down, and nothing that may be served is held.
        Unavailable: SERVICE_UNAVAILABLE "unavailable" "Partner Center is unavailable";
        /// More requests wait for Partner Center than it can answer in time.
        Overloaded: SERVICE_UNAVAILABLE "overloaded" "Too many requests wait for Partner Center";
        /// The call ended without a result; another will do.
        Interrupted: SERVICE_UNAVAILABLE "interrupted" "The call was interrupted";
        /// Partner Center did not answer in time.
        TimedOut: GATEWAY_TIMEOUT "timed-out" "Partner Center did not answer in time";
        /// Partner Center refuses the service's own credentials; whoever runs it must act.
        CredentialsRefused: BAD_GATEWAY "credentials-refused" "Partner Center refuses our credentials";
        /// Partner Center refused the service's request.
        Rejected: BAD_GATEWAY "rejected" "Partner Center refused our request";
        /// Partner Center answered with something that is not its schema.
        Malformed: BAD_GATEWAY "malformed" "Partner Center answered with something else than was asked for";
        /// Partner Center's newest data is older than what it sent before, and that is not cached.
        Suspect: BAD_GATEWAY "suspect" "Partner Center answered with older data than before";

        /// There is no `Host`.
        MissingHost: BAD_REQUEST "missing-host" "No Host";
        /// There is more than one `Host`.
        RepeatedHost: BAD_REQUEST "repeated-host" "Host given twice";
        /// `Host` is no host, with or without a port.
        InvalidHost: BAD_REQUEST "invalid-host" "Not a host";
        /// The target names another host than `Host` does.
        ForeignTarget: BAD_REQUEST "foreign-target" "Target on another host";
        /// `Host` names no host that a listener on the loopback serves where it identifies no callers.
        MisdirectedRequest: MISDIRECTED_REQUEST "misdirected-request" "Not a host of this service";
        /// GET or HEAD was sent with a body.
        RequestBody: BAD_REQUEST "request-body" "Request with a body";
        /// The path and query are longer than any of ours.
        UriTooLong: URI_TOO_LONG "uri-too-long" "URI too long";
        /// There are more header fields than any request of ours needs.
        TooManyHeaders: REQUEST_HEADER_FIELDS_TOO_LARGE "too-many-headers" "Too many header fields";
        /// The header fields are larger than any request of ours needs.
        HeadersTooLarge: REQUEST_HEADER_FIELDS_TOO_LARGE "headers-too-large" "Header fields too large";
        /// As many connections are open as may be.
        TooManyConnections: SERVICE_UNAVAILABLE "too-many-connections" "Too many connections";
        /// The caller has not read answers that were sent to it before.
        UnreadAnswers: TOO_MANY_REQUESTS "unread-answers" "Too many unread answers";
        /// Clients have not read answers that were sent to them before.
        Backlogged: SERVICE_UNAVAILABLE "backlogged" "Too many answers wait to be read";
    }
    admin {
        /// The admin listener wants a key.
        NotAuthenticated: UNAUTHORIZED "not-authenticated" "Not authenticated";
        /// Without a key of the admin listener, no web page may purge.
        NotForPages: FORBIDDEN "not-for-pages" "Not for web pages";
        /// The query of an admin request is wrong.
        BadRequest: BAD_REQUEST "bad-request" "Bad request";
    }
}
