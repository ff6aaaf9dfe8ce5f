//! Listening sockets that a service manager opened before this process, so that a restart refuses no
//! connection.
//!
//! This is systemd's protocol, which others use too: `LISTEN_FDS` sockets from descriptor 3 on, with
//! the names of `LISTEN_FDNAMES`. Connections queue at a socket while any process has it open, and
//! two processes that have it open share the queue.

use std::{io, net::TcpListener};

use listenfd::ListenFd;

/// The sockets that were passed to this process; the service opens the others itself.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    /// The API listener.
    pub api: Option<TcpListener>,
    /// The admin listener.
    pub admin: Option<TcpListener>,
}

/// Sockets that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketActivationError {
    /// More sockets than listeners.
    #[error("LISTEN_FDS passes {0} sockets; expected one for the API, and perhaps one for admin")]
    TooMany(usize),
    /// A name of no listener.
    #[error("LISTEN_FDNAMES names a socket {0:?}; expected api or admin")]
    UnknownName(String),
    /// A name given twice.
    #[error("LISTEN_FDNAMES names {0} twice")]
    Repeated(&'static str),
    /// No listening TCP socket.
    #[error("the socket for {listener} cannot be used: {cause}")]
    NotListening {
        /// `api` or `admin`.
        listener: &'static str,
        /// The system's error.
        cause: io::Error,
    },
}

/// The listener of each socket, in order.
type SocketRoles = Vec<&'static str>;

// === impl InheritedSockets ===

impl InheritedSockets {
    /// Takes the sockets of this process once: it removes variables from the environment, so no other
    /// thread may run yet.
    ///
    /// # Errors
    ///
    /// [`SocketActivationError`] if that is not one socket for each listener.
    pub fn from_environment() -> Result<Self, SocketActivationError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the protocol of the service manager, not configuration"
        )]
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut passed = ListenFd::from_env();
        let mut inherited = Self::default();
        for (place, listener) in assign_sockets(passed.len(), &names)?
            .into_iter()
            .enumerate()
        {
            let socket = passed
                .take_tcp_listener(place)
                .map_err(|cause| SocketActivationError::NotListening { listener, cause })?;
            let slot = match listener {
                API => &mut inherited.api,
                _ => &mut inherited.admin,
            };
            if slot.is_some() {
                return Err(SocketActivationError::Repeated(listener));
            }
            *slot = socket;
        }
        Ok(inherited)
    }
}

const API: &str = "api";
const ADMIN: &str = "admin";

/// Assigns the sockets by name if the names are ours, or else in order: a socket unit with two
/// addresses passes both with the unit's name.
fn assign_sockets(count: usize, names: &str) -> Result<SocketRoles, SocketActivationError> {
    let names: Vec<_> = names.split(':').collect();
    if count > 2 {
        return Err(SocketActivationError::TooMany(count));
    }
    if !names.iter().any(|name| [API, ADMIN].contains(name)) {
        return Ok([API, ADMIN].into_iter().take(count).collect());
    }
    let named = names.into_iter().take(count).map(|name| match name {
        "api" => Ok(API),
        "admin" => Ok(ADMIN),
        other => Err(SocketActivationError::UnknownName(other.to_owned())),
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_assigned_by_name_or_else_by_order() {
        for (count, names, expected) in [
            (0, "", &[][..]),
            (1, "", &["api"]),
            (2, "", &["api", "admin"]),
            (
                2,
                "usage-proxy.socket:usage-proxy.socket",
                &["api", "admin"],
            ),
            (2, "admin:api", &["admin", "api"]),
            (1, "admin", &["admin"]),
        ] {
            assert_eq!(
                assign_sockets(count, names).unwrap(),
                expected,
                "{count} {names}"
            );
        }
    }

    #[test]
    fn sockets_without_a_listener_are_rejected() {
        assert!(matches!(
            assign_sockets(3, ""),
            Err(SocketActivationError::TooMany(3))
        ));
        assert!(matches!(
            assign_sockets(2, "api:metrics"),
            Err(SocketActivationError::UnknownName(name)) if name == "metrics"
        ));
    }
}
