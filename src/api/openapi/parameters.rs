//! What requests carry.

use utoipa::{
    IntoParams,
    openapi::{
        KnownFormat, Object, ObjectBuilder, Required, SchemaFormat,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::Type,
    },
};

/// The customer, in the path.
pub(in crate::api) struct OfCustomer;

/// The processed date, in the query.
pub(in crate::api) struct OfDate;

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
                .example(Some("4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04".into()))
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
                .example(Some("2017-03-09".into()))
                .build(),
        ]
    }
}

fn text(format: SchemaFormat) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(format))
        .build()
}
