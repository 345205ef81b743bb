//! The request for one checkpoint, and what each answer means. One request is sent; when to repeat it is the
//! caller's part.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;

use super::{ErrorReply, Kubelet, Limits, Reply, RequestError};
use crate::cluster::is_node_name;

/// How much longer than its own timeout the kubelet is waited for: it answers at its timeout's end by itself.
pub const SLACK: Duration = Duration::from_secs(30);

/// The most that is read of an answer, in bytes.
const LARGEST_REPLY: usize = 64 << 10;

/// What runtimes say when a checkpoint meets another one of the same container. A later one succeeds.
const COLLISIONS: [&str; 2] =
    ["cannot pause a paused container", "ctrd-checkpoint/status: no such file or directory"];

/// What the kubelet says when the runtime did not finish within the timeout.
const RUNTIME_TIMED_OUT: [&str; 2] = ["DeadlineExceeded", "context deadline exceeded"];

/// Path of an archive as the kubelet gave it: whether it is inside the checkpoint directory is not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointPath(PathBuf);

impl CheckpointPath {
    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

/// What the kubelet did not find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFound {
    /// The pod.
    Pod,
    /// The container of the pod.
    Container,
    /// The endpoint: the feature gate `ContainerCheckpoint` is off.
    Endpoint,
    /// The kubelet's words do not say what.
    Unknown,
}

impl NotFound {
    fn of(text: &str) -> Self {
        if text.starts_with("pod ") && text.contains("does not exist") {
            Self::Pod
        } else if text.starts_with("container ") && text.contains("does not exist") {
            Self::Container
        } else if text.to_ascii_lowercase().contains("page not found") {
            Self::Endpoint
        } else {
            Self::Unknown
        }
    }

    /// What to know about it.
    fn hint(self) -> &'static str {
        match self {
            Self::Pod => "the pod is gone, or the kubelet was just started",
            Self::Container => "the pod has no such container",
            Self::Endpoint => "its feature gate ContainerCheckpoint is off",
            Self::Unknown => "pod or container is unknown, or the feature gate ContainerCheckpoint is off",
        }
    }
}

/// What is wrong with an answer that says that all is well.
#[derive(Debug, thiserror::Error)]
pub enum MalformedReply {
    /// It is too long for what it has to say.
    #[error("it has more than {} KiB", LARGEST_REPLY >> 10)]
    TooLarge,
    /// It is not the JSON that a kubelet sends.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// It names no archive, or several.
    #[error("it names {0} archives instead of one")]
    Items(usize),
    /// The archive's path is empty.
    #[error("the archive's path is empty")]
    EmptyPath,
}

