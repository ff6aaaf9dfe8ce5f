//! The file name of a downloaded table.

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{display_text::display_text, simplified::SimplifiedUsage};

/// The characters to encode in an extended value (RFC 8187 §3.2.1).
const EXTENDED_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The bytes of a customer's name in a file name, which has at most 255 on most file systems.
const MAX_NAME_BYTES: usize = 200;

/// Returns `Content-Disposition` with a file name of customer and date (RFC 6266 §4.3).
///
/// # Errors
///
/// If the simplified format cannot be read back.
pub(super) fn disposition(simplified: &[u8]) -> serde_json::Result<HeaderValue> {
    let usage: SimplifiedUsage<'_> = serde_json::from_slice(simplified)?;
    let name = usage.customer_name.as_deref().map(sanitize_file_name);
    let name = name.filter(|name| !name.is_empty());
    let name = name.as_deref().unwrap_or(&usage.customer_id);
    let file = match &usage.processed_date {
        Some(date) => format!("usage-{name}-{date}.csv"),
        None => format!("usage-{name}.csv"),
    };
    Ok(of_file(&file))
}

/// Returns `Content-Disposition` with this file name.
pub(super) fn of_file(file: &str) -> HeaderValue {
    let extended = utf8_percent_encode(file, EXTENDED_VALUE);
    // Some browsers decode percent signs in the plain form (RFC 6266, appendix D).
    let plain = file.replace(|c: char| !c.is_ascii() || c == '%', "_");
    let value = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{extended}");
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("attachment"))
}

/// Makes a customer's name part of a file name: one line, without characters that are special
/// somewhere.
pub(super) fn sanitize_file_name(customer: &str) -> String {
    let name = display_text(customer).replace(['/', '\\', ':', '*', '?', '"', '<', '>', '|'], "_");
    let end = name.floor_char_boundary(MAX_NAME_BYTES);
    let (name, _) = name.split_at(end);
    name.trim_matches([' ', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disposition_for(name: Option<&str>, date: Option<&str>) -> String {
        let usage = serde_json::json!({
            "customerId": "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04", "customerName": name,
            "processedDate": date, "products": [], "workloads": [],
        });
        let value = disposition(usage.to_string().as_bytes()).unwrap();
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_file_name_has_customer_and_date() {
        for (name, date, plain, extended) in [
            (
                Some("Müller & Co"),
                Some("2017-03-09"),
                "usage-M_ller & Co-2017-03-09.csv",
                "usage-M%C3%BCller%20&%20Co-2017-03-09.csv",
            ),
            (
                None,
                Some("2017-03-09"),
                "usage-4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04-2017-03-09.csv",
                "usage-4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04-2017-03-09.csv",
            ),
            (
                Some("Contoso"),
                None,
                "usage-Contoso.csv",
                "usage-Contoso.csv",
            ),
            (
                Some(" . "),
                None,
                "usage-4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04.csv",
                "usage-4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04.csv",
            ),
            (
                Some("../a\\b\"; x=\"\r\n50%\u{202e}"),
                None,
                "usage-_a_b_; x=_  50_.csv",
                "usage-_a_b_%3B%20x%3D_%20%2050%25.csv",
            ),
        ] {
            let expected = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{extended}");
            assert_eq!(disposition_for(name, date), expected);
        }
    }

    #[test]
    fn a_long_name_is_cut_between_letters() {
        let value = disposition_for(Some(&"ż".repeat(1_000)), None);

        assert_eq!(value.matches("%C5%BC").count(), MAX_NAME_BYTES / 2);
    }
}
