//! What a client shows the API of itself: tokens, from wherever they come, and the files of a kubeconfig.
//!
//! All of it is read with a bound, trimmed and checked here before it reaches a library: one that is handed a
//! token with a line feed panics, or fails with every request for ever. Certificates and passwords go on to the
//! library, which reports what is wrong with them.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Request;
use http::header::{AUTHORIZATION, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode, Kubeconfig};
use serde_json::{Value, json};
use tower::{Layer, Service};

/// The largest kubeconfig that is read.
const LARGEST_KUBECONFIG: u64 = 4 << 20;

/// The largest token or certificate that is read.
const LARGEST_CREDENTIAL: u64 = 1 << 20;

/// How long a token of a file is used before the file is read again, as client-go does.
const REREAD: Duration = Duration::from_mins(1);

/// So long before it expires, a plugin is asked for another token.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_mins(1);

/// What is wrong with a credential. Never the credential itself.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file that cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file's path.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A file that is no credential.
    #[error("{} {what}", path.display())]
    File {
        /// The file's path.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// A token that no request may carry.
    #[error("the token {from} {what}")]
    Token {
        /// Where it is from.
        from: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A plugin that gave no credential.
    #[error("the credential plugin {command}: {what}")]
    Plugin {
        /// Its command.
        command: String,
        /// What it did instead.
        what: String,
    },
    /// A certificate authority without a certificate.
    #[error("the certificate authority holds no certificate (PEM)")]
    NoAuthority,
    /// A way of authentication that Kubernetes has removed.
    #[error("the auth-provider {0} is not supported; Kubernetes has removed it: use an exec plugin")]
    Provider(String),
}

/// Reads at most `most` bytes of text: of a device without an end, a little more than that is read.
pub fn read_bounded(reader: impl Read, most: u64) -> std::io::Result<String> {
    let mut text = Vec::new();
    reader.take(most + 1).read_to_end(&mut text)?;
    if text.len() as u64 > most {
        let what = format!("it has more than {} MiB", most >> 20);
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, what));
    }
    String::from_utf8(text)
        .map_err(|_| std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not text"))
}

/// A kubeconfig whose files are there: those of the context that is used.
pub(super) fn read_kubeconfig(path: &Path) -> Result<Kubeconfig, super::ConnectError> {
    let read = |source| CredentialError::Read { path: path.to_owned(), source };
    let is_file = std::fs::metadata(path).map_err(read)?.is_file();
    let text =
        std::fs::File::open(path).and_then(|file| read_bounded(file, LARGEST_KUBECONFIG)).map_err(read)?;
    // From a file, what it refers to lies beside it; a pipe is beside nothing, and can be read only once.
    let mut kubeconfig = if is_file { Kubeconfig::read_from(path)? } else { Kubeconfig::from_yaml(&text)? };
    for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        // As for kubectl, what is empty is not there.
        cluster.certificate_authority_data.take_if(|data| data.is_empty());
    }
    let current = kubeconfig.current_context.as_deref();
    let named = kubeconfig.contexts.iter().find(|context| Some(context.name.as_str()) == current);
    let context = named.and_then(|named| named.context.as_ref());
    let cluster = kubeconfig.clusters.iter().find(|named| context.is_some_and(|it| it.cluster == named.name));
    let user = kubeconfig
        .auth_infos
        .iter()
        .find(|named| context.is_some_and(|it| it.user.as_ref() == Some(&named.name)));
    let authority = cluster.and_then(|named| named.cluster.as_ref()?.certificate_authority.as_deref());
    let own = user.and_then(|named| named.auth_info.as_ref());
    let own = own.map(|own| [own.client_certificate.as_deref(), own.client_key.as_deref()]);
    for path in own.into_iter().flatten().chain([authority]).flatten() {
        check_file(Path::new(path))?;
    }
    Ok(kubeconfig)
}

/// Whether there is a certificate that a server could be known by, where one is wanted.
pub(super) fn check_authority(certificates: Option<&Vec<Vec<u8>>>) -> Result<(), CredentialError> {
    if certificates.is_some_and(Vec::is_empty) { Err(CredentialError::NoAuthority) } else { Ok(()) }
}

