//! How a command fails: what it says, with a hint where there is one, and the exit code that follows from the kind.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use checkpoint_keeper_terminal::say::say;

/// A command that did not do all it should.
#[derive(Debug)]
pub enum Failure {
    /// Wrong usage: exit code 2.
    Usage(String),
    /// Something went wrong: exit code 1.
    Failed {
        /// What.
        what: String,
        /// What may help.
        hint: Option<String>,
    },
    /// Something is wrong and was shown: exit code 1.
    AlreadyReported,
    /// The reader of the output closed the pipe, which is not an error.
    ClosedPipe,
}

impl Failure {
    /// Something went wrong.
    pub fn new(what: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), hint: None }
    }

    /// Something went wrong, and this may help.
    pub fn with_hint(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), hint: Some(hint.into()) }
    }

    /// A request to the cluster that failed.
    pub fn of_request(doing: &str, error: &kube::Error) -> Self {
        Self::Failed {
            what: format!("cannot {doing}: {}", said(error)),
            hint: hint(error).map(str::to_owned),
        }
    }

    /// What went wrong; none where it was said, or nothing did.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Usage(what) | Self::Failed { what, .. } => Some(what),
            Self::AlreadyReported | Self::ClosedPipe => None,
        }
    }

    /// Says what is wrong, and gives the exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Self::Usage(what) => {
                say("error", what);
                ExitCode::from(2)
            }
            Self::Failed { what, hint } => {
                let hint = hint.map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
                say("error", format!("{what}{hint}"));
                ExitCode::FAILURE
            }
            Self::AlreadyReported => ExitCode::FAILURE,
            Self::ClosedPipe => ExitCode::SUCCESS,
        }
    }
}

/// What the API server says of a kind that it cannot serve yet.
const INITIALIZING: &str = "storage is (re)initializing";

/// What an error says, with all that caused it.
pub fn said(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        // As it says of a kind that was defined a moment ago.
        if status.message.contains(INITIALIZING) {
            return "the API server is still preparing this kind of objects".to_owned();
        }
        return status.message.clone();
    }
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !texts.last().is_some_and(|last| last.contains(&text)) {
            texts.push(text);
        }
        cause = error.source();
    }
    texts.join(": ")
}

/// The name of the object that the API server says is not there; none where it says something else, as of a kind that it does
/// not have.
pub fn missing(error: &kube::Error) -> Option<&str> {
    let kube::Error::Api(status) = error else { return None };
    let details = status.details.as_ref().filter(|_| status.code == 404 && status.reason == "NotFound")?;
    Some(details.name.as_str()).filter(|name| !name.is_empty())
}

fn hint(error: &kube::Error) -> Option<&'static str> {
    match error {
        kube::Error::Api(status) => match status.code {
            401 => Some("the cluster does not know you: log in again, or name another --context"),
            403 => Some("you lack a right; `kubectl checkpoints doctor` shows what you may do"),
            404 if missing(error).is_none() => Some(
                "checkpoint-keeper is not installed in this cluster; `kubectl checkpoints doctor` says more",
            ),
            429 | 503 | 504 => {
                Some("the API server is not ready for this yet, or has too much to do: try again in a minute")
            }
            _ => None,
        },
        kube::Error::Service(_) | kube::Error::HyperError(_) => {
            Some("is the cluster up, and the --context the right one?")
        }
        _ => None,
    }
}

/// A failure to write output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ClosedPipe
        } else {
            Self::new(format!("cannot write the output: {error}"))
        }
    }
}
