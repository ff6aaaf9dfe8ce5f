//! Pages of rows, and the cursors that lead from one to the next.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::content_hash::ContentHash;

/// The end of a page of an answer.
///
/// It names the answer by a hash of all that its rows depend on: the usage, the portfolio, the
/// customers that count and the query. If one of these changes, the cursor has expired. It grants no
/// rights and has no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetCursor {
    /// The answer.
    pub(super) answer: ContentHash,
    /// The number of rows before the next page.
    pub(super) rows_before: u32,
}

/// A page of the rows of an answer.
#[derive(Debug)]
pub(super) struct RowPage<'r, R> {
    pub(super) rows: &'r [R],
    /// The cursor of the next page; `None` at the end.
    pub(super) next: Option<FleetCursor>,
}

/// The cursor does not belong to this answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected the nextCursor of the page before, with the parameters of that page and before the \
     data changes; leave it out for the first page"
)]
pub struct CursorExpired;

// === impl FleetCursor ===

impl FleetCursor {
    const ROWS_LEN: usize = size_of::<u32>();
    const LEN: usize = ContentHash::LEN + Self::ROWS_LEN;

    /// Reads a cursor.
    ///
    /// # Errors
    ///
    /// [`CursorExpired`] for text that is no cursor of any answer.
    pub fn parse(text: &str) -> Result<Self, CursorExpired> {
        let mut bytes = [0; Self::LEN];
        let decoded = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes);
        if decoded != Ok(Self::LEN) {
            return Err(CursorExpired);
        }
        let answer = bytes.first_chunk::<{ ContentHash::LEN }>();
        let rows_before = bytes.last_chunk::<{ Self::ROWS_LEN }>();
        match (answer, rows_before) {
            (Some(answer), Some(rows)) => Ok(Self {
                answer: ContentHash::from(*answer),
                rows_before: u32::from_be_bytes(*rows),
            }),
            _ => Err(CursorExpired),
        }
    }
}

impl fmt::Display for FleetCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [
            self.answer.as_bytes().as_slice(),
            &self.rows_before.to_be_bytes(),
        ];
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes.concat()))
    }
}

// === impl RowPage ===

impl<'r, R> RowPage<'r, R> {
    /// Cuts a page of at most `limit` rows, all if absent, out of the rows of an answer.
    pub(super) fn cut(
        all: &'r [R],
        answer: ContentHash,
        cursor: Option<FleetCursor>,
        limit: Option<usize>,
    ) -> Self {
        let start = cursor.map_or(0, |cursor| cursor.rows_before as usize);
        let rest = all.get(start..).unwrap_or_default();
        let page_len = limit.map_or(rest.len(), |limit| limit.min(rest.len()));
        let (rows, more) = rest.split_at(page_len);
        let next = (!more.is_empty())
            .then(|| u32::try_from(start + page_len).ok())
            .flatten();
        let next = next.map(|rows_before| FleetCursor {
            answer,
            rows_before,
        });
        Self { rows, next }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursor(answer: u64, rows_before: u32) -> FleetCursor {
        FleetCursor {
            answer: ContentHash::of(&answer),
            rows_before,
        }
    }

    #[test]
    fn an_invalid_cursor_is_rejected() {
        let good = cursor(7, 100).to_string();
        assert_eq!(FleetCursor::parse(&good), Ok(cursor(7, 100)));

        for text in [
            "",
            "100",
            &good[1..],
            &format!("{good}="),
            &format!("{good}AA"),
            &good.replace(&good[..1], "/"),
            &"A".repeat(4_000),
        ] {
            assert_eq!(FleetCursor::parse(text), Err(CursorExpired), "{text}");
        }
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn a_printed_cursor_parses_back(answer: u64, rows_before: u32) {
            let cursor = cursor(answer, rows_before);

            prop_assert_eq!(FleetCursor::parse(&cursor.to_string()), Ok(cursor));
        }

        #[test]
        fn any_text_is_parsed_or_rejected(text in ".{0,40}") {
            if let Ok(cursor) = FleetCursor::parse(&text) {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }

        #[test]
        fn pages_have_each_row_once(rows in 0..50_usize, limit in 1..20_usize) {
            let all: Vec<_> = (0..rows).collect();
            let answer = ContentHash::of(&rows);
            let (mut seen, mut cursor) = (Vec::new(), None);

            for _ in 0..=rows {
                let page = RowPage::cut(&all, answer, cursor, Some(limit));
                seen.extend_from_slice(page.rows);
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }

            prop_assert_eq!(seen, all);
            prop_assert_eq!(cursor, None);
        }
    }
}