/// Whether a file may be handed to a library that reads all of it.
fn check_file(path: &Path) -> Result<(), CredentialError> {
    let wrong = |what| Err(CredentialError::File { path: path.to_owned(), what });
    let found =
        std::fs::metadata(path).map_err(|source| CredentialError::Read { path: path.to_owned(), source })?;
    match found.len() {
        _ if !found.is_file() => wrong("is not a file"),
        0 => wrong("is empty"),
        length if length > LARGEST_CREDENTIAL => wrong("has more than 1 MiB"),
        _ => Ok(()),
    }
}

/// The text of a file with a token or certificates.
pub(crate) fn read_credential(path: &Path) -> Result<String, CredentialError> {
    check_file(path)?;
    let text = std::fs::File::open(path).and_then(|file| read_bounded(file, LARGEST_CREDENTIAL));
    text.map_err(|source| CredentialError::Read { path: path.to_owned(), source })
}

/// The header of the token in a file.
pub(crate) fn read_token(path: &Path) -> Result<HeaderValue, CredentialError> {
    bearer(&read_credential(path)?, &format!("in {}", path.display()))
}

/// Takes all that becomes a token out of a configuration; none: it has no token.
pub(super) fn take_token(auth: &mut AuthInfo) -> Result<Option<TokenLayer>, CredentialError> {
    let token = inline_token(auth);
    let (file, provider) = (auth.token_file.take(), auth.auth_provider.take());
    auth.token = None;
    let token = if let Some(provider) = provider {
        let token = provider.config.get("id-token").or_else(|| provider.config.get("access-token"));
        let token = token.filter(|_| provider.name == "oidc" && !provider.config.contains_key("cmd-path"));
        let token = token.ok_or_else(|| CredentialError::Provider(provider.name.clone()))?;
        Token::Fixed(bearer(token, "of the auth-provider")?)
    } else if auth.username.is_some() && auth.password.is_some() {
        return Ok(None);
    } else if let Some(token) = token {
        Token::Fixed(bearer(&token, "of the kubeconfig")?)
    } else if let Some(file) = file {
        Token::File(TokenFile::open(file.into())?)
    } else if let Some(exec) = auth.exec.clone() {
        match run_plugin(&exec, true)? {
            // The library does the rest: no token is involved.
            Given::Certificate => return Ok(None),
            Given::Nothing => {
                auth.exec = None;
                return Ok(None);
            }
            Given::Token(header, expires) => {
                auth.exec = None;
                Token::Plugin(Arc::new(Plugin { exec, state: Mutex::new((header, expires, false)) }))
            }
        }
    } else {
        return Ok(None);
    };
    Ok(Some(TokenLayer(Arc::new(token))))
}

/// The token that stands in the configuration itself, if it is more than white space.
fn inline_token(auth: &AuthInfo) -> Option<String> {
    // The library gives the token out only when the configuration is serialised.
    let written = serde_json::to_value(auth).ok()?;
    written["token"].as_str().map(str::trim).filter(|token| !token.is_empty()).map(str::to_owned)
}

