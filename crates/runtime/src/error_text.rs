//! Errors in words.

use std::error::Error;
use std::fmt::Write;

/// The error and its sources, each once: kube's errors repeat the text of their source in their own.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            let _ = write!(text, ": {more}");
        }
        next = source.source();
    }
    text
}

/// What is wrong, as the API says it; where it says nothing, the whole chain.
pub fn plain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}: {}", status.code, status.reason, status.message),
        // Its own text is the source's with a word before it.
        kube::Error::Service(error) => chain(error.as_ref()),
        error => chain(error),
    }
}

/// A request that had no reply, with the address of the API server that it was sent to.
#[derive(Debug, thiserror::Error)]
#[error("no reply from {server}")]
pub(crate) struct NoReply {
    /// Where it was sent to.
    pub(crate) server: String,
    /// Why there is none.
    pub(crate) source: Box<dyn Error + Send + Sync>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot list: {0}")]
    struct Outer(#[source] NoReply);

    #[test]
    fn a_chain_says_everything_once() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let error = Outer(NoReply { server: "https://10.0.0.1:443".to_owned(), source: Box::new(refused) });
        assert_eq!(chain(&error), "cannot list: no reply from https://10.0.0.1:443: connection refused");
    }
}
