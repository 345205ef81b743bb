//! Whether a certificate is the own kubelet's: issued by the cluster's certificate authority, or the very one in the
//! node's `kubelet.crt`.
//!
//! A kubelet that is not told otherwise issues its certificate itself, by the node's name only, and no authority of
//! the cluster knows it. Both files are read at every verification, since both are replaced while the agent runs.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier as RustlsVerifier,
};
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    self, CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};

use crate::cluster::credentials::{CredentialError, read_credential};

/// How the kubelet's certificate is verified.
#[derive(Debug, Clone)]
pub enum Trust {
    /// By the authorities, and where they do not know the certificate, by comparison with the node's own.
    Verify {
        /// File with the certificates (PEM) of the cluster's authorities, as every service account has it.
        authorities: PathBuf,
        /// The node's `pki/kubelet.crt` (PEM): the certificate of a kubelet that issued its own. It may be absent.
        /// Where it is mounted as a single file, one that was removed and made anew is seen by a new pod only.
        pinned: Option<PathBuf>,
    },
    /// Any certificate is accepted, so that whoever answers at the kubelet's address gets the agent's token. Only
    /// for nodes whose kubelet has no certificate that could be verified in one of the two ways.
    InsecureSkipVerify,
}

/// A certificate that is not the kubelet's, as far as anybody can tell.
#[derive(Debug, thiserror::Error)]
#[error(
    "its certificate is neither the cluster's ({by_authorities}) nor the node's own ({by_pin}); either let the \
     kubelet have a certificate of the cluster's authority (serverTLSBootstrap: true in its configuration) or mount \
     the node's pki/kubelet.crt"
)]
pub struct NotTrusted {
    /// Why the authorities do not vouch for it.
    pub by_authorities: AuthorityError,
    /// Why it is not the pinned one.
    pub by_pin: PinError,
}

/// Why a file gives no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFileError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] CredentialError),
    /// It is no PEM.
    #[error("{} holds no certificate (PEM): {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: pem::Error,
    },
}

/// Why the cluster's authorities do not vouch for a certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There are no authorities.
    #[error(transparent)]
    File(#[from] CertificateFileError),
    /// The certificate is of none of them, has expired, or is for another name.
    #[error("{}", refusal_in_words(.0))]
    Refused(#[from] rustls::Error),
}

/// Why a certificate is not the pinned one.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is none to compare it with.
    #[error("none is configured")]
    NotConfigured,
    /// There is none in the file.
    #[error(transparent)]
    File(#[from] CertificateFileError),
    /// It is another one.
    #[error("it is another one than in {}", .0.display())]
    Different(PathBuf),
}

/// Why TLS with the kubelet failed. No request was sent.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate is not trusted: a [`NotTrusted`].
    #[error("{0}")]
    Certificate(#[source] Arc<dyn Error + Send + Sync>),
    /// It speaks no TLS, or has no right to its certificate.
    #[error("TLS failed: {}", failure_in_words(.0))]
    Protocol(#[source] rustls::Error),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(error))) => {
                Self::Certificate(error)
            }
            error => Self::Protocol(error),
        }
    }
}

/// Why a certificate is refused. The library gives the commonest reasons in the words of its own code.
fn refusal_in_words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(
            // The signature is wrong where another cluster's authority has the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "it is issued by somebody else".to_owned(),
        // What a kubelet issues itself is often marked as an authority's.
        rustls::Error::InvalidCertificate(CertificateError::Other(reason)) => {
            format!("it is no server's certificate that an authority could have issued: {reason}")
        }
        error => error.to_string(),
    }
}

/// Why a handshake failed though the certificate is trusted.
fn failure_in_words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::BadSignature) => {
            "the other side does not have the certificate's key".to_owned()
        }
        rustls::Error::InvalidMessage(_) => format!("the other side speaks no TLS ({error})"),
        error => error.to_string(),
    }
}

/// Verifies certificates for one kubelet.
#[derive(Debug)]
pub(super) struct ServerCertVerifier {
    pub(super) trust: Trust,
    /// The kubelet's address and the node's name: an authority's certificate has to be for one of them.
    pub(super) names: Vec<ServerName<'static>>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier {
    fn check_authorities(
        &self,
        authorities: &Path,
        presented: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), AuthorityError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(read_certificates(authorities)?);
        let certificate = ParsedCertificate::try_from(presented)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &roots, intermediates, now, algorithms)?;
        let mut result = Err(rustls::Error::UnsupportedNameType);
        for name in &self.names {
            result = result.or_else(|_| verify_server_name(&certificate, name));
        }
        Ok(result?)
    }
}

