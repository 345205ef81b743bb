//! A kubelet for tests: a real socket with real certificates, and one answer to every request.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ServerConfig, SupportedProtocolVersion};

use super::{Kubelet, KubeletConfig, Trust};

pub(super) const TOKEN: &str = "the-token-of-the-agent";
pub(super) const NODE: &str = "node-1";

/// A certificate, and the key of whoever shows it.
pub(super) struct Certificate {
    der: CertificateDer<'static>,
    pub(super) pem: String,
    key: KeyPair,
}

impl Certificate {
    /// As a kubelet makes its own: for the node's name, and often marked as an authority.
    pub(super) fn self_signed(name: &str) -> Self {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { der: certificate.der().clone(), pem: certificate.pem(), key }
    }

    /// The same certificate, shown by somebody who does not have its key.
    pub(super) fn replayed(self) -> Self {
        Self { key: KeyPair::generate().unwrap(), ..self }
    }
}

pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(super) fn issue(&self, name: &str) -> Certificate {
        self.sign(&CertificateParams::new([name.to_owned()]).unwrap())
    }

    pub(super) fn issue_for(&self, address: IpAddr) -> Certificate {
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::IpAddress(address));
        self.sign(&params)
    }

    /// For a name, and no longer valid.
    pub(super) fn issue_expired(&self, name: &str) -> Certificate {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Certificate { der: certificate.der().clone(), pem: certificate.pem(), key }
    }
}

/// How the other side of the connection behaves.
pub(super) enum Behaviour {
    /// Sends these bytes when the request is there, and closes.
    Sends(Vec<u8>),
    /// Sends these bytes, and then nothing more. The tests' time runs by itself from then on.
    Hangs(Vec<u8>),
    /// Does not even say hello. The tests' time runs by itself from then on.
    Silent,
}

pub(super) struct FakeKubelet {
    pub(super) address: SocketAddr,
    /// All that clients have sent, as the server reads it.
    received: Arc<Mutex<Vec<u8>>>,
    /// One message for each request that has arrived.
    pub(super) requests: mpsc::UnboundedReceiver<()>,
    /// One message for each connection that the client has closed before there was an answer.
    pub(super) closed: mpsc::UnboundedReceiver<()>,
    /// What a trusted one's client reads.
    files: Option<Files>,
}

struct Server {
    behaviour: Behaviour,
    received: Arc<Mutex<Vec<u8>>>,
    requests: mpsc::UnboundedSender<()>,
    closed: mpsc::UnboundedSender<()>,
}

impl FakeKubelet {
    /// With a certificate.
    pub(super) async fn start(certificate: Certificate, behaviour: Behaviour) -> Self {
        Self::start_with(Some(certificate), &[&TLS12, &TLS13], behaviour).await
    }

    /// With a certificate, by one version of TLS; without one it speaks plain HTTP.
    pub(super) async fn start_with(
        certificate: Option<Certificate>,
        versions: &[&'static SupportedProtocolVersion],
        behaviour: Behaviour,
    ) -> Self {
        let acceptor = certificate.map(|certificate| {
            let key = PrivateKeyDer::try_from(certificate.key.serialize_der()).unwrap();
            let key = ring::sign::any_supported_type(&key).unwrap();
            // Not the usual way, which refuses a key that is not the certificate's.
            let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate.der], key));
            let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(versions)
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(shown));
            TlsAcceptor::from(Arc::new(config))
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::default();
        let ((requests, requests_seen), (closed, closed_seen)) =
            (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let server = Server { behaviour, received: Arc::clone(&received), requests, closed };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                match &acceptor {
                    _ if matches!(server.behaviour, Behaviour::Silent) => {
                        tokio::time::pause();
                        std::future::pending::<()>().await;
                    }
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            server.serve(stream).await;
                        }
                    }
                    None => server.serve(stream).await,
                }
            }
        });
        Self { address, received, requests: requests_seen, closed: closed_seen, files: None }
    }

    /// One whose answer is this one.
    pub(super) async fn answering(certificate: Certificate, status: &str, body: &str) -> Self {
        Self::start(certificate, Behaviour::Sends(answer(status, body).into_bytes())).await
    }

    /// All that clients have sent, each byte a character.
    pub(super) fn received(&self) -> String {
        self.received.lock().unwrap().iter().map(|byte| char::from(*byte)).collect()
    }
}

impl Server {
    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer).await {
                Ok(length) if length > 0 => {
                    request.extend_from_slice(&buffer[..length]);
                    self.received.lock().unwrap().extend_from_slice(&buffer[..length]);
                    // A client that wants TLS of a plain server would wait for ever.
                    if !request.is_ascii() {
                        break;
                    }
                }
                _ => return,
            }
        }
        let _ = self.requests.send(());
        match &self.behaviour {
            Behaviour::Sends(bytes) => {
                // A client that has read enough goes away.
                let _ = stream.write_all(bytes).await;
                let _ = stream.shutdown().await;
            }
            Behaviour::Hangs(bytes) => {
                stream.write_all(bytes).await.unwrap();
                stream.flush().await.unwrap();
                tokio::time::pause();
                while stream.read(&mut [0]).await.is_ok_and(|length| length > 0) {}
                let _ = self.closed.send(());
            }
            Behaviour::Silent => {}
        }
    }
}

/// An answer of HTTP.
pub(super) fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The files of the agent's pod.
pub(super) struct Files(tempfile::TempDir);

impl Files {
    /// With a token and the authority's certificate, and no pin.
    pub(super) fn new(authority: &Authority) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("token", &format!("{TOKEN}\n"));
        files.write("ca.crt", &authority.pem());
        files
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(super) fn pin(&self, certificate: &Certificate) {
        self.write("kubelet.crt", &certificate.pem);
    }

    pub(super) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn client(&self, address: SocketAddr) -> Kubelet {
        let trust =
            Trust::Verify { authorities: self.path("ca.crt"), pinned: Some(self.path("kubelet.crt")) };
        self.client_with(address, trust)
    }

    pub(super) fn client_with(&self, address: SocketAddr, trust: Trust) -> Kubelet {
        let token_file = self.path("token");
        Kubelet::new(KubeletConfig { address, node_name: NODE.to_owned(), token_file, trust }).unwrap()
    }
}

/// A trusted kubelet with this behaviour, and a client of it.
pub(super) async fn trusted(behaviour: Behaviour) -> (FakeKubelet, Kubelet) {
    let authority = Authority::new();
    let mut server = FakeKubelet::start(authority.issue(NODE), behaviour).await;
    let files = server.files.insert(Files::new(&authority));
    let client = files.client(server.address);
    (server, client)
}

/// A trusted kubelet that gives this answer, and a client of it.
pub(super) async fn trusted_answering(status: &str, body: &str) -> (FakeKubelet, Kubelet) {
    trusted(Behaviour::Sends(answer(status, body).into_bytes())).await
}
