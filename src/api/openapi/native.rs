//! Partner Center's own shape, which the native form hands on byte for byte: here only described.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ArrayBuilder, KnownFormat, Object, ObjectBuilder, RefOr, Schema, SchemaFormat, schema::Type,
    },
};

/// A `ResourceCollection` of `CustomerLicensesUsageInsights`.
pub(in crate::api) struct NativeUsage;

const NAMES: [(&str, &str); 8] = [
    (
        "customerId",
        "The customer's GUID; absent in Microsoft's own example.",
    ),
    ("customerName", "What the customer is called."),
    ("productName", "What the product is called."),
    ("workloadCode", "The workload's code, where it is told."),
    ("workloadName", "What the workload is called."),
    ("serviceCode", "The service's code, where it is told."),
    ("serviceName", "What the service is called, such as `o365`."),
    ("channel", "How the licence was sold, such as `reseller`."),
];

// === impl NativeUsage ===

impl ToSchema for NativeUsage {
    fn name() -> Cow<'static, str> {
        "NativeUsage".into()
    }
}

impl PartialSchema for NativeUsage {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some(
                "Partner Center's own answer, with whatever else it holds. It may begin with a \
                 byte-order mark, which RFC 8259 §8.1 lets readers pass over.",
            ))
            .property("totalCount", count("How many rows there are."))
            .property("items", ArrayBuilder::new().items(row()))
            .required("items")
            .into()
    }
}

fn row() -> Object {
    let named = NAMES
        .iter()
        .fold(ObjectBuilder::new(), |row, (name, about)| {
            row.property(*name, of_type(Type::String).description(Some(*about)))
        });
    let percent = of_type(Type::Number).description(Some(
        "Partner Center's adjusted percentage: not promised to be active by qualified.",
    ));
    let processed = of_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .description(Some("When the seats were counted."));
    let row = named
        .schema_type(Type::Object)
        .property("licensesActive", count("Seats in use."))
        .property("licensesQualified", count("Seats that could be."))
        .property("usagePercent", percent)
        .property("processedDateTime", processed);
    [
        "productName",
        "workloadName",
        "serviceName",
        "licensesActive",
        "licensesQualified",
        "processedDateTime",
    ]
    .into_iter()
    .fold(row, ObjectBuilder::required)
    .build()
}

fn count(about: &str) -> ObjectBuilder {
    of_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(0))
        .description(Some(about))
}

fn of_type(of: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(of)
}
