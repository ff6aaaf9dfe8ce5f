//! The tables of the configuration, one row per key; those of `upstream.auth` are in `auth`.
//!
//! A row is all that a key needs here: the struct, the reader, the list of keys, the defaults, and
//! what `check-config` prints follow from it.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use url::{Host, Url};

use super::{
    auth::{self, AuthConfig},
    network_types::{ADDRESS, COLLECTOR, CorsOrigin, DOCUMENT, ENDPOINT, HOSTS, ORIGINS, URL_PATH},
    postgres_url::PostgresUrl,
    section::section,
    value_type::{
        BOOLEAN, CALLERS_FILE, CHECK_INTERVAL, CONCURRENCY, CONNECTIONS, DURATION, EXACT_TEXT,
        FILE, HEADER_VALUE, KEY_HASHES, LISTEN_URL, LOG_FILTER, LOG_FORMAT, LogFormat,
        PORTFOLIO_FILE, POSITIVE_DURATION, RATIO, REQUEST_LOG, RETRIES, RequestLog, SERIES, SIZE,
        SIZE_IN_MEMORY, STORE_URL, StoreUrl, USAGE_API,
    },
};
use crate::{access_key::KeyHash, domain::UpstreamApi};

section! {
    /// `server.*`: the API listener.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ServerConfig of server = "server" {
        /// Address of the API listener; port 0 takes a free one.
        listen: SocketAddr as ADDRESS = "127.0.0.1:8080";
        /// Time that requests have to finish after SIGTERM; zero ends them at once.
        drain_timeout: Duration as DURATION = "25s";
        /// Origins of web pages that may read answers, besides our own.
        cors_origins: Vec<CorsOrigin> as ORIGINS = "";
        /// Names that clients may use in `Host`, besides the loopback's. They count for both
        /// listeners where these are on the loopback and identify no callers.
        allowed_hosts: Vec<Host> as HOSTS = "";
        /// Time for the head of a request, from its first byte or the beginning of its connection.
        header_timeout: Duration as POSITIVE_DURATION = "5s";
        /// Time that a connection may be idle between two requests.
        idle_timeout: Duration as POSITIVE_DURATION = "75s";
        /// Time from the end of a request's head to the last byte of its answer. The default is
        /// more than twice `upstream.deadline`.
        request_timeout: Duration as POSITIVE_DURATION = "60s";
        /// Time that a client may read nothing of an answer that is ready for it.
        stall_timeout: Duration as POSITIVE_DURATION = "10s";
        /// Number of connections that may be open.
        max_connections: NonZeroUsize as CONNECTIONS = "10000";
        /// True if clients may speak HTTP/2 without TLS, by prior knowledge.
        http2_cleartext: bool as BOOLEAN = "false";
    } tables within {
        /// TLS of the listener; `None`: plain HTTP.
        tls: Option<TlsConfig> = server_tls::read;
    }
}

section! {
    /// `admin.*`: the listener of probes, metrics and cache administration.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AdminConfig of admin = "admin" {
        /// Address of the admin listener, different from the API's; port 0 takes a free one.
        listen: SocketAddr as ADDRESS = "127.0.0.1:9090";
        /// Hashes of the keys that open it. Without any, and without a client CA, it is open, and
        /// listens on the loopback.
        key_sha256: Vec<KeyHash> as KEY_HASHES = "";
        /// True if `/metrics` needs a key too, if there are keys.
        metrics_need_key: bool as BOOLEAN = "true";
    } tables within {
        /// TLS of the listener; `None`: plain HTTP. A certificate of its client CA opens it like a
        /// key.
        tls: Option<TlsConfig> = admin_tls::read;
    }
}

section! {
    /// `server.tls.*` and `admin.tls.*`: TLS of a listener. The files are read again when they
    /// change.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TlsConfig of server_tls = "server.tls", admin_tls = "admin.tls" {
        /// The certificate and those between it and its CA, in PEM.
        certificate_file: PathBuf as FILE, KeyPresence::RequiredInTable;
        /// The certificate's private key, in PEM.
        key_file: PathBuf as FILE, KeyPresence::RequiredInTable;
        /// CAs of client certificates, in PEM; `None`: clients need none.
        client_ca_file: Option<PathBuf> as FILE;
    }
}

