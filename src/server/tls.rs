//! TLS on a listener, by files that are read again when they change.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
    sign::SingleCertAndKey,
};
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::drain::DrainSignal;
use crate::{
    certificate,
    clock::SharedClock,
    config::{
        TlsConfig,
        secret::{self, SecretError},
    },
    offload,
    reload::{FileWatch, Reload},
};

/// The TLS of one listener: what is in force now, and where it came from.
#[derive(Debug)]
pub struct ListenerTls {
    files: TlsConfig,
    /// Each handshake takes what is in force when it begins; connections keep theirs.
    active: ArcSwap<ActiveTls>,
    metrics: TlsListenerMetrics,
}

/// What the files of TLS come to, for every listener.
#[derive(Clone, Debug)]
pub struct TlsMetrics {
    expiry: IntGaugeVec,
    reloaded: IntGaugeVec,
}

#[derive(Debug)]
struct TlsListenerMetrics {
    expiry: IntGauge,
    reloaded: IntGauge,
}

/// Why files make no TLS; each names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, or this process may not read it.
    #[error("cannot read {path}: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The file of the key cannot be read as one.
    #[error(transparent)]
    Key(#[from] SecretError),
    /// A file holds no PEM of that kind.
    #[error("{path} holds no {expected} in PEM")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        expected: &'static str,
    },
    /// Certificate and key do not go together, or cannot be used.
    #[error("{certificate} and {key} make no pair: {cause}")]
    KeyPair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of its key.
        key: PathBuf,
        /// What rustls says.
        cause: rustls::Error,
    },
    /// The certificate is not one of X.509.
    #[error("{path}: {cause}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: x509_cert::der::Error,
    },
    /// The CA of clients cannot be used.
    #[error("{path}: {cause}")]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What rustls says.
        cause: VerifierBuilderError,
    },
}

/// A client that showed a certificate.
#[derive(Debug)]
pub(super) struct TlsClient {
    /// The common name of its certificate, which is verified.
    pub(super) name: Arc<str>,
    /// The end of what the certificate is worth.
    pub(super) trust_end: Arc<DrainSignal>,
}

#[derive(Debug)]
struct ActiveTls {
    config: Arc<ServerConfig>,
    client_ca: Vec<CertificateDer<'static>>,
    /// Begins when one of the client CA is no longer among it.
    trust_end: Arc<DrainSignal>,
}

/// What was read from the files.
struct LoadedTls {
    config: ServerConfig,
    /// Whose certificates clients may show; none without a client CA.
    client_ca: Vec<CertificateDer<'static>>,
    /// Unix time.
    expires_at: i64,
}

/// Reads the files of a listener's TLS, and says when the certificate ends.
///
/// # Errors
///
/// [`TlsError`] says what is wrong with them.
pub fn check_files(files: &TlsConfig) -> Result<Timestamp, TlsError> {
    let loaded = load_files(files)?;
    Ok(Timestamp::from_second(loaded.expires_at).unwrap_or(Timestamp::MAX))
}

// === impl Tls ===

impl ListenerTls {
    /// Watches the files, and then reads them as [`ListenerTls::load_files`] does: a change that falls in between
    /// is seen by the watch.
    ///
    /// # Errors
    ///
    /// [`TlsError`] names the file and what is wrong with it.
    pub async fn load_watched(
        files: TlsConfig,
        listener: &'static str,
        metrics: &TlsMetrics,
        reload: &Reload,
        clock: SharedClock,
    ) -> Result<(Arc<Self>, FileWatch), TlsError> {
        let watch = reload.watch(file_paths(&files), clock).await;
        Ok((Self::load_files(files, listener, metrics)?, watch))
    }

    /// Reads the files for the listener of this name.
    ///
    /// # Errors
    ///
    /// [`TlsError`] names the file and what is wrong with it.
    pub fn load_files(
        files: TlsConfig,
        listener: &'static str,
        metrics: &TlsMetrics,
    ) -> Result<Arc<Self>, TlsError> {
        let loaded = load_files(&files)?;
        let metrics = metrics.for_listener(listener);
        metrics.record_loaded(loaded.expires_at);
        Ok(Arc::new(Self {
            files,
            active: ArcSwap::from_pointee(ActiveTls::new(loaded)),
            metrics,
        }))
    }

    /// Reads the files again whenever they change; what is broken is logged, and leaves the old in
    /// force. Where a CA of clients is gone, the connections of all who showed a certificate end: it
    /// was judged by the old ones, and they are to show it again.
    pub async fn reload_on_change(self: Arc<Self>, mut watch: FileWatch) {
        loop {
            watch.changed().await;
            let files = self.files.clone();
            match offload::spawn_blocking(move || load_files(&files)).await {
                Ok(loaded) => {
                    let expires_at = loaded.expires_at;
                    self.apply(loaded);
                    self.metrics.record_loaded(expires_at);
                    tracing::info!(
                        certificate = %self.files.certificate_file.display(),
                        "took over a certificate that was read again"
                    );
                }
                Err(error) => {
                    self.metrics.reloaded.set(0);
                    tracing::error!(
                        %error,
                        "the files of TLS were read again and are broken; keeping the old ones"
                    );
                }
            }
        }
    }

