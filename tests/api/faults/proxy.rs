//! A proxy between the service and its simulator that gets the transport wrong on demand.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use usage_proxy::clock::{Clock, ManualClock};

/// The header of a body's length, as the simulator writes it.
const LENGTH: &str = "content-length: ";

/// A fault of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// Nothing: requests and answers pass as they come.
    None,
    /// It is refused, for nothing listens.
    Refused,
    /// It is not even answered: the listener accepts nothing, and its queue is full.
    NeverAccepted,
    /// It is half open: accepted, and silent for ever.
    Silent,
    /// It speaks another protocol.
    Foreign,
    /// Its answers come so much later.
    Late(Duration),
    /// Its answers come so many bytes at a time, with a pause before each piece.
    Narrow { bytes: usize, pause: Duration },
    /// Its answer breaks off.
    Cut(Point, End),
    /// Its answer tells no length, and breaks off in mid-body.
    CutUnmeasured,
    /// Its answer tells no length, and the connection is closed so much later.
    SlowClose(Duration),
    /// Its answer tells no length, and the connection is never closed.
    NoClose,
    /// It is lost as soon as it is used a second time.
    LostWhenReused,
}

/// The point at which an answer breaks off.
#[derive(Clone, Copy, Debug)]
pub(super) enum Point {
    /// Before its first byte.
    Start,
    /// Between two header fields.
    Head,
    /// Between the first byte of the body and the last.
    Body,
}

/// The way in which a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// In order: FIN.
    Close,
    /// At once: RST.
    Reset,
}

/// The proxy; what it does wrong concerns the connections from then on.
pub(super) struct FaultProxy {
    address: SocketAddr,
    /// Bound and not listening: it keeps the port ours while nothing listens there.
    _reserved: TcpSocket,
    upstream: Option<SocketAddr>,
    clock: Option<Arc<ManualClock>>,
    accepting: Option<JoinHandle<()>>,
    connections: TaskTracker,
    closing: CancellationToken,
}

/// A connection of the service's.
struct Connection {
    service: TcpStream,
    upstream: SocketAddr,
    fault: Fault,
    clock: Arc<ManualClock>,
}

/// A request or an answer, whole.
struct Message {
    bytes: Vec<u8>,
    /// Bytes of the head, with the empty line at its end.
    head: usize,
}

// === impl FaultProxy ===

impl FaultProxy {
    /// Takes a port, where nothing listens until [`FaultProxy::lead_to`].
    pub(super) fn bind() -> Self {
        let reserved = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        Self {
            address: reserved.local_addr().unwrap(),
            _reserved: reserved,
            upstream: None,
            clock: None,
            accepting: None,
            connections: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to pass everything on to `upstream`. Pauses are made by `clock`.
    pub(super) async fn lead_to(&mut self, upstream: SocketAddr, clock: &Arc<ManualClock>) {
        self.upstream = Some(upstream);
        self.clock = Some(Arc::clone(clock));
        self.set(Fault::None).await;
    }

    /// Closes every connection, waits until the other side has noticed, and continues with `fault`.
    pub(super) async fn set(&mut self, fault: Fault) {
        self.go_on_with(fault, fault).await;
    }

    /// The same, with `fault` for one connection and none for those after it.
    pub(super) async fn set_once(&mut self, fault: Fault) {
        self.go_on_with(fault, Fault::None).await;
    }

    async fn go_on_with(&mut self, first: Fault, others: Fault) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // The listener is closed once this is over, which is all that counts.
            drop(accepting.await);
        }
        self.closing.cancel();
        self.connections.close();
        self.connections.wait().await;
        (self.connections, self.closing) = (TaskTracker::new(), CancellationToken::new());
        self.accepting = match first {
            Fault::Refused => None,
            Fault::NeverAccepted => Some(clog(self.address).await),
            _ => Some(self.accept(first, others)),
        };
    }

