//! Compression of bodies.

use std::io::{self, Write};

use brotli::enc::BrotliEncoderParams;
use flate2::{Compression, write::GzEncoder};

use super::format::ContentCoding;

/// Each body is compressed once and sent many times, so the levels are high. Above these the size
/// hardly changes for JSON and CSV of this kind.
const GZIP_LEVEL: u32 = 8;
const ZSTD_LEVEL: i32 = 12;

/// Brotli at quality 5 needs about 1 MiB beside the body. At quality 9 the result is 2 % smaller, and
/// the encoder takes 32 MiB however short the body is.
const BROTLI_QUALITY: i32 = 5;

pub(super) fn compress(body: &[u8], coding: ContentCoding) -> io::Result<Vec<u8>> {
    Ok(match coding {
        ContentCoding::Identity => body.to_vec(),
        ContentCoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL));
            encoder.write_all(body)?;
            encoder.finish()?
        }
        ContentCoding::Brotli => {
            let parameters = BrotliEncoderParams {
                quality: BROTLI_QUALITY,
                lgwin: brotli_window_bits(body.len()),
                size_hint: body.len(),
                ..BrotliEncoderParams::default()
            };
            let mut compressed = Vec::new();
            brotli::BrotliCompress(&mut &*body, &mut compressed, &parameters)?;
            compressed
        }
        ContentCoding::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL)?,
    })
}

/// Returns a window for the whole body, up to 1 MiB, which both sides allocate. Below 17 bits the
/// encoder uses an algorithm that takes 32 MiB.
fn brotli_window_bits(body_bytes: usize) -> i32 {
    match body_bytes {
        0..0x2_0000 => 17,
        0x2_0000..0x4_0000 => 18,
        0x4_0000..0x8_0000 => 19,
        _ => 20,
    }
}
