//! The chart: adoption as an SVG picture, for an `<img>` in a wiki.
//!
//! It is written by a template rather than by a plotting library: those draw fixed colours and no
//! text alternative, and this picture follows its reader's light or dark scheme, unless it is asked
//! for in one of them.

use askama::Template;

use super::{
    Theme,
    adoption::{Adoption, Bar, Product, elided, grouped},
};

/// Renders the simplified form as a picture that refers to nothing outside itself.
///
/// # Errors
///
/// Where it is not the simplified form.
pub(super) fn render(simplified: &[u8], theme: Theme) -> Result<Box<[u8]>, std::io::Error> {
    let adoption = Adoption::of(simplified)?;
    let svg = Chart::of(&adoption, theme)
        .render()
        .map_err(std::io::Error::other)?;
    Ok(svg.into_bytes().into_boxed_slice())
}

#[derive(Template)]
#[template(path = "render/chart.svg", config = "src/askama.toml")]
struct Chart<'a> {
    adoption: &'a Adoption,
    theme: Theme,
    name: String,
    when: String,
    lines: Vec<Line<'a>>,
    height: u32,
}

/// What stands at a height of the picture.
enum Line<'a> {
    Heading {
        y: u32,
        text: &'a str,
        shown: String,
        note: String,
    },
    Bar {
        y: u32,
        bar: &'a Bar,
        shown: String,
    },
    Note {
        y: u32,
        text: String,
    },
}

/// Puts lines beneath each other.
struct Layout<'a> {
    y: u32,
    lines: Vec<Line<'a>>,
}

/// Pixels of the track that a full bar fills.
const TRACK: f64 = 256.0;

/// Characters that fit: of the customer's name, of a product's and what stands beside it, of what
/// tells it apart, of a workload's name, of counts.
const NAME_FITS: usize = 58;
const HEADING_FITS: usize = 84;
const DISTINCTION_FITS: usize = 40;
const PRODUCT_FITS: usize = 48;
const WORKLOAD_FITS: usize = 25;
const COUNTS_FIT: usize = 22;

// === impl Chart ===

impl<'a> Chart<'a> {
    fn of(adoption: &'a Adoption, theme: Theme) -> Self {
        let mut layout = Layout {
            y: 92,
            lines: Vec::new(),
        };
        if adoption.workloads.is_empty() {
            layout.note("Partner Center tells of no licences for this customer.".to_owned());
        } else {
            layout.heading("All products", "active of qualified".to_owned());
            layout.bars(&adoption.workloads);
        }
        for product in &adoption.products {
            layout.heading(&product.name, note(product));
            layout.bars(&product.bars);
        }
        if adoption.left_out > 0 {
            let count = grouped(u64::try_from(adoption.left_out).unwrap_or(u64::MAX));
            layout.note(format!(
                "{count} more are not drawn; the CSV form has them all."
            ));
        }
        Self {
            adoption,
            theme,
            name: elided(&adoption.customer_name, NAME_FITS),
            when: match adoption.dates() {
                Some(dates) => format!("processed {dates}"),
                None => "nothing processed".to_owned(),
            },
            height: layout.y + 8,
            lines: layout.lines,
        }
    }

    fn width(&self, bar: &Bar) -> Option<String> {
        let length = bar.length()?;
        Some(format!("{:.1}", TRACK * length / 100.0))
    }

    /// Counts of absurdly many digits are squeezed rather than drawn over the bar.
    fn is_squeezed(&self, bar: &Bar) -> bool {
        bar.counts().len() > COUNTS_FIT
    }
}

/// What stands beside a product's name.
fn note(product: &Product) -> String {
    let seats = match product.qualified {
        0 => None,
        1 => Some("1 licence".to_owned()),
        seats => Some(format!("{} licences", grouped(seats))),
    };
    let distinction = product.distinction.as_deref();
    let distinction = distinction.map(|text| elided(text, DISTINCTION_FITS));
    let parts: Vec<_> = distinction.into_iter().chain(seats).collect();
    parts.join(", ")
}

// === impl Layout ===

impl<'a> Layout<'a> {
    fn heading(&mut self, text: &'a str, note: String) {
        let beside = HEADING_FITS.saturating_sub(note.chars().count());
        self.lines.push(Line::Heading {
            y: self.y + 16,
            text,
            shown: elided(text, PRODUCT_FITS.min(beside)),
            note,
        });
        self.y += 24;
    }

    fn bars(&mut self, bars: &'a [Bar]) {
        for bar in bars {
            self.lines.push(Line::Bar {
                y: self.y,
                bar,
                shown: elided(&bar.name, WORKLOAD_FITS),
            });
            self.y += 24;
        }
        self.y += 12;
    }

    fn note(&mut self, text: String) {
        self.lines.push(Line::Note {
            y: self.y + 16,
            text,
        });
        self.y += 28;
    }
}

#[cfg(test)]
mod tests;
