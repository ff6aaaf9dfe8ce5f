//! The chart: adoption as an SVG picture, for an `<img>` in a wiki.
//!
//! A template writes it, since plotting libraries have fixed colours and no text alternative. This
//! picture has one, and follows the reader's light or dark scheme.

use askama::Template;

use super::{
    adoption::{AdoptionBar, AdoptionProduct, AdoptionView, grouped},
    display_text::truncate_with_ellipsis,
    format::ChartTheme,
};

/// Renders the simplified format as a picture without external references.
///
/// # Errors
///
/// If it is not the simplified format.
pub(super) fn render(simplified: &[u8], theme: ChartTheme) -> Result<Box<[u8]>, std::io::Error> {
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
    theme: ChartTheme,
    name: String,
    when: String,
    lines: Vec<ChartLine<'a>>,
    height: u32,
}

/// A line of the picture.
enum ChartLine<'a> {
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

/// Places lines below each other.
struct ChartLayout<'a> {
    y: u32,
    lines: Vec<ChartLine<'a>>,
}

/// The length of a full bar in pixels.
const TRACK_PIXELS: f64 = 256.0;

/// The characters that fit into each part of the picture.
const MAX_NAME_CHARS: usize = 58;
const MAX_HEADING_CHARS: usize = 84;
const MAX_DISTINCTION_CHARS: usize = 40;
const MAX_PRODUCT_CHARS: usize = 48;
const MAX_WORKLOAD_CHARS: usize = 25;
const MAX_COUNTS_CHARS: usize = 22;

// === impl ChartTemplate ===

impl<'a> ChartTemplate<'a> {
    fn new(adoption: &'a AdoptionView, theme: ChartTheme) -> Self {
        let mut layout = ChartLayout {
            y: 92,
            lines: Vec::new(),
        };
        if adoption.workloads.is_empty() {
            layout.push_note("Partner Center counts no licences for this customer.".to_owned());
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
                None => "no data".to_owned(),
            },
            height: layout.y + 8,
            lines: layout.lines,
        }
    }

    fn width(&self, bar: &AdoptionBar) -> Option<String> {
        let length = bar.length()?;
        Some(format!("{:.1}", TRACK_PIXELS * length / 100.0))
    }

    /// Returns true for counts that are too long for their place, which are drawn narrower.
    fn is_squeezed(&self, bar: &AdoptionBar) -> bool {
        bar.counts().len() > MAX_COUNTS_CHARS
    }
}

/// Returns the note beside the name of a product.
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

// === impl ChartLayout ===

impl<'a> ChartLayout<'a> {
    fn push_heading(&mut self, text: &'a str, note: String) {
        let beside = MAX_HEADING_CHARS.saturating_sub(note.chars().count());
        self.lines.push(ChartLine::Heading {
            y: self.y + 16,
            text,
            shown: truncate_with_ellipsis(text, MAX_PRODUCT_CHARS.min(beside)),
            note,
        });
        self.y += 24;
    }

    fn push_bars(&mut self, bars: &'a [AdoptionBar]) {
        for bar in bars {
            self.lines.push(ChartLine::Bar {
                y: self.y,
                bar,
                shown: truncate_with_ellipsis(&bar.name, MAX_WORKLOAD_CHARS),
            });
            self.y += 24;
        }
        self.y += 12;
    }

    fn push_note(&mut self, text: String) {
        self.lines.push(ChartLine::Note {
            y: self.y + 16,
            text,
        });
        self.y += 28;
    }
}

#[cfg(test)]
mod tests;