/// Only the bytes count: such a certificate is not for the address by which the kubelet is reached, and a kubelet
/// goes on with it after it has expired. That the other side has its key is proven by the handshake.
fn check_pin(pinned: Option<&Path>, presented: &CertificateDer<'_>) -> Result<(), PinError> {
    let path = pinned.ok_or(PinError::NotConfigured)?;
    let is_own = read_certificates(path)?.first() == Some(presented);
    if is_own { Ok(()) } else { Err(PinError::Different(path.to_owned())) }
}

/// The certificates of a file: at least one.
fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateFileError> {
    let text = read_credential(path)?;
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let certificates =
        certificates.and_then(|all| if all.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(all) });
    certificates.map_err(|source| CertificateFileError::Pem { path: path.to_owned(), source })
}

impl RustlsVerifier for ServerCertVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Trust::Verify { authorities, pinned } = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let Err(by_authorities) = self.check_authorities(authorities, end_entity, intermediates, now) else {
            return Ok(ServerCertVerified::assertion());
        };
        let Err(by_pin) = check_pin(pinned.as_deref(), end_entity) else {
            return Ok(ServerCertVerified::assertion());
        };
        let error = OtherError(Arc::new(NotTrusted { by_authorities, by_pin }));
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(error)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_rustls::rustls::version::{TLS12, TLS13};

    use super::super::fake::{Authority, Behaviour, Certificate, FakeKubelet, Files, NODE, TOKEN, answer};
    use super::super::{CheckpointError, CheckpointPath, Kubelet, RequestError};
    use super::*;

    async fn ask(client: &Kubelet) -> Result<CheckpointPath, CheckpointError> {
        client.checkpoint("team", "web", "app", Duration::from_secs(10)).await
    }

    async fn serving(certificate: Certificate) -> FakeKubelet {
        FakeKubelet::answering(certificate, "200 OK", r#"{"items":["/archive.tar"]}"#).await
    }

    /// The request is refused because of the certificate, and the server has got nothing of it.
    async fn assert_untrusted(server: &FakeKubelet, client: &Kubelet) -> String {
        let before = server.received().len();
        let error = ask(client).await.unwrap_err();
        let untrusted = matches!(error, CheckpointError::Request(RequestError::Untrusted { .. }));
        assert!(untrusted, "{error:?}");
        assert!(!error.retry_may_help() && !error.archive_may_appear());
        let received = server.received().split_off(before);
        assert!(!received.contains(TOKEN) && !received.contains("POST"), "{received}");
        error.to_string()
    }

    #[tokio::test]
    async fn a_certificate_of_the_authority_is_accepted_for_the_address_or_the_nodes_name() {
        let authority = Authority::new();
        let files = Files::new(&authority);
        for certificate in [authority.issue(NODE), authority.issue_for([127, 0, 0, 1].into())] {
            let server = serving(certificate).await;
            assert_eq!(ask(&files.client(server.address)).await.unwrap().as_path(), "/archive.tar");
            assert!(server.received().contains(&format!("authorization: Bearer {TOKEN}\r\n")));
        }
    }

    #[tokio::test]
    async fn a_certificate_of_the_authority_for_another_name_or_a_past_time_is_refused() {
        let authority = Authority::new();
        let files = Files::new(&authority);
        let server = serving(authority.issue("node-2")).await;
        let text = assert_untrusted(&server, &files.client(server.address)).await;
        assert!(text.contains("only valid for DnsName(\"node-2\")"), "{text}");
        let server = serving(authority.issue_for([127, 0, 0, 2].into())).await;
        assert_untrusted(&server, &files.client(server.address)).await;
        let server = serving(authority.issue_expired(NODE)).await;
        let text = assert_untrusted(&server, &files.client(server.address)).await;
        assert!(text.contains("expired"), "{text}");
        let server = serving(Authority::new().issue(NODE)).await;
        let text = assert_untrusted(&server, &files.client(server.address)).await;
        assert!(text.contains("issued by somebody else"), "{text}");
    }

    #[tokio::test]
    async fn a_certificate_of_its_own_is_accepted_where_it_is_the_pinned_one_even_expired() {
        let files = Files::new(&Authority::new());
        let foreign = Authority::new();
        for certificate in
            [Certificate::self_signed(NODE), foreign.issue("any-name"), foreign.issue_expired(NODE)]
        {
            // A kubelet writes the certificate of its throw-away authority behind its own.
            files.write("kubelet.crt", &format!("{}{}", certificate.pem, foreign.pem()));
            let server = serving(certificate).await;
            ask(&files.client(server.address)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn another_certificate_than_the_pinned_one_is_refused_though_it_is_for_the_same_name() {
        let files = Files::new(&Authority::new());
        let (own, other) = (Certificate::self_signed(NODE), Certificate::self_signed(NODE));
        // Only the first certificate of the file is the kubelet's.
        files.write("kubelet.crt", &format!("{}{}", own.pem, other.pem));
        let server = serving(other).await;
        let text = assert_untrusted(&server, &files.client(server.address)).await;
        assert!(text.contains("another one than in"), "{text}");
    }

    #[tokio::test]
    async fn whoever_shows_a_certificate_without_its_key_is_refused() {
        let authority = Authority::new();
        let files = Files::new(&authority);
        for version in [&TLS12, &TLS13] {
            for is_pinned in [true, false] {
                let certificate =
                    if is_pinned { Certificate::self_signed(NODE) } else { authority.issue(NODE) };
                files.pin(&certificate);
                let sends = || Behaviour::Sends(answer("200 OK", "{}").into_bytes());
                let server = FakeKubelet::start_with(Some(certificate.replayed()), &[version], sends()).await;
                let text = assert_untrusted(&server, &files.client(server.address)).await;
                assert!(text.contains("does not have the certificate's key"), "{text}");
                // Not even where any certificate will do.
                let any = files.client_with(server.address, Trust::InsecureSkipVerify);
                assert_untrusted(&server, &any).await;
            }
        }
    }

    #[tokio::test]
    async fn the_error_says_both_reasons_and_what_to_do() {
        let files = Files::new(&Authority::new());
        let server = serving(Certificate::self_signed(NODE)).await;
        let text = assert_untrusted(&server, &files.client(server.address)).await;
        let trust = |authorities: &str| Trust::Verify { authorities: authorities.into(), pinned: None };
        for part in [
            "neither the cluster's (it is no server's",
            "kubelet.crt cannot be read",
            "serverTLSBootstrap",
            "mount",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = assert_untrusted(&server, &files.client_with(server.address, trust("/none/ca.crt"))).await;
        for part in ["/none/ca.crt cannot be read", "own (none is configured)"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // The reasons are there with their types too.
        let error = ask(&files.client(server.address)).await.unwrap_err();
        let CheckpointError::Request(RequestError::Untrusted {
            source: TlsError::Certificate(source), ..
        }) = error
        else {
            panic!("{error:?}")
        };
        let reasons = source.downcast_ref::<NotTrusted>().unwrap();
        assert!(matches!(reasons.by_pin, PinError::File(CertificateFileError::Read(_))), "{reasons:?}");
    }

    #[tokio::test]
    async fn both_files_are_read_again_after_they_were_replaced() {
        let authority = Authority::new();
        let files = Files::new(&Authority::new());
        let own = Certificate::self_signed(NODE);
        files.pin(&Certificate::self_signed(NODE));
        let pem = own.pem.clone();
        let server = serving(own).await;
        let client = files.client(server.address);
        assert_untrusted(&server, &client).await;
        files.write("kubelet.crt", &pem);
        ask(&client).await.unwrap();
        files.remove("kubelet.crt");
        assert_untrusted(&server, &client).await;

        let server = serving(authority.issue(NODE)).await;
        let client = files.client(server.address);
        assert_untrusted(&server, &client).await;
        files.write("ca.crt", &authority.pem());
        ask(&client).await.unwrap();
    }

    #[tokio::test]
    async fn authorities_that_cannot_be_used_leave_the_pin() {
        let files = Files::new(&Authority::new());
        for bad in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            files.write("ca.crt", bad);
            let certificate = Certificate::self_signed(NODE);
            files.write("kubelet.crt", bad);
            let pem = certificate.pem.clone();
            let server = serving(certificate).await;
            assert_untrusted(&server, &files.client(server.address)).await;
            files.write("kubelet.crt", &pem);
            ask(&files.client(server.address)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_server_without_tls_gets_no_token() {
        let files = Files::new(&Authority::new());
        let behaviour = Behaviour::Sends(answer("400 Bad Request", "no").into_bytes());
        let server = FakeKubelet::start_with(None, &[], behaviour).await;
        for trust in [None, Some(Trust::InsecureSkipVerify)] {
            let client = match trust {
                Some(trust) => files.client_with(server.address, trust),
                None => files.client(server.address),
            };
            let text = assert_untrusted(&server, &client).await;
            assert!(text.contains("speaks no TLS"), "{text}");
        }
        assert!(!server.received().is_empty());
    }

    #[tokio::test]
    async fn where_verification_is_switched_off_any_certificate_is_accepted() {
        let files = Files::new(&Authority::new());
        let server = serving(Certificate::self_signed("anybody")).await;
        assert_untrusted(&server, &files.client(server.address)).await;
        ask(&files.client_with(server.address, Trust::InsecureSkipVerify)).await.unwrap();
    }
}