/// The header for a token. White space around the token is removed; inside it is an error.
fn bearer(token: &str, from: &str) -> Result<HeaderValue, CredentialError> {
    let wrong = |what| CredentialError::Token { from: from.to_owned(), what };
    let token = token.trim();
    if token.is_empty() {
        return Err(wrong("is empty"));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong(
            "holds a character that no token may hold (a line feed, a space, a control character)",
        ));
    }
    let header = HeaderValue::try_from(format!("Bearer {token}"));
    let mut header = header.map_err(|_| wrong("is none that a request can carry"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Where the token of a request is from.
enum Token {
    /// It stays as it is.
    Fixed(HeaderValue),
    /// A file that another process renews.
    File(TokenFile),
    /// A program that gives another one when it is asked.
    Plugin(Arc<Plugin>),
}

impl Token {
    fn header(&self) -> HeaderValue {
        match self {
            Self::Fixed(header) => header.clone(),
            Self::File(file) => file.header(),
            Self::Plugin(plugin) => plugin.header(),
        }
    }
}

/// A token in a file, read again every minute.
struct TokenFile {
    path: PathBuf,
    last: Mutex<(HeaderValue, Instant)>,
}

impl TokenFile {
    fn open(path: PathBuf) -> Result<Self, CredentialError> {
        let header = read_token(&path)?;
        Ok(Self { path, last: Mutex::new((header, Instant::now())) })
    }

    /// Where the file cannot be read, or holds no token for a moment, the last one goes on.
    fn header(&self) -> HeaderValue {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.1.elapsed() >= REREAD {
            if let Ok(header) = read_token(&self.path) {
                last.0 = header;
            }
            last.1 = Instant::now();
        }
        last.0.clone()
    }
}

/// A program that gives tokens: `client.authentication.k8s.io`.
struct Plugin {
    exec: ExecConfig,
    /// The token, when it expires, and whether another one is being asked for.
    state: Mutex<(HeaderValue, Option<Timestamp>, bool)>,
}

impl Plugin {
    /// The token that is there; another one is asked for beside, as a plugin may take its time.
    fn header(self: &Arc<Self>) -> HeaderValue {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = state.1.is_some_and(|expires| Timestamp::now() + RENEW_BEFORE >= expires);
        if ends && !state.2 {
            let plugin = Arc::clone(self);
            let started = std::thread::Builder::new().name("token".to_owned()).spawn(move || plugin.renew());
            state.2 = started.is_ok();
        }
        state.0.clone()
    }

    fn renew(&self) {
        let given = run_plugin(&self.exec, false);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(Given::Token(header, expires)) = given {
            (state.0, state.1) = (header, expires);
        }
        state.2 = false;
    }
}

/// What a plugin gave.
enum Given {
    Token(HeaderValue, Option<Timestamp>),
    Certificate,
    Nothing,
}

fn run_plugin(exec: &ExecConfig, may_ask: bool) -> Result<Given, CredentialError> {
    let command = exec.command.clone().unwrap_or_default();
    let failed = |what: String| CredentialError::Plugin { command: command.clone(), what };
    if command.is_empty() || command.contains('\0') {
        return Err(failed("is no command".to_owned()));
    }
    let interactive = match exec.interactive_mode {
        Some(ExecInteractiveMode::Never) => false,
        Some(ExecInteractiveMode::Always) => may_ask,
        Some(ExecInteractiveMode::IfAvailable) | None => may_ask && std::io::stdin().is_terminal(),
    };
    let mut spec = json!({"interactive": interactive});
    if exec.provide_cluster_info {
        spec["cluster"] = serde_json::to_value(&exec.cluster).map_err(|error| failed(error.to_string()))?;
    }
    let info = json!({"apiVersion": exec.api_version, "kind": "ExecCredential", "spec": spec});
    let mut process = Command::new(&command);
    process.args(exec.args.iter().flatten());
    let environment = exec.env.iter().flatten();
    process.envs(environment.filter_map(|entry| Some((entry.get("name")?, entry.get("value")?))));
    process.env("KUBERNETES_EXEC_INFO", info.to_string());
    process.stdin(if interactive { Stdio::inherit() } else { Stdio::null() }).stderr(Stdio::inherit());
    let output = process.output().map_err(|error| failed(format!("cannot be run: {error}")))?;
    if !output.status.success() {
        return Err(failed(format!("failed: {}", output.status)));
    }
    let given: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| failed(format!("did not print an ExecCredential as JSON: {error}")))?;
    let status = &given["status"];
    let expires = match status["expirationTimestamp"].as_str() {
        Some(time) => {
            Some(time.parse().map_err(|_| failed("gave an expirationTimestamp that is no time".to_owned()))?)
        }
        None => None,
    };
    if status["clientCertificateData"].is_string() && status["clientKeyData"].is_string() {
        return Ok(Given::Certificate);
    }
    match status["token"].as_str() {
        Some(token) => Ok(Given::Token(bearer(token, &format!("of the plugin {command}"))?, expires)),
        None => Ok(Given::Nothing),
    }
}

/// Gives every request its token.
#[derive(Clone)]
pub(super) struct TokenLayer(Arc<Token>);

impl<S> Layer<S> for TokenLayer {
    type Service = WithToken<S>;

    fn layer(&self, inner: S) -> WithToken<S> {
        WithToken { inner, token: Arc::clone(&self.0) }
    }
}

/// A service whose requests have a token.
pub(super) struct WithToken<S> {
    inner: S,
    token: Arc<Token>,
}

impl<S> Service<Request<Body>> for WithToken<S>
where
    S: Service<Request<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(AUTHORIZATION, self.token.header());
        self.inner.call(request)
    }
}
