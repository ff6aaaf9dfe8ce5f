//! `usage-proxy hash-key`: makes a key and its hash for the configuration.

use std::io::{self, Read};

use clap::Args;
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

use super::{CliError, eprint_line, print_line};
use crate::access_key::{self, KeyHash};

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy hash-key                      a new random key, and its hash
  usage-proxy hash-key --stdin < api_key    the hash of an existing key

Give the key to the caller, and put the hash into the configuration: key_sha256 of a caller in the \
file of callers.file, or admin.key_sha256.";

/// More than any key that fits into a request's headers.
const LONGEST: u64 = 8 * 1024;

/// Shorter ones can be guessed.
const SHORTEST_SAFE: usize = 32;

/// Options of `hash-key`.
#[derive(Debug, Args)]
pub(super) struct HashKeyArgs {
    /// Hash the key on standard input instead of making one.
    #[arg(long)]
    stdin: bool,
}

pub(super) fn run(args: &HashKeyArgs) -> Result<(), CliError> {
    if args.stdin {
        hash_stdin(io::stdin().lock())
    } else {
        generate_key()
    }
}

fn generate_key() -> Result<(), CliError> {
    let key = access_key::generate().map_err(CliError::other)?;
    let hash = KeyHash::of_key(key.expose_secret().as_bytes());
    print_line(format_args!(
        "key = \"{}\"\nkey_sha256 = \"{hash}\"",
        key.expose_secret()
    ))?;
    eprint_line(
        "\nThe key is shown only once. The caller sends it as `Authorization: Bearer KEY` or as \
         `X-Api-Key: KEY`.\nThe configuration has only its hash: in the file that callers.file \
         names, as key_sha256 = [\"HASH\"]\nof a [[caller]], or as admin.key_sha256 for the admin \
         listener.",
    );
    Ok(())
}

fn hash_stdin(input: impl Read) -> Result<(), CliError> {
    let key = read_key(input)?;
    if key.expose_secret().len() < SHORTEST_SAFE {
        eprint_line(format_args!(
            "warning: a key of fewer than {SHORTEST_SAFE} characters can be guessed by anyone who \
             sees its hash; `usage-proxy hash-key` makes one that cannot"
        ));
    }
    let hash = KeyHash::of_key(key.expose_secret().as_bytes());
    print_line(format_args!("key_sha256 = \"{hash}\""))
}

/// Reads the key, which is all of the input but white space around it.
fn read_key(input: impl Read) -> Result<SecretString, CliError> {
    let mut bytes = Zeroizing::new(Vec::new());
    input
        .take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(CliError::other)?;
    let key = bytes.trim_ascii();
    match std::str::from_utf8(key) {
        _ if key.is_empty() => Err(CliError::usage("standard input holds no key")),
        Ok(text) if bytes.len() as u64 <= LONGEST && key.iter().all(u8::is_ascii_graphic) => {
            Ok(text.into())
        }
        _ => Err(CliError::usage(format!(
            "standard input holds no key; expected up to {LONGEST} visible ASCII characters \
             without spaces, since it is sent as a header"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_without_surrounding_whitespace() {
        for input in ["up_1", "up_1\n", " up_1\r\n"] {
            let key = read_key(input.as_bytes()).unwrap();

            assert_eq!(key.expose_secret(), "up_1", "{input:?}");
        }
    }

    #[test]
    fn text_that_cannot_be_a_header_value_is_not_a_key() {
        let too_long = "k".repeat(9_000);
        for input in ["", " \n", "two words", "two\nlines", "kż", &too_long] {
            let refused = read_key(input.as_bytes());

            assert!(matches!(refused, Err(CliError::Usage(_))), "{input:?}");
        }
    }
}
