//! Secrets, which are in files of their own, and in types that do not print them.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use secrecy::{SecretString, zeroize::Zeroizing};

/// More than any token of Microsoft's, and little enough that a wrong path does no harm.
const MAX_BYTES: usize = 64 * 1024;

/// A file without a usable secret. Names the file, never its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file is missing, or this process may not read it.
    #[error("cannot read {path}: {cause}; check that it exists and that this user may read it")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// It has nothing but white space.
    #[error("{path} is empty; write the secret into it, and nothing else")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It is not text: UTF-16 of an editor, an archive, a binary key.
    #[error("{path} is not UTF-8 text; save the secret as plain text")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// It is longer than any secret of Partner Center.
    #[error("{path} is larger than 64 KiB; name a file with the secret and nothing else")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the secret that a file holds, without a byte-order mark and without white space around it.
///
/// # Errors
///
/// [`SecretError`], one variant for each mistake that a person can correct.
pub fn read_secret(path: &Path) -> Result<SecretString, SecretError> {
    let unreadable = |cause| SecretError::Unreadable {
        path: path.to_owned(),
        cause,
    };
    // As large as it may get, so that growing leaves no copy behind, and wiped when dropped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    File::open(path)
        .map_err(unreadable)?
        .take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > MAX_BYTES {
        return Err(SecretError::TooLarge {
            path: path.to_owned(),
        });
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::NotText {
        path: path.to_owned(),
    })?;
    match text.trim_start_matches('\u{feff}').trim() {
        "" => Err(SecretError::Empty {
            path: path.to_owned(),
        }),
        secret => Ok(SecretString::from(secret)),
    }
}

/// Returns a warning if anyone can read a secret's file.
///
/// Its group may read it, as with systemd's credentials and Kubernetes' secret volumes. Returns `None`
/// as well if the system has no such permissions, or if the file cannot be opened, which
/// [`read_secret`] reports.
pub fn permissions_warning(path: &Path) -> Option<String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;

        let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
        (mode & 0o004 != 0).then(|| {
            format!(
                "{} can be read by anyone on this machine (mode {mode:03o}); chmod 600 restricts it to its owner",
                path.display()
            )
        })
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn a_secret_is_read_without_its_final_newline() {
        for content in ["s3cr3t", "s3cr3t\n", "s3cr3t\r\n", "\u{feff}s3cr3t \n\n"] {
            let file = file(content.as_bytes());

            let secret = read_secret(file.path()).unwrap();

            assert_eq!(secret.expose_secret(), "s3cr3t", "{content:?}");
            assert!(!format!("{secret:?}").contains("s3cr3t"));
        }
    }

    #[test]
    fn a_file_without_a_secret_is_rejected_by_name() {
        for (content, reason) in [
            (Vec::new(), "is empty"),
            (b" \r\n\n".to_vec(), "is empty"),
            (b"\xff\xfes\0e\0c\0".to_vec(), "not UTF-8"),
            (vec![b'x'; MAX_BYTES + 1], "larger than 64 KiB"),
        ] {
            let file = file(&content);

            let error = read_secret(file.path()).unwrap_err().to_string();

            assert!(error.contains(reason), "{error}");
            assert!(
                error.contains(&file.path().display().to_string()),
                "{error}"
            );
        }
    }

    #[test]
    fn the_largest_secret_is_read_whole() {
        let file = file(&vec![b'x'; MAX_BYTES]);

        assert_eq!(
            read_secret(file.path()).unwrap().expose_secret().len(),
            MAX_BYTES
        );
    }

    #[test]
    fn a_missing_file_says_what_to_check() {
        let error = read_secret(Path::new("no/such/secret"))
            .unwrap_err()
            .to_string();

        assert!(error.starts_with("cannot read no/such/secret: "), "{error}");
        assert!(error.contains("check that it exists"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_world_readable_secret_gives_a_warning() {
        use std::os::unix::fs::PermissionsExt as _;

        for (mode, warned) in [
            (0o600, false),
            (0o400, false),
            (0o440, false),
            (0o640, false),
            (0o604, true),
            (0o644, true),
        ] {
            let file = file(b"s3cr3t");
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();

            let warning = permissions_warning(file.path());

            assert_eq!(warning.is_some(), warned, "{mode:o}");
        }
    }
}