    fn accept(&self, first: Fault, others: Fault) -> JoinHandle<()> {
        let listener = listen(self.address, 64);
        let (upstream, clock) = (self.upstream.unwrap(), self.clock.clone().unwrap());
        let (connections, closing) = (self.connections.clone(), self.closing.clone());
        tokio::spawn(async move {
            let mut fault = first;
            loop {
                let (service, _) = listener.accept().await.unwrap();
                let connection = Connection {
                    service,
                    upstream,
                    fault,
                    clock: Arc::clone(&clock),
                };
                connections.spawn(connection.serve(closing.clone()));
                fault = others;
            }
        })
    }
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn listen(address: SocketAddr, backlog: u32) -> TcpListener {
    socket(address).unwrap().listen(backlog).unwrap()
}

/// Listens, with a queue that one connection fills.
async fn clog(address: SocketAddr) -> JoinHandle<()> {
    let listener = listen(address, 0);
    let filler = TcpStream::connect(address).await.unwrap();
    tokio::spawn(async move {
        let _held = (listener, filler);
        std::future::pending().await
    })
}

// === impl Connection ===

impl Connection {
    /// Plays the fault to its end or until `closing`, and then waits for the other side to close.
    async fn serve(mut self, closing: CancellationToken) {
        let played = tokio::select! {
            end = self.play() => end,
            () = closing.cancelled() => Ok(End::Close),
        };
        // An error means that the service has given the connection up, and so has no more to see.
        if played.is_ok_and(|end| end == End::Reset) {
            return self.service.set_zero_linger().unwrap();
        }
        drop(self.service.shutdown().await);
        drop(tokio::io::copy(&mut self.service, &mut tokio::io::sink()).await);
    }

    async fn play(&mut self) -> io::Result<End> {
        match self.fault {
            Fault::Silent => std::future::pending().await,
            Fault::Foreign => {
                self.service.read_u8().await?;
                self.service.write_all(b"220 ready for mail\r\n").await?;
                return Ok(End::Close);
            }
            _ => {}
        }
        let mut upstream = TcpStream::connect(self.upstream).await?;
        let mut used = false;
        while let Some(request) = Message::read(&mut self.service).await? {
            if used && matches!(self.fault, Fault::LostWhenReused) {
                return Ok(End::Reset);
            }
            upstream.write_all(&request.bytes).await?;
            let answer = Message::read(&mut upstream).await?.unwrap();
            if let Some(end) = self.answer(answer).await? {
                return Ok(end);
            }
            used = true;
        }
        Ok(End::Close)
    }

    /// Passes an answer on as the fault has it; says how the connection is to end, if it is.
    async fn answer(&mut self, answer: Message) -> io::Result<Option<End>> {
        match self.fault {
            Fault::Cut(point, end) => {
                self.service.write_all(answer.until(point)).await?;
                Ok(Some(end))
            }
            Fault::CutUnmeasured => {
                let answer = answer.unmeasured();
                self.service.write_all(answer.until(Point::Body)).await?;
                Ok(Some(End::Close))
            }
            Fault::SlowClose(pause) => {
                self.service.write_all(&answer.unmeasured().bytes).await?;
                self.pause(pause).await;
                Ok(Some(End::Close))
            }
            Fault::NoClose => {
                self.service.write_all(&answer.unmeasured().bytes).await?;
                std::future::pending().await
            }
            Fault::Late(pause) => {
                self.pause(pause).await;
                self.service.write_all(&answer.bytes).await?;
                Ok(None)
            }
            Fault::Narrow { bytes, pause } => {
                for piece in answer.bytes.chunks(bytes) {
                    self.pause(pause).await;
                    self.service.write_all(piece).await?;
                }
                Ok(None)
            }
            _ => {
                self.service.write_all(&answer.bytes).await?;
                Ok(None)
            }
        }
    }

    async fn pause(&self, pause: Duration) {
        self.clock.sleep_until(self.clock.now() + pause).await;
    }
}

// === impl Message ===

impl Message {
    /// Reads one; `None` where the connection ends before it.
    async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        loop {
            if let Some(message) = Self::whole(&bytes) {
                return Ok(Some(message));
            }
            if from.read_buf(&mut bytes).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn whole(bytes: &[u8]) -> Option<Self> {
        const END: &[u8] = b"\r\n\r\n";
        let head = bytes.windows(END.len()).position(|four| four == END)? + END.len();
        let length = std::str::from_utf8(&bytes[..head])
            .unwrap()
            .lines()
            .find_map(|line| line.strip_prefix(LENGTH))
            .map_or(0, |length| length.parse().unwrap());
        (bytes.len() >= head + length).then(|| Self {
            bytes: bytes.to_vec(),
            head,
        })
    }

    /// Returns the same answer without its length, so that its body ends with the connection.
    fn unmeasured(&self) -> Self {
        let (head, body) = self.bytes.split_at(self.head);
        let head = std::str::from_utf8(head).unwrap();
        let length = head.lines().find(|line| line.starts_with(LENGTH)).unwrap();
        let head = head.replace(length, "connection: close");
        Self {
            bytes: [head.as_bytes(), body].concat(),
            head: head.len(),
        }
    }

    fn until(&self, point: Point) -> &[u8] {
        let end = match point {
            Point::Start => 0,
            Point::Head => self.head - 1,
            Point::Body => (self.head + self.bytes.len()) / 2,
        };
        &self.bytes[..end]
    }
}
