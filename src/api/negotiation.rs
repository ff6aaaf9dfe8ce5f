//! `Accept` and `Accept-Encoding` → which prepared form (RFC 9110 §12.5).

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    problem::{Kind, Problem},
    render::{Coding, Form, Theme},
};

/// Forms of the simplified resource, the preferred one first.
pub(super) const SIMPLIFIED_FORMS: &[Form] = &[Form::Simplified, Form::Csv];

/// Forms of the native resource.
pub(super) const NATIVE_FORMS: &[Form] = &[Form::Native];

/// Forms of the resource that is a table.
pub(super) const TABLE_FORMS: &[Form] = &[Form::Table];

/// Forms of the resource that is a picture; its theme is none of the negotiation's.
pub(super) const CHART_FORMS: &[Form] = &[Form::Chart(Theme::Reader)];

/// Codings, the preferred one first where a caller likes several equally: the smallest result.
const CODINGS: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

/// A weight in thousandths: 0 is "not acceptable".
type Weight = u16;

const FULL: Weight = 1_000;

/// The form that the caller likes best of those there are.
pub(super) fn form(headers: &HeaderMap, forms: &[Form]) -> Result<Form, Problem> {
    let best = match lines(headers, &header::ACCEPT) {
        // What nearly every caller sends.
        Lines::Absent | Lines::One(b"*/*") => forms.first().copied(),
        Lines::One(b"application/json") => forms.iter().copied().find(|form| form.is_json()),
        Lines::One(value) => best_form(forms, &[value]),
        Lines::Several(values) => best_form(forms, &values),
    };
    best.ok_or_else(|| {
        let offered: Vec<_> = forms.iter().map(|form| essence(*form)).collect();
        not_acceptable(format!(
            "Accept fits nothing here; expected {}",
            offered.join(" or ")
        ))
    })
}

/// The coding that the caller likes best.
pub(super) fn coding(headers: &HeaderMap) -> Result<Coding, Problem> {
    let weights = match lines(headers, &header::ACCEPT_ENCODING) {
        Lines::Absent => return Ok(Coding::Identity),
        Lines::One(b"gzip") => return Ok(Coding::Gzip),
        Lines::One(value) => coding_weights(&[value]),
        Lines::Several(values) => coding_weights(&values),
    };
    best_coding(&weights).ok_or_else(|| {
        not_acceptable(
            "Accept-Encoding fits nothing here; expected gzip, br, zstd or identity".to_owned(),
        )
    })
}

/// The lines of a header, without allocating where there is one at most.
enum Lines<'a> {
    Absent,
    One(&'a [u8]),
    Several(Vec<&'a [u8]>),
}

fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Lines<'a> {
    let all = || headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let mut values = all();
    match (values.next(), values.next()) {
        (None, _) => Lines::Absent,
        (Some(value), None) => Lines::One(value),
        (Some(_), Some(_)) => Lines::Several(all().collect()),
    }
}

fn best_form(forms: &[Form], lines: &[&[u8]]) -> Option<Form> {
    let mut best: Option<(Weight, Form)> = None;
    for form in forms {
        let weight = form_weight(essence(*form), lines);
        if weight > best.map_or(0, |(weight, _)| weight) {
            best = Some((weight, *form));
        }
    }
    best.map(|(_, form)| form)
}

/// The weight of a media type: that of the most specific range that names it.
fn form_weight(essence: &str, lines: &[&[u8]]) -> Weight {
    let kind = essence.split_once('/').map_or(essence, |(kind, _)| kind);
    let mut found: Option<(u8, Weight)> = None;
    let mut any = false;
    for (range, weight) in lines.iter().flat_map(|line| members(line)) {
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
        None if !any => FULL,
        None => 0,
    }
}

/// What a caller said of each coding; `None` where it said nothing.
#[derive(Clone, Copy, Debug, Default)]
struct CodingWeights {
    gzip: Option<Weight>,
    brotli: Option<Weight>,
    zstd: Option<Weight>,
    identity: Option<Weight>,
    others: Option<Weight>,
}

