//! Fields of an X.509 certificate that was verified before.

use rustls::pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    der::{
        self, Decode,
        asn1::{PrintableStringRef, Utf8StringRef},
        oid::db::rfc4519::COMMON_NAME,
    },
};

/// Returns the common name of the subject; `None` if it has none or several.
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let names = certificate.tbs_certificate().subject().iter();
    let mut common = names.filter(|name| name.oid == COMMON_NAME);
    let name = common.next().filter(|_| common.next().is_none())?;
    let value = &name.value;
    let text = value
        .decode_as::<Utf8StringRef<'_>>()
        .map(|text| text.as_str().to_owned())
        .or_else(|_| {
            let text = value.decode_as::<PrintableStringRef<'_>>();
            text.map(|text| text.as_str().to_owned())
        });
    text.ok()
}

/// Returns the time of expiry in Unix time.
pub(crate) fn expires_at(certificate: &CertificateDer<'_>) -> der::Result<i64> {
    let certificate = Certificate::from_der(certificate)?;
    let end = certificate.tbs_certificate().validity().not_after;
    Ok(i64::try_from(end.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
}