    /// The handshake of one connection, by what is in force now.
    ///
    /// # Errors
    ///
    /// When the client cannot or will not, or shows a certificate that our client CA did not sign.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<TlsClient>)> {
        let in_force = self.active.load_full();
        let acceptor = TlsAcceptor::from(Arc::clone(&in_force.config));
        let limit =
            |session: &mut ServerConnection| session.set_buffer_limit(Some(MAX_UNSENT_BYTES));
        let stream = acceptor.accept_with(stream, limit).await?;
        let client = client_name(&stream).map(|name| TlsClient {
            name,
            trust_end: Arc::clone(&in_force.trust_end),
        });
        Ok((stream, client))
    }

    fn apply(&self, loaded: LoadedTls) {
        let before = self.active.load_full();
        let mut after = ActiveTls::new(loaded);
        if before.is_trusted_by(&after) {
            after.trust_end = Arc::clone(&before.trust_end);
            self.active.store(Arc::new(after));
        } else {
            // First, so that no handshake under the old ones goes unnoticed.
            self.active.store(Arc::new(after));
            before.trust_end.close();
            tracing::info!("a CA of clients is gone; closing what showed a certificate");
        }
    }
}

/// Whether a client agreed to speak HTTP/2.
pub(super) fn negotiated_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2)
}

/// The common name of the certificate that the client showed, which is verified by now.
fn client_name(stream: &TlsStream<TcpStream>) -> Option<Arc<str>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    certificate::common_name(certificate).map(Arc::from)
}

/// Every file that is named.
pub(super) fn file_paths(files: &TlsConfig) -> Vec<PathBuf> {
    let TlsConfig {
        certificate_file,
        key_file,
        client_ca_file,
    } = files;
    let pair = [certificate_file, key_file].into_iter();
    pair.chain(client_ca_file).cloned().collect()
}

/// Bytes that TLS takes ahead of the socket: a record, rather than four.
const MAX_UNSENT_BYTES: usize = 16 * 1024;

/// Names of protocols (RFC 7301 §6).
const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

fn load_files(files: &TlsConfig) -> Result<LoadedTls, TlsError> {
    let chain = read_certificates(&files.certificate_file)?;
    let expires_at = chain
        .first()
        .map_or(Ok(0), certificate::expires_at)
        .map_err(|cause| TlsError::Certificate {
            path: files.certificate_file.clone(),
            cause,
        })?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let pair = CertifiedKey::from_der(chain, read_private_key(&files.key_file)?, &provider)
        .map_err(|cause| TlsError::KeyPair {
            certificate: files.certificate_file.clone(),
            key: files.key_file.clone(),
            cause,
        })?;
    let (verifier, client_ca) = match &files.client_ca_file {
        Some(file) => {
            let client_ca = read_certificates(file)?;
            (client_verifier(file, &client_ca, &provider)?, client_ca)
        }
        None => (WebPkiClientVerifier::no_client_auth(), Vec::new()),
    };
    // TLS 1.2 and 1.3, which are all that rustls has.
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(|cause| TlsError::KeyPair {
            certificate: files.certificate_file.clone(),
            key: files.key_file.clone(),
            cause,
        })?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
    Ok(LoadedTls {
        config,
        client_ca,
        expires_at,
    })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = std::fs::read(path).map_err(|cause| TlsError::Unreadable {
        path: path.to_owned(),
        cause,
    })?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| TlsError::Pem {
            path: path.to_owned(),
            expected: "certificate",
        })
}

fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = secret::read_secret(path)?;
    PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes()).map_err(|_| TlsError::Pem {
        path: path.to_owned(),
        expected: "private key",
    })
}

/// Clients may show a certificate of this CA, or none: what they may do without is not ours to say.
fn client_verifier(
    path: &Path,
    client_ca: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let refused = |cause| TlsError::ClientCa {
        path: path.to_owned(),
        cause,
    };
    let mut roots = RootCertStore::empty();
    for certificate in client_ca {
        roots
            .add(certificate.clone())
            .map_err(|_| refused(VerifierBuilderError::NoRootAnchors))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .allow_unauthenticated()
        .build()
        .map_err(refused)
}

// === impl InForce ===

impl ActiveTls {
    fn new(loaded: LoadedTls) -> Self {
        Self {
            config: Arc::new(loaded.config),
            client_ca: loaded.client_ca,
            trust_end: Arc::default(),
        }
    }

    /// Whether every certificate that was verified by this would be by `other`.
    fn is_trusted_by(&self, other: &Self) -> bool {
        self.client_ca.iter().all(|ca| other.client_ca.contains(ca))
    }
}

// === impl TlsMetrics ===

impl TlsMetrics {
    const LISTENERS: [&'static str; 2] = ["api", "admin"];

    /// Registers every family, each child as it is without TLS, where nothing can be broken.
    ///
    /// # Errors
    ///
    /// When one of them is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let family = |name, help, without_tls| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["listener"])?;
            for listener in Self::LISTENERS {
                gauges.with_label_values(&[listener]).set(without_tls);
            }
            registry.register(Box::new(gauges.clone()))?;
            prometheus::Result::Ok(gauges)
        };
        Ok(Self {
            expiry: family(
                "usage_proxy_tls_certificate_expiry_timestamp_seconds",
                "When the certificate of a listener expires, in Unix time; 0 without TLS.",
                0,
            )?,
            reloaded: family(
                "usage_proxy_tls_last_reload_successful",
                "Whether the files of TLS were in order when last read; 1 without TLS.",
                1,
            )?,
        })
    }

    fn for_listener(&self, listener: &str) -> TlsListenerMetrics {
        TlsListenerMetrics {
            expiry: self.expiry.with_label_values(&[listener]),
            reloaded: self.reloaded.with_label_values(&[listener]),
        }
    }
}

// === impl ListenerMetrics ===

impl TlsListenerMetrics {
    fn record_loaded(&self, expires_at: i64) {
        self.expiry.set(expires_at);
        self.reloaded.set(1);
    }
}
