//! Every format of an answer, rendered once and compressed at most once.
//!
//! Bodies and their header values are made when an entry is stored, or when a rarer format is first
//! requested; serving them copies nothing.

pub mod adoption;
mod attachment;
mod chart;
mod compression;
mod csv;
mod csv_writer;
pub mod customers;
mod display_text;
mod document;
pub mod fleet;
mod format;
pub mod history;
mod rendered;
mod simplified;
mod usage_metrics;

pub use self::{
    csv_writer::{CsvReader, CsvSeparator},
    display_text::display_text,
    document::{EncodedBody, RenderedDocument},
    format::{ChartTheme, ContentCoding, Format},
    rendered::{RenderError, Rendered},
    usage_metrics::usage_metrics,
};

#[cfg(test)]
mod proptests;
#[cfg(test)]
mod svg_reader;
