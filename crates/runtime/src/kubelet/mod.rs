//! Client of the own node's kubelet: it asks for checkpoints ([`Kubelet::checkpoint`]) and reads what containers use
//! ([`Kubelet::resource_usage`]).
//!
//! Each request has its own connection, to the kubelet's address and nowhere else: no proxy, no redirects. The token
//! is sent once the other side has proven, by the TLS handshake, that it is the kubelet ([`Trust`]). Dropping a
//! request's future closes its connection.

mod checkpoint;
#[cfg(test)]
mod fake;
mod trust;
mod usage;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_core::name::printable;
use http::header::{AUTHORIZATION, CONNECTION, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig};

use crate::cluster::credentials::{CredentialError, read_token};
pub use checkpoint::{CheckpointError, CheckpointPath, MalformedReply, NotFound, SLACK};
use trust::ServerCertVerifier;
pub use trust::{AuthorityError, CertificateFileError, NotTrusted, PinError, TlsError, Trust};
pub use usage::{ContainerKey, Usage, UsageError};

/// How long a connection and its TLS handshake may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How much of an error's text is kept, in bytes.
const ERROR_TEXT: usize = 4 << 10;

/// Where the own kubelet is, and how it is spoken to.
#[derive(Debug, Clone)]
pub struct KubeletConfig {
    /// The node's address (`status.hostIP` of the own pod) with the kubelet's port, usually 10250.
    pub address: SocketAddr,
    /// The node's name, for which a certificate may be issued instead of the address.
    pub node_name: String,
    /// File with the service account's token, read for every request.
    pub token_file: PathBuf,
    /// How the kubelet's certificate is verified.
    pub trust: Trust,
}

/// The own node's kubelet.
#[derive(Debug, Clone)]
pub struct Kubelet {
    address: SocketAddr,
    token_file: PathBuf,
    tls: Arc<ClientConfig>,
}

/// No client of a kubelet can be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS for the kubelet: {0}")]
pub struct SetupError(#[from] rustls::Error);

/// An answer that says that something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReply {
    /// The HTTP status.
    pub status: u16,
    /// The kubelet's words: the beginning of them, on one line, without what a terminal acts on.
    pub text: String,
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.text)
    }
}

