//! Negotiation against a reading of RFC 9110 §12.5 that knows what was meant and parses nothing.

use proptest::prelude::*;

use super::*;
use crate::properties::header_value;

/// A member of `Accept` or `Accept-Encoding`: what it names and what it weighs.
#[derive(Clone, Debug)]
struct Member {
    name: &'static str,
    /// In thousandths, and how it is written; `None` where it is left out.
    weight: Option<(Weight, String)>,
    shouted: bool,
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

fn members(names: &'static [&'static str]) -> impl Strategy<Value = Vec<Vec<Member>>> {
    let member = (
        prop::sample::select(names),
        prop::option::of(weight()),
        any::<bool>(),
        prop::sample::select(vec!["", " ", "\t", "  "]),
    )
        .prop_map(|(name, weight, shouted, space)| Member {
            name,
            weight,
            shouted,
            space,
        });
    // Header lines, and members of each.
    prop::collection::vec(prop::collection::vec(member, 1..4), 0..3)
}

fn weight() -> impl Strategy<Value = (Weight, String)> {
    let decimals = |digits: usize| {
        let scale = 10_u16.pow(u32::try_from(digits).unwrap());
        (0..scale).prop_map(move |part| (part * (FULL / scale), format!("0.{part:0digits$}")))
    };
    prop_oneof![
        Just((0, "0".to_owned())),
        Just((FULL, "1".to_owned())),
        Just((FULL, "1.000".to_owned())),
        decimals(1),
        decimals(2),
        decimals(3),
    ]
}

fn request(name: HeaderName, lines: &[Vec<Member>]) -> HeaderMap {
    let written = lines.iter().map(|line| {
        let line: Vec<_> = line.iter().map(Member::to_string).collect();
        (name.clone(), line.join(",").parse().unwrap())
    });
    written.collect()
}

/// What a name weighs, by the last member that says so.
fn said(lines: &[Vec<Member>], names: &[&str]) -> Option<Weight> {
    let mut backwards = lines.iter().flatten().rev();
    let last = backwards.find(|member| names.contains(&member.name))?;
    Some(last.weight.as_ref().map_or(FULL, |(weight, _)| *weight))
}

fn weight_of_form(lines: &[Vec<Member>], form: Form) -> Weight {
    if lines.is_empty() {
        return FULL;
    }
    let (kind, exact) = match form {
        Form::Csv | Form::Table => ("text/*", "text/csv"),
        Form::Simplified | Form::Native => ("application/*", "application/json"),
        Form::Chart(_) => ("image/*", "image/svg+xml"),
    };
    // The most specific range counts, whatever the others say.
    said(lines, &[exact])
        .or_else(|| said(lines, &[kind]))
        .or_else(|| said(lines, &["*/*"]))
        .unwrap_or(0)
}

fn weight_of_coding(lines: &[Vec<Member>], coding: Coding) -> Weight {
    let names: &[&str] = match coding {
        Coding::Gzip => &["gzip", "x-gzip"],
        Coding::Brotli => &["br"],
        Coding::Zstd => &["zstd"],
        Coding::Identity => &["identity"],
    };
    let unsaid = if coding == Coding::Identity { FULL } else { 0 };
    said(lines, names)
        .or_else(|| said(lines, &["*"]))
        .unwrap_or(unsaid)
}

proptest! {
    #![proptest_config(crate::properties::kept())]

    #[test]
    fn the_form_is_the_one_that_weighs_most(lines in members(RANGES)) {
        let headers = request(header::ACCEPT, &lines);

        for forms in [SIMPLIFIED_FORMS, NATIVE_FORMS, TABLE_FORMS, CHART_FORMS] {
            let chosen = form(&headers, forms).ok();

            let weights = forms.iter().map(|form| weight_of_form(&lines, *form));
            let most = weights.max().unwrap_or(0);
            let expected = forms.iter().find(|form| weight_of_form(&lines, **form) == most);
            prop_assert_eq!(chosen, expected.copied().filter(|_| most > 0), "{:?}", headers);
        }
    }

    #[test]
    fn the_coding_is_one_that_weighs_most_and_is_accepted(lines in members(TOKENS)) {
        let headers = request(header::ACCEPT_ENCODING, &lines);
        let weight = |coding| weight_of_coding(&lines, coding);
        let compressed = CODINGS.into_iter().map(weight).max().unwrap_or(0);

        match coding(&headers).ok() {
            None => prop_assert_eq!((compressed, weight(Coding::Identity)), (0, 0)),
            Some(Coding::Identity) => {
                prop_assert!(weight(Coding::Identity) > 0, "{:?}", headers);
                // Nothing compressed is wanted, or plain bytes are wanted more.
                let preferred = said(&lines, &["identity"]).is_some_and(|plain| plain > compressed);
                prop_assert!(compressed == 0 || preferred, "{:?}", headers);
            }
            Some(chosen) => {
                prop_assert!(weight(chosen) > 0, "{:?}", headers);
                prop_assert_eq!(weight(chosen), compressed, "{:?}", headers);
                let first = CODINGS.into_iter().find(|coding| weight(*coding) == compressed);
                prop_assert_eq!(Some(chosen), first, "{:?}", headers);
            }
        }
    }

    #[test]
    fn any_line_is_answered(line in header_value()) {
        let headers = [(header::ACCEPT, line.clone()), (header::ACCEPT_ENCODING, line)];
        let headers = headers.into_iter().collect();

        drop(form(&headers, SIMPLIFIED_FORMS));
        drop(coding(&headers));
    }
}

// === impl Member ===

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.shouted {
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
