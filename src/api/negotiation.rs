//! Chooses format and coding by `Accept` and `Accept-Encoding` (RFC 9110 §12.5).

use http::{HeaderMap, HeaderValue, header};

use crate::{
    problem::{Problem, ProblemKind},
    render::{ChartTheme, ContentCoding, Format},
};

/// The formats of the simplified resource, the preferred one first.
pub(super) const SIMPLIFIED_FORMATS: &[Format] = &[Format::Simplified, Format::Csv];

/// The format of native resources.
pub(super) const NATIVE_FORMATS: &[Format] = &[Format::Native];

/// The format of the table.
pub(super) const TABLE_FORMATS: &[Format] = &[Format::Table];

/// The format of the chart; its theme is not negotiated.
pub(super) const CHART_FORMATS: &[Format] = &[Format::Chart(ChartTheme::Reader)];

/// The codings of equal weight in the order of preference: the smallest result first.
const PREFERRED_CODINGS: [ContentCoding; 3] = [
    ContentCoding::Brotli,
    ContentCoding::Zstd,
    ContentCoding::Gzip,
];

/// A weight in thousandths; 0 is "not acceptable".
type QualityWeight = u16;

const FULL_WEIGHT: QualityWeight = 1_000;

/// The weights of a caller's codings; `None` for those it does not name.
#[derive(Clone, Copy, Debug, Default)]
struct CodingWeights {
    gzip: Option<QualityWeight>,
    brotli: Option<QualityWeight>,
    zstd: Option<QualityWeight>,
    identity: Option<QualityWeight>,
    others: Option<QualityWeight>,
}

/// Returns the format that the caller prefers.
pub(super) fn negotiate_format(headers: &HeaderMap, formats: &[Format]) -> Result<Format, Problem> {
    let mut lines = headers.get_all(header::ACCEPT).iter();
    let best = match (lines.next().map(HeaderValue::as_bytes), lines.next()) {
        // The usual cases.
        (None, _) | (Some(b"*/*"), None) => formats.first().copied(),
        (Some(b"application/json"), None) => {
            formats.iter().copied().find(|format| format.is_json())
        }
        _ => best_format(headers, formats),
    };
    best.ok_or_else(|| {
        let offered: Vec<_> = formats
            .iter()
            .map(|format| media_type_essence(*format))
            .collect();
        let offered = offered.join(" or ");
        not_acceptable(format!("no format matches Accept; expected {offered}"))
    })
}

/// Returns the coding that the caller prefers.
pub(super) fn negotiate_coding(headers: &HeaderMap) -> Result<ContentCoding, Problem> {
    let lines = headers.get_all(header::ACCEPT_ENCODING);
    let mut first = lines.iter();
    match (first.next().map(HeaderValue::as_bytes), first.next()) {
        // The usual cases.
        (None, _) => return Ok(ContentCoding::Identity),
        (Some(b"gzip"), None) => return Ok(ContentCoding::Gzip),
        _ => {}
    }
    let weights = coding_weights(lines.iter().flat_map(weighted_members));
    best_coding(&weights).ok_or_else(|| {
        not_acceptable(
            "no coding matches Accept-Encoding; expected gzip, br, zstd or identity".to_owned(),
        )
    })
}

/// Returns the format of the highest weight, of equal ones the first.
fn best_format(headers: &HeaderMap, formats: &[Format]) -> Option<Format> {
    let weighted = formats.iter().rev().map(|format| {
        let lines = headers.get_all(header::ACCEPT);
        let members = lines.iter().flat_map(weighted_members);
        (format_weight(media_type_essence(*format), members), *format)
    });
    let (weight, format) = weighted.max_by_key(|(weight, _)| *weight)?;
    (weight > 0).then_some(format)
}

/// Returns the weight of a media type: that of the most specific range that matches it.
fn format_weight<'a>(
    essence: &str,
    members: impl Iterator<Item = (&'a str, QualityWeight)>,
) -> QualityWeight {
    let kind = essence.split_once('/').map_or(essence, |(kind, _)| kind);
    let mut found: Option<(u8, QualityWeight)> = None;
    let mut is_empty = true;
    for (range, weight) in members {
        is_empty = false;
        let specificity = match range.split_once('/') {
            Some(("*", "*")) => 0,
            Some((range, "*")) if range.eq_ignore_ascii_case(kind) => 1,
            Some(_) if range.eq_ignore_ascii_case(essence) => 2,
            _ => continue,
        };
        if found.is_none_or(|(before, _)| specificity >= before) {
            found = Some((specificity, weight));
        }
    }
    match found {
        Some((_, weight)) => weight,
        None if is_empty => FULL_WEIGHT,
        None => 0,
    }
}

fn coding_weights<'a>(members: impl Iterator<Item = (&'a str, QualityWeight)>) -> CodingWeights {
    let mut weights = CodingWeights::default();
    for (token, weight) in members {
        let is = |coding| token.eq_ignore_ascii_case(coding);
        let slot = match token {
            "*" => &mut weights.others,
            _ if is("gzip") || is("x-gzip") => &mut weights.gzip,
            _ if is("br") => &mut weights.brotli,
            _ if is("zstd") => &mut weights.zstd,
            _ if is("identity") => &mut weights.identity,
            _ => continue,
        };
        *slot = Some(weight);
    }
    weights
}

