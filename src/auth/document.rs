use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use crate::config::{ConfigError, Source, TextPosition};

/// More than a partner with half a million customers needs, and small enough that a wrong path does
/// no harm.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// A text that knows where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallersDocument<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

/// The text of a whole file.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let whole = |problem: String| ConfigError::at(place(path, None), problem);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| whole(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(whole("is larger than 32 MiB".to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| whole(format!("is not UTF-8: {}", error.utf8_error())))
}

/// A place in a file, or the file as a whole.
pub(super) fn place(path: &Path, position: Option<TextPosition>) -> Source {
    Source::File {
        path: PathBuf::from(path),
        position,
    }
}

// === impl Document ===

impl CallersDocument<'_> {
    /// Where the byte at this offset stands.
    pub(super) fn place(&self, offset: usize) -> Source {
        place(self.path, Some(TextPosition::at_offset(self.text, offset)))
    }
}