section! {
    /// `callers.*`: the callers.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct CallersConfig of callers = "callers" {
        /// The file that names the callers.
        file: Option<PathBuf> as CALLERS_FILE;
        /// True if anybody may call, from other machines too; never with `file` or `jwt`.
        anonymous: bool as BOOLEAN = "false";
    } tables within {
        /// The issuer whose tokens are accepted; `None`: no tokens are.
        jwt: Option<JwtConfig> = callers_jwt::read;
    }
}

section! {
    /// `callers.jwt.*`: the issuer whose tokens are accepted, and the claims that are read.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct JwtConfig of callers_jwt = "callers.jwt" {
        /// The value of `iss`, compared letter by letter.
        issuer: String as EXACT_TEXT, KeyPresence::RequiredInTable;
        /// The value of `aud`, or one of its values.
        audience: String as EXACT_TEXT, KeyPresence::RequiredInTable;
        /// The issuer's keys (a JWK Set, RFC 7517); `http` only on this machine.
        jwks_url: Url as DOCUMENT, KeyPresence::RequiredInTable;
        /// The claim that identifies the caller; a top-level one, like the others.
        subject_claim: String as EXACT_TEXT = "sub";
        /// The claim with the caller's scopes; `None`: only the callers file has them.
        scopes_claim: Option<String> as EXACT_TEXT;
        /// The claim with the customers that the caller may read; `None`: only the callers file
        /// has them.
        customers_claim: Option<String> as EXACT_TEXT;
    }
}

section! {
    /// `upstream.*`: the calls to Partner Center.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct UpstreamConfig of upstream = "upstream" {
        /// Scheme, host, and a path prefix if the environment needs one; `http` only to this
        /// machine.
        base_url: Url as ENDPOINT = "https://api.partnercenter.microsoft.com";
        /// The call that answers for the newest date of the simplified form.
        source: UpstreamApi as USAGE_API = "insights";
        /// Path of the commercial call below `base_url`.
        commercial_path: String as URL_PATH = "/v1/analytics/commercial/usage/license/";
        /// Sent as `X-Locale`.
        locale: String as HEADER_VALUE = "en-US";
        /// Sent as `MS-PartnerCenter-Application`.
        application: String as HEADER_VALUE = "usage-proxy";
        /// Time for connecting; at most `attempt_timeout`.
        connect_timeout: Duration as POSITIVE_DURATION = "2s";
        /// Time for one attempt, to the last byte of its answer; at most `deadline`.
        attempt_timeout: Duration as POSITIVE_DURATION = "10s";
        /// Time for one call, with its attempts, the pauses between them, and the wait for a permit
        /// and for tokens.
        deadline: Duration as POSITIVE_DURATION = "25s";
        /// Number of calls at the same time.
        max_concurrency: NonZeroUsize as CONCURRENCY = "16";
        /// Number of attempts after the first; zero does not retry.
        retries: u32 as RETRIES = "3";
        /// Size of the largest answer that is accepted, in bytes after decompression. All answers
        /// that are being read take no more than that beyond 1 MiB for each call.
        max_body: usize as SIZE_IN_MEMORY = "32MiB";
        /// True to ask Partner Center whether the access token has multi-factor proof.
        validate_mfa: bool as BOOLEAN = "false";
    } tables within {
        /// The account. No default.
        auth: AuthConfig = auth::read;
    }
}

section! {
    /// `cache.*`: the size of the cache, and the time for which answers may be served.
    ///
    /// Each duration counts from the arrival of our copy. The two stale windows both begin where
    /// freshness ends ([RFC 5861 §3–4](https://www.rfc-editor.org/rfc/rfc5861#section-3)), so
    /// `stale_if_error` is never the shorter one.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct CacheConfig of cache = "cache" {
        /// Memory for all snapshots, in bytes.
        max_bytes: u64 as SIZE = "256MiB";
        /// Time that the newest date is served without asking Partner Center.
        fresh_for: Duration as POSITIVE_DURATION = "15m";
        /// Time after that in which it is served at once while a refresh runs; zero never does.
        stale_while_revalidate: Duration as DURATION = "1h";
        /// Time after `fresh_for` in which it is served if Partner Center fails; zero never does.
        stale_if_error: Duration as DURATION = "7d";
        /// Time that a request waits for Partner Center before it gets stale data; the call
        /// continues. Zero does not wait.
        soft_timeout: Duration as DURATION = "2s";
        /// Time that "no such customer" and "no relationship" are cached; zero never does.
        negative_fresh_for: Duration as DURATION = "30s";
        /// Time that the absence of a date older than the customer's newest is cached; zero never
        /// does.
        past_absence_fresh_for: Duration as DURATION = "24h";
        /// Time between two calls that callers' `no-cache` may cause for one customer, whatever the
        /// date, and for the partner's lists and documents together; zero has no limit.
        min_refresh_interval: Duration as DURATION = "30s";
        /// Time after which a second answer that misses the same rows is accepted; zero accepts the
        /// first.
        suspect_confirm_after: Duration as DURATION = "15m";
    }
}

