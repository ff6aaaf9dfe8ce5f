//! The client at the other end of a connection.

use std::{net::SocketAddr, sync::Arc};

/// The client as its connection shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address of the client.
    pub address: SocketAddr,
    /// True for TLS.
    pub encrypted: bool,
    /// The common name of its certificate, if our client CA signed one.
    pub certificate_name: Option<Arc<str>>,
}

// === impl Peer ===

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            encrypted: false,
            certificate_name: None,
        }
    }
}
