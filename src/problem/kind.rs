use http::StatusCode;

/// Makes [`ProblemKind`] of a table: a line a kind, with its status, name and title.
macro_rules! problem_kinds {
    (
        api { $($(#[$doc:meta])+ $kind:ident: $status:ident $name:literal $title:literal;)+ }
        admin { $($(#[$admin_doc:meta])+ $admin:ident: $admin_status:ident $admin_name:literal $admin_title:literal;)+ }
    ) => {
        /// A kind of problem, with one status and one title (RFC 9457 §3.1).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ProblemKind {
            $($(#[$doc])+ $kind,)+
            $($(#[$admin_doc])+ $admin,)+
        }

        impl ProblemKind {
            /// The kinds that the API listener answers with.
            pub const OF_API: &[Self] = &[$(Self::$kind),+];

            /// Returns the last part of `type`, which the log has too.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ $(Self::$admin => $admin_name,)+ }
            }

            /// Returns `type`.
            pub fn uri(self) -> String {
                format!("urn:usage-proxy:problem:{}", self.name())
            }

            /// Returns the name for people.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)+ $(Self::$admin => $admin_title,)+ }
            }

            /// Returns the status of the answer.
            pub const fn status(self) -> StatusCode {
                match self {
                    $(Self::$kind => StatusCode::$status,)+
                    $(Self::$admin => StatusCode::$admin_status,)+
                }
            }
        }
    };
}

problem_kinds! {
    api {
        /// No resource has this path.
        NotFound: NOT_FOUND "not-found" "Not found";
        /// The resource does not support this method; `Allow` lists those it does.
        MethodNotAllowed: METHOD_NOT_ALLOWED "method-not-allowed" "Method not allowed";
        /// The customer id is not a GUID.
        CustomerId: BAD_REQUEST "customer-id" "Invalid customer id";
        /// The processed date is not a calendar date, or is in the future.
        ProcessedDate: BAD_REQUEST "processed-date" "Invalid processed date";
        /// The theme is neither `light` nor `dark`.
        Theme: BAD_REQUEST "theme" "Invalid theme";
        /// The resource does not have this query parameter.
        UnknownParameter: BAD_REQUEST "unknown-parameter" "Unknown query parameter";
        /// A query parameter is given more than once.
        DuplicateParameter: BAD_REQUEST "duplicate-parameter" "Repeated query parameter";
        /// The value of a query parameter is not valid.
        InvalidParameter: BAD_REQUEST "invalid-parameter" "Invalid query parameter";
        /// The cursor is not one of this answer, or its answer has changed.
        CursorExpired: BAD_REQUEST "cursor-expired" "Expired cursor";
        /// The page number is not a whole number, or is 0.
        PageNumber: BAD_REQUEST "page-number" "Invalid page number";
        /// The page size is not a whole number.
        PageSize: BAD_REQUEST "page-size" "Invalid page size";
        /// The customer filter is not supported.
        CustomerFilter: BAD_REQUEST "customer-filter" "Unsupported customer filter";
        /// The seek operation is not `Next`.
        SeekOperation: BAD_REQUEST "seek-operation" "Unsupported seek operation";
        /// The continuation token is not one that this service returned.
        ContinuationToken: BAD_REQUEST "continuation-token" "Invalid continuation token";
        /// No format matches `Accept`, or no content coding matches `Accept-Encoding`.
        NotAcceptable: NOT_ACCEPTABLE "not-acceptable" "Not acceptable";

        /// The request has no credential, or one that is not valid.
        Unauthenticated: UNAUTHORIZED "unauthenticated" "Authentication required";
        /// The request has more than one credential.
        SeveralCredentials: BAD_REQUEST "several-credentials" "More than one credential";
        /// The token cannot be checked because its issuer's keys are unavailable.
        IssuerUnavailable: SERVICE_UNAVAILABLE "issuer-unavailable" "Token issuer unavailable";
        /// The caller exceeds its rate of requests, or of upstream calls for given dates.
        RateLimited: TOO_MANY_REQUESTS "rate-limited" "Too many requests";
        /// Web pages of this origin may not read answers. Only preflight requests get this.
        OriginNotAllowed: FORBIDDEN "origin-not-allowed" "Origin not allowed";
        /// The caller may not read this customer's usage.
        NotAllowed: FORBIDDEN "not-allowed" "Not allowed";

        /// The request has `only-if-cached`, and nothing that may be served is cached.
        NotCached: GATEWAY_TIMEOUT "not-held" "Not cached";
        /// The usage is cached but could not be rendered in this format; the log says why.
        NotRendered: INTERNAL_SERVER_ERROR "not-rendered" "Rendering failed";
        /// The service has a fault; the log has the details.
        InternalError: INTERNAL_SERVER_ERROR "internal-error" "Internal error";

        /// Partner Center does not know the customer.
        UnknownCustomer: NOT_FOUND "unknown-customer" "Unknown customer";
        /// The partner has no relationship with the customer.
        NoRelationship: FORBIDDEN "no-relationship" "No relationship with this customer";
        /// The customer has no data for this processed date.
        NothingProcessed: NOT_FOUND "nothing-processed" "No data for this date";
        /// The service keeps no history: no store is configured.
        NoStore: NOT_FOUND "no-store" "No store";
        /// The date to compare is not stored.
        NotStored: NOT_FOUND "not-stored" "Date not stored";
        /// The store of history does not answer.
        StoreUnavailable: SERVICE_UNAVAILABLE "store-unavailable" "The store is unavailable";
        /// Partner Center throttles, and nothing that may be served is cached.
        Throttled: SERVICE_UNAVAILABLE "throttled" "Throttled by Partner Center";
        /// Calls to Partner Center failed repeatedly and are paused for a moment.
        CircuitOpen: SERVICE_UNAVAILABLE "circuit-open" "Calls to Partner Center are paused";
        /// Partner Center is unavailable, and nothing that may be served is cached.
        Unavailable: SERVICE_UNAVAILABLE "unavailable" "Partner Center is unavailable";
        /// Too many requests are waiting for Partner Center.
        Overloaded: SERVICE_UNAVAILABLE "overloaded" "Too many requests wait for Partner Center";
        /// The call to Partner Center ended without a result; try again.
        Interrupted: SERVICE_UNAVAILABLE "interrupted" "Call to Partner Center interrupted";
        /// Partner Center did not answer in time.
        TimedOut: GATEWAY_TIMEOUT "timed-out" "Partner Center did not answer in time";
        /// Partner Center rejects the service's own credentials; its operator must act.
        CredentialsRefused: BAD_GATEWAY "credentials-refused" "Partner Center rejects our credentials";
        /// Partner Center rejected the service's request.
        Rejected: BAD_GATEWAY "rejected" "Partner Center rejected our request";
        /// The answer of Partner Center does not match its schema.
        Malformed: BAD_GATEWAY "malformed" "Invalid answer from Partner Center";
        /// Partner Center returned older data than before, and the newer data is no longer cached.
        Suspect: BAD_GATEWAY "suspect" "Outdated answer from Partner Center";

        /// The request has no `Host`.
        MissingHost: BAD_REQUEST "missing-host" "Missing Host";
        /// The request has more than one `Host`.
        RepeatedHost: BAD_REQUEST "repeated-host" "Repeated Host";
        /// `Host` is not a valid host with an optional port.
        InvalidHost: BAD_REQUEST "invalid-host" "Invalid Host";
        /// The request target names another host than `Host`.
        ForeignTarget: BAD_REQUEST "foreign-target" "Target on another host";
        /// A loopback listener that identifies no callers does not serve this host.
        MisdirectedRequest: MISDIRECTED_REQUEST "misdirected-request" "Unknown host";
        /// A GET or HEAD request has a body.
        RequestBody: BAD_REQUEST "request-body" "Unexpected body";
        /// The path and query are too long.
        UriTooLong: URI_TOO_LONG "uri-too-long" "URI too long";
        /// The request has too many header fields.
        TooManyHeaders: REQUEST_HEADER_FIELDS_TOO_LARGE "too-many-headers" "Too many header fields";
        /// The header fields are too large.
        HeadersTooLarge: REQUEST_HEADER_FIELDS_TOO_LARGE "headers-too-large" "Header fields too large";
        /// The service has no free connection.
        TooManyConnections: SERVICE_UNAVAILABLE "too-many-connections" "Too many connections";
        /// The caller has not read earlier answers.
        UnreadAnswers: TOO_MANY_REQUESTS "unread-answers" "Too many unread answers";
        /// Clients have not read earlier answers.
        Backlogged: SERVICE_UNAVAILABLE "backlogged" "Too many unread answers in total";
    }
    admin {
        /// The admin listener requires a key.
        NotAuthenticated: UNAUTHORIZED "not-authenticated" "Authentication required";
        /// Web pages may not purge on an admin listener without keys.
        NotForPages: FORBIDDEN "not-for-pages" "Not allowed for web pages";
        /// A backfill is running already, or there is no store for it.
        BackfillRejected: CONFLICT "backfill-rejected" "Backfill cannot start";
        /// The query of an admin request is not valid.
        BadRequest: BAD_REQUEST "bad-request" "Bad request";
    }
}
