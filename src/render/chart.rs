//! The chart: adoption as an SVG picture, for an `<img>` in a wiki.
//!
//! It is written by a template rather than by a plotting library: those draw fixed colours and no
//! text alternative, and this picture follows its reader's light or dark scheme, unless it is asked
//! for in one of them.

use askama::Template;

use super::{
    adoption::{AdoptionBar, AdoptionProduct, AdoptionView, grouped},
    display_text::truncate_with_ellipsis,
    format::Theme,
};

/// Renders the simplified form as a picture that refers to nothing outside itself.
///
/// # Errors
///
/// Where it is not the simplified form.
pub(super) fn render(simplified: &[u8], theme: Theme) -> Result<Box<[u8]>, std::io::Error> {
    let adoption = AdoptionView::from_simplified(simplified)?;
    let svg = ChartTemplate::new(&adoption, theme)
        .render()
        .map_err(std::io::Error::other)?;
    Ok(svg.into_bytes().into_boxed_slice())
}

#[derive(Template)]
#[template(path = "render/chart.svg", config = "src/askama.toml")]
struct ChartTemplate<'a> {
    adoption: &'a AdoptionView,
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
        bar: &'a AdoptionBar,
        shown: String,
    },
    Note {
        y: u32,
        text: String,
    },
}

/// Puts lines beneath each other.
struct ChartLayout<'a> {
    y: u32,
    lines: Vec<Line<'a>>,
}

/// Pixels of the track that a full bar fills.
const TRACK_PIXELS: f64 = 256.0;

/// Characters that fit: of the customer's name, of a product's and what stands beside it, of what
/// tells it apart, of a workload's name, of counts.
const MAX_NAME_CHARS: usize = 58;
const MAX_HEADING_CHARS: usize = 84;
const MAX_DISTINCTION_CHARS: usize = 40;
const MAX_PRODUCT_CHARS: usize = 48;
const MAX_WORKLOAD_CHARS: usize = 25;
const MAX_COUNTS_CHARS: usize = 22;

// === impl Chart ===

impl<'a> ChartTemplate<'a> {
    fn new(adoption: &'a AdoptionView, theme: Theme) -> Self {
        let mut layout = ChartLayout {
            y: 92,
            lines: Vec::new(),
        };
        if adoption.workloads.is_empty() {
            layout.push_note("Partner Center tells of no licences for this customer.".to_owned());
        } else {
            layout.push_heading("All products", "active of qualified".to_owned());
            layout.push_bars(&adoption.workloads);
        }
        for product in &adoption.products {
            layout.push_heading(&product.name, product_note(product));
            layout.push_bars(&product.bars);
        }
        if adoption.left_out > 0 {
            let count = grouped(u64::try_from(adoption.left_out).unwrap_or(u64::MAX));
            layout.push_note(format!(
                "{count} more are not drawn; the CSV form has them all."
            ));
        }
        Self {
            adoption,
            theme,
            name: truncate_with_ellipsis(&adoption.customer_name, MAX_NAME_CHARS),
            when: match adoption.dates() {
                Some(dates) => format!("processed {dates}"),
                None => "nothing processed".to_owned(),
            },
            height: layout.y + 8,
            lines: layout.lines,
        }
    }

    fn width(&self, bar: &AdoptionBar) -> Option<String> {
        let length = bar.length()?;
        Some(format!("{:.1}", TRACK_PIXELS * length / 100.0))
    }

    /// Counts of absurdly many digits are squeezed rather than drawn over the bar.
    fn is_squeezed(&self, bar: &AdoptionBar) -> bool {
        bar.counts().len() > MAX_COUNTS_CHARS
    }
}

/// What stands beside a product's name.
fn product_note(product: &AdoptionProduct) -> String {
    let seats = match product.qualified {
        0 => None,
        1 => Some("1 licence".to_owned()),
        seats => Some(format!("{} licences", grouped(seats))),
    };
    let distinction = product.distinction.as_deref();
    let distinction = distinction.map(|text| truncate_with_ellipsis(text, MAX_DISTINCTION_CHARS));
    let parts: Vec<_> = distinction.into_iter().chain(seats).collect();
    parts.join(", ")
}

// === impl Layout ===

impl<'a> ChartLayout<'a> {
    fn push_heading(&mut self, text: &'a str, note: String) {
        let beside = MAX_HEADING_CHARS.saturating_sub(note.chars().count());
        self.lines.push(Line::Heading {
            y: self.y + 16,
            text,
            shown: truncate_with_ellipsis(text, MAX_PRODUCT_CHARS.min(beside)),
            note,
        });
        self.y += 24;
    }

    fn push_bars(&mut self, bars: &'a [AdoptionBar]) {
        for bar in bars {
            self.lines.push(Line::Bar {
                y: self.y,
                bar,
                shown: truncate_with_ellipsis(&bar.name, MAX_WORKLOAD_CHARS),
            });
            self.y += 24;
        }
        self.y += 12;
    }

    fn push_note(&mut self, text: String) {
        self.lines.push(Line::Note {
            y: self.y + 16,
            text,
        });
        self.y += 28;
    }
}

#[cfg(test)]
mod tests;
