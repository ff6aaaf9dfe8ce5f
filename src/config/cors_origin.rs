use http::HeaderValue;
use url::Url;

use super::invalid_value::InvalidValue;

/// An origin as browsers send it: scheme, host, and the port where it is not the scheme's own
/// (RFC 6454 §6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsOrigin(HeaderValue);

impl CorsOrigin {
    /// What `CorsOrigin` and `Access-Control-Allow-CorsOrigin` say of it.
    pub fn header_value(&self) -> &HeaderValue {
        &self.0
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// One origin, spelled as browsers spell it: another spelling would never match.
pub(super) fn parse(text: &str) -> Result<CorsOrigin, InvalidValue> {
    match text {
        "" => return Err("has an empty item".into()),
        _ if text.contains('*') => {
            return Err("has `*`, which would let in every page of the Web".into());
        }
        "null" => return Err("has `null`, which any sandboxed page or local file sends".into()),
        _ if text.contains('@') => return Err("has a user name or password".into()),
        _ => {}
    }
    let url = Url::parse(text).map_err(|error| format!("has an item that is no URL ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("has an item that is neither http nor https".into());
    }
    let spelled = url.origin().ascii_serialization();
    if text != spelled {
        return Err(format!("has an item that browsers send as {spelled:?}").into());
    }
    HeaderValue::from_str(&spelled)
        .map(CorsOrigin)
        .map_err(|_| "has characters outside visible ASCII".into())
}
