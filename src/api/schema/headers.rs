//! What answers carry, by what they answer.

use serde_json::Value;
use utoipa::openapi::{
    Object, ObjectBuilder, Ref, RefOr, Response,
    header::{Header, HeaderBuilder},
    schema::{SchemaFormat, Type},
};

/// A header of answers.
struct Told {
    name: &'static str,
    form: Form,
    example: &'static str,
    about: &'static str,
}

/// What a header's value looks like.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Uuid,
    /// Seconds, of which there are so many at least.
    Seconds(u32),
    OneOf(&'static [&'static str]),
}

/// What an operation answers about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Subject {
    /// Usage, to callers.
    Data,
    /// The same, to be opened in a browser.
    Shown,
    /// The same as a page, made anew each time.
    Page,
    /// A [file](super::super::assets), to everybody.
    File,
}

const HEADERS: [Told; 25] = [
    told(
        "X-Request-Id",
        Form::Text,
        "build-7/step-3",
        "What the request is called: the caller's own name for it, or a new UUID.",
    ),
    told(
        "Cache-Status",
        Form::Text,
        "usage-proxy; hit; ttl=900",
        "How the answer came about: `hit`, `fwd`, `fwd-status`, `stored`, `collapsed`, `ttl`, `detail` (RFC 9211).",
    ),
    told(
        "Access-Control-Allow-Origin",
        Form::Text,
        "https://dash.example.com",
        "The page's origin, where `server.cors_origins` names it.",
    ),
    told(
        "Access-Control-Expose-Headers",
        Form::Text,
        "Age, Cache-Status, ETag",
        "What scripts of that page may read.",
    ),
    told(
        "RateLimit-Policy",
        Form::Text,
        "\"default\";q=600;w=60",
        "How often the caller may come, where that is limited.",
    ),
    told(
        "RateLimit",
        Form::Text,
        "\"default\";r=599;t=1",
        "How many requests are left (`r`) for so many seconds (`t`); then there is one more.",
    ),
    told(
        "ETag",
        Form::Text,
        "\"727b36b6a997462a53291711cbc2e763\"",
        "A strong validator, its own for each form and coding (RFC 9110 §8.8.3).",
    ),
    told(
        "Last-Modified",
        Form::Text,
        "Thu, 09 Mar 2017 00:00:00 GMT",
        "When this content was first seen.",
    ),
    told(
        "Age",
        Form::Seconds(0),
        "12",
        "Seconds since Partner Center told it.",
    ),
    told(
        "Cache-Control",
        Form::Text,
        "private, max-age=900, stale-while-revalidate=3600",
        "How long the answer may be kept, and by whom (RFC 9111 §5.2.2); `no-store` on problems.",
    ),
    told(
        "Vary",
        Form::Text,
        "Accept, Accept-Encoding",
        "The headers that this answer was chosen by.",
    ),
    told(
        "Content-Encoding",
        Form::OneOf(&["gzip", "br", "zstd"]),
        "br",
        "How the body is compressed, where it is.",
    ),
    told(
        "MS-RequestId",
        Form::Uuid,
        "c2a4a7a9-7e06-4d2e-b7f2-0c3f7a4f1b6d",
        "The upstream call's own id, on the answer that made the call and on no other.",
    ),
    told(
        "MS-CorrelationId",
        Form::Uuid,
        "8b6de8b5-6dcd-4c57-9a27-5a0fb1a3c9d2",
        "The correlation id of that call.",
    ),
    told(
        "Retry-After",
        Form::Seconds(1),
        "5",
        "Whole seconds after which asking again may help.",
    ),
    told(
        "WWW-Authenticate",
        Form::Text,
        "Bearer realm=\"usage-proxy\"",
        "What is expected (RFC 6750 §3).",
    ),
    told(
        "Allow",
        Form::Text,
        "GET, HEAD",
        "The methods that there are.",
    ),
    told(
        "Connection",
        Form::OneOf(&["close"]),
        "close",
        "Nothing more is read from the connection.",
    ),
    told(
        "Content-Security-Policy",
        Form::Text,
        "default-src 'none'",
        "What a browser may do with the file.",
    ),
    told(
        "X-Content-Type-Options",
        Form::OneOf(&["nosniff"]),
        "nosniff",
        "The media type is what it says.",
    ),
    told(
        "Referrer-Policy",
        Form::OneOf(&["no-referrer"]),
        "no-referrer",
        "Nobody is told where a link was followed from.",
    ),
    told(
        "Cross-Origin-Resource-Policy",
        Form::OneOf(&["same-origin", "cross-origin"]),
        "same-origin",
        "Whose pages may show it.",
    ),
    told(
        "Cross-Origin-Opener-Policy",
        Form::OneOf(&["same-origin"]),
        "same-origin",
        "No page of another origin gets hold of its window.",
    ),
    told(
        "Content-Disposition",
        Form::Text,
        "attachment; filename=\"usage-Contoso-2017-03-09.csv\"; filename*=UTF-8''usage-Contoso-2017-03-09.csv",
        "What a browser saves it as.",
    ),
    told(
        "Content-Length",
        Form::Seconds(0),
        "1024",
        "Bytes of the body, also where HEAD keeps it back.",
    ),
];

