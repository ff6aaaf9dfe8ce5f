//! A network between replicas and their server that loses what it carries.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// Carries connections to a server. It ends with the test.
pub(crate) struct Relay {
    port: u16,
    network: watch::Sender<Network>,
    accepting: JoinHandle<()>,
}

/// The state of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// All arrives at once.
    Good,
    /// All arrives, so much later.
    Slow(Duration),
    /// Nothing arrives. Connections that lost something end when the network is good again.
    Lossy,
    /// Connections end, and no new ones are made.
    Cut,
    /// Nothing arrives any more, and neither side gets to know it, also when the network is good again.
    HalfOpen,
}

// === impl Relay ===

impl Relay {
    pub(crate) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (network, state) = watch::channel(Network::Good);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, state.clone()));
            }
        });
        Self {
            port,
            network,
            accepting,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.network.send_replace(Network::Cut);
    }
}

async fn carry(client: TcpStream, server: u16, network: watch::Receiver<Network>) {
    let server = SocketAddr::from(([127, 0, 0, 1], server));
    if *network.borrow() == Network::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    for side in [&client, &server] {
        side.set_nodelay(true).unwrap();
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // When one direction ends, both sides are closed.
    tokio::select! {
        () = carry_one_way(from_client, to_server, network.clone()) => {}
        () = carry_one_way(from_server, to_client, network) => {}
    }
}

async fn carry_one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut network: watch::Receiver<Network>,
) {
    let mut bytes = vec![0; 16 * 1024];
    let (mut is_lossy, mut is_deaf) = (false, false);
    loop {
        let now = *network.borrow_and_update();
        is_deaf |= now == Network::HalfOpen;
        match now {
            Network::Cut => return,
            Network::Good if is_lossy => return,
            _ => {}
        }
        let count = tokio::select! {
            count = from.read(&mut bytes) => count.unwrap_or(0),
            changed = network.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        if count == 0 {
            return;
        }
        let now = *network.borrow();
        match now {
            Network::Cut => return,
            Network::Lossy => is_lossy = true,
            Network::HalfOpen => is_deaf = true,
            Network::Slow(delay) => tokio::time::sleep(delay).await,
            Network::Good => {}
        }
        if !is_lossy && !is_deaf && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
