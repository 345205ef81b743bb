//! What containers use of CPU and memory, from the kubelet's `/metrics/resource`: Prometheus' text format, of which
//! two metrics are read. A line that is not understood is passed over.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;

use super::{ErrorReply, Kubelet, Limits, RequestError};

/// How long the answer may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The most that is read of an answer, in bytes: some 20 000 containers.
const LARGEST_REPLY: usize = 8 << 20;

const CPU: &str = "container_cpu_usage_seconds_total";
const MEMORY: &str = "container_memory_working_set_bytes";
/// Both names that the kubelet gives to it, which is 1 when it got no metrics from the runtime.
const SCRAPE_ERROR: [&str; 2] = ["resource_scrape_error 1", "scrape_error 1"];

/// A container of a pod by its names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerKey {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
}

/// What a container uses. A part that the kubelet does not know yet is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// CPU time since the container's start, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Memory of its working set, in bytes.
    pub memory_bytes: Option<u64>,
    /// When the CPU time was measured, where the kubelet says it.
    pub at: Option<Timestamp>,
}

/// Why nothing is known about any container.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// The request itself failed; for want of a right, that is `get` on `nodes/metrics`.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// This kubelet has no such endpoint (404).
    #[error("the kubelet has no /metrics/resource: {0}")]
    NoEndpoint(ErrorReply),
    /// The kubelet answers with an error.
    #[error("the kubelet gives no resource metrics: {0}")]
    Refused(ErrorReply),
    /// The kubelet got no metrics from the runtime.
    #[error("the kubelet got no metrics from the runtime (resource_scrape_error is 1)")]
    ScrapeFailed,
    /// The answer is too long.
    #[error("the kubelet's resource metrics have more than {} MiB", LARGEST_REPLY >> 20)]
    TooLarge,
    /// The answer is no text.
    #[error("the kubelet's resource metrics are no text: {0}")]
    NotText(#[from] std::string::FromUtf8Error),
}

impl Kubelet {
    /// What each container of the node uses. A container without metrics, as a new one is, is not in the map.
    pub async fn resource_usage(&self) -> Result<BTreeMap<ContainerKey, Usage>, UsageError> {
        let limits = Limits { deadline: DEADLINE, body: LARGEST_REPLY };
        let reply = self.send(Method::GET, "/metrics/resource", limits).await?;
        match reply.status {
            StatusCode::OK if reply.is_truncated => return Err(UsageError::TooLarge),
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(UsageError::NoEndpoint(reply.error())),
            _ => return Err(UsageError::Refused(reply.error())),
        }
        let text = String::from_utf8(reply.body)?;
        let usage = parse(&text);
        if usage.is_empty() && text.lines().any(|line| SCRAPE_ERROR.contains(&line.trim_end())) {
            return Err(UsageError::ScrapeFailed);
        }
        Ok(usage)
    }
}

fn parse(text: &str) -> BTreeMap<ContainerKey, Usage> {
    let mut containers = BTreeMap::<_, Usage>::new();
    for line in text.lines() {
        if let Some(sample) = line.strip_prefix(CPU).and_then(Sample::parse) {
            let usage = containers.entry(sample.key).or_default();
            (usage.cpu_seconds, usage.at) = (Some(sample.value), sample.at);
        } else if let Some(sample) = line.strip_prefix(MEMORY).and_then(Sample::parse) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "neither NaN nor negative"
            )]
            let bytes = sample.value as u64;
            containers.entry(sample.key).or_default().memory_bytes = Some(bytes);
        }
    }
    containers
}

/// A line without its metric's name: the labels, a number that is finite and not negative, and perhaps the time.
struct Sample {
    key: ContainerKey,
    value: f64,
    at: Option<Timestamp>,
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let (key, rest) = labels(line)?;
        let mut words = rest.split_ascii_whitespace();
        let value = words.next()?.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)?;
        let at = match words.next() {
            Some(milliseconds) => Some(Timestamp::from_millisecond(milliseconds.parse().ok()?).ok()?),
            None => None,
        };
        words.next().is_none().then_some(Self { key, value, at })
    }
}

/// The container that the labels between braces name, and what follows them.
fn labels(text: &str) -> Option<(ContainerKey, &str)> {
    let (mut namespace, mut pod, mut container) = (None, None, None);
    let mut rest = text.trim_start().strip_prefix('{')?.trim_start();
    while !rest.starts_with('}') {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = quoted(after.trim_start())?;
        match name.trim_end() {
            "namespace" => namespace = Some(value),
            "pod" => pod = Some(value),
            "container" => container = Some(value),
            _ => {}
        }
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None => after.starts_with('}').then_some(after)?,
        };
    }
    let key = ContainerKey { namespace: namespace?, pod: pod?, container: container? };
    Some((key, &rest[1..]))
}