const fn told(name: &'static str, form: Form, example: &'static str, about: &'static str) -> Told {
    Told {
        name,
        form,
        example,
        about,
    }
}

/// Every header, to be referred to.
pub(in crate::api) fn all() -> impl Iterator<Item = (String, RefOr<Header>)> {
    HEADERS
        .iter()
        .map(|told| (told.name.to_owned(), told.header().into()))
}

/// Adds what an answer of this status to such an operation carries.
pub(in crate::api) fn dress(response: &mut Response, subject: Subject, status: &str) {
    for name in of(subject, status).concat() {
        let reference = Ref::new(format!("#/components/headers/{name}"));
        response
            .headers
            .insert((*name).to_owned(), RefOr::Ref(reference));
    }
}

fn of(subject: Subject, status: &str) -> Vec<&'static [&'static str]> {
    const ON_ALL: &[&str] = &[
        "X-Request-Id",
        "Cache-Status",
        "Cache-Control",
        "Vary",
        "Access-Control-Allow-Origin",
        "Access-Control-Expose-Headers",
    ];
    const TO_CALLERS: &[&str] = &["RateLimit", "RateLimit-Policy"];
    const OF_CALL: &[&str] = &["MS-RequestId", "MS-CorrelationId"];

    let mut names = vec![ON_ALL];
    if subject != Subject::File {
        names.extend([TO_CALLERS, OF_CALL]);
    }
    if matches!(subject, Subject::Shown | Subject::Page) {
        names.push(&[
            "Content-Security-Policy",
            "X-Content-Type-Options",
            "Referrer-Policy",
            "Cross-Origin-Resource-Policy",
            "Cross-Origin-Opener-Policy",
        ]);
    }
    if subject == Subject::Shown {
        names.push(&["Content-Disposition"]);
    }
    if subject == Subject::Data && matches!(status, "200" | "304") {
        names.push(&["X-Content-Type-Options", "Cross-Origin-Resource-Policy"]);
    }
    match (subject, status) {
        (Subject::Data | Subject::Shown, "200" | "304") => {
            names.push(&["ETag", "Last-Modified", "Age"])
        }
        (Subject::File, "200" | "304") => names.push(&[
            "ETag",
            "Content-Security-Policy",
            "X-Content-Type-Options",
            "Referrer-Policy",
        ]),
        (Subject::File, "404") => names.push(TO_CALLERS),
        (_, "401") => names.push(&["WWW-Authenticate"]),
        (_, "405") => names.push(&["Allow"]),
        (_, "408" | "414" | "431") => names.push(&["Connection"]),
        (Subject::File, "429") => names.extend([TO_CALLERS, &["Retry-After"]]),
        (_, "429" | "504") => names.push(&["Retry-After"]),
        (_, "400") => names.push(&["WWW-Authenticate", "Connection"]),
        (_, "503") => names.push(&["Retry-After", "Connection"]),
        _ => {}
    }
    if status == "200" {
        names.push(&["Content-Length"]);
        if subject != Subject::Page {
            names.push(&["Content-Encoding"]);
        }
    }
    names
}

// === impl Told ===

impl Told {
    fn header(&self) -> Header {
        HeaderBuilder::new()
            .schema(Some(self.form.schema()))
            .description(Some(self.about))
            .example(Some(self.form.value(self.example)))
            .build()
    }
}

// === impl Form ===

impl Form {
    fn schema(self) -> Object {
        let schema = ObjectBuilder::new();
        match self {
            Self::Text => schema.schema_type(Type::String),
            Self::Uuid => schema
                .schema_type(Type::String)
                .format(Some(SchemaFormat::Custom("uuid".to_owned()))),
            Self::Seconds(least) => schema.schema_type(Type::Integer).minimum(Some(least)),
            Self::OneOf(values) => schema
                .schema_type(Type::String)
                .enum_values(Some(values.iter().copied())),
        }
        .build()
    }

    fn value(self, example: &str) -> Value {
        match self {
            Self::Seconds(_) => example.parse::<u64>().map_or(Value::Null, Value::from),
            Self::Text | Self::Uuid | Self::OneOf(_) => example.into(),
        }
    }
}
