//! How callers show who they are.

use utoipa::openapi::{
    RefOr, SecurityRequirement,
    security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};

const SCHEMES: [&str; 5] = [
    "bearerKey",
    "apiKey",
    "password",
    "token",
    "clientCertificate",
];

/// Every way there is.
pub(in crate::api) fn schemes() -> impl Iterator<Item = (String, RefOr<SecurityScheme>)> {
    let bearer = |about: &str| {
        HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(about))
    };
    let schemes = [
        SecurityScheme::Http(bearer("A caller's key, where `callers.file` names its hash.").build()),
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
            "X-Api-Key",
            "The same key, for clients that cannot set `Authorization`.",
        ))),
        SecurityScheme::Http(
            HttpBuilder::new()
                .scheme(HttpAuthScheme::Basic)
                .description(Some(
                    "The same key as the password, for browsers; the user name may be anything.",
                ))
                .build(),
        ),
        SecurityScheme::Http(
            bearer("A token of the issuer that `callers.jwt.issuer` names.")
                .bearer_format("JWT")
                .build(),
        ),
        SecurityScheme::MutualTls {
            description: Some(
                "A client certificate, where `server.tls.client_ca_file` names who issues them and \
                 the callers file has its common name."
                    .to_owned(),
            ),
            deprecated: None,
            extensions: None,
        },
    ];
    SCHEMES
        .into_iter()
        .map(str::to_owned)
        .zip(schemes.into_iter().map(Into::into))
}

/// What a request for data has to show: one of them, or nothing where nobody is told apart.
pub(in crate::api) fn requirements(anonymous: Anonymous) -> Vec<SecurityRequirement> {
    let nothing = match anonymous {
        Anonymous::Allowed => Some(SecurityRequirement::default()),
        Anonymous::Refused => None,
    };
    let schemes = SCHEMES.map(|scheme| SecurityRequirement::new(scheme, [""; 0]));
    nothing.into_iter().chain(schemes).collect()
}

/// Whether a caller may do without a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Anonymous {
    /// Nobody is told apart, or it is not known whether anybody is.
    Allowed,
    /// There are callers, and everybody has to be one.
    Refused,
}
