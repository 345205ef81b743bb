//! How a command fails: what it says, and the exit code that follows from the kind.

use std::io;
use std::process::ExitCode;

use checkpoint_keeper_runtime::chain;

pub use checkpoint_keeper_terminal::say::say;

/// A command that did not do all it should.
#[derive(Debug)]
pub enum Failure {
    /// Wrong usage or a wrong policy: exit code 2. Each line is a complaint of its own.
    Usage(Vec<String>),
    /// Something went wrong: exit code 1.
    Failed(anyhow::Error),
    /// Something went wrong and was reported where it happened: exit code 1.
    AlreadyReported,
    /// The reader of the output closed the pipe, which is not an error.
    ClosedPipe,
}

impl Failure {
    /// Says what is wrong to the person at the terminal, and gives the exit code.
    pub fn report(self) -> ExitCode {
        self.tell(|complaint| say("error", complaint))
    }

    /// Logs what is wrong, and gives the exit code.
    pub fn log(self) -> ExitCode {
        self.tell(|complaint| tracing::error!("exiting: {complaint}"))
    }

    fn tell(self, tell: impl Fn(&str)) -> ExitCode {
        match self {
            Self::Usage(complaints) => {
                complaints.iter().for_each(|complaint| tell(complaint));
                ExitCode::from(2)
            }
            Self::Failed(error) => {
                tell(&chain(error.as_ref()));
                ExitCode::FAILURE
            }
            Self::AlreadyReported => ExitCode::FAILURE,
            Self::ClosedPipe => ExitCode::SUCCESS,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// A failure to write output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ClosedPipe
        } else {
            Self::Failed(anyhow::Error::new(error).context("cannot write the output"))
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::from(io::Error::from(error))
    }
}