fn best_coding(weights: &CodingWeights) -> Option<ContentCoding> {
    let weight = |coding| match coding {
        ContentCoding::Gzip => weights.gzip.or(weights.others).unwrap_or(0),
        ContentCoding::Brotli => weights.brotli.or(weights.others).unwrap_or(0),
        ContentCoding::Zstd => weights.zstd.or(weights.others).unwrap_or(0),
        ContentCoding::Identity => weights.identity.or(weights.others).unwrap_or(FULL_WEIGHT),
    };
    let compressed = PREFERRED_CODINGS
        .into_iter()
        .rev()
        .max_by_key(|coding| weight(*coding))
        .filter(|coding| weight(*coding) > 0);
    match compressed {
        // Identity wins only if the caller names it with a higher weight.
        Some(coding)
            if weights
                .identity
                .is_none_or(|identity| identity <= weight(coding)) =>
        {
            Some(coding)
        }
        _ if weight(ContentCoding::Identity) > 0 => Some(ContentCoding::Identity),
        other => other,
    }
}

/// Returns the members of a comma-separated list with their weights. It ignores parameters other than
/// `q`, and members with an invalid weight.
fn weighted_members(line: &HeaderValue) -> impl Iterator<Item = (&str, QualityWeight)> {
    line.as_bytes()
        .split(|byte| *byte == b',')
        .filter_map(|member| std::str::from_utf8(member).ok())
        .filter_map(|member| {
            let mut parts = member.split(';').map(str::trim);
            let name = parts.next().filter(|name| !name.is_empty())?;
            let mut weight = FULL_WEIGHT;
            for part in parts {
                if let Some((key, value)) = part.split_once('=')
                    && key.trim_end().eq_ignore_ascii_case("q")
                {
                    weight = parse_weight(value.trim_start())?;
                }
            }
            Some((name, weight))
        })
}

/// Reads a `qvalue`: 0 to 1 with up to three decimals (RFC 9110 §12.4.2).
fn parse_weight(text: &str) -> Option<QualityWeight> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: QualityWeight = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(FULL_WEIGHT),
        _ => None,
    }
}

/// Returns the media type of a format without parameters.
fn media_type_essence(format: Format) -> &'static str {
    let content_type = format.content_type();
    content_type
        .split_once(';')
        .map_or(content_type, |(essence, _)| essence)
}

fn not_acceptable(detail: String) -> Problem {
    Problem::new(ProblemKind::NotAcceptable, detail)
}

#[cfg(test)]
mod proptests;

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(name: HeaderName, lines: &[&str]) -> HeaderMap {
        lines
            .iter()
            .map(|line| (name.clone(), HeaderValue::from_str(line).unwrap()))
            .collect()
    }

    #[test]
    fn the_preferred_acceptable_format_is_chosen() {
        for (lines, form_expected) in [
            (&[][..], Some(Format::Simplified)),
            (&["*/*"], Some(Format::Simplified)),
            (&["application/json"], Some(Format::Simplified)),
            (&["text/csv"], Some(Format::Csv)),
            (&["TEXT/CSV; charset=utf-8"], Some(Format::Csv)),
            (&["text/*"], Some(Format::Csv)),
            (
                &["text/csv;q=0.5, application/json;q=0.4"],
                Some(Format::Csv),
            ),
            (
                &["text/csv;q=0.5", "application/json"],
                Some(Format::Simplified),
            ),
            (&["*/*;q=0.1, application/json;q=0"], Some(Format::Csv)),
            (
                &["text/html,application/xhtml+xml,*/*;q=0.8"],
                Some(Format::Simplified),
            ),
            (&["text/html"], None),
            (&["application/json;q=0"], None),
            (&["application/json;q=2"], Some(Format::Simplified)),
            (&[""], Some(Format::Simplified)),
        ] {
            let chosen = negotiate_format(&headers(header::ACCEPT, lines), SIMPLIFIED_FORMATS).ok();
            assert_eq!(chosen, form_expected, "{lines:?}");
        }
    }

    #[test]
    fn the_preferred_acceptable_coding_is_chosen() {
        for (lines, expected) in [
            (&[][..], Some(ContentCoding::Identity)),
            (&[""], Some(ContentCoding::Identity)),
            (&["gzip"], Some(ContentCoding::Gzip)),
            (&["x-gzip"], Some(ContentCoding::Gzip)),
            (&["gzip, deflate, br, zstd"], Some(ContentCoding::Brotli)),
            (&["gzip, zstd"], Some(ContentCoding::Zstd)),
            (&["br;q=0.2, gzip;q=0.8"], Some(ContentCoding::Gzip)),
            (&["gzip;q=0.5, identity"], Some(ContentCoding::Identity)),
            (&["gzip;q=0.5, identity;q=0.5"], Some(ContentCoding::Gzip)),
            (&["gzip;q=0"], Some(ContentCoding::Identity)),
            (&["deflate"], Some(ContentCoding::Identity)),
            (&["*"], Some(ContentCoding::Brotli)),
            (&["*;q=0, gzip"], Some(ContentCoding::Gzip)),
            (&["*;q=0"], None),
            (&["identity;q=0"], None),
            (&["identity;q=0, gzip"], Some(ContentCoding::Gzip)),
            (&["identity;q=0, *"], Some(ContentCoding::Brotli)),
            (&["br;q=0, *"], Some(ContentCoding::Zstd)),
            (&["gzip;q=0.001"], Some(ContentCoding::Gzip)),
            (&["gzip;q=x"], Some(ContentCoding::Identity)),
            (&["deflate", "GZIP"], Some(ContentCoding::Gzip)),
        ] {
            let chosen = negotiate_coding(&headers(header::ACCEPT_ENCODING, lines)).ok();
            assert_eq!(chosen, expected, "{lines:?}");
        }
    }
}
