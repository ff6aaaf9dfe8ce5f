//! Words that a person can paste into a shell.

use std::{ffi::OsString, path::Path};

/// A path as one word.
pub(super) fn quote_path(file: &Path) -> String {
    let text = file.display().to_string();
    let plain =
        |character: char| character.is_ascii_alphanumeric() || "/._-+@:".contains(character);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// This program, as it was called: by its name where the shell finds it, else by its path, such as
/// after `cargo run`.
pub(super) fn program_name() -> String {
    program_name_from(std::env::args_os().next())
}

fn program_name_from(called: Option<OsString>) -> String {
    match called {
        Some(name) if !name.is_empty() => quote_path(Path::new(&name)),
        _ => "usage-proxy".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_as_one_shell_word() {
        for (file, text) in [
            (
                "/etc/usage-proxy/usage-proxy.toml",
                "/etc/usage-proxy/usage-proxy.toml",
            ),
            ("my files/it's.toml", r"'my files/it'\''s.toml'"),
        ] {
            assert_eq!(quote_path(Path::new(file)), text);
        }
    }

    #[test]
    fn the_program_is_named_as_it_was_called() {
        for (called, text) in [
            (Some("usage-proxy"), "usage-proxy"),
            (Some("target/debug/usage-proxy"), "target/debug/usage-proxy"),
            (Some(""), "usage-proxy"),
            (None, "usage-proxy"),
        ] {
            assert_eq!(program_name_from(called.map(OsString::from)), text);
        }
    }
}
