//! What requests carry.
//!
//! Headers are described as plain text even where they have a form: what does not have it is passed
//! over, never refused. `Accept` and `Authorization` are no parameters in OpenAPI: media types stand
//! with the answers, credentials with the security schemes.

use utoipa::{
    IntoParams,
    openapi::{
        KnownFormat, Object, ObjectBuilder, RefOr, Required, Schema, SchemaFormat,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::{AnyOfBuilder, Type},
    },
};

/// The customer, in the path.
pub(in crate::api) struct OfCustomer;

/// The processed date, in the query.
pub(in crate::api) struct OfDate;

/// The theme of a chart, in the query.
pub(in crate::api) struct OfTheme;

/// What the page for people is asked for, in the query.
pub(in crate::api) struct OfPage;

/// The page of a list.
pub(in crate::api) struct Paging;

/// The headers of a request for data.
pub(in crate::api) struct DataHeaders;

/// The headers of a request for the page for people, which nobody keeps.
pub(in crate::api) struct PageHeaders;

/// The headers of a request for a [file](super::super::assets).
pub(in crate::api) struct FileHeaders;

/// A header that is honoured: its name, what it does, and an example.
type Honoured = (&'static str, &'static str, &'static str);

const ON_ALL: [Honoured; 1] = [(
    "X-Request-Id",
    "What the request is called in the answer and in the log, if it is 1 to 128 visible \
         characters; else the service calls it by a new UUID.",
    "build-7/step-3",
)];

const ON_WHAT_IS_KEPT: [Honoured; 2] = [
    (
        "If-None-Match",
        "Validators of what the client has: `304` where the answer has one of them (RFC 9110 \
         §13.1.2).",
        "\"00000000000000000000000000000000\"",
    ),
    (
        "Accept-Encoding",
        "The client's preference among `gzip`, `br`, `zstd` and `identity` (RFC 9110 §12.5.3).",
        "gzip, br, zstd",
    ),
];

const ON_KEPT_DATA: [Honoured; 1] = [(
    "If-Modified-Since",
    "When the client fetched what it has: `304` where nothing changed since. Only without \
         `If-None-Match`, and only if it is a date (RFC 9110 §13.1.3).",
    "Thu, 09 Mar 2017 00:00:00 GMT",
)];

const ON_ASKING: [Honoured; 4] = [
    (
        "Cache-Control",
        "`no-cache` asks Partner Center again, as often as the service allows it for a customer, \
         and where the caller may; `only-if-cached` never asks, and brings `504` where nothing is \
         held. Other directives mean nothing here (RFC 9111 §5.2.1).",
        "no-cache",
    ),
    (
        "MS-CorrelationId",
        "A GUID to trace by: an upstream call that this request makes is known by it.",
        "8b6de8b5-6dcd-4c57-9a27-5a0fb1a3c9d2",
    ),
    (
        "X-Correlation-Id",
        "The same, for clients that call it so.",
        "8b6de8b5-6dcd-4c57-9a27-5a0fb1a3c9d2",
    ),
    (
        "traceparent",
        "W3C Trace Context, passed on with an upstream call that this request makes.",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
];

// === impl OfCustomer ===

impl IntoParams for OfCustomer {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let guid = SchemaFormat::Custom("uuid".to_owned());
        vec![
            ParameterBuilder::new()
                .name("customer_id")
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .description(Some(
                    "The customer: the GUID of its tenant, in any letter case.",
                ))
                .schema(Some(text(guid)))
                .example(Some(super::examples::CUSTOMER.into()))
                .build(),
        ]
    }
}

// === impl OfDate ===

impl IntoParams for OfDate {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let date = SchemaFormat::KnownFormat(KnownFormat::Date);
        vec![
            ParameterBuilder::new()
                .name("processedDate")
                .parameter_in(ParameterIn::Query)
                .required(Required::False)
                .description(Some(
                    "The day in UTC that the usage is to be of, up to today; the newest processed \
                     one where left out.",
                ))
                .schema(Some(text(date)))
                .example(Some(super::examples::DATE.into()))
                .build(),
        ]
    }
}