/// Why a request to the kubelet failed, whatever was requested.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// There is no token to send. Nothing was sent.
    #[error("cannot ask the kubelet without a token: {0}")]
    Token(#[from] CredentialError),
    /// A path that no request can have. Nothing was sent.
    #[error("no request to the kubelet can be made: {0}")]
    Invalid(#[from] http::Error),
    /// No connection. Nothing was sent.
    #[error("the kubelet at {address} cannot be reached: {source}")]
    Unreachable {
        /// The kubelet's address.
        address: SocketAddr,
        /// What failed.
        source: io::Error,
    },
    /// Whoever answers there is not known to be the kubelet. Nothing was sent.
    #[error("the kubelet at {address} is not trusted: {source}")]
    Untrusted {
        /// The kubelet's address.
        address: SocketAddr,
        /// What is missing for that.
        source: TlsError,
    },
    /// The request was sent, and no full answer came within the time.
    #[error("the kubelet did not answer before the deadline of {} s", after.as_secs())]
    TimedOut {
        /// How long it was waited for.
        after: Duration,
    },
    /// The request was sent, or a part of it, and the connection ended before the answer did.
    #[error("the connection to the kubelet ended before its answer: {0}")]
    Broken(#[source] hyper::Error),
    /// The token is not accepted (401).
    #[error("the kubelet does not accept the token: {0}")]
    Unauthorized(ErrorReply),
    /// The token is accepted and has not the right (403).
    #[error("the agent has not the right to ask the kubelet for it: {0}")]
    Forbidden(ErrorReply),
}

impl RequestError {
    /// Whether the same request may succeed later, without anybody changing the configuration.
    pub fn retry_may_help(&self) -> bool {
        match self {
            Self::Token(_)
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Broken(_)
            // The kubelet asks the API about tokens, and answers so too when it gets no answer itself.
            | Self::Unauthorized(_) => true,
            Self::Invalid(_) | Self::Untrusted { .. } | Self::Forbidden(_) => false,
        }
    }

    /// Whether the kubelet may be doing what was requested.
    fn may_be_under_way(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::Broken(_))
    }
}

/// What a request may take.
struct Limits {
    /// Time for the request and the whole answer, once connected.
    deadline: Duration,
    /// The most that is read of the answer, in bytes.
    body: usize,
}

/// An answer of the kubelet.
struct Reply {
    status: StatusCode,
    body: Vec<u8>,
    /// The answer goes on behind `body`.
    is_truncated: bool,
}

impl Reply {
    fn error(&self) -> ErrorReply {
        let beginning = String::from_utf8_lossy(&self.body[..self.body.len().min(ERROR_TEXT)]);
        ErrorReply { status: self.status.as_u16(), text: printable(beginning.trim()).into_owned() }
    }
}

impl Kubelet {
    /// A client. Nothing is read or connected yet.
    pub fn new(config: KubeletConfig) -> Result<Self, SetupError> {
        let provider = Arc::new(ring::default_provider());
        let names =
            [Some(ServerName::from(config.address.ip())), ServerName::try_from(config.node_name).ok()];
        let verifier = ServerCertVerifier {
            trust: config.trust,
            names: names.into_iter().flatten().collect(),
            algorithms: provider.signature_verification_algorithms,
        };
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        // A resumed session is not verified again.
        tls.resumption = Resumption::disabled();
        Ok(Self { address: config.address, token_file: config.token_file, tls: Arc::new(tls) })
    }

    async fn send(&self, method: Method, path: &str, limits: Limits) -> Result<Reply, RequestError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(AUTHORIZATION, read_token(&self.token_file)?)
            .header(CONNECTION, "close")
            .body(Empty::new())?;
        let stream = self.connect().await?;
        let reply = timeout(limits.deadline, exchange(stream, request, limits.body)).await;
        let reply = reply.map_err(|_| RequestError::TimedOut { after: limits.deadline })?;
        let reply = reply.map_err(RequestError::Broken)?;
        match reply.status {
            StatusCode::UNAUTHORIZED => Err(RequestError::Unauthorized(reply.error())),
            StatusCode::FORBIDDEN => Err(RequestError::Forbidden(reply.error())),
            _ => Ok(reply),
        }
    }

    /// A connection to somebody who has proven to be the kubelet.
    async fn connect(&self) -> Result<TlsStream<TcpStream>, RequestError> {
        let address = self.address;
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            TlsConnector::from(Arc::clone(&self.tls)).connect(address.ip().into(), stream).await
        };
        let connected =
            timeout(CONNECT, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        connected.map_err(|source| match source.downcast::<rustls::Error>() {
            Ok(error) => RequestError::Untrusted { address, source: error.into() },
            Err(source) => RequestError::Unreachable { address, source },
        })
    }
}

/// Sends the request and reads the answer. The connection is closed when the future ends or is dropped.
async fn exchange(
    stream: TlsStream<TcpStream>,
    request: Request<Empty<Bytes>>,
    most: usize,
) -> Result<Reply, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // A task of the set ends when the set is dropped.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let response = sender.send_request(request).await?;
    read(response.status(), response.into_body(), most).await
}

/// Reads an answer, up to a limit.
async fn read(status: StatusCode, mut body: Incoming, most: usize) -> Result<Reply, hyper::Error> {
    let mut reply = Reply { status, body: Vec::new(), is_truncated: false };
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => reply.body.extend_from_slice(&frame.into_data().unwrap_or_default()),
            // An error stays one without the end of its text.
            Err(_) if status != StatusCode::OK => reply.is_truncated = true,
            Err(error) => return Err(error),
        }
        if reply.body.len() > most {
            reply.body.truncate(most);
            reply.is_truncated = true;
        }
        if reply.is_truncated {
            break;
        }
    }
    Ok(reply)
}
