//! Which problems an operation may be answered with.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{
        AllOfBuilder, ContentBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder,
        example::Example, schema::Type,
    },
};

use super::examples;
use crate::problem::{Kind, Problem};

/// Of a resource of one customer, of the newest date only.
pub(in crate::api) struct CustomerProblems;

/// Of a resource of one customer and a date.
pub(in crate::api) struct DatedProblems;

/// Of a [file](super::super::assets).
pub(in crate::api) struct FileProblems;

/// Of [files](super::super::assets) beneath a path: what is none of them is there for nobody, and
/// callers alone are told so.
pub(in crate::api) struct FolderProblems;

/// What has to be at fault for a kind to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The request as such, whatever it is for.
    Request,
    /// Who sent it.
    Caller,
    /// `Accept` or `Accept-Encoding`.
    Negotiation,
    /// The customer, or what the caller may do with it.
    Customer,
    /// The query.
    Query,
    /// The date.
    Date,
    /// Which page is asked for.
    Page,
    /// Partner Center, or the way there.
    Upstream,
    /// The path.
    Path,
    /// A browser's own question ahead of a request: no operation is answered with it.
    Preflight,
    /// A request of the admin listener, which is not described.
    Admin,
}

// === impl Fault ===

impl Fault {
    /// Exhaustive, so that a new kind has to find its place here.
    #[deny(clippy::wildcard_enum_match_arm)]
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::MethodNotAllowed
            | Kind::NotHttp
            | Kind::BareLineFeed
            | Kind::FoldedHeader
            | Kind::RepeatedContentLength
            | Kind::AmbiguousLength
            | Kind::TransferEncoding
            | Kind::MissingHost
            | Kind::RepeatedHost
            | Kind::InvalidHost
            | Kind::ForeignTarget
            | Kind::RequestBody
            | Kind::RequestTimeout
            | Kind::UriTooLong
            | Kind::TooManyHeaders
            | Kind::HeadersTooLarge
            | Kind::TooManyConnections => Self::Request,
            Kind::Unauthenticated
            | Kind::SeveralCredentials
            | Kind::IssuerUnavailable
            | Kind::RateLimited => Self::Caller,
            Kind::NotAcceptable => Self::Negotiation,
            Kind::CustomerId | Kind::NotAllowed | Kind::UnknownCustomer | Kind::NoRelationship => {
                Self::Customer
            }
            Kind::UnknownParameter => Self::Query,
            Kind::PageSize | Kind::SeekOperation | Kind::ContinuationToken => Self::Page,
            Kind::ProcessedDate | Kind::DuplicateParameter | Kind::NothingProcessed => Self::Date,
            Kind::NotHeld
            | Kind::NotRendered
            | Kind::Throttled
            | Kind::CircuitOpen
            | Kind::Unavailable
            | Kind::Overloaded
            | Kind::Interrupted
            | Kind::TimedOut
            | Kind::CredentialsRefused
            | Kind::Rejected
            | Kind::Malformed => Self::Upstream,
            Kind::NotFound => Self::Path,
            Kind::OriginNotAllowed => Self::Preflight,
            Kind::NotAuthenticated | Kind::NotForPages | Kind::BadRequest => Self::Admin,
        }
    }
}

// === impl CustomerProblems ===

impl IntoResponses for CustomerProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of_faults(&[
            Fault::Request,
            Fault::Caller,
            Fault::Negotiation,
            Fault::Customer,
            Fault::Query,
            Fault::Upstream,
        ])
    }
}

// === impl DatedProblems ===

impl IntoResponses for DatedProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of_faults(&[
            Fault::Request,
            Fault::Caller,
            Fault::Negotiation,
            Fault::Customer,
            Fault::Query,
            Fault::Date,
            Fault::Upstream,
        ])
    }
}

// === impl FileProblems ===

impl IntoResponses for FileProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of_faults(&[Fault::Request, Fault::Negotiation])
    }
}

// === impl FolderProblems ===

impl IntoResponses for FolderProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of_faults(&[
            Fault::Request,
            Fault::Caller,
            Fault::Negotiation,
            Fault::Path,
        ])
    }
}

fn of_faults(faults: &[Fault]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<Kind>> = BTreeMap::new();
    for kind in Kind::OF_API {
        if faults.contains(&Fault::of(*kind)) {
            by_status
                .entry(kind.status().as_u16())
                .or_default()
                .push(*kind);
        }
    }
    by_status
        .into_iter()
        .map(|(status, kinds)| (status.to_string(), response(status, &kinds).into()))
        .collect()
}

/// One status: the kinds that have it, each with its meaning.
fn response(status: u16, kinds: &[Kind]) -> Response {
    let meanings: Vec<_> = kinds
        .iter()
        .map(|kind| format!("- `{}`: {}", kind.name(), kind.about()))
        .collect();
    let of_these = ObjectBuilder::new()
        .property("type", kind_schema(kinds))
        .property(
            "status",
            ObjectBuilder::new()
                .schema_type(Type::Integer)
                .enum_values(Some([Value::from(status)])),
        );
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name(<Problem as ToSchema>::name()))
        .item(of_these);
    let examples = kinds
        .iter()
        .filter(|kind| examples::problem(**kind).is_some());
    let examples = examples.map(|kind| {
        let reference = Ref::new(format!("#/components/examples/{}", kind.name()));
        (kind.name().to_owned(), RefOr::<Example>::Ref(reference))
    });
    let content = ContentBuilder::new()
        .schema(Some(schema))
        .examples_from_iter(examples)
        .build();
    ResponseBuilder::new()
        .description(meanings.join("\n"))
        .content("application/problem+json", content)
        .build()
}

/// `type` where it is one of these kinds.
fn kind_schema(kinds: &[Kind]) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(kinds.iter().map(|kind| Value::from(kind.uri()))))
}
