//! Binds the addresses of listeners.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

use crate::config::is_loopback_address;

/// A listening socket and its real address, also if port 0 was configured.
#[derive(Debug)]
pub struct BoundSocket {
    /// The socket.
    pub listener: TcpListener,
    /// Its address.
    pub address: SocketAddr,
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key} = {address} cannot be listened on: {reason}")]
pub struct BindError {
    /// The configuration key.
    pub key: &'static str,
    /// Its value.
    pub address: SocketAddr,
    /// The cause, and what to do.
    pub reason: String,
}

// === impl BoundSocket ===

impl BoundSocket {
    /// Binds the address that `key` configures, or takes the socket that was passed on for it.
    ///
    /// # Errors
    ///
    /// [`BindError`], also if others can reach the inherited socket and the configured address is on
    /// the loopback: rules about exposure are checked against the configuration.
    pub async fn bind(
        key: &'static str,
        configured: SocketAddr,
        inherited: Option<std::net::TcpListener>,
    ) -> Result<Self, BindError> {
        let failed = |reason| BindError {
            key,
            address: configured,
            reason,
        };
        let socket = Self::open(configured, inherited)
            .await
            .map_err(|error| failed(bind_failure_advice(&error)))?;
        if is_loopback_address(configured) && !is_loopback_address(socket.address) {
            let address = socket.address;
            return Err(failed(format!(
                "the inherited socket is {address}, which others can reach; configure that address"
            )));
        }
        Ok(socket)
    }

    async fn open(
        configured: SocketAddr,
        inherited: Option<std::net::TcpListener>,
    ) -> io::Result<Self> {
        let listener = match inherited {
            Some(socket) => {
                socket.set_nonblocking(true)?;
                TcpListener::from_std(socket)?
            }
            None => TcpListener::bind(configured).await?,
        };
        Ok(Self {
            address: listener.local_addr()?,
            listener,
        })
    }
}

/// Returns the reason why an address cannot be listened on, and what to do.
pub fn bind_failure_advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; stop it, or choose another port".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "that is not allowed; choose a port above 1023, or grant the right to bind it"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; choose one that it has".to_owned()
        }
        _ => error.to_string(),
    }
}
