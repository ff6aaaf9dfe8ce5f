use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    domain::{CustomerId, DateRange, ProcessedDate},
    store::HistoryPosition,
};

/// The end of a page of a customer's history.
///
/// It has the range, since that may be the default one, which moves on every day. A digest of it all
/// and of the rest of the query finds out cursors of other queries. It grants no rights and has no
/// data, so the digest needs no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HistoryCursor {
    pub(super) range: DateRange,
    pub(super) after: HistoryPosition,
}

/// The rest of the query that a cursor belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct CursorQuery<'a> {
    pub(super) customer: CustomerId,
    pub(super) product: Option<&'a str>,
    pub(super) workload: Option<&'a str>,
}

// === impl HistoryCursor ===

impl HistoryCursor {
    /// Longer than any cursor.
    const MAX_BYTES: usize = 256;

    /// Reads a cursor; `None` for any other text, and for one of another query.
    pub(super) fn parse(text: &str, query: CursorQuery<'_>) -> Option<Self> {
        Self::parse_position(text).filter(|cursor| cursor.encode(query) == text)
    }

    fn parse_position(text: &str) -> Option<Self> {
        if text.len() > Self::MAX_BYTES {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let mut fields = text.split(' ');
        let mut date = || ProcessedDate::parse(fields.next()?).ok();
        let range = DateRange {
            from: date()?,
            to: date()?,
        };
        let date = date()?;
        let mut number = || fields.next()?.parse().ok();
        let row = (number()?, number()?);
        Some(Self {
            range,
            after: HistoryPosition { date, row },
        })
    }

    /// Writes the cursor of a query.
    pub(super) fn encode(&self, query: CursorQuery<'_>) -> String {
        let query = json!([query.customer.to_string(), query.product, query.workload]);
        let digest = Sha256::digest(format!("{self} {query}"));
        // Half of it is enough against mistakes.
        let half = digest.first_chunk().copied().unwrap_or_default();
        let half = u128::from_be_bytes(half);
        URL_SAFE_NO_PAD.encode(format!("{self} {half:x}"))
    }
}

impl fmt::Display for HistoryCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            range: DateRange { from, to },
            after: HistoryPosition { date, row },
        } = self;
        write!(f, "{from} {to} {date} {} {}", row.0, row.1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::samples;

    fn query<'a>(product: Option<&'a str>, workload: Option<&'a str>) -> CursorQuery<'a> {
        CursorQuery {
            customer: samples::customer(),
            product,
            workload,
        }
    }

    fn cursor(from: i64, to: i64, date: i64, row: (i64, i64)) -> HistoryCursor {
        let day = |day| ProcessedDate::from_days_since_epoch(day).unwrap();
        HistoryCursor {
            range: DateRange {
                from: day(from),
                to: day(to),
            },
            after: HistoryPosition {
                date: day(date),
                row,
            },
        }
    }

    #[test]
    fn a_cursor_of_another_query_is_rejected() {
        let text = cursor(17_000, 20_000, 18_000, (3, 4)).encode(query(None, None));

        assert!(HistoryCursor::parse(&text, query(None, None)).is_some());
        for other in [
            query(Some("E3"), None),
            query(None, Some("E3")),
            query(Some(""), None),
            CursorQuery {
                customer: CustomerId::parse("00000000-0000-4000-8000-000000000001").unwrap(),
                ..query(None, None)
            },
        ] {
            let parsed = HistoryCursor::parse(&text, other);
            assert_eq!(parsed, None, "{other:?}");
        }
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn an_encoded_cursor_parses_back(
            days in prop::array::uniform3(-700_000..2_900_000_i64),
            row: (i64, i64),
            product in prop::option::of(".{0,80}"),
        ) {
            let [from, to, date] = days;
            let cursor = cursor(from, to, date, row);
            let query = query(product.as_deref(), None);

            let text = cursor.encode(query);

            prop_assert_eq!(HistoryCursor::parse(&text, query), Some(cursor));
        }

        #[test]
        fn a_changed_cursor_is_rejected(at in 0..1_000_usize, letter in "[A-Za-z0-9_=.-]") {
            let query = query(None, None);
            let mut text = cursor(17_000, 20_000, 18_000, (3, 4)).encode(query);
            let at = at % text.len();
            prop_assume!(text[at..=at] != letter);

            text.replace_range(at..=at, &letter);

            prop_assert_eq!(HistoryCursor::parse(&text, query), None);
        }

        #[test]
        fn any_text_is_parsed_or_rejected(text in ".{0,300}") {
            prop_assert_eq!(HistoryCursor::parse(&text, query(None, None)), None);
        }
    }
}