/// A label's value, and what follows its closing quotation mark.
fn quoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            }),
            plain => value.push(plain),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Behaviour, trusted, trusted_answering};
    use super::*;

    /// As a kubelet of 1.37 gives it.
    const METRICS: &str = r#"# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container in core-seconds
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="app",namespace="team",pod="web-0"} 4.700522 1764150000123
container_cpu_usage_seconds_total{container="side",namespace="team",pod="web-0"} 0
# HELP container_memory_working_set_bytes [STABLE] Current working set of the container in bytes
# TYPE container_memory_working_set_bytes gauge
container_memory_working_set_bytes{container="app",namespace="team",pod="web-0"} 1.2423168e+07 1764150000456
container_start_time_seconds{container="app",namespace="team",pod="web-0"} 1.7e+09
node_cpu_usage_seconds_total 357.3 1764150000000
pod_cpu_usage_seconds_total{namespace="team",pod="web-0"} 4.67 1764150000123
resource_scrape_error 0
"#;

    fn key(container: &str) -> ContainerKey {
        ContainerKey {
            namespace: "team".to_owned(),
            pod: "web-0".to_owned(),
            container: container.to_owned(),
        }
    }

    #[tokio::test]
    async fn each_containers_use_is_read_and_one_without_metrics_is_absent() {
        let (server, client) = trusted_answering("200 OK", METRICS).await;
        let usage = client.resource_usage().await.unwrap();
        assert!(server.received().starts_with("GET /metrics/resource HTTP/1.1\r\n"));
        let at = "2025-11-26T09:40:00.123Z".parse().ok();
        let app = Usage { cpu_seconds: Some(4.700_522), memory_bytes: Some(12_423_168), at };
        let side = Usage { cpu_seconds: Some(0.0), memory_bytes: None, at: None };
        assert_eq!(usage, [(key("app"), app), (key("side"), side)].into());
        assert!(!usage.contains_key(&key("new")));
    }

    #[test]
    fn a_line_that_is_not_understood_is_passed_over() {
        let labels = r#"{container="app",namespace="team",pod="web-0"}"#;
        for bad in
            ["", "NaN", "+Inf", "-Inf", "-1", "1 x", "1 1.5", "1 2 3", "1 99999999999999999999", "x", "0x10"]
        {
            assert_eq!(
                parse(&format!("{CPU}{labels} {bad}\n{MEMORY}{labels} {bad}\n")),
                BTreeMap::new(),
                "{bad}"
            );
        }
        for bad in [
            "",
            "{}",
            "{",
            r#"{container="app",namespace="team"}"#,
            r#"{container="app",namespace="team",pod="web-0""#,
            r#"{container="app",namespace="team",pod="web-0}"#,
            r#"{container="app" namespace="team",pod="web-0"}"#,
            r#"{container=app,namespace="team",pod="web-0"}"#,
            r#"{container="a\pp",namespace="team",pod="web-0"}"#,
            r#"{container="app",namespace="team",pod="web-0\"}"#,
            r#"_other{container="app",namespace="team",pod="web-0"}"#,
        ] {
            assert_eq!(parse(&format!("{CPU}{bad} 1\n{MEMORY}{bad} 1")), BTreeMap::new(), "{bad}");
        }
        // The lines around a bad one count.
        let usage = parse(&format!("{CPU}{labels} NaN\n{MEMORY}{labels} 7\n{CPU}{labels} -0.1"));
        assert_eq!(usage[&key("app")], Usage { memory_bytes: Some(7), ..Usage::default() });
    }

    #[test]
    fn labels_may_stand_in_any_order_with_spaces_escapes_and_others_between() {
        let line =
            format!(r#"{CPU} {{ pod = "web-0" , x="a\"}}\\\n,=" ,namespace="team",container="app", }} 2 -5"#);
        let at = Timestamp::from_millisecond(-5).ok();
        let app = Usage { cpu_seconds: Some(2.0), at, ..Usage::default() };
        assert_eq!(parse(&line), [(key("app"), app)].into());
        assert_eq!(quoted(r#""a\"b\\c\nd" rest"#), Some(("a\"b\\c\nd".to_owned(), " rest")));
        assert_eq!(quoted(r#""é" "#), Some(("é".to_owned(), " ")));
    }

    #[tokio::test]
    async fn an_endpoint_that_is_missing_is_told_apart_from_containers_without_metrics() {
        let (_server, client) = trusted_answering("200 OK", "").await;
        assert_eq!(client.resource_usage().await.unwrap(), BTreeMap::new());
        let failure = async |status, body: &str| {
            let (_server, client) = trusted_answering(status, body).await;
            client.resource_usage().await.unwrap_err()
        };
        let error = failure("404 Not Found", "404 page not found").await;
        assert!(matches!(error, UsageError::NoEndpoint(_)), "{error:?}");
        let error = failure("403 Forbidden", "no right").await;
        assert!(matches!(error, UsageError::Request(RequestError::Forbidden(_))), "{error:?}");
        let error = failure("401 Unauthorized", "").await;
        assert!(matches!(error, UsageError::Request(RequestError::Unauthorized(_))), "{error:?}");
        let error = failure("500 x", "broken").await;
        assert!(matches!(error, UsageError::Refused(ErrorReply { status: 500, .. })), "{error:?}");
        for name in ["resource_scrape_error", "scrape_error"] {
            let error = failure("200 OK", &format!("# TYPE {name} gauge\n{name} 1\n")).await;
            assert!(matches!(error, UsageError::ScrapeFailed), "{error:?}");
        }
    }

    #[tokio::test]
    async fn what_is_too_large_or_no_text_is_refused() {
        let (_server, client) = trusted_answering("200 OK", &"# \n".repeat(LARGEST_REPLY / 3 + 1)).await;
        assert!(matches!(client.resource_usage().await, Err(UsageError::TooLarge)));
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe".to_vec();
        let (_server, client) = trusted(Behaviour::Sends(bytes)).await;
        assert!(matches!(client.resource_usage().await, Err(UsageError::NotText(_))));
    }

    #[tokio::test]
    async fn a_kubelet_that_does_not_answer_is_given_up() {
        let (_server, client) = trusted(Behaviour::Hangs(Vec::new())).await;
        let error = client.resource_usage().await.unwrap_err();
        assert!(
            matches!(error, UsageError::Request(RequestError::TimedOut { after: DEADLINE })),
            "{error:?}"
        );
    }
}
