use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};

use super::Coding;

/// Each body is compressed once and sent many times, so effort is well spent; beyond these levels
/// the size hardly changes for JSON and CSV of this kind.
const GZIP_LEVEL: u32 = 8;
const BROTLI_QUALITY: u32 = 9;
const ZSTD_LEVEL: i32 = 12;

/// Brotli's window: large enough for the bodies we expect, and small for whoever decodes.
const BROTLI_WINDOW_BITS: u32 = 20;

pub(crate) fn compress(body: &[u8], coding: Coding) -> io::Result<Vec<u8>> {
    Ok(match coding {
        Coding::Identity => body.to_vec(),
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL));
            encoder.write_all(body)?;
            encoder.finish()?
        }
        Coding::Brotli => {
            let mut compressed = Vec::new();
            let mut encoder = brotli::CompressorWriter::new(
                &mut compressed,
                4096,
                BROTLI_QUALITY,
                BROTLI_WINDOW_BITS,
            );
            encoder.write_all(body)?;
            drop(encoder);
            compressed
        }
        Coding::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL)?,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn every_coding_decodes_to_what_went_in() {
        let body = "{\"licensesActive\":0,\"licensesQualified\":5}".repeat(50);

        let gzip = compress(body.as_bytes(), Coding::Gzip).unwrap();
        let mut decoded = String::new();
        flate2::read::GzDecoder::new(&gzip[..])
            .read_to_string(&mut decoded)
            .unwrap();
        assert_eq!(decoded, body);

        let brotli = compress(body.as_bytes(), Coding::Brotli).unwrap();
        let mut decoded = String::new();
        brotli::Decompressor::new(&brotli[..], 4096)
            .read_to_string(&mut decoded)
            .unwrap();
        assert_eq!(decoded, body);

        let zstd = compress(body.as_bytes(), Coding::Zstd).unwrap();
        assert_eq!(
            zstd::bulk::decompress(&zstd, body.len()).unwrap(),
            body.as_bytes()
        );
    }
}
