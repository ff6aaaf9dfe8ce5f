//! Names of attributes: OpenTelemetry's where it has one, else ours, which the log has too.
//!
//! See [HTTP spans](https://opentelemetry.io/docs/specs/semconv/http/http-spans/), stable since 1.23.

/// The method; [`OTHER_METHOD`] for one that HTTP does not know.
pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
/// In place of methods that HTTP does not know, so that nobody can make up values.
pub const OTHER_METHOD: &str = "_OTHER";
/// How often a request had been sent before; absent the first time.
pub const HTTP_REQUEST_RESEND_COUNT: &str = "http.request.resend_count";
/// The status of the answer, a number.
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
/// The pattern of the route.
pub const HTTP_ROUTE: &str = "http.route";
/// The path, as it was sent.
pub const URL_PATH: &str = "url.path";
/// The query; of it no more than the processed date.
pub const URL_QUERY: &str = "url.query";
/// `http` or `https`.
pub const URL_SCHEME: &str = "url.scheme";
/// Where a request was sent, without its query.
pub const URL_FULL: &str = "url.full";
/// The path with its variable parts named.
pub const URL_TEMPLATE: &str = "url.template";
/// The host that was asked for.
pub const SERVER_ADDRESS: &str = "server.address";
/// Its port.
pub const SERVER_PORT: &str = "server.port";
/// Where the connection came from.
pub const CLIENT_ADDRESS: &str = "client.address";
/// The program that asked, in its own words.
pub const USER_AGENT_ORIGINAL: &str = "user_agent.original";
/// What went wrong: a status, or the name of a fault.
pub const ERROR_TYPE: &str = "error.type";

/// `X-Request-Id`.
pub const REQUEST_ID: &str = "request.id";
/// Who asked, by the name in the callers file.
pub const CALLER_NAME: &str = "caller.name";
/// Whose usage.
pub const CUSTOMER_ID: &str = "customer.id";
/// What the cache had: `hit`, `stale`, `miss`, `negative` or `bypass`.
pub const CACHE_STATUS: &str = "cache.status";
/// Why upstream was asked (`fwd` of RFC 9211).
pub const CACHE_FORWARD: &str = "cache.fwd";
/// What upstream answered (`fwd-status`).
pub const CACHE_FORWARD_STATUS: &str = "cache.fwd_status";
/// Whether the answer is held from now on (`stored`).
pub const CACHE_STORED: &str = "cache.stored";
/// Whether another request's call was waited for (`collapsed`).
pub const CACHE_COLLAPSED: &str = "cache.collapsed";
/// Seconds until the answer goes stale (`ttl`).
pub const CACHE_TTL: &str = "cache.ttl";
/// What the others cannot say (`detail`).
pub const CACHE_DETAIL: &str = "cache.detail";
/// The event of a decision that a hit does not need, and what was decided.
pub const CACHE_DECISION: &str = "cache.decision";
/// Which call of Partner Center's.
pub const UPSTREAM_API: &str = "upstream.api";
/// Partner Center's own error code.
pub const UPSTREAM_CODE: &str = "upstream.code";
/// `MS-RequestId`, as it was sent.
pub const MS_REQUEST_ID: &str = "ms.request_id";
/// `MS-CorrelationId`, as it was sent.
pub const MS_CORRELATION_ID: &str = "ms.correlation_id";
