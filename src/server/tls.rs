//! TLS of a listener, with files that are reloaded when they change.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use prometheus::{IntGauge, IntGaugeVec, Registry, register_int_gauge_vec_with_registry};
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

/// The current TLS configuration of one listener, and its files.
#[derive(Debug)]
pub struct ListenerTls {
    files: TlsConfig,
    /// Read at the start of each handshake.
    active: ArcSwap<ActiveTls>,
    metrics: TlsListenerMetrics,
}

/// Metrics of the TLS files of all listeners.
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

/// An error in the files for TLS; its message names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, or this process may not read it.
    #[error("cannot read {path}: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
    /// The key file cannot be read.
    #[error(transparent)]
    Key(#[from] SecretError),
    /// The content of a file is invalid, or files do not match.
    #[error("{0}")]
    Invalid(String),
}

/// A client that sent a certificate.
#[derive(Debug)]
pub(super) struct TlsClient {
    /// The common name of its certificate, which is verified.
    pub(super) name: Arc<str>,
    /// Signals that the certificate is no longer trusted.
    pub(super) trust_end: Arc<DrainSignal>,
}

#[derive(Debug)]
struct ActiveTls {
    config: Arc<ServerConfig>,
    client_ca: Vec<CertificateDer<'static>>,
    /// Begins when a certificate of the client CA was removed.
    trust_end: Arc<DrainSignal>,
}

/// The content of the files.
struct LoadedTls {
    config: ServerConfig,
    /// The issuers of client certificates; empty without a client CA.
    client_ca: Vec<CertificateDer<'static>>,
    /// Unix time.
    expires_at: i64,
}

/// Reads the TLS files of a listener, and returns the expiry of the certificate.
///
/// # Errors
///
/// [`TlsError`] names the file and the error.
pub fn check_files(files: &TlsConfig) -> Result<Timestamp, TlsError> {
    let loaded = load_files(files)?;
    Ok(Timestamp::from_second(loaded.expires_at).unwrap_or(Timestamp::MAX))
}

// === impl ListenerTls ===

impl ListenerTls {
    /// Watches the files, and then reads them with [`ListenerTls::load_files`], so that no change is
    /// missed.
    ///
    /// # Errors
    ///
    /// [`TlsError`] names the file and the error.
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
    /// [`TlsError`] names the file and the error.
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

    /// Reloads the files whenever they change. Invalid files are logged, and the old configuration stays
    /// in use. If a CA of clients was removed, all connections with a client certificate end, because the
    /// old CAs verified it.
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
                        "reloaded the TLS files"
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

    /// Performs the handshake of one connection with the current configuration.
    ///
    /// # Errors
    ///
    /// Fails if the client aborts, or sends a certificate that our client CA did not sign.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<TlsClient>)> {
        let active = self.active.load_full();
        let acceptor = TlsAcceptor::from(Arc::clone(&active.config));
        let limit =
            |session: &mut ServerConnection| session.set_buffer_limit(Some(MAX_UNSENT_BYTES));
        let stream = acceptor.accept_with(stream, limit).await?;
        let client = client_name(&stream).map(|name| TlsClient {
            name,
            trust_end: Arc::clone(&active.trust_end),
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
            // First, so that no handshake with the old CAs is missed.
            self.active.store(Arc::new(after));
            before.trust_end.close();
            tracing::info!(
                "a CA of clients was removed; closing connections with a client certificate"
            );
        }
    }
}

/// Returns true if ALPN selected HTTP/2.
pub(super) fn negotiated_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2)
}

/// Returns the common name of the client's certificate, which is verified by now.
fn client_name(stream: &TlsStream<TcpStream>) -> Option<Arc<str>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    certificate::common_name(certificate).map(Arc::from)
}

/// Returns the path of every configured file.
pub(super) fn file_paths(files: &TlsConfig) -> Vec<PathBuf> {
    let TlsConfig {
        certificate_file,
        key_file,
        client_ca_file,
    } = files;
    let pair = [certificate_file, key_file].into_iter();
    pair.chain(client_ca_file).cloned().collect()
}

/// The most bytes that TLS buffers for the socket: one record.
const MAX_UNSENT_BYTES: usize = 16 * 1024;

/// Names of protocols (RFC 7301 §6).
const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

fn load_files(files: &TlsConfig) -> Result<LoadedTls, TlsError> {
    let chain = read_certificates(&files.certificate_file)?;
    let expires_at = chain
        .first()
        .map_or(Ok(0), certificate::expires_at)
        .map_err(|cause| invalid(&files.certificate_file, cause))?;
    let no_pair = |cause| {
        let (certificate, key) = (files.certificate_file.display(), files.key_file.display());
        TlsError::Invalid(format!("{certificate} and {key} make no pair: {cause}"))
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = read_private_key(&files.key_file)?;
    let pair = CertifiedKey::from_der(chain, key, &provider).map_err(no_pair)?;
    let (verifier, client_ca) = match &files.client_ca_file {
        Some(file) => {
            let client_ca = read_certificates(file)?;
            let verifier = client_verifier(&client_ca, &provider);
            (verifier.map_err(|cause| invalid(file, cause))?, client_ca)
        }
        None => (WebPkiClientVerifier::no_client_auth(), Vec::new()),
    };
    // TLS 1.2 and 1.3, which are all that rustls has.
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(no_pair)?
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
        .ok_or_else(|| no_pem(path, "certificate"))
}

fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = secret::read_secret(path)?;
    PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes())
        .map_err(|_| no_pem(path, "private key"))
}

fn no_pem(path: &Path, expected: &str) -> TlsError {
    TlsError::Invalid(format!("{} holds no {expected} in PEM", path.display()))
}

fn invalid(path: &Path, cause: impl fmt::Display) -> TlsError {
    TlsError::Invalid(format!("{}: {cause}", path.display()))
}

/// Accepts certificates of this CA, and clients without a certificate: their rights are decided later.
fn client_verifier(
    client_ca: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    let mut roots = RootCertStore::empty();
    for certificate in client_ca {
        roots
            .add(certificate.clone())
            .map_err(|_| VerifierBuilderError::NoRootAnchors)?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .allow_unauthenticated()
        .build()
}

// === impl ActiveTls ===

impl ActiveTls {
    fn new(loaded: LoadedTls) -> Self {
        Self {
            config: Arc::new(loaded.config),
            client_ca: loaded.client_ca,
            trust_end: Arc::default(),
        }
    }

    /// Returns true if `other` also trusts every certificate that this verified.
    fn is_trusted_by(&self, other: &Self) -> bool {
        self.client_ca.iter().all(|ca| other.client_ca.contains(ca))
    }
}

// === impl TlsMetrics ===

impl TlsMetrics {
    const LISTENERS: [&'static str; 2] = ["api", "admin"];

    /// Registers all metrics, with the values of a listener without TLS.
    ///
    /// # Errors
    ///
    /// Fails if one of them is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let family = |name, help, without_tls| {
            let gauges =
                register_int_gauge_vec_with_registry!(name, help, &["listener"], registry)?;
            for listener in Self::LISTENERS {
                gauges.with_label_values(&[listener]).set(without_tls);
            }
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

// === impl TlsListenerMetrics ===

impl TlsListenerMetrics {
    fn record_loaded(&self, expires_at: i64) {
        self.expiry.set(expires_at);
        self.reloaded.set(1);
    }
}
