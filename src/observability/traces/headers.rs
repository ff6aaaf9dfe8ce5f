//! Headers for the collector, which may be credentials, from a file of `Name: value` lines.

use std::path::Path;

use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;

use crate::config::secret::{SecretError, read_secret};

/// An invalid headers file. Its message contains nothing of the file.
#[derive(Debug, thiserror::Error)]
pub enum HeadersError {
    /// The file cannot be read, or is not text.
    #[error(transparent)]
    File(#[from] SecretError),
    /// A line is not a header.
    #[error("line {line}: expected a header in the form `Name: value`, in visible ASCII")]
    Line {
        /// Counted from 1.
        line: usize,
    },
}

/// Reads a file of headers, one per line. Empty lines and lines that begin with `#` are ignored.
///
/// # Errors
///
/// [`HeadersError`] for the first line that is not a header.
pub fn read(path: &Path) -> Result<HeaderMap, HeadersError> {
    parse(read_secret(path)?.expose_secret())
}

fn parse(text: &str) -> Result<HeaderMap, HeadersError> {
    let mut headers = HeaderMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = header(line).ok_or(HeadersError::Line { line: at + 1 })?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let name = HeaderName::try_from(name.trim_end()).ok()?;
    let mut value = HeaderValue::try_from(value.trim_start()).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_header() {
        let headers =
            parse("# of our vendor\n\nAuthorization: Basic dTpw\r\nX-Scope: a:b\n").unwrap();

        assert_eq!(headers.len(), 2);
        assert_eq!(headers["authorization"], "Basic dTpw");
        assert_eq!(headers["x-scope"], "a:b");
        assert!(!format!("{headers:?}").contains("dTpw"));
    }

    #[test]
    fn an_invalid_line_is_reported_by_number_without_its_text() {
        for text in [
            "a: 1\ns3cr3t",
            "a: 1\ns3 cr3t: x",
            "a: 1\n: s3cr3t",
            "a: 1\nb: s3cr3t\u{7f}",
        ] {
            let error = parse(text).unwrap_err().to_string();

            assert!(error.starts_with("line 2: expected"), "{error}");
            assert!(!error.contains("cr3t"), "{error}");
        }
    }
}
