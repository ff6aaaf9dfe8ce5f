//! Names of attributes: OpenTelemetry's where it has one, else ours, which the log has too.
//!
//! See [HTTP spans](https://opentelemetry.io/docs/specs/semconv/http/http-spans/), stable since 1.23.

/// The method; [`OTHER_METHOD`] for one that HTTP does not know.
pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
/// Replaces methods that HTTP does not know, so that callers cannot invent values.
pub const OTHER_METHOD: &str = "_OTHER";
/// The number of earlier attempts; absent in the first.
pub const HTTP_REQUEST_RESEND_COUNT: &str = "http.request.resend_count";
/// The status of the answer, a number.
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
/// The pattern of the route.
pub const HTTP_ROUTE: &str = "http.route";
/// The path as received.
pub const URL_PATH: &str = "url.path";
/// The processed date of the query, and nothing else of it.
pub const URL_QUERY: &str = "url.query";
/// `http` or `https`.
pub const URL_SCHEME: &str = "url.scheme";
/// The URL of a request, without its query.
pub const URL_FULL: &str = "url.full";
/// The path with names in place of its variable parts.
pub const URL_TEMPLATE: &str = "url.template";
/// The host of a request.
pub const SERVER_ADDRESS: &str = "server.address";
/// Its port.
pub const SERVER_PORT: &str = "server.port";
/// The address of the client.
pub const CLIENT_ADDRESS: &str = "client.address";
/// The `User-Agent` header.
pub const USER_AGENT_ORIGINAL: &str = "user_agent.original";
/// A status or the name of an error.
pub const ERROR_TYPE: &str = "error.type";

/// `X-Request-Id`.
pub const REQUEST_ID: &str = "request.id";
/// The name of the caller in the callers file.
pub const CALLER_NAME: &str = "caller.name";
/// The customer whose usage is requested.
pub const CUSTOMER_ID: &str = "customer.id";
/// The cache result: `hit`, `stale`, `miss`, `negative` or `bypass`.
pub const CACHE_STATUS: &str = "cache.status";
/// The reason for an upstream call (`fwd` of RFC 9211).
pub const CACHE_FORWARD: &str = "cache.fwd";
/// The status of the upstream answer (`fwd-status`).
pub const CACHE_FORWARD_STATUS: &str = "cache.fwd_status";
/// True if the answer was stored (`stored`).
pub const CACHE_STORED: &str = "cache.stored";
/// True if the request shared the call of another (`collapsed`).
pub const CACHE_COLLAPSED: &str = "cache.collapsed";
/// Seconds until the answer is stale (`ttl`).
pub const CACHE_TTL: &str = "cache.ttl";
/// More about the cache result (`detail`).
pub const CACHE_DETAIL: &str = "cache.detail";
/// The event of a cache decision other than a hit, and the decision.
pub const CACHE_DECISION: &str = "cache.decision";
/// The call of Partner Center.
pub const UPSTREAM_API: &str = "upstream.api";
/// Partner Center's own error code.
pub const UPSTREAM_CODE: &str = "upstream.code";
/// `MS-RequestId` as sent.
pub const MS_REQUEST_ID: &str = "ms.request_id";
/// `MS-CorrelationId` as sent.
pub const MS_CORRELATION_ID: &str = "ms.correlation_id";
