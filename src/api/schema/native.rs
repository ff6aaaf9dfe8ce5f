//! Partner Center's own shapes, which native forms hand on: here only described.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ArrayBuilder, KnownFormat, Object, ObjectBuilder, RefOr, Schema, SchemaFormat, schema::Type,
    },
};

/// Makes a schema of each `ResourceCollection`: what its items are, and their properties, of which
/// the first so many are always there; and properties that this collection has besides.
macro_rules! collections {
    ($($name:ident: $about:literal, $required:literal of $row:expr, and $more:expr;)+) => {$(
        #[doc = $about]
        pub(in crate::api) struct $name;

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                collection($about, $required, $row, $more)
            }
        }
    )+};
}

collections! {
    NativeUsage: "`CustomerLicensesUsageInsights`, as Partner Center sent them.", 6 of &[
        PRODUCT_NAME, WORKLOAD_NAME, SERVICE_NAME, PROCESSED,
        ("licensesActive", Value::Count, "Licenses used at least once in the last 28 days."),
        ("licensesQualified", Value::Count, "Licenses entitled to the workload."),
        ("usagePercent", Value::Percent, "Partner Center's adjusted percentage: not promised to be active by qualified. It can exceed 100."),
        ("workloadCode", Value::Text, "The workload's code, where it is told."),
        SERVICE_CODE, CUSTOMER_ID, CUSTOMER_NAME, CHANNEL,
    ], and &[];
    NativeDeployment: "`CustomerLicensesDeploymentInsights`, as Partner Center sent them.", 0 of &[
        ("licensesDeployed", Value::Count, "Seats that were given to somebody."),
        ("licensesSold", Value::Count, "Seats that were bought."),
        ("deploymentPercent", Value::Percent, "Partner Center's percentage."),
        PRODUCT_NAME, SERVICE_NAME, SERVICE_CODE, PROCESSED, CUSTOMER_ID, CUSTOMER_NAME, CHANNEL,
    ], and &[];
    NativePartnerUsage: "`PartnerLicensesUsageInsights`, as Partner Center sent them.", 0 of &[
        ("proratedLicensesUsagePercent", Value::Percent, "Partner Center's percentage over all customers."),
        WORKLOAD_NAME, SERVICE_NAME, PROCESSED, CHANNEL,
    ], and &[];
    NativePartnerDeployment: "`PartnerLicensesDeploymentInsights`, as Partner Center sent them.", 0 of &[
        ("proratedDeploymentPercent", Value::Percent, "Partner Center's percentage over all customers."),
        ("licensesSold", Value::Count, "Seats that were bought."),
        SERVICE_NAME, PROCESSED, CHANNEL,
    ], and &[];
    NativeCustomers: "`Customer`s, each as Partner Center sent it, by name.", 1 of &[
        ("id", Value::Text, "The GUID of the customer's tenant."),
        ("companyProfile", Value::Profile, "What the customer is called."),
        ("relationshipToPartner", Value::Text, "Such as `reseller`."),
    ], and &[(
        "continuationToken",
        Value::Text,
        "Where the next page begins, for `MS-ContinuationToken`; absent on the last page.",
    )];
}

/// A property: its name, its type, and what it says.
type Property = (&'static str, Value, &'static str);

/// What a property holds.
#[derive(Clone, Copy)]
enum Value {
    Text,
    Count,
    Percent,
    Instant,
    Profile,
    Links,
    Attributes,
}

const PRODUCT_NAME: Property = ("productName", Value::Text, "What the product is called.");
const WORKLOAD_NAME: Property = ("workloadName", Value::Text, "What the workload is called.");
const SERVICE_NAME: Property = (
    "serviceName",
    Value::Text,
    "What the service is called, such as `o365`.",
);
const SERVICE_CODE: Property = (
    "serviceCode",
    Value::Text,
    "The service's code, where it is told.",
);
const CUSTOMER_ID: Property = (
    "customerId",
    Value::Text,
    "The customer's GUID; absent in Microsoft's own example.",
);
const CUSTOMER_NAME: Property = ("customerName", Value::Text, "What the customer is called.");
const CHANNEL: Property = (
    "channel",
    Value::Text,
    "How the licence was sold, such as `reseller`.",
);
const PROCESSED: Property = (
    "processedDateTime",
    Value::Instant,
    "When the seats were counted.",
);

/// The fields that every collection has besides its items.
const OF_COLLECTION: [Property; 3] = [
    (
        "totalCount",
        Value::Count,
        "How many items there are on all pages.",
    ),
    (
        "links",
        Value::Links,
        "This page, and others where there are any.",
    ),
    (
        "attributes",
        Value::Attributes,
        "What kind of object it is.",
    ),
];

fn collection(about: &str, required: usize, row: &[Property], more: &[Property]) -> RefOr<Schema> {
    let collection = ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(format!(
            "{about} There may be more than is described. It may begin with a byte-order mark, \
             which RFC 8259 §8.1 lets readers pass over."
        )));
    described(collection, OF_COLLECTION.iter().chain(more))
        .property("items", ArrayBuilder::new().items(item(required, row)))
        .required("items")
        .into()
}

fn described<'a>(
    object: ObjectBuilder,
    properties: impl IntoIterator<Item = &'a Property>,
) -> ObjectBuilder {
    let properties = properties.into_iter();
    properties.fold(object, |object, (name, value, about)| {
        object.property(*name, value.schema().description(Some(*about)))
    })
}

fn item(required: usize, row: &[Property]) -> Object {
    let item = ObjectBuilder::new().schema_type(Type::Object);
    let item = described(item, row);
    let always = row.iter().take(required);
    always
        .fold(item, |item, (name, ..)| item.required(*name))
        .build()
}

// === impl Value ===

impl Value {
    fn schema(self) -> ObjectBuilder {
        let of = |of: Type| ObjectBuilder::new().schema_type(of);
        let formatted = |format| Some(SchemaFormat::KnownFormat(format));
        match self {
            Self::Text => of(Type::String),
            Self::Count => of(Type::Integer)
                .format(formatted(KnownFormat::Int64))
                .minimum(Some(0)),
            Self::Percent => of(Type::Number),
            Self::Instant => of(Type::String).format(formatted(KnownFormat::DateTime)),
            Self::Profile => ["tenantId", "domain", "companyName"]
                .into_iter()
                .fold(of(Type::Object), |profile, name| {
                    profile.property(name, of(Type::String))
                }),
            Self::Links => ["self", "next", "previous"]
                .into_iter()
                .fold(of(Type::Object), |links, name| links.property(name, link())),
            Self::Attributes => of(Type::Object).property("objectType", of(Type::String)),
        }
    }
}

/// How another page is asked for.
fn link() -> ObjectBuilder {
    let text = |about: &str| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(about))
    };
    let header = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("key", text("The name of a header."))
        .property("value", text("Its value."));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("uri", text("Its address, relative to `/v1`."))
        .property("method", text("`GET`."))
        .property("headers", ArrayBuilder::new().items(header))
        .required("uri")
}
