//! Reads requests into types that cannot hold a bad value.

pub(super) mod parameter;

use std::{borrow::Cow, fmt::Display, num::NonZeroU32};

use http::{HeaderMap, HeaderName, header};
use uuid::Uuid;

use crate::{
    domain::{CustomerId, ProcessedDate},
    problem::{Problem, ProblemKind},
    render::{
        ChartTheme,
        customers::{Continuation, CustomerFilter, CustomerPageRequest, InvalidContinuation},
    },
    service::{CacheDirective, source::CallTrace},
    text::excerpt,
};

const MS_CORRELATION_ID: HeaderName = HeaderName::from_static("ms-correlationid");
const X_CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const MS_CONTINUATION_TOKEN: HeaderName = HeaderName::from_static("ms-continuationtoken");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Returns the customer of a path segment, percent-encoded or not. A plain one is read without
/// allocating.
pub(super) fn customer_id(segment: &str) -> Result<CustomerId, Problem> {
    let decoded = if segment.contains('%') {
        percent_decoded(segment)
    } else {
        Some(Cow::Borrowed(segment))
    };
    decoded
        .and_then(|text| CustomerId::parse(&text).ok())
        .ok_or_else(|| {
            Problem::new(
                ProblemKind::CustomerId,
                format!(
                    "the customer id is {:?}; {}",
                    excerpt(segment),
                    crate::domain::InvalidCustomerId
                ),
            )
        })
}

/// Returns the `processedDate` of a query.
pub(super) fn processed_date(
    query: Option<&str>,
    today: impl FnOnce() -> ProcessedDate,
) -> Result<Option<ProcessedDate>, Problem> {
    let expected = "expected processedDate=YYYY-MM-DD or none";
    let [date] = parameters(query, ["processedDate"], expected)?;
    date.map(|text| parse_date("processedDate", &text, today()))
        .transpose()
}

/// Returns the date and the theme of a chart's query.
pub(super) fn chart_query(
    query: Option<&str>,
    today: impl FnOnce() -> ProcessedDate,
) -> Result<(Option<ProcessedDate>, ChartTheme), Problem> {
    let expected = "expected processedDate=YYYY-MM-DD, theme=light or theme=dark, or none";
    let [date, theme] = parameters(query, ["processedDate", "theme"], expected)?;
    let date = date.map(|text| parse_date("processedDate", &text, today()));
    let theme = theme.map(|text| parse_theme(&text)).transpose()?;
    Ok((date.transpose()?, theme.unwrap_or_default()))
}

pub(super) fn parse_theme(text: &str) -> Result<ChartTheme, Problem> {
    match text {
        "light" => Ok(ChartTheme::Light),
        "dark" => Ok(ChartTheme::Dark),
        other => Err(Problem::new(
            ProblemKind::Theme,
            format!(
                "theme is {:?}; expected light or dark, or none to follow the reader's system",
                excerpt(other)
            ),
        )),
    }
}

/// Reads a date up to today from the parameter of this name.
pub(super) fn parse_date(
    name: &str,
    text: &str,
    today: ProcessedDate,
) -> Result<ProcessedDate, Problem> {
    let date = ProcessedDate::parse(text).map_err(|invalid| {
        Problem::new(
            ProblemKind::ProcessedDate,
            format!("{name} is {:?}; {invalid}", excerpt(text)),
        )
    })?;
    if date > today {
        return Err(Problem::new(
            ProblemKind::ProcessedDate,
            format!("{name} is {date}; expected a date up to today, {today} in UTC"),
        ));
    }
    Ok(date)
}

/// Rejects a query of a resource that has no parameters.
pub(super) fn reject_query(query: Option<&str>) -> Result<(), Problem> {
    let expected = "the native form is of the newest date only and takes no parameters";
    let [] = parameters(query, [], expected)?;
    Ok(())
}

/// Returns the values of the named parameters; each may be absent, and no other is allowed.
pub(super) fn parameters<'a, const N: usize>(
    query: Option<&'a str>,
    names: [&str; N],
    expected: &str,
) -> Result<[Option<Cow<'a, str>>; N], Problem> {
    let mut values = [const { None }; N];
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let index = names.iter().position(|known| *known == name);
        let Some(slot) = index.and_then(|index| values.get_mut(index)) else {
            return Err(unknown_parameter(&name, expected));
        };
        if slot.replace(value).is_some() {
            return Err(duplicate_parameter(&name));
        }
    }
    Ok(values)
}

/// The problem of a parameter that the resource does not have.
pub(super) fn unknown_parameter(name: &str, expected: &str) -> Problem {
    Problem::new(
        ProblemKind::UnknownParameter,
        format!("the query has {:?}; {expected}", excerpt(name)),
    )
}

/// The problem of a parameter that is given more than once.
pub(super) fn duplicate_parameter(name: &str) -> Problem {
    Problem::new(
        ProblemKind::DuplicateParameter,
        format!("the query has {name} more than once; expected it once"),
    )
}

/// The problem of a parameter with an invalid value.
pub(super) fn invalid_parameter(name: &str, value: &str, expected: impl Display) -> Problem {
    Problem::new(
        ProblemKind::InvalidParameter,
        format!("{name} is {:?}; {expected}", excerpt(value)),
    )
}

