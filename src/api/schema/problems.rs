//! Which problems an operation may be answered with.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{
        AllOfBuilder, Content, ContentBuilder, ObjectBuilder, Ref, RefOr, Response,
        ResponseBuilder, example::Example, schema::Type,
    },
};

use super::examples;
use crate::problem::{Kind, Problem};

/// Who may be answered with what: each names what may be at fault.
macro_rules! problems {
    ($($(#[doc = $about:literal])+ $name:ident: $($fault:ident)+;)+) => {$(
        $(#[doc = $about])+
        pub(in crate::api) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                of_faults(&[$(Fault::$fault),+], MEDIA_TYPE)
            }
        }
    )+};
}

problems! {
    /// Of what there is of one customer, of the newest date only.
    CustomerProblems: Request Service Caller Negotiation Rights Customer Query Upstream;
    /// Of what there is of one customer and a date.
    DatedProblems: Request Service Caller Negotiation Rights Customer Query Repeated Date Upstream;
    /// Of the picture of one customer and a date.
    ChartProblems: Request Service Caller Negotiation Rights Customer Query Repeated Date Theme Upstream;
    /// Of the list of customers.
    ListProblems: Request Service Caller Negotiation Rights Query Repeated Paging Upstream;
    /// Of what is told of all customers.
    PartnerProblems: Request Service Caller Negotiation Rights Query Upstream;
    /// Of a [file](super::super::assets).
    FileProblems: Request Service Negotiation;
    /// Of [files](super::super::assets) beneath a path: what is none of them is there for nobody,
    /// and callers alone are told so.
    FolderProblems: Request Service Caller Negotiation Path;
}

/// Of the page for people, which shows problems as pages too: those of the edge apart, which looks
/// at no path.
pub(in crate::api) struct PageProblems;

/// The media type of problem documents.
const MEDIA_TYPE: &str = "application/problem+json";

/// What has to be at fault for a kind to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The request as such, whatever it is for.
    Request,
    /// The service itself.
    Service,
    /// Who sent it.
    Caller,
    /// `Accept` or `Accept-Encoding`.
    Negotiation,
    /// What the caller may do.
    Rights,
    /// The customer.
    Customer,
    /// The query.
    Query,
    /// A parameter that is there twice.
    Repeated,
    /// The date.
    Date,
    /// The theme.
    Theme,
    /// The page of a list.
    Paging,
    /// The page of the list that people read.
    PageNumber,
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
            | Kind::MissingHost
            | Kind::RepeatedHost
            | Kind::InvalidHost
            | Kind::ForeignTarget
            | Kind::MisdirectedRequest
            | Kind::RequestBody
            | Kind::UriTooLong
            | Kind::TooManyHeaders
            | Kind::HeadersTooLarge
            | Kind::TooManyConnections
            | Kind::UnreadAnswers
            | Kind::Backlogged => Self::Request,
            Kind::InternalError => Self::Service,
            Kind::Unauthenticated
            | Kind::SeveralCredentials
            | Kind::IssuerUnavailable
            | Kind::RateLimited => Self::Caller,
            Kind::NotAcceptable => Self::Negotiation,
            Kind::NotAllowed => Self::Rights,
            Kind::CustomerId | Kind::UnknownCustomer | Kind::NoRelationship => Self::Customer,
            Kind::DuplicateParameter => Self::Repeated,
            Kind::PageSize
            | Kind::CustomerFilter
            | Kind::SeekOperation
            | Kind::ContinuationToken => Self::Paging,
            Kind::PageNumber => Self::PageNumber,
            Kind::UnknownParameter => Self::Query,
            Kind::Theme => Self::Theme,
            Kind::ProcessedDate | Kind::NothingProcessed => Self::Date,
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
            | Kind::Malformed
            | Kind::Suspect => Self::Upstream,
            Kind::NotFound => Self::Path,
            Kind::OriginNotAllowed => Self::Preflight,
            Kind::NotAuthenticated | Kind::NotForPages | Kind::BadRequest => Self::Admin,
        }
    }
}

// === impl PageProblems ===

impl IntoResponses for PageProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = of_faults(&[Fault::Request], MEDIA_TYPE);
        let of_page = [
            Fault::Request,
            Fault::Service,
            Fault::Caller,
            Fault::Rights,
            Fault::Customer,
            Fault::Query,
            Fault::Repeated,
            Fault::Date,
            Fault::PageNumber,
            Fault::Upstream,
        ];
        for (status, shown) in of_faults(&of_page, "text/html") {
            match (responses.get_mut(&status), shown) {
                (Some(RefOr::T(response)), RefOr::T(shown)) => {
                    response.description = shown.description;
                    response.content.extend(shown.content);
                }
                (_, shown) => {
                    responses.insert(status, shown);
                }
            }
        }
        responses
    }
}

fn of_faults(faults: &[Fault], media_type: &str) -> BTreeMap<String, RefOr<Response>> {
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
        .map(|(status, kinds)| {
            (
                status.to_string(),
                response(status, &kinds, media_type).into(),
            )
        })
        .collect()
}

/// One status: the kinds that have it, each with its meaning.
fn response(status: u16, kinds: &[Kind], media_type: &str) -> Response {
    let meanings: Vec<_> = kinds
        .iter()
        .map(|kind| format!("- `{}`: {}", kind.name(), kind.about()))
        .collect();
    let content = if media_type == MEDIA_TYPE {
        document(status, kinds)
    } else {
        ContentBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .build()
    };
    ResponseBuilder::new()
        .description(meanings.join("\n"))
        .content(media_type, content)
        .build()
}

/// A problem document of one of these kinds.
fn document(status: u16, kinds: &[Kind]) -> Content {
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
    ContentBuilder::new()
        .schema(Some(schema))
        .examples_from_iter(examples)
        .build()
}

/// `type` where it is one of these kinds.
fn kind_schema(kinds: &[Kind]) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(kinds.iter().map(|kind| Value::from(kind.uri()))))
}