section! {
    /// `store.*`: the place where accepted snapshots are kept durably.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct StoreConfig of store = "store" {
        /// The database; `None`: memory only.
        url: Option<StoreUrl> as STORE_URL;
        /// The PostgreSQL database past a pooler, through which no notifications arrive; `None`: `url`
        /// leads to the server.
        listen_url: Option<PostgresUrl> as LISTEN_URL;
        /// The password of a PostgreSQL database, read at each connect; `None`: it asks for none.
        password_file: Option<PathBuf> as FILE;
        /// CAs, in PEM, that a PostgreSQL server's certificate may be of; `None`: those of the system.
        ca_file: Option<PathBuf> as FILE;
        /// The keys that encrypt tokens in a PostgreSQL database, a key a line; `None`: no tokens are
        /// stored.
        encryption_key_file: Option<PathBuf> as FILE;
        /// Time until an accepted snapshot is durable.
        flush_within: Duration as POSITIVE_DURATION = "1s";
        /// Time that a processed date is kept; `None`: for ever.
        keep: Option<Duration> as POSITIVE_DURATION;
    }
}

section! {
    /// `fleet.*`: the refresh of all customers together.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct FleetConfig of fleet = "fleet" {
        /// True to refresh all customers together; `None`: only where `upstream.source` is
        /// `commercial`.
        refresh: Option<bool> as BOOLEAN;
        /// Shortest time between two checks for a newer processed date.
        check_interval: Duration as CHECK_INTERVAL = "1h";
    }
}

section! {
    /// `portfolio.*`: the partner's own names, prices and groups.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct PortfolioConfig of portfolio = "portfolio" {
        /// The file with products and groups.
        file: Option<PathBuf> as PORTFOLIO_FILE;
    }
}

section! {
    /// `metrics.*`: usage as metrics.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct MetricsConfig of metrics = "metrics" {
        /// True to serve `/metrics/usage` on the admin listener.
        usage: bool as BOOLEAN = "false";
        /// Number of series of `/metrics/usage`; the rest are cut and counted.
        usage_max_series: usize as SERIES = "10000";
    }
}

section! {
    /// `log.*`: which lines are logged, and their format.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct LogConfig of log = "log" {
        /// Format of the lines; `None`: `text` on a terminal, `json` elsewhere.
        format: Option<LogFormat> as LOG_FORMAT;
        /// A valid [`tracing_subscriber::EnvFilter`].
        filter: String as LOG_FILTER = "info";
        /// The requests that are logged.
        requests: RequestLog as REQUEST_LOG = "all";
    }
}

section! {
    /// `tracing.*`: the collector of spans, and the share of traces that is sampled.
    #[derive(Clone, Debug, PartialEq)]
    pub struct TracingConfig of tracing = "tracing" {
        /// Base URL of a collector of OTLP over HTTP; without it nothing is traced.
        otlp_endpoint: Url as COLLECTOR, KeyPresence::Optional;
        /// Headers that the collector needs, a `Name: value` per line.
        headers_file: Option<PathBuf> as FILE;
        /// The share of traces that is sampled, 0 to 1, of those that begin here.
        sample_ratio: f64 as RATIO = "1";
        /// `service.name` of every span.
        service_name: String as EXACT_TEXT = "usage-proxy";
    }
}

impl AdminConfig {
    /// Returns true if the listener needs a key or a certificate.
    pub fn is_guarded(&self) -> bool {
        let takes_certificates = |tls: &TlsConfig| tls.client_ca_file.is_some();
        !self.key_sha256.is_empty() || self.tls.as_ref().is_some_and(takes_certificates)
    }
}

impl TracingConfig {
    /// Returns the URL that spans are sent to (OTLP/HTTP).
    pub fn traces_url(&self) -> Url {
        let mut url = self.otlp_endpoint.clone();
        url.set_path(&format!("{}/v1/traces", url.path().trim_end_matches('/')));
        url
    }
}
