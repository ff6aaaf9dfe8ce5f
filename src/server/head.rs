//! Where the head of an HTTP/1 request ends, and whether it may be read at all.
//!
//! hyper is lenient where RFC 9112 lets a server be, and what it forgives is gone before a handler
//! could see it: a bare line feed, a length beside a transfer coding. So each head is looked at as
//! bytes first. Nothing else is parsed here; whatever passes, hyper still has to accept.

use super::refusal::Refusal;

/// Looks at one head after another, each from its first byte, however it comes in pieces.
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    /// Where the line begins that has not ended yet.
    line: usize,
    /// Up to where that line's end has been looked for.
    looked: usize,
    request_line: Option<RequestLine>,
    fields: usize,
    length: Option<Length>,
    coded: bool,
}

/// What the bytes so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The head goes on.
    Partial,
    /// The head ends after this many bytes; `body` tells whether it announces one.
    Whole { len: usize, body: bool },
    /// The head may not be read, and nothing after it either.
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug)]
struct RequestLine {
    http_1_0: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Zero,
    Other,
}

// === impl HeadScanner ===

impl HeadScanner {
    /// Longest path and query, in bytes.
    pub(super) const MAX_TARGET: usize = 8 * 1024;

    /// Most header fields.
    pub(super) const MAX_FIELDS: usize = 64;

    /// Most bytes of their names and values.
    pub(super) const MAX_FIELD_BYTES: usize = 16 * 1024;

    /// Longest head in bytes. Up to here hyper parses it, and what it finds is held to the limits
    /// above; past it nobody looks.
    pub(super) const MAX_HEAD: usize = 32 * 1024;

    /// Longest request line, whose target may name a host too.
    const MAX_REQUEST_LINE: usize = 2 * Self::MAX_TARGET;

    /// Judges the head that `bytes` begins with, of which earlier calls saw a part.
    ///
    /// After any other verdict than [`Verdict::Partial`] the next head begins.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Verdict {
        let verdict = self.lines(bytes);
        if verdict != Verdict::Partial {
            *self = Self::default();
        }
        verdict
    }

    fn lines(&mut self, bytes: &[u8]) -> Verdict {
        if bytes.first().is_some_and(|byte| !begins(*byte)) {
            return Verdict::Refused(Refusal::NotHttp);
        }
        while let Some(rest) = bytes.get(self.looked..)
            && let Some(found) = memchr::memchr(b'\n', rest)
        {
            let feed = self.looked + found;
            if feed >= Self::MAX_HEAD {
                break;
            }
            let Some(line) = bytes
                .get(self.line..feed)
                .and_then(|line| line.strip_suffix(b"\r"))
            else {
                return Verdict::Refused(Refusal::BareLineFeed);
            };
            self.line = feed + 1;
            self.looked = self.line;
            match self.judge(line) {
                Ok(false) => {}
                Ok(true) => return self.whole(),
                Err(refusal) => return Verdict::Refused(refusal),
            }
        }
        self.looked = bytes.len();
        self.unfinished(bytes)
    }

    /// Takes one line, and tells whether it was the last.
    fn judge(&mut self, line: &[u8]) -> Result<bool, Refusal> {
        let Some(request_line) = self.request_line else {
            // Empty lines before a request are ignored (RFC 9112 §2.2).
            if !line.is_empty() {
                self.request_line = Some(RequestLine::parse(line)?);
            }
            return Ok(false);
        };
        match line {
            [] => Ok(true),
            [b' ' | b'\t', ..] => Err(Refusal::FoldedField),
            field => self.field(field, request_line).map(|()| false),
        }
    }

    fn field(&mut self, field: &[u8], request_line: RequestLine) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > Self::MAX_FIELDS {
            return Err(Refusal::TooManyFields);
        }
        if let Some(value) = value_of(field, b"content-length:") {
            let length = Length::parse(value);
            if self.length.replace(length).is_some() {
                return Err(Refusal::RepeatedLength);
            }
        } else if value_of(field, b"transfer-encoding:").is_some() {
            self.coded = true;
            if request_line.http_1_0 {
                return Err(Refusal::CodedHttp10);
            }
        }
        if self.coded && self.length.is_some() {
            return Err(Refusal::LengthAndCoding);
        }
        Ok(())
    }

    fn whole(&self) -> Verdict {
        Verdict::Whole {
            len: self.line,
            body: self.coded || self.length == Some(Length::Other),
        }
    }

    /// What is to be said of a head whose end has not come yet.
    fn unfinished(&self, bytes: &[u8]) -> Verdict {
        if bytes.len() <= Self::MAX_HEAD {
            return Verdict::Partial;
        }
        Verdict::Refused(if self.request_line.is_none() {
            Refusal::UriTooLong
        } else {
            Refusal::FieldsTooLarge
        })
    }
}

// === impl RequestLine ===

impl RequestLine {
    fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let http_1_0 = match line.len().checked_sub(9).and_then(|at| line.get(at..)) {
            Some(b" HTTP/1.1") => false,
            Some(b" HTTP/1.0") => true,
            _ => return Err(Refusal::NotHttp),
        };
        if line.len() > HeadScanner::MAX_REQUEST_LINE {
            return Err(Refusal::UriTooLong);
        }
        Ok(Self { http_1_0 })
    }
}

// === impl Length ===

impl Length {
    fn parse(value: &[u8]) -> Self {
        let digits = value.trim_ascii();
        if !digits.is_empty() && digits.iter().all(|digit| *digit == b'0') {
            Self::Zero
        } else {
            Self::Other
        }
    }
}

