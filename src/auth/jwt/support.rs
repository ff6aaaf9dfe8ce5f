//! Test support: an issuer with keys and tokens, and a server that publishes the keys.
//!
//! `tests/api` includes this file too, so it uses nothing of the crate. It does not use the library
//! that verifies tokens either, or both could be wrong in the same way.

use std::{
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use aws_lc_rs::{
    encoding::AsDer,
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        self, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding,
        RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, SemaphorePermit, watch},
    task::JoinSet,
};

// === Signer ===

/// A key pair with a name.
pub(crate) struct TestSigner {
    id: String,
    key_pair: Arc<TestKeyPair>,
}

enum TestKeyPair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// Generated once, because it is slow.
static RSA: LazyLock<Arc<TestKeyPair>> = LazyLock::new(|| {
    Arc::new(TestKeyPair::Rsa(
        RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
    ))
});

impl TestSigner {
    /// Creates a signer with the RSA key that all tests share.
    pub(crate) fn rsa(id: &str) -> Self {
        Self::new(id, Arc::clone(&RSA))
    }

    /// Creates a signer with a new key.
    pub(crate) fn ec(id: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self::new(id, Arc::new(TestKeyPair::Ec(pair)))
    }

    pub(crate) fn ed(id: &str) -> Self {
        Self::new(
            id,
            Arc::new(TestKeyPair::Ed(Ed25519KeyPair::generate().unwrap())),
        )
    }

    fn new(id: &str, pair: Arc<TestKeyPair>) -> Self {
        let id = id.to_owned();
        Self { id, key_pair: pair }
    }

    /// Returns the public key without `alg`, as Entra ID publishes its keys.
    pub(crate) fn jwk(&self) -> Value {
        match &*self.key_pair {
            TestKeyPair::Rsa(pair) => json!({
                "kty": "RSA", "use": "sig", "kid": self.id,
                "n": base64url(pair.public_key().modulus().big_endian_without_leading_zero()),
                "e": base64url(pair.public_key().exponent().big_endian_without_leading_zero()),
            }),
            TestKeyPair::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({
                    "kty": "EC", "use": "sig", "kid": self.id, "crv": "P-256",
                    "x": base64url(&point[1..33]), "y": base64url(&point[33..]),
                })
            }
            TestKeyPair::Ed(pair) => json!({
                "kty": "OKP", "use": "sig", "kid": self.id, "crv": "Ed25519",
                "x": base64url(pair.public_key().as_ref()),
            }),
        }
    }

    /// Returns the public key in DER, which an attacker could use as a shared secret.
    pub(crate) fn public_der(&self) -> Vec<u8> {
        match &*self.key_pair {
            TestKeyPair::Rsa(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            TestKeyPair::Ec(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            TestKeyPair::Ed(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// Returns a token with the usual header.
    pub(crate) fn token(&self, algorithm: &str, claims: &Value) -> String {
        let header = json!({"typ": "JWT", "alg": algorithm, "kid": self.id});
        self.token_with(&header, algorithm, claims)
    }

    /// Returns a token with any header, signed with `algorithm`.
    pub(crate) fn token_with(&self, header: &Value, algorithm: &str, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = self.sign(algorithm, message.as_bytes());
        format!("{message}.{}", base64url(&signature))
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        match &*self.key_pair {
            TestKeyPair::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    other => panic!("RSA does not sign with {other}"),
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                let random = SystemRandom::new();
                pair.sign(encoding, &random, message, &mut signature)
                    .unwrap();
                signature
            }
            TestKeyPair::Ec(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message).unwrap();
                signature.as_ref().to_vec()
            }
            TestKeyPair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// Returns a token signed with a shared secret.
pub(crate) fn hmac_token(key_id: &str, secret: &[u8], claims: &Value) -> String {
    let message = message(&json!({"alg": "HS256", "kid": key_id}), claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", base64url(signature.as_ref()))
}

pub(crate) fn message(header: &Value, claims: &Value) -> String {
    let part = |part: &Value| base64url(part.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

pub(crate) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

// === Issuer ===

/// A server that publishes keys, until it is dropped.
pub(crate) struct TestIssuer {
    pub(crate) url: String,
    state: Arc<TestIssuerState>,
    _serving: JoinSet<()>,
}

struct TestIssuerState {
    /// The status and body of the next replies.
    reply: Mutex<(u16, String)>,
    fetch_count: watch::Sender<usize>,
    /// Each reply takes the permit for a moment.
    reply_permit: Semaphore,
}

impl TestIssuer {
    pub(crate) async fn start(signers: &[&TestSigner]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let state = Arc::new(TestIssuerState {
            reply: Mutex::new((200, jwks(signers))),
            fetch_count: watch::Sender::default(),
            reply_permit: Semaphore::new(1),
        });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&state)));
        Self {
            url,
            state,
            _serving: serving,
        }
    }

    /// Publishes these keys.
    pub(crate) fn publish(&self, signers: &[&TestSigner]) {
        self.set_response(200, &jwks(signers));
    }

    /// Sends this status and body from now on.
    pub(crate) fn set_response(&self, status: u16, body: &str) {
        *self.state.reply.lock().unwrap() = (status, body.to_owned());
    }

    /// Holds back all replies until the permit is dropped.
    pub(crate) async fn hold(&self) -> SemaphorePermit<'_> {
        self.state.reply_permit.acquire().await.unwrap()
    }

    pub(crate) fn fetches(&self) -> usize {
        *self.state.fetch_count.borrow()
    }

    /// Completes when this many fetches have begun.
    pub(crate) async fn fetched(&self, times: usize) {
        let mut fetches = self.state.fetch_count.subscribe();
        let waiting = fetches.wait_for(|so_far| *so_far >= times);
        let waiting = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        waiting.expect("the keys are fetched").unwrap();
    }
}

async fn serve(listener: TcpListener, state: Arc<TestIssuerState>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(serve_connection(stream, Arc::clone(&state)));
    }
}

/// Sends one reply. The client may have disconnected by then.
async fn serve_connection(mut stream: TcpStream, state: Arc<TestIssuerState>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    state.fetch_count.send_modify(|fetches| *fetches += 1);
    let _turn = state.reply_permit.acquire().await.unwrap();
    let (status, body) = state.reply.lock().unwrap().clone();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Scripted\r\nconnection: close\r\nlocation: /elsewhere\r\n\
         content-length: {length}\r\n\r\n"
    );
    let _gone = stream.write_all((head + &body).as_bytes()).await.is_err();
}

pub(crate) fn jwks(signers: &[&TestSigner]) -> String {
    let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({ "keys": keys }).to_string()
}
