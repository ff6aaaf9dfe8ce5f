//! `Accept` and `Accept-Encoding` → which prepared form (RFC 9110 §12.5).

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    problem::{Problem, ProblemKind},
    render::{ContentCoding, Format, Theme},
};

/// Forms of the simplified resource, the preferred one first.
pub(super) const SIMPLIFIED_FORMATS: &[Format] = &[Format::Simplified, Format::Csv];

/// Forms of the native resource.
pub(super) const NATIVE_FORMATS: &[Format] = &[Format::Native];

/// Forms of the resource that is a table.
pub(super) const TABLE_FORMATS: &[Format] = &[Format::Table];

/// Forms of the resource that is a picture; its theme is none of the negotiation's.
pub(super) const CHART_FORMATS: &[Format] = &[Format::Chart(Theme::Reader)];

/// Codings, the preferred one first where a caller likes several equally: the smallest result.
const PREFERRED_CODINGS: [ContentCoding; 3] = [
    ContentCoding::Brotli,
    ContentCoding::Zstd,
    ContentCoding::Gzip,
];

/// A weight in thousandths: 0 is "not acceptable".
type QualityWeight = u16;

const FULL_WEIGHT: QualityWeight = 1_000;

/// The form that the caller likes best of those there are.
pub(super) fn negotiate_format(headers: &HeaderMap, forms: &[Format]) -> Result<Format, Problem> {
    let best = match header_lines(headers, &header::ACCEPT) {
        // What nearly every caller sends.
        HeaderLines::Absent | HeaderLines::One(b"*/*") => forms.first().copied(),
        HeaderLines::One(b"application/json") => forms.iter().copied().find(|form| form.is_json()),
        HeaderLines::One(value) => best_format(forms, &[value]),
        HeaderLines::Several(values) => best_format(forms, &values),
    };
    best.ok_or_else(|| {
        let offered: Vec<_> = forms.iter().map(|form| media_type_essence(*form)).collect();
        not_acceptable(format!(
            "Accept fits nothing here; expected {}",
            offered.join(" or ")
        ))
    })
}

/// The coding that the caller likes best.
pub(super) fn negotiate_coding(headers: &HeaderMap) -> Result<ContentCoding, Problem> {
    let weights = match header_lines(headers, &header::ACCEPT_ENCODING) {
        HeaderLines::Absent => return Ok(ContentCoding::Identity),
        HeaderLines::One(b"gzip") => return Ok(ContentCoding::Gzip),
        HeaderLines::One(value) => coding_weights(&[value]),
        HeaderLines::Several(values) => coding_weights(&values),
    };
    best_coding(&weights).ok_or_else(|| {
        not_acceptable(
            "Accept-Encoding fits nothing here; expected gzip, br, zstd or identity".to_owned(),
        )
    })
}

/// The lines of a header, without allocating where there is one at most.
enum HeaderLines<'a> {
    Absent,
    One(&'a [u8]),
    Several(Vec<&'a [u8]>),
}

fn header_lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> HeaderLines<'a> {
    let all = || headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let mut values = all();
    match (values.next(), values.next()) {
        (None, _) => HeaderLines::Absent,
        (Some(value), None) => HeaderLines::One(value),
        (Some(_), Some(_)) => HeaderLines::Several(all().collect()),
    }
}

fn best_format(forms: &[Format], lines: &[&[u8]]) -> Option<Format> {
    let mut best: Option<(QualityWeight, Format)> = None;
    for form in forms {
        let weight = format_weight(media_type_essence(*form), lines);
        if weight > best.map_or(0, |(weight, _)| weight) {
            best = Some((weight, *form));
        }
    }
    best.map(|(_, form)| form)
}

/// The weight of a media type: that of the most specific range that names it.
fn format_weight(essence: &str, lines: &[&[u8]]) -> QualityWeight {
    let kind = essence.split_once('/').map_or(essence, |(kind, _)| kind);
    let mut found: Option<(u8, QualityWeight)> = None;
    let mut any = false;
    for (range, weight) in lines.iter().flat_map(|line| weighted_members(line)) {
        any = true;
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
        // An empty list says nothing.
        None if !any => FULL_WEIGHT,
        None => 0,
    }
}

/// What a caller said of each coding; `None` where it said nothing.
#[derive(Clone, Copy, Debug, Default)]
struct CodingWeights {
    gzip: Option<QualityWeight>,
    brotli: Option<QualityWeight>,
    zstd: Option<QualityWeight>,
    identity: Option<QualityWeight>,
    others: Option<QualityWeight>,
}

fn coding_weights(lines: &[&[u8]]) -> CodingWeights {
    let mut weights = CodingWeights::default();
    for (token, weight) in lines.iter().flat_map(|line| weighted_members(line)) {
        let slot = match token {
            "*" => &mut weights.others,
            _ if token.eq_ignore_ascii_case("gzip") || token.eq_ignore_ascii_case("x-gzip") => {
                &mut weights.gzip
            }
            _ if token.eq_ignore_ascii_case("br") => &mut weights.brotli,
            _ if token.eq_ignore_ascii_case("zstd") => &mut weights.zstd,
            _ if token.eq_ignore_ascii_case("identity") => &mut weights.identity,
            _ => continue,
        };
        *slot = Some(weight);
    }
    weights
}

fn best_coding(weights: &CodingWeights) -> Option<ContentCoding> {
    let of = |coding| match coding {
        ContentCoding::Gzip => weights.gzip.or(weights.others).unwrap_or(0),
        ContentCoding::Brotli => weights.brotli.or(weights.others).unwrap_or(0),
        ContentCoding::Zstd => weights.zstd.or(weights.others).unwrap_or(0),
        ContentCoding::Identity => weights.identity.or(weights.others).unwrap_or(FULL_WEIGHT),
    };
    let compressed = PREFERRED_CODINGS
        .into_iter()
        .rev()
        .max_by_key(|coding| of(*coding))
        .filter(|coding| of(*coding) > 0);
    match compressed {
        // Identity wins only where the caller said outright that it likes it better.
        Some(coding)
            if weights
                .identity
                .is_none_or(|identity| identity <= of(coding)) =>
        {
            Some(coding)
        }
        _ if of(ContentCoding::Identity) > 0 => Some(ContentCoding::Identity),
        other => other,
    }
}

/// The members of a comma-separated list with their weights; parameters other than `q` are passed
/// over, and so is a member whose weight cannot be read.
fn weighted_members(line: &[u8]) -> impl Iterator<Item = (&str, QualityWeight)> {
    line.split(|byte| *byte == b',')
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

/// `qvalue` of RFC 9110 §12.4.2: 0 to 1 with up to three decimals.
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

/// A form's media type without its parameters.
fn media_type_essence(form: Format) -> &'static str {
    let content_type = form.content_type();
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
    fn the_native_resource_is_only_json() {
        assert!(negotiate_format(&headers(header::ACCEPT, &["text/csv"]), NATIVE_FORMATS).is_err());
        assert_eq!(
            negotiate_format(
                &headers(header::ACCEPT, &["application/json;odata=verbose, */*"]),
                NATIVE_FORMATS
            )
            .ok(),
            Some(Format::Native)
        );
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