/// The value of a field of this name, which is given in lower case and with its colon.
fn value_of<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (given, value) = field.split_at_checked(name.len())?;
    given.eq_ignore_ascii_case(name).then_some(value)
}

/// Whether a method, or the empty line that may precede it, may begin so: no TLS, no noise.
fn begins(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"\r\n!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(head: &[u8]) -> Verdict {
        HeadScanner::default().scan(head)
    }

    fn whole(head: &str) -> Verdict {
        Verdict::Whole {
            len: head.len(),
            body: false,
        }
    }

    #[test]
    fn a_head_ends_at_its_empty_line_and_not_before() {
        let head = "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 00\r\n\r\n";

        for cut in 0..head.len() {
            assert_eq!(scan(&head.as_bytes()[..cut]), Verdict::Partial, "{cut}");
        }
        assert_eq!(scan(head.as_bytes()), whole(head));
        assert_eq!(scan(format!("{head}{head}").as_bytes()), whole(head));
        let late = format!("\r\n\r\n{head}");
        assert_eq!(scan(late.as_bytes()), whole(&late));
    }

    #[test]
    fn what_hyper_would_forgive_or_swallow_is_refused() {
        for (head, refusal) in [
            ("GET / HTTP/1.1\nHost: x\n\n", Refusal::BareLineFeed),
            (
                "GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
                Refusal::BareLineFeed,
            ),
            ("\nGET / HTTP/1.1\r\n\r\n", Refusal::BareLineFeed),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Refusal::FoldedField),
            ("GET / HTTP/1.1\r\n\tA: b\r\n\r\n", Refusal::FoldedField),
            (
                "GET / HTTP/1.1\r\nContent-Length: 0\r\ntransfer-encoding: chunked\r\n\r\n",
                Refusal::LengthAndCoding,
            ),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding:chunked\r\ncontent-LENGTH:5\r\n\r\n",
                Refusal::LengthAndCoding,
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
                Refusal::RepeatedLength,
            ),
            (
                "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
                Refusal::CodedHttp10,
            ),
            ("GET /\r\n\r\n", Refusal::NotHttp),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refusal::NotHttp),
            ("\x16\x03\x01", Refusal::NotHttp),
        ] {
            assert_eq!(scan(head.as_bytes()), Verdict::Refused(refusal), "{head:?}");
        }
    }

    #[test]
    fn a_body_is_announced_by_a_length_or_a_coding() {
        for (field, announced) in [
            ("Content-Length: 0", false),
            ("Content-Length: 5", true),
            ("Content-Length: +0", true),
            ("Content-Length: 0, 0", true),
            ("Content-Length:", true),
            ("Transfer-Encoding: chunked", true),
            ("Transfer-Encoding: identity", true),
            ("Content-Lengths: 5", false),
        ] {
            let head = format!("POST / HTTP/1.1\r\n{field}\r\n\r\n");

            let Verdict::Whole { body, .. } = scan(head.as_bytes()) else {
                panic!("{field}");
            };
            assert_eq!(body, announced, "{field}");
        }
    }

    #[test]
    fn heads_have_a_size() {
        let fields = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
        let long = "a".repeat(HeadScanner::MAX_HEAD);

        assert_eq!(scan(fields(64).as_bytes()), whole(&fields(64)));
        for (head, refusal) in [
            (fields(65), Refusal::TooManyFields),
            (format!("GET /{long}"), Refusal::UriTooLong),
            (
                format!("GET /{} HTTP/1.1\r\n", &long[..20_000]),
                Refusal::UriTooLong,
            ),
            (
                format!("GET / HTTP/1.1\r\nA: {long}"),
                Refusal::FieldsTooLarge,
            ),
            (
                format!("GET / HTTP/1.1\r\nA: {long}\r\n\r\n"),
                Refusal::FieldsTooLarge,
            ),
        ] {
            assert_eq!(scan(head.as_bytes()), Verdict::Refused(refusal));
        }
    }

    /// What hyper reads heads with.
    fn parsed(bytes: &[u8]) -> httparse::Result<usize> {
        let mut fields = [httparse::EMPTY_HEADER; 100];
        httparse::Request::new(&mut fields).parse(bytes)
    }

    fn heads() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("\r\n".to_owned()),
            Just("\r\n\r\n".to_owned()),
            Just("\n".to_owned()),
            Just("\r".to_owned()),
            Just("GET / HTTP/1.1\r\n".to_owned()),
            Just("POST /a HTTP/1.0\r\n".to_owned()),
            Just("Host: x\r\n".to_owned()),
            Just("Content-Length: 5\r\n".to_owned()),
            Just("Transfer-Encoding: chunked\r\n".to_owned()),
            "[ -~\t\r\n]{0,8}",
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn a_head_ends_where_hyper_sees_it_end(bytes in heads()) {
            if let Verdict::Whole { len, .. } = scan(&bytes)
                && let Ok(parsed) = parsed(&bytes)
            {
                prop_assert_eq!(parsed, httparse::Status::Complete(len));
            }
        }

        #[test]
        fn pieces_are_judged_as_the_whole(bytes in heads(), cuts in prop::collection::vec(0..64_usize, 0..6)) {
            let mut scanner = HeadScanner::default();
            let mut cuts: Vec<_> = cuts.into_iter().filter(|cut| *cut < bytes.len()).collect();
            cuts.sort_unstable();
            let in_pieces = cuts
                .into_iter()
                .map(|cut| scanner.scan(&bytes[..cut]))
                .find(|verdict| *verdict != Verdict::Partial)
                .unwrap_or_else(|| scanner.scan(&bytes));

            prop_assert_eq!(in_pieces, scan(&bytes));
        }
    }
}