fn coding_weights(lines: &[&[u8]]) -> CodingWeights {
    let mut weights = CodingWeights::default();
    for (token, weight) in lines.iter().flat_map(|line| members(line)) {
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

fn best_coding(weights: &CodingWeights) -> Option<Coding> {
    let of = |coding| match coding {
        Coding::Gzip => weights.gzip.or(weights.others).unwrap_or(0),
        Coding::Brotli => weights.brotli.or(weights.others).unwrap_or(0),
        Coding::Zstd => weights.zstd.or(weights.others).unwrap_or(0),
        Coding::Identity => weights.identity.or(weights.others).unwrap_or(FULL),
    };
    let compressed = CODINGS
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
        _ if of(Coding::Identity) > 0 => Some(Coding::Identity),
        other => other,
    }
}

/// The members of a comma-separated list with their weights; parameters other than `q` are passed
/// over, and so is a member whose weight cannot be read.
fn members(line: &[u8]) -> impl Iterator<Item = (&str, Weight)> {
    line.split(|byte| *byte == b',')
        .filter_map(|member| std::str::from_utf8(member).ok())
        .filter_map(|member| {
            let mut parts = member.split(';').map(str::trim);
            let name = parts.next().filter(|name| !name.is_empty())?;
            let mut weight = FULL;
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
fn parse_weight(text: &str) -> Option<Weight> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: Weight = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(FULL),
        _ => None,
    }
}

/// A form's media type without its parameters.
fn essence(form: Form) -> &'static str {
    let content_type = form.content_type();
    content_type
        .split_once(';')
        .map_or(content_type, |(essence, _)| essence)
}

fn not_acceptable(detail: String) -> Problem {
    Problem::new(Kind::NotAcceptable, detail)
}

#[cfg(test)]
mod anything;

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
    fn the_form_that_the_caller_likes_best_is_chosen() {
        for (lines, form_expected) in [
            (&[][..], Some(Form::Simplified)),
            (&["*/*"], Some(Form::Simplified)),
            (&["application/json"], Some(Form::Simplified)),
            (&["text/csv"], Some(Form::Csv)),
            (&["TEXT/CSV; charset=utf-8"], Some(Form::Csv)),
            (&["text/*"], Some(Form::Csv)),
            (&["text/csv;q=0.5, application/json;q=0.4"], Some(Form::Csv)),
            (
                &["text/csv;q=0.5", "application/json"],
                Some(Form::Simplified),
            ),
            (&["*/*;q=0.1, application/json;q=0"], Some(Form::Csv)),
            (
                &["text/html,application/xhtml+xml,*/*;q=0.8"],
                Some(Form::Simplified),
            ),
            (&["text/html"], None),
            (&["application/json;q=0"], None),
            (&["application/json;q=2"], Some(Form::Simplified)),
            (&[""], Some(Form::Simplified)),
        ] {
            let chosen = form(&headers(header::ACCEPT, lines), SIMPLIFIED_FORMS).ok();
            assert_eq!(chosen, form_expected, "{lines:?}");
        }
    }

    #[test]
    fn the_native_resource_is_json_alone() {
        assert!(form(&headers(header::ACCEPT, &["text/csv"]), NATIVE_FORMS).is_err());
        assert_eq!(
            form(
                &headers(header::ACCEPT, &["application/json;odata=verbose, */*"]),
                NATIVE_FORMS
            )
            .ok(),
            Some(Form::Native)
        );
    }

    #[test]
    fn the_coding_that_the_caller_likes_best_is_chosen() {
        for (lines, expected) in [
            (&[][..], Some(Coding::Identity)),
            (&[""], Some(Coding::Identity)),
            (&["gzip"], Some(Coding::Gzip)),
            (&["x-gzip"], Some(Coding::Gzip)),
            (&["gzip, deflate, br, zstd"], Some(Coding::Brotli)),
            (&["gzip, zstd"], Some(Coding::Zstd)),
            (&["br;q=0.2, gzip;q=0.8"], Some(Coding::Gzip)),
            (&["gzip;q=0.5, identity"], Some(Coding::Identity)),
            (&["gzip;q=0.5, identity;q=0.5"], Some(Coding::Gzip)),
            (&["gzip;q=0"], Some(Coding::Identity)),
            (&["deflate"], Some(Coding::Identity)),
            (&["*"], Some(Coding::Brotli)),
            (&["*;q=0, gzip"], Some(Coding::Gzip)),
            (&["*;q=0"], None),
            (&["identity;q=0"], None),
            (&["identity;q=0, gzip"], Some(Coding::Gzip)),
            (&["identity;q=0, *"], Some(Coding::Brotli)),
            (&["br;q=0, *"], Some(Coding::Zstd)),
            (&["gzip;q=0.001"], Some(Coding::Gzip)),
            (&["gzip;q=x"], Some(Coding::Identity)),
            (&["deflate", "GZIP"], Some(Coding::Gzip)),
        ] {
            let chosen = coding(&headers(header::ACCEPT_ENCODING, lines)).ok();
            assert_eq!(chosen, expected, "{lines:?}");
        }
    }
}
