//! The limit of open files of the process, which includes its connections.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::ServerConfig;

/// Files besides the connections of the API listener: those of the admin listener, of the upstream and
/// of the program itself.
const RESERVED_FILES: u64 = 1_200;

/// Raises the limit to what the system allows. Returns a warning where that is below what
/// `server.max_connections` needs.
pub fn raise_limit(server: &ServerConfig) -> Option<String> {
    let allowed = match raise_to_hard_limit() {
        Ok(allowed) => allowed,
        Err(error) => return Some(format!("the limit of open files cannot be raised: {error}")),
    };
    let needed = server.max_connections.get() as u64 + RESERVED_FILES;
    (allowed < needed).then(|| {
        format!(
            "the system allows {allowed} open files, and server.max_connections = {} needs \
             {needed}: raise the hard limit (LimitNOFILE of systemd, `ulimit -Hn`), or lower \
             server.max_connections",
            server.max_connections
        )
    })
}

/// Returns the limit that is then in use.
fn raise_to_hard_limit() -> io::Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // A sandbox may forbid the call, so it is made only if there is something to raise.
    if current != maximum {
        let current = maximum;
        setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    }
    Ok(maximum.unwrap_or(u64::MAX))
}