/// Returns the requested page of the list of customers, by Partner Center's own parameters; `None` for
/// the whole list.
///
/// Microsoft's SDK requests the first page by `size`, where 0 is the largest, and perhaps a `filter`,
/// and the next ones by `seekOperation=Next` and the continuation token alone.
pub(super) fn list_page(
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Option<CustomerPageRequest>, Problem> {
    let expected = "expected size, filter, seekOperation=Next, or none";
    let [size, seek, filter] = parameters(query, ["size", "seekOperation", "filter"], expected)?;
    let size = size.map(|text| page_size(&text)).transpose()?.flatten();
    let filter = filter.map(|text| customer_filter(&text)).transpose()?;
    if let Some(seek) = &seek
        && !seek.eq_ignore_ascii_case("Next")
    {
        return Err(Problem::new(
            ProblemKind::SeekOperation,
            format!(
                "seekOperation is {:?}; expected Next, or none for the first page",
                excerpt(seek)
            ),
        ));
    }
    let continuation = continuation(headers)?;
    match continuation {
        Some(token) => Ok(Some(CustomerPageRequest {
            size: size.or(Some(token.size)),
            after: Some(token.after),
            filter: filter.or(token.filter),
        })),
        None if seek.is_some() => Err(invalid_continuation(InvalidContinuation)),
        None if size.is_none() && filter.is_none() => Ok(None),
        None => Ok(Some(CustomerPageRequest {
            size,
            after: None,
            filter,
        })),
    }
}

fn page_size(text: &str) -> Result<Option<NonZeroU32>, Problem> {
    text.parse().map(NonZeroU32::new).map_err(|_| {
        Problem::new(
            ProblemKind::PageSize,
            format!(
                "size is {:?}; expected a whole number of customers, 0 for all of them",
                excerpt(text)
            ),
        )
    })
}

fn customer_filter(text: &str) -> Result<CustomerFilter, Problem> {
    CustomerFilter::parse(text).map_err(|invalid| {
        Problem::new(
            ProblemKind::CustomerFilter,
            format!("filter is {:?}; {invalid}", excerpt(text)),
        )
    })
}

fn continuation(headers: &HeaderMap) -> Result<Option<Continuation>, Problem> {
    let mut tokens = headers.get_all(MS_CONTINUATION_TOKEN).iter();
    match (tokens.next(), tokens.next()) {
        (None, _) => Ok(None),
        (Some(token), None) => Continuation::parse(token.as_bytes())
            .map(Some)
            .map_err(invalid_continuation),
        (Some(_), Some(_)) => Err(invalid_continuation(InvalidContinuation)),
    }
}

fn invalid_continuation(invalid: InvalidContinuation) -> Problem {
    let header = Continuation::HEADER;
    Problem::new(
        ProblemKind::ContinuationToken,
        format!("{header}: {invalid}, once; leave it out, and seekOperation, for the first page"),
    )
}

/// Returns the caller's `Cache-Control`. Of both directives `only-if-cached` wins as the stricter one.
pub(super) fn cache_directive(headers: &HeaderMap) -> CacheDirective {
    let mut found = CacheDirective::Any;
    for value in headers.get_all(header::CACHE_CONTROL) {
        for directive in value.as_bytes().split(|byte| *byte == b',') {
            let directive = directive.trim_ascii();
            if directive.eq_ignore_ascii_case(b"only-if-cached") {
                return CacheDirective::OnlyIfCached;
            }
            if directive.eq_ignore_ascii_case(b"no-cache") {
                found = CacheDirective::NoCache;
            }
        }
    }
    found
}

/// Returns the ids of the caller that an upstream call is traced by.
pub(super) fn call_trace(headers: &HeaderMap) -> CallTrace {
    CallTrace {
        correlation_id: correlation_id(headers),
        traceparent: headers
            .get(TRACEPARENT)
            .filter(|value| is_traceparent(value.as_bytes()))
            .cloned(),
        span: None,
    }
}

/// Returns the caller's correlation id, if it is a GUID.
pub(super) fn correlation_id(headers: &HeaderMap) -> Option<Uuid> {
    [MS_CORRELATION_ID, X_CORRELATION_ID]
        .into_iter()
        .filter_map(|name| headers.get(name))
        .find_map(|value| Uuid::try_parse_ascii(value.as_bytes()).ok())
}

/// Checks for the form of W3C Trace Context §3.2: `version-trace-parent-flags`.
fn is_traceparent(value: &[u8]) -> bool {
    let mut fields = value.split(|byte| *byte == b'-');
    let mut hex = |len: usize| {
        fields.next().is_some_and(|field| {
            field.len() == len
                && field
                    .iter()
                    .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
        })
    };
    hex(2) && hex(32) && hex(16) && hex(2) && fields.next().is_none()
}

fn percent_decoded(segment: &str) -> Option<Cow<'_, str>> {
    percent_encoding::percent_decode_str(segment)
        .decode_utf8()
        .ok()
}

#[cfg(test)]
mod proptests;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_cache_directive_is_found_among_others() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(value));
            cache_directive(&headers)
        };

        assert_eq!(of("max-age=0, No-Cache"), CacheDirective::NoCache);
        assert_eq!(of("no-cache,only-if-cached"), CacheDirective::OnlyIfCached);
        assert_eq!(of("no-cache=\"x\", max-age=0"), CacheDirective::Any);
    }

    #[test]
    fn invalid_traceparents_are_not_forwarded() {
        assert!(is_traceparent(
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        ));
        for value in [
            &b""[..],
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert!(!is_traceparent(value));
        }
    }
}
