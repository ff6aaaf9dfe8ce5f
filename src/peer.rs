//! Who is at the other end of a connection.

use std::{net::SocketAddr, sync::Arc};

/// The other end of a connection, as far as the connection itself shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it connects from.
    pub address: SocketAddr,
    /// Whether the connection itself is encrypted.
    pub encrypted: bool,
    /// The common name of its certificate, where it showed one that our client CA signed.
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
