//! The memory and open files of the service, as Linux reports them.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use crate::support::PATIENCE;

const MIB: u64 = 1024 * 1024;

/// The limit of the cache: `cache.max_bytes`.
pub(crate) const CACHE: u64 = 8 * MIB;

/// Resident memory that is never exceeded, part by part.
pub(crate) const BOUND: u64 = PROGRAM + CACHE + FAILURES + CONNECTIONS + LOG + UNREAD;

/// The program with two threads, as it is at rest: 56 MiB in a debug build, half of which are pages
/// of its own file, and more of these as more of it is used. A release build takes half as much.
const PROGRAM: u64 = 56 * MIB;

/// Absences and faults that are remembered, 10,000 of each at most: 1.2 KiB each, as measured. This
/// part is why a million customers that there are not take no more than ten thousand do.
const FAILURES: u64 = 2 * 10_000 * 5 * 1024 / 4;

/// The thousand connections that the soak holds open: slow readers of long answers take several
/// times as much, idlers nearly nothing.
const CONNECTIONS: u64 = 1_000 * 32 * 1024;

/// The lines that wait for room in a pipe that nothing reads: 4,096 at most.
const LOG: u64 = 4_096 * 600;

/// Answers that the strangers, who are one caller, leave unread.
const UNREAD: u64 = 16 * MIB;

/// Bytes, displayed in MiB.
pub(crate) struct Mebibytes(pub(crate) u64);

// === impl Mebibytes ===

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 / MIB)
    }
}

/// Memory resident now.
pub(crate) fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The most that was ever resident.
pub(crate) fn peak(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// Returns the number of open files, which includes connections.
pub(crate) fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

/// Prints the resident memory every ten seconds.
pub(crate) async fn watch(pid: u32, until: Instant) {
    let started = Instant::now();
    while Instant::now() + Duration::from_secs(10) < until {
        tokio::time::sleep(Duration::from_secs(10)).await;
        println!(
            "after {} s: {}, {} files open",
            started.elapsed().as_secs(),
            Mebibytes(resident(pid)),
            open_files(pid)
        );
    }
}

/// Waits until about as few files are open as before: those who went away are forgotten.
pub(crate) async fn wait_until_closed(pid: u32, before: usize) {
    /// Idle connections to the simulator.
    const POOL: usize = 40;

    let closed = async {
        while open_files(pid) > before + POOL {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, closed).await.is_err() {
        panic!("{} files are open, {before} before", open_files(pid));
    }
}

/// A line of `/proc/PID/status` that is in kB.
fn status(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<u64>().unwrap() * 1024
}