// === impl OfTheme ===

impl IntoParams for OfTheme {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let theme = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["light", "dark"]));
        vec![
            queried(
                "theme",
                "The colours: of a light page or of a dark one. Left out, they follow the reader's \
                 system.",
                theme,
            )
            .build(),
        ]
    }
}

// === impl OfPage ===

impl IntoParams for OfPage {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let date = text().format(Some(SchemaFormat::KnownFormat(KnownFormat::Date)));
        // A form sends what was not filled in as empty.
        let date = AnyOfBuilder::new()
            .item(date)
            .item(text().enum_values(Some([""])));
        let page = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(u32::MAX));
        vec![
            queried(
                "customer",
                "A customer's id, name, or part of its name or domain.",
                text(),
            )
            .example(Some(super::examples::CUSTOMER.into()))
            .build(),
            queried(
                "date",
                "The processed date, up to today; the newest where left out.",
                date,
            )
            .example(Some(super::examples::DATE.into()))
            .build(),
            queried(
                "page",
                "Which page of the list of customers, where it has several; the last one where there \
                 are fewer.",
                page,
            )
            .build(),
        ]
    }
}

// === impl Paging ===

impl IntoParams for Paging {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let size = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(0))
            .maximum(Some(u32::MAX));
        let next = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["Next"]));
        let text = || ObjectBuilder::new().schema_type(Type::String);
        vec![
            queried(
                "size",
                "How many customers a page has, rounded down to 20, 50, 100, 200 or 500 (below 20 as asked), so that equal pages are shared; all where it is 0 or left out.",
                size,
            )
            .example(Some(2.into()))
            .build(),
            queried(
                "filter",
                "Microsoft's simple filter, in JSON: the customers whose `CompanyName` or `Domain` \
                 begins with a text, whatever the letter case.",
                text(),
            )
            .build(),
            queried(
                "seekOperation",
                "With a continuation token: the page after it.",
                next,
            )
            .build(),
            ParameterBuilder::new()
                .name("MS-ContinuationToken")
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some(
                    "Where the page before ended: what `links.next.headers` of its answer has.",
                ))
                .schema(Some(text()))
                .build(),
        ]
    }
}

fn queried(name: &str, about: &str, schema: impl Into<RefOr<Schema>>) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(about))
        .schema(Some(schema))
}

/// A file of these, which all lie in `folder`.
pub(in crate::api) fn file_beneath(folder: &str, paths: &[&str]) -> Parameter {
    let names = paths.iter().filter_map(|path| path.strip_prefix(folder));
    let name = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(names.clone()));
    ParameterBuilder::new()
        .name("file")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("Which file."))
        .schema(Some(name))
        .example(names.map(Into::into).next())
        .build()
}

// === impl DataHeaders ===

impl IntoParams for DataHeaders {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let kept = ON_WHAT_IS_KEPT.iter().chain(&ON_KEPT_DATA);
        let all = ON_ALL.iter().chain(kept).chain(&ON_ASKING);
        all.map(honoured).collect()
    }
}

// === impl FileHeaders ===

impl IntoParams for FileHeaders {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let all = ON_ALL.iter().chain(&ON_WHAT_IS_KEPT);
        all.map(honoured).collect()
    }
}

// === impl PageHeaders ===

impl IntoParams for PageHeaders {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        ON_ALL.iter().chain(&ON_ASKING).map(honoured).collect()
    }
}

/// The example is the schema's: a page would send one of the parameter's own with every request.
fn honoured((name, description, example): &Honoured) -> Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .examples([*example]);
    ParameterBuilder::new()
        .name(*name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(*description))
        .schema(Some(schema))
        .build()
}

fn text(format: SchemaFormat) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(format))
        .build()
}
