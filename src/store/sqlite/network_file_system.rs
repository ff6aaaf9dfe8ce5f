//! File systems on which SQLite's log (WAL) does not work.
//!
//! All processes that use a WAL share memory, which a network file system cannot give them, and its
//! locks may not hold: the file would be damaged. See <https://www.sqlite.org/wal.html>, "Disadvantages".

use std::path::Path;

/// The `f_type` of statfs(2) for file systems that other machines can use at the same time.
#[cfg(target_os = "linux")]
const NETWORK_FILE_SYSTEMS: [(i128, &str); 11] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB 2"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
];

/// Returns the name of the network file system that a path is on, if it is on one.
#[cfg(target_os = "linux")]
pub(super) fn of(path: &Path) -> Option<&'static str> {
    // An error means that the file cannot be opened either, which says so itself.
    let statistics = rustix::fs::statfs(path).ok()?;
    name(i128::from(statistics.f_type))
}

/// Returns `None`: only Linux says.
#[cfg(not(target_os = "linux"))]
pub(super) fn of(_: &Path) -> Option<&'static str> {
    None
}

#[cfg(target_os = "linux")]
fn name(kind: i128) -> Option<&'static str> {
    // Some systems have 32 bits with a sign for it.
    let kind = kind & 0xffff_ffff;
    let known = NETWORK_FILE_SYSTEMS.iter();
    known
        .copied()
        .find(|(number, _)| *number == kind)
        .map(|(_, name)| name)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_recognized() {
        assert_eq!(name(0x6969), Some("NFS"));
        assert_eq!(
            name(i128::from(0xff53_4d42_u32.cast_signed())),
            Some("CIFS")
        );
        assert_eq!(name(0xef53), None, "ext4");
    }

    #[test]
    fn a_local_folder_is_on_no_network() {
        assert_eq!(of(&std::env::temp_dir()), None);
    }
}
