//! usage-proxy: license usage per customer, cached in front of Partner Center.
//!
//! Imports point downward. The domain knows nothing of HTTP; `api`, `admin` and `partner_center` never
//! import each other; only [`app`] knows everyone.
//!
//! ```text
//! main ─▶ cli ─▶ app ─┬─▶ server
//!                     ├─▶ api, admin ─▶ service ─▶ store ─▶ cache ─▶ render ─▶ domain
//!                     ├─▶ auth                                        config ─▶ domain
//!                     └─▶ partner_center ─▶ service::source, store, domain
//! ```
//!
//! **A cached answer.** [`server`] accepts the connection and lets hyper read the request. The layers
//! of [`api`] follow in the order of their list: common headers, metrics and access log, CORS, unsent
//! budget, problem documents (of panics too), `Host` and preflights, authentication (by [`auth`]), rate
//! limit, and *serve a fresh hit*. That last layer reads customer, date and format from the request,
//! checks the rights of the caller, and takes the rendered body from [`cache`].
//!
//! **A miss** passes on to the router (`api/router`, one line a route) and its handler, which calls
//! [`service`]. What memory lacks is first looked up in the [`store`], if there is one. Stale data is
//! returned at once while one refresh runs, or after an upstream error; otherwise the caller joins the
//! single flight for its [`Resource`](domain::Resource) or leads it. The leader waits for its lease, if
//! replicas share the store, and for a permit of the concurrency limiter. Then it calls
//! [`partner_center`]: limits, access token, request, paging, wire types. [`render`] makes the bodies;
//! [`cache`] stores them, unless the answer is an [anomaly](cache::AnomalyKind). The store gets them
//! after the request was answered.
//!
//! **All customers together** are refreshed by one task (`service/fleet`), by that of one replica where
//! several share a store.
//!
//! **Names.** [`portfolio_file`] has the partner's own names of products. An answer gets them when it is
//! requested, and again after the file changed; a hit compares one number for that.
//!
//! **For people.** `api/page` shows the same data in a browser. `cli/get` asks a running service,
//! `cli/doctor` finds what keeps one from working, and `cli/consent` gets its refresh token.
//!
//! **For programs and operators.** `api/openapi` describes the API and `api/docs` shows it. Every kind
//! of error is a row of [`problem`]. [`admin`] serves probes, metrics and the purge;
//! [`observability`] has logs and traces. [`simulator`] stands in for Partner Center in the demo, tests
//! and benches, and shares no type with [`partner_center`].
//!
//! CONTRIBUTING.md says what to touch to add a route, key, metric or error kind. Modules are declared in
//! reading order; the blank lines keep rustfmt from sorting them.

pub mod cli;

pub mod app;

pub mod socket_activation;

pub mod server;

pub mod api;

pub mod auth;

pub mod service;

pub mod cache;

pub mod store;

pub mod render;

pub mod domain;

pub mod partner_center;

pub mod resilience;

pub mod token_bucket;

pub mod allowed_hosts;

pub mod admin;

pub mod simulator;

pub mod config;

pub mod panic;

pub mod observability;

pub mod problem;

pub mod http_client;

mod lru_map;

pub mod text;

pub mod request_id;

pub mod access_key;

pub mod peer;

mod certificate;

pub mod sealing;

pub mod portfolio_file;

mod tables_file;

pub mod reload;

pub mod shutdown;

pub mod offload;

pub mod open_file_limit;

pub mod clock;

pub mod jitter;

#[cfg(test)]
mod proptest_support;
