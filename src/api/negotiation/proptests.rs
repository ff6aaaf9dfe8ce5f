//! Negotiation against a reading of RFC 9110 §12.5 that knows what was meant and parses nothing.

use http::HeaderName;
use proptest::prelude::*;

use super::*;
use crate::proptest_support::any_header_value;

/// A member of `Accept` or `Accept-Encoding`: what it names and what it weighs.
#[derive(Clone, Debug)]
struct AcceptMember {
    name: &'static str,
    /// In thousandths, and how it is written; `None` where it is left out.
    weight: Option<(QualityWeight, String)>,
    uppercase: bool,
    space: &'static str,
}

const RANGES: &[&str] = &[
    "*/*",
    "application/*",
    "application/json",
    "text/*",
    "text/csv",
    "text/html",
    "image/*",
    "image/svg+xml",
];

const TOKENS: &[&str] = &["gzip", "x-gzip", "br", "zstd", "identity", "deflate", "*"];

fn members(names: &'static [&'static str]) -> impl Strategy<Value = Vec<Vec<AcceptMember>>> {
    let member = (
        prop::sample::select(names),
        prop::option::of(weight()),
        any::<bool>(),
        prop::sample::select(vec!["", " ", "\t", "  "]),
    )
        .prop_map(|(name, weight, shouted, space)| AcceptMember {
            name,
            weight,
            uppercase: shouted,
            space,
        });
    // Header lines, and members of each.
    prop::collection::vec(prop::collection::vec(member, 1..4), 0..3)
}

fn weight() -> impl Strategy<Value = (QualityWeight, String)> {
    let decimals = |digits: usize| {
        let scale = 10_u16.pow(u32::try_from(digits).unwrap());
        (0..scale)
            .prop_map(move |part| (part * (FULL_WEIGHT / scale), format!("0.{part:0digits$}")))
    };
    prop_oneof![
        Just((0, "0".to_owned())),
        Just((FULL_WEIGHT, "1".to_owned())),
        Just((FULL_WEIGHT, "1.000".to_owned())),
        decimals(1),
        decimals(2),
        decimals(3),
    ]
}

fn request(name: HeaderName, lines: &[Vec<AcceptMember>]) -> HeaderMap {
    let written = lines.iter().map(|line| {
        let line: Vec<_> = line.iter().map(AcceptMember::to_string).collect();
        (name.clone(), line.join(",").parse().unwrap())
    });
    written.collect()
}

/// Returns the weight of the last member that has one of these names.
fn last_weight(lines: &[Vec<AcceptMember>], names: &[&str]) -> Option<QualityWeight> {
    let mut backwards = lines.iter().flatten().rev();
    let last = backwards.find(|member| names.contains(&member.name))?;
    Some(
        last.weight
            .as_ref()
            .map_or(FULL_WEIGHT, |(weight, _)| *weight),
    )
}

fn format_weight(lines: &[Vec<AcceptMember>], form: Format) -> QualityWeight {
    if lines.is_empty() {
        return FULL_WEIGHT;
    }
    let (kind, exact) = match form {
        Format::Csv | Format::Table => ("text/*", "text/csv"),
        Format::Simplified | Format::Native => ("application/*", "application/json"),
        Format::Chart(_) => ("image/*", "image/svg+xml"),
    };
    // The most specific range counts, whatever the others say.
    last_weight(lines, &[exact])
        .or_else(|| last_weight(lines, &[kind]))
        .or_else(|| last_weight(lines, &["*/*"]))
        .unwrap_or(0)
}

fn coding_weight(lines: &[Vec<AcceptMember>], coding: ContentCoding) -> QualityWeight {
    let names: &[&str] = match coding {
        ContentCoding::Gzip => &["gzip", "x-gzip"],
        ContentCoding::Brotli => &["br"],
        ContentCoding::Zstd => &["zstd"],
        ContentCoding::Identity => &["identity"],
    };
    let unsaid = if coding == ContentCoding::Identity {
        FULL_WEIGHT
    } else {
        0
    };
    last_weight(lines, names)
        .or_else(|| last_weight(lines, &["*"]))
        .unwrap_or(unsaid)
}

proptest! {
    #![proptest_config(crate::proptest_support::proptest_config())]

    #[test]
    fn the_format_with_the_highest_weight_is_chosen(lines in members(RANGES)) {
        let headers = request(header::ACCEPT, &lines);

        for forms in [SIMPLIFIED_FORMATS, NATIVE_FORMATS, CHART_FORMATS] {
            let chosen = negotiate_format(&headers, forms).ok();

            let weights = forms.iter().map(|form| format_weight(&lines, *form));
            let most = weights.max().unwrap_or(0);
            let expected = forms.iter().find(|form| format_weight(&lines, **form) == most);
            prop_assert_eq!(chosen, expected.copied().filter(|_| most > 0), "{:?}", headers);
        }
    }

    #[test]
    fn an_accepted_coding_with_the_highest_weight_is_chosen(lines in members(TOKENS)) {
        let headers = request(header::ACCEPT_ENCODING, &lines);
        let weight = |coding| coding_weight(&lines, coding);
        let compressed = PREFERRED_CODINGS.into_iter().map(weight).max().unwrap_or(0);

        match negotiate_coding(&headers).ok() {
            None => prop_assert_eq!((compressed, weight(ContentCoding::Identity)), (0, 0)),
            Some(ContentCoding::Identity) => {
                prop_assert!(weight(ContentCoding::Identity) > 0, "{:?}", headers);
                // Nothing compressed is wanted, or plain bytes are wanted more.
                let preferred = last_weight(&lines, &["identity"]).is_some_and(|plain| plain > compressed);
                prop_assert!(compressed == 0 || preferred, "{:?}", headers);
            }
            Some(chosen) => {
                prop_assert!(weight(chosen) > 0, "{:?}", headers);
                prop_assert_eq!(weight(chosen), compressed, "{:?}", headers);
                let first = PREFERRED_CODINGS.into_iter().find(|coding| weight(*coding) == compressed);
                prop_assert_eq!(Some(chosen), first, "{:?}", headers);
            }
        }
    }

    #[test]
    fn any_header_line_is_handled(line in any_header_value()) {
        let headers = [(header::ACCEPT, line.clone()), (header::ACCEPT_ENCODING, line)];
        let headers = headers.into_iter().collect();

        drop(negotiate_format(&headers, SIMPLIFIED_FORMATS));
        drop(negotiate_coding(&headers));
    }
}

// === impl Member ===

impl std::fmt::Display for AcceptMember {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.uppercase {
            self.name.to_ascii_uppercase()
        } else {
            self.name.to_owned()
        };
        let space = self.space;
        write!(f, "{space}{name}{space}")?;
        match &self.weight {
            Some((_, written)) => write!(f, ";{space}q={written}{space}"),
            None => Ok(()),
        }
    }
}