/// Why there is no checkpoint, or none that is known of.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The request itself failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A name that no such object can have. Nothing was sent.
    #[error("{name:?} cannot be the name of a {what}")]
    InvalidName {
        /// A namespace, pod or container.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Pod, container or endpoint is unknown (404).
    #[error("the kubelet finds nothing to checkpoint ({}): {reply}", missing.hint())]
    NotFound {
        /// Which of them.
        missing: NotFound,
        /// The kubelet's answer.
        reply: ErrorReply,
    },
    /// Another checkpoint of the same container was in the way.
    #[error("the checkpoint met another one of the same container: {0}")]
    Transient(ErrorReply),
    /// The runtime did not finish within the timeout; it may do so later.
    #[error("the runtime did not finish the checkpoint in time: {0}")]
    RuntimeTimedOut(ErrorReply),
    /// The checkpoint failed.
    #[error("the kubelet made no checkpoint: {0}")]
    Refused(ErrorReply),
    /// The kubelet says that all is well, and names no archive.
    #[error("the kubelet made a checkpoint, and its answer cannot be used: {0}")]
    Malformed(#[from] MalformedReply),
}

impl CheckpointError {
    /// Whether the same request may succeed later. Where an archive may still appear, that comes first.
    pub fn retry_may_help(&self) -> bool {
        match self {
            Self::Request(error) => error.retry_may_help(),
            Self::Transient(_) | Self::RuntimeTimedOut(_) => true,
            Self::Refused(reply) => reply.status >= 500 || reply.status == 429,
            // A kubelet that was just started knows no pods for a moment.
            Self::NotFound { missing, .. } => *missing == NotFound::Pod,
            Self::InvalidName { .. } | Self::Malformed(_) => false,
        }
    }

    /// Whether the kubelet lost the runtime while that made the checkpoint, and did not find it missing to begin with.
    pub fn is_runtime_lost(&self) -> bool {
        match self {
            Self::Refused(reply) => {
                let text = &reply.text;
                let is_lost = text.contains("code = Unavailable") || text.contains("transport is closing");
                is_lost && !text.contains("connection refused") && !text.contains("while dialing")
            }
            _ => false,
        }
    }

    /// Whether the runtime may still finish an archive, or has finished one of which nobody was told: not yet a
    /// failure. (A definite failure may leave an incomplete archive too.)
    pub fn archive_may_appear(&self) -> bool {
        match self {
            Self::Request(error) => error.may_be_under_way(),
            Self::RuntimeTimedOut(_) | Self::Malformed(_) => true,
            Self::InvalidName { .. } | Self::NotFound { .. } | Self::Transient(_) | Self::Refused(_) => false,
        }
    }
}

impl Kubelet {
    /// Asks once for a checkpoint of a container, and waits for it: `timeout`, which the kubelet is told in whole
    /// seconds (at least 1), and [`SLACK`].
    pub async fn checkpoint(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        timeout: Duration,
    ) -> Result<CheckpointPath, CheckpointError> {
        for (what, name) in [("namespace", namespace), ("pod", pod), ("container", container)] {
            // Nothing of such a name has a meaning in a path, except empty parts and dots.
            if !is_node_name(name) || name.split('.').any(str::is_empty) {
                return Err(CheckpointError::InvalidName { what, name: name.to_owned() });
            }
        }
        let seconds = timeout.as_secs().max(1);
        let path = format!("/checkpoint/{namespace}/{pod}/{container}?timeout={seconds}");
        let limits = Limits { deadline: timeout.saturating_add(SLACK), body: LARGEST_REPLY };
        let reply = self.send(Method::POST, &path, limits).await?;
        if reply.status == StatusCode::OK { Ok(path_in(&reply)?) } else { Err(failure(reply.error())) }
    }
}

/// The archive's path in an answer that says that all is well.
fn path_in(reply: &Reply) -> Result<CheckpointPath, MalformedReply> {
    #[derive(Deserialize)]
    struct Made {
        items: Vec<PathBuf>,
    }
    if reply.is_truncated {
        return Err(MalformedReply::TooLarge);
    }
    let made: Made = serde_json::from_slice(&reply.body)?;
    match <[PathBuf; 1]>::try_from(made.items) {
        Ok([path]) if path.as_os_str().is_empty() => Err(MalformedReply::EmptyPath),
        Ok([path]) => Ok(CheckpointPath(path)),
        Err(items) => Err(MalformedReply::Items(items.len())),
    }
}

/// What an answer means that says that something is wrong.
fn failure(reply: ErrorReply) -> CheckpointError {
    let says = |texts: &[&str]| texts.iter().any(|text| reply.text.contains(text));
    match reply.status {
        404 => CheckpointError::NotFound { missing: NotFound::of(&reply.text), reply },
        500.. if says(&COLLISIONS) => CheckpointError::Transient(reply),
        500.. if says(&RUNTIME_TIMED_OUT) => CheckpointError::RuntimeTimedOut(reply),
        _ => CheckpointError::Refused(reply),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::super::fake::{
        Authority, Behaviour, FakeKubelet, Files, NODE, TOKEN, answer, trusted, trusted_answering,
    };
    use super::*;

    const MADE: &str = r#"{"items":["/var/lib/kubelet/checkpoints/checkpoint-web_team-app-1.tar"]}"#;

    async fn ask(client: &Kubelet) -> Result<CheckpointPath, CheckpointError> {
        client.checkpoint("team", "web-0.a", "app", Duration::from_mins(10)).await
    }

    async fn failure_of(status: &str, body: &str) -> CheckpointError {
        let (server, client) = trusted_answering(status, body).await;
        let error = ask(&client).await.unwrap_err();
        assert_eq!(server.received().matches("POST").count(), 1, "one request, whatever comes of it");
        error
    }

    /// Row A1.
    #[tokio::test]
    async fn one_post_names_namespace_pod_and_container_in_that_order_and_the_timeout() {
        let (server, client) = trusted_answering("200 OK", MADE).await;
        ask(&client).await.unwrap();
        let request = server.received();
        assert!(
            request.starts_with("POST /checkpoint/team/web-0.a/app?timeout=600 HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains(&format!("host: {}\r\n", server.address)), "{request}");
        assert_eq!(request.matches("POST").count(), 1);
        assert!(!request.contains("proxy"));
        // Whole seconds, and never 0, which a kubelet refuses.
        for (timeout, told) in [(0, 1), (999, 1), (1_999, 1), (2_000, 2)] {
            let (server, client) = trusted_answering("200 OK", MADE).await;
            client.checkpoint("team", "web", "app", Duration::from_millis(timeout)).await.unwrap();
            assert!(server.received().contains(&format!("?timeout={told} ")), "{timeout}");
        }
    }

    #[tokio::test]
    async fn names_that_could_lead_elsewhere_are_not_sent() {
        let (server, client) = trusted_answering("200 OK", MADE).await;
        for name in ["", ".", "..", "a/b", "a?b", "a%2fb", "a b", "A", "a\r\nb", "a..b", &"a".repeat(254)] {
            for [namespace, pod, container] in
                [[name, "web", "app"], ["team", name, "app"], ["team", "web", name]]
            {
                let result = client.checkpoint(namespace, pod, container, Duration::from_secs(1)).await;
                assert!(matches!(result, Err(CheckpointError::InvalidName { .. })), "{name:?}: {result:?}");
            }
        }
        assert_eq!(server.received(), "");
    }

    /// Rows A2 and A8.
    #[tokio::test]
    async fn an_answer_with_one_item_is_success_and_the_path_is_the_kubelets() {
        let (_server, client) = trusted_answering("200 OK", MADE).await;
        let path = ask(&client).await.unwrap();
        assert_eq!(path.as_path(), "/var/lib/kubelet/checkpoints/checkpoint-web_team-app-1.tar");
    }

    /// Row A8, the part without a test of its own there.
    #[tokio::test]
    async fn an_answer_without_exactly_one_path_is_an_error_though_an_archive_may_be_there() {
        let long = format!(r#"{{"items":["/{}"]}}"#, "a".repeat(LARGEST_REPLY));
        for (body, says) in [
            (r#"{"items":[]}"#, "0 archives"),
            (r#"{"items":["/a","/b"]}"#, "2 archives"),
            (r#"{"items":[""]}"#, "path is empty"),
            (r#"{"items":null}"#, "null"),
            ("{}", "items"),
            ("made it", "expected value"),
            ("", "EOF"),
            (&long, "more than 64 KiB"),
        ] {
            let error = failure_of("200 OK", body).await;
            assert!(matches!(error, CheckpointError::Malformed(_)), "{error:?}");
            assert!(error.to_string().contains(says), "{error}");
            assert!(error.archive_may_appear() && !error.retry_may_help());
        }
    }

    #[tokio::test]
    async fn a_runtime_that_died_meanwhile_is_told_from_one_that_was_not_there() {
        for (words, is_lost) in [
            (
                "checkpointing of a/b/c failed (rpc error: code = Unavailable desc = error reading from server: EOF)",
                true,
            ),
            (
                "rpc error: code = Unavailable desc = connection error: dial unix /run/containerd.sock: connect: connection refused",
                false,
            ),
            (
                "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial unix /run/crio.sock: connect: no such file or directory\"",
                false,
            ),
            ("rpc error: code = Unknown desc = criu failed", false),
        ] {
            assert_eq!(
                failure_of("500 Internal Server Error", words).await.is_runtime_lost(),
                is_lost,
                "{words}"
            );
        }
    }

    /// Rows A3 and A4.
    #[tokio::test]
    async fn anything_but_200_is_an_error_with_the_status_and_the_kubelets_words() {
        for status in ["500 Internal Server Error", "503 Service Unavailable", "202 Accepted", "429 Too Many"]
        {
            let number = &status[..3];
            for words in ["", "runtime checkpoint support is disabled"] {
                let error = failure_of(status, &format!("\n {words} \n")).await;
                let CheckpointError::Refused(ErrorReply { status, text }) = &error else {
                    panic!("{error:?}")
                };
                assert_eq!((status.to_string().as_str(), text.as_str()), (number, words));
                assert!(error.to_string().contains(number) && error.to_string().contains(words), "{error}");
                assert_eq!(error.retry_may_help(), number != "202");
                assert!(!error.archive_may_appear());
            }
        }
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let elsewhere = FakeKubelet::start_with(None, &[], Behaviour::Silent).await;
        let redirect = format!(
            "HTTP/1.1 307 Temporary\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n",
            elsewhere.address
        );
        let (server, client) = trusted(Behaviour::Sends(redirect.into_bytes())).await;
        let error = ask(&client).await.unwrap_err();
        assert!(matches!(error, CheckpointError::Refused(ErrorReply { status: 307, .. })), "{error:?}");
        assert_eq!((server.received().matches("POST").count(), elsewhere.received().as_str()), (1, ""));
    }

    /// Row A4: not more of the text than 4 KiB, and nothing in it that acts on a terminal.
    #[tokio::test]
    async fn an_errors_text_is_short_and_harmless() {
        let error = failure_of("500 x", &"w".repeat(1 << 20)).await;
        let CheckpointError::Refused(ErrorReply { text, .. }) = &error else { panic!("{error:?}") };
        assert_eq!(text.len(), 4096);
        let error = failure_of("500 x", "one\ntwo\u{1b}[31m\u{202e}\0").await;
        assert!(error.to_string().ends_with(r"one\ntwo\x1b[31m\u{202e}\x00"), "{error}");
        for status in ["401 x", "403 x", "404 x"] {
            let error = failure_of(status, "bad\u{1b}[2J").await;
            assert!(error.to_string().ends_with(r"bad\x1b[2J"), "{error}");
        }
    }

    /// Rows A5 and A5b, of one request: that it is repeated is the caller's part.
    #[tokio::test]
    async fn two_texts_of_runtimes_are_transient_from_status_500_on() {
        for text in [
            "checkpointing of team/web/app failed (rpc error: cannot pause a paused container: unknown)",
            "open /run/x/ctrd-checkpoint/status: no such file or directory",
        ] {
            for status in ["500 x", "503 x"] {
                let error = failure_of(status, text).await;
                assert!(matches!(error, CheckpointError::Transient(_)), "{error:?}");
                assert!(error.retry_may_help() && !error.archive_may_appear());
                assert!(error.to_string().contains(text), "{error}");
            }
            let error = failure_of("404 x", text).await;
            assert!(matches!(error, CheckpointError::NotFound { .. }), "{error:?}");
            assert!(!error.retry_may_help());
            let error = failure_of("400 x", text).await;
            assert!(matches!(error, CheckpointError::Refused(ErrorReply { status: 400, .. })), "{error:?}");
            assert!(!error.retry_may_help());
        }
    }

    #[tokio::test]
    async fn a_runtime_that_did_not_finish_in_time_may_still_do_so() {
        let text = "checkpointing of team/web/app failed (rpc error: code = DeadlineExceeded desc = context \
                    deadline exceeded)";
        let error = failure_of("500 x", text).await;
        assert!(
            matches!(error, CheckpointError::RuntimeTimedOut(ErrorReply { status: 500, .. })),
            "{error:?}"
        );
        assert!(error.retry_may_help() && error.archive_may_appear());
    }

    #[tokio::test]
    async fn what_the_kubelet_did_not_find_is_told_apart() {
        for (text, what) in [
            ("pod does not exist\n", NotFound::Pod),
            ("container app does not exist\n", NotFound::Container),
            ("404: Page Not Found", NotFound::Endpoint),
            ("404 page not found\n", NotFound::Endpoint),
            ("", NotFound::Unknown),
        ] {
            let error = failure_of("404 Not Found", text).await;
            let CheckpointError::NotFound { missing, .. } = &error else { panic!("{error:?}") };
            assert_eq!(*missing, what);
            assert!(error.to_string().contains(what.hint()));
            // A pod may only not be known yet.
            assert_eq!(error.retry_may_help(), what == NotFound::Pod);
            assert!(!error.archive_may_appear());
        }
    }

    #[tokio::test]
    async fn a_token_that_is_not_accepted_and_a_right_that_is_missing_are_told_apart() {
        let error = failure_of("401 Unauthorized", "Unauthorized").await;
        assert!(matches!(error, CheckpointError::Request(RequestError::Unauthorized(_))), "{error:?}");
        assert!(error.retry_may_help() && !error.archive_may_appear());
        let words = "Forbidden (user=agent, verb=create, resource=nodes, subresource(s)=[checkpoint])";
        let error = failure_of("403 Forbidden", words).await;
        assert!(matches!(error, CheckpointError::Request(RequestError::Forbidden(_))), "{error:?}");
        assert!(error.to_string().contains(words));
        assert!(!error.retry_may_help() && !error.archive_may_appear());
    }

    /// Row A9.
    #[tokio::test]
    async fn a_kubelet_that_does_not_answer_is_given_up_after_the_timeout_and_the_slack() {
        for sent in ["", "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"items\":["] {
            let (server, client) = trusted(Behaviour::Hangs(sent.into())).await;
            let begin = Instant::now();
            let timeout = Duration::from_mins(10);
            let error = client.checkpoint("team", "web", "app", timeout).await.unwrap_err();
            assert!(matches!(error, CheckpointError::Request(RequestError::TimedOut { .. })), "{error:?}");
            assert!(error.to_string().contains("deadline of 630 s"), "{error}");
            assert!((timeout + SLACK..timeout + SLACK + Duration::from_secs(10)).contains(&begin.elapsed()));
            assert!(error.retry_may_help() && error.archive_may_appear());
            assert_eq!(server.received().matches("POST").count(), 1);
            tokio::time::resume();
        }
    }

    /// Row A9, before anything was sent.
    #[tokio::test]
    async fn a_kubelet_that_does_not_even_say_hello_counts_as_unreachable() {
        let (server, client) = trusted(Behaviour::Silent).await;
        let begin = Instant::now();
        let error = ask(&client).await.unwrap_err();
        assert!(matches!(error, CheckpointError::Request(RequestError::Unreachable { .. })), "{error:?}");
        assert!(begin.elapsed() < Duration::from_secs(10));
        assert!(error.retry_may_help() && !error.archive_may_appear());
        assert_eq!(server.received(), "");
    }

    #[tokio::test]
    async fn a_refused_connection_sent_nothing() {
        let files = Files::new(&Authority::new());
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = ask(&files.client(free)).await.unwrap_err();
        assert!(matches!(error, CheckpointError::Request(RequestError::Unreachable { .. })), "{error:?}");
        assert!(
            error.to_string().contains(&free.to_string()) && error.to_string().contains("refused"),
            "{error}"
        );
        assert!(error.retry_may_help() && !error.archive_may_appear());
        // One that is closed before there is TLS, as by a kubelet that ends.
        let closing = FakeKubelet::start_with(None, &[], Behaviour::Sends(Vec::new())).await;
        let error = ask(&files.client(closing.address)).await.unwrap_err();
        assert!(matches!(error, CheckpointError::Request(RequestError::Unreachable { .. })), "{error:?}");
        assert!(!closing.received().contains(TOKEN));
    }

    #[tokio::test]
    async fn a_connection_that_ends_before_the_answer_does_may_still_bring_an_archive() {
        let whole = answer("200 OK", MADE);
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"ite\r\n";
        for sent in ["", &whole[..8], &whole[..whole.len() - 1], chunked, "no HTTP at all\r\n\r\n"] {
            let (_server, client) = trusted(Behaviour::Sends(sent.into())).await;
            let error = ask(&client).await.unwrap_err();
            assert!(matches!(error, CheckpointError::Request(RequestError::Broken(_))), "{sent}: {error:?}");
            assert!(error.retry_may_help() && error.archive_may_appear());
        }
        // Of an error, enough is known.
        let error = "HTTP/1.1 500 x\r\nContent-Length: 99\r\n\r\ncriu failed";
        let (_server, client) = trusted(Behaviour::Sends(error.into())).await;
        let error = ask(&client).await.unwrap_err();
        assert!(
            matches!(&error, CheckpointError::Refused(ErrorReply { text, .. }) if text == "criu failed"),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn dropping_the_request_closes_its_connection() {
        let (mut server, client) = trusted(Behaviour::Hangs(Vec::new())).await;
        let task = tokio::spawn(async move { ask(&client).await.map(|_| ()) });
        server.requests.recv().await.unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        // With the real time: a connection that stays open fails the test.
        tokio::time::resume();
        tokio::time::timeout(Duration::from_secs(10), server.closed.recv()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_token_is_read_for_each_request_and_without_one_nothing_is_sent() {
        let authority = Authority::new();
        let files = Files::new(&authority);
        let server = FakeKubelet::answering(authority.issue(NODE), "200 OK", MADE).await;
        let client = files.client(server.address);
        ask(&client).await.unwrap();
        files.write("token", "the-next-token");
        ask(&client).await.unwrap();
        let received = server.received();
        assert_eq!((received.matches(TOKEN).count(), received.matches("the-next-token").count()), (1, 1));
        files.remove("token");
        let error = ask(&client).await.unwrap_err();
        assert!(matches!(error, CheckpointError::Request(RequestError::Token(_))), "{error:?}");
        assert!(error.retry_may_help() && !error.archive_may_appear());
        assert_eq!(server.received(), received);
    }
}
