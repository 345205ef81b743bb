//! Errors in words.

use std::error::Error;
use std::fmt::Write;

use kube::core::Status;
use kube::runtime::watcher;

/// The error and its sources, each once: kube's errors repeat the text of their source in their own.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = Some(error);
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            let _ = write!(text, ": {more}");
        }
        if let Some(kube::Error::Api(status)) = error.downcast_ref() {
            // Its own text has all the fields of the reply, as they stand in the program.
            return text.replace(&more, &reply(status));
        }
        next = error.source();
    }
    text
}

/// Why a watch failed: where the API replied, what it says.
pub(crate) fn of_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => reply(status),
        error => chain(error),
    }
}

/// What the API replied, in one line.
fn reply(status: &Status) -> String {
    let Status { message, reason, code, .. } = status;
    match (message.as_str(), reason.as_str()) {
        ("", "") => format!("the API replied with code {code}"),
        ("", reason) => format!("{reason} ({code})"),
        (message, "") => format!("{message} ({code})"),
        (message, reason) => format!("{message} ({reason}, {code})"),
    }
}

/// What is wrong, as the API says it; where it says nothing, the whole chain.
pub fn plain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => reply(status),
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

    #[test]
    fn of_what_the_api_replies_its_message_is_said_and_not_how_the_program_holds_it() {
        let api = |message: &str, reason: &str| {
            let status = Status {
                code: 429,
                message: message.to_owned(),
                reason: reason.to_owned(),
                ..Status::default()
            };
            kube::Error::Api(status.boxed())
        };
        let refused = || api("storage is (re)initializing", "TooManyRequests");
        let said = "storage is (re)initializing (TooManyRequests, 429)";
        assert_eq!((plain(&refused()), chain(&refused())), (said.to_owned(), said.to_owned()));
        assert_eq!(of_watch(&watcher::Error::InitialListFailed(refused())), said);
        assert_eq!(of_watch(&watcher::Error::WatchStartFailed(refused())), said);
        let inside = watcher::Error::WatchFailed(refused());
        assert_eq!(of_watch(&inside), format!("watch stream failed: {said}"));
        let short =
            [("", ""), ("", "Expired"), ("gone", "")].map(|(message, reason)| plain(&api(message, reason)));
        assert_eq!(short, ["the API replied with code 429", "Expired (429)", "gone (429)"]);
    }
}
