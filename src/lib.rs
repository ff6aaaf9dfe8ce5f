//! usage-proxy: license usage per customer, cached in front of Partner Center.
//!
//! Dependencies point inward: the domain knows nothing of HTTP, the adapters (`api`, `admin`,
//! `upstream`) never meet, and only [`app`] knows everyone.
//!
//! ```text
//! main ─▶ cli ─▶ app ─┬─▶ api, admin ─▶ usage ─▶ cache ─▶ representation ─▶ domain
//!                     ├─▶ upstream ───▶ usage::source, resilience, domain          config ─▶ domain
//!                     └─▶ serve, callers
//! ```
//!
//! `api` asks `callers` who asks, `usage` takes its turns from `resilience`, and `admin` and
//! `callers` know keys by `access_key`.
//!
//! **One request, in file order.** [`serve`] accepts → [`api`] tells the route, counts and logs →
//! [`allowed_hosts`] refuses foreign hosts on the loopback →
//! `api/authentication` asks [`callers`] who sent it, `api/rate_limit` whether it may come again →
//! `api/extract` reads a customer, a date, a directive → `api/usage` asks [`usage`] → [`cache`]
//! finds the newest date and its snapshot and judges their freshness. *Fresh* is served. *Stale
//! while revalidating* is served at once, one refresh behind it. *Stale if error* waits for
//! upstream and falls back on what is held. *Older or absent* waits, and passes the error on.
//! Waiting means to join a single flight, or to lead one once it is the caller's turn →
//! [`upstream`] → [`representation`] prepares → stored, unless [doubted](cache::AnomalyKind) →
//! `api/negotiation` picks a form, `api/caching` dresses it or says 304. The list of customers
//! (`api/customers`) and the documents that are handed out as they came (`api/documents`) go the
//! same way; of the list, `render/customers` cuts what its caller may see.
//!
//! **For people.** `api/page` (askama's templates) shows what the same caller would be answered, and
//! shares its bars, `render/adoption`, with `render/chart`; their styles and scripts
//! are `api/assets`, the same for everybody. In a terminal, `cli/get` asks a running service,
//! `cli/doctor` looks for what keeps one from working, and `cli/consent` brings its refresh token.
//!
//! **For programs and operators.** Handlers say in the words of `api/schema` what is theirs;
//! `api/openapi` makes the description of that, and `api/docs` shows it. What can go wrong is one
//! table, `problem/kind`. [`trace`] sends spans to a collector; `api/spans`, `usage/spans` and
//! `upstream/spans` begin them.
//!
//! Modules stand in reading order; the blank lines keep rustfmt from sorting them.

pub mod cli;

pub mod app;

pub mod socket_activation;

pub mod server;

pub mod api;

pub mod auth;

pub mod service;

pub mod cache;

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

pub mod printable;

mod text_folding;

mod human_time;

pub mod request_id;

pub mod access_key;

pub mod peer;

mod certificate;

pub mod reload;

pub mod shutdown;

pub mod offload;

pub mod open_file_limit;

pub mod clock;

pub mod jitter;

#[cfg(test)]
mod proptest_support;
