//! Counting requests to the API, by kind, verb and result.

use http::{Method, Request};
use kube::Client;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tower::service_fn;

/// The plural names that are counted as such. Tenants' owner references name whatever kinds they like: those are
/// `other`, or the number of time series would be theirs to choose.
const KINDS: [&str; 21] = [
    "checkpointpolicies",
    "checkpointquotas",
    "checkpointrestoreoperators",
    "checkpointschedules",
    "checkpointstoragepolicies",
    "clustercheckpointpolicies",
    "containercheckpoints",
    "cronjobs",
    "customresourcedefinitions",
    "daemonsets",
    "deployments",
    "events",
    "jobs",
    "leases",
    "namespaces",
    "nodecheckpointstores",
    "nodes",
    "pods",
    "replicasets",
    "replicationcontrollers",
    "statefulsets",
];

/// What is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct What {
    kind: &'static str,
    verb: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    kind: &'static str,
    verb: &'static str,
    result: &'static str,
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Success,
    NotFound,
    Conflict,
    TooManyRequests,
    Refused,
    ServerError,
    None,
}

impl Reply {
    const ALL: [Self; 7] = [
        Self::Success,
        Self::NotFound,
        Self::Conflict,
        Self::TooManyRequests,
        Self::Refused,
        Self::ServerError,
        Self::None,
    ];

    fn of(status: u16) -> Self {
        match status {
            ..400 => Self::Success,
            404 => Self::NotFound,
            409 => Self::Conflict,
            429 => Self::TooManyRequests,
            400..500 => Self::Refused,
            500.. => Self::ServerError,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::TooManyRequests => "too_many_requests",
            Self::Refused => "refused",
            Self::ServerError => "server_error",
            Self::None => "no_reply",
        }
    }
}

/// The number of requests so far.
#[derive(Debug, Clone, Default)]
pub struct RequestCounts(Family<Labels, Counter>);

impl RequestCounts {
    /// The counters, to be registered.
    pub(super) fn family(&self) -> impl prometheus_client::registry::Metric + use<> {
        self.0.clone()
    }

    /// A client whose requests are counted.
    pub fn counted(&self, client: &Client) -> Client {
        let (counts, client) = (self.clone(), client.clone());
        let namespace = client.default_namespace().to_owned();
        let service = service_fn(move |request: Request<kube::client::Body>| {
            let client = client.clone();
            let mut pending = Pending {
                counts: counts.clone(),
                what: what(request.method(), request.uri()),
                reply: Reply::None,
            };
            async move {
                let response = client.send(request).await?;
                pending.note(Reply::of(response.status().as_u16()));
                Ok::<_, kube::Error>(response)
            }
        });
        Client::new(service, namespace)
    }

    /// With one request.
    pub(super) fn example() -> Self {
        let counts = Self::default();
        counts.count(What { kind: "pods", verb: "watch" }, Reply::Success);
        counts
    }

    fn count(&self, what: What, reply: Reply) {
        let labels = |reply: Reply| Labels { kind: what.kind, verb: what.verb, result: reply.label() };
        // With the first of its results all are there, at 0: what begins at 1 has no rate.
        if self.0.get(&labels(Reply::None)).is_none() {
            Reply::ALL.iter().for_each(|reply| _ = self.0.get_or_create(&labels(*reply)));
        }
        self.0.get_or_create(&labels(reply)).inc();
    }
}

/// A request under way. It is counted when this is dropped; one that was cancelled counts as having had no reply.
struct Pending {
    counts: RequestCounts,
    what: What,
    reply: Reply,
}

impl Pending {
    fn note(&mut self, reply: Reply) {
        self.reply = reply;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.counts.count(self.what, self.reply);
    }
}

fn what(method: &Method, uri: &http::Uri) -> What {
    let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
    // Before it stand `api` and a version, or `apis`, a group and a version.
    let skipped = if parts.next() == Some("apis") { 2 } else { 1 };
    let mut parts = parts.skip(skipped).peekable();
    let mut plural = parts.next();
    let mut name = parts.next();
    if plural == Some("namespaces") && parts.peek().is_some() {
        plural = parts.next();
        name = parts.next();
    }
    let is_watch = uri.query().is_some_and(|query| query.split('&').any(|part| part == "watch=true"));
    let verb = match *method {
        Method::GET if is_watch => "watch",
        Method::GET if name.is_none() => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    };
    let kind = KINDS.into_iter().find(|kind| plural == Some(*kind)).unwrap_or("other");
    What { kind, verb }
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_api::crds::{crds, legacy_crds};
    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;

    use super::*;

    #[test]
    fn each_of_our_kinds_is_counted_as_such() {
        for crd in crds().into_iter().chain(legacy_crds()) {
            let plural = crd.spec.names.plural;
            assert!(KINDS.contains(&plural.as_str()), "{plural}");
        }
    }

    #[test]
    fn kind_and_verb_follow_from_the_request() {
        let of = |method: Method, uri: &str| {
            let What { kind, verb } = what(&method, &uri.parse().unwrap());
            format!("{verb} {kind}")
        };
        let group = "/apis/checkpoint-keeper.io/v1alpha1";
        assert_eq!(of(Method::GET, "/api/v1/pods?limit=1&watch=true"), "watch pods");
        assert_eq!(of(Method::GET, "/api/v1/pods?limit=1"), "list pods");
        assert_eq!(of(Method::GET, "/api/v1/namespaces/team/pods/web-0"), "get pods");
        assert_eq!(of(Method::GET, "/api/v1/namespaces/team/pods"), "list pods");
        assert_eq!(of(Method::GET, "/api/v1/namespaces/team"), "get namespaces");
        assert_eq!(of(Method::GET, "/api/v1/namespaces"), "list namespaces");
        let status = format!("{group}/nodecheckpointstores/node-1/status");
        assert_eq!(of(Method::PATCH, &status), "patch nodecheckpointstores");
        assert_eq!(of(Method::POST, "/apis/events.k8s.io/v1/namespaces/team/events"), "create events");
        assert_eq!(of(Method::GET, "/apis/example.com/v1/namespaces/team/gizmos/web"), "get other");
        assert_eq!(of(Method::GET, "/apis/example.com/v1"), "list other");
        assert_eq!(of(Method::GET, "/"), "list other");
    }

    #[tokio::test(start_paused = true)]
    async fn each_request_is_counted_by_its_result_and_one_that_is_given_up_had_no_reply() {
        let answer = |request: axum::extract::Request| async move {
            if request.uri().path().ends_with("/silent") {
                return std::future::pending().await;
            }
            axum::response::Response::builder().status(404).body(axum::body::Body::from("{}")).unwrap()
        };
        let counts = RequestCounts::default();
        let client = counts.counted(&Client::new(axum::Router::new().fallback(answer), "default"));
        let pods = Api::<Pod>::namespaced(client, "team");
        assert!(pods.get("gone").await.is_err());
        let given_up = tokio::time::timeout(std::time::Duration::from_secs(10), pods.get("silent")).await;
        assert!(given_up.is_err());
        let count = |result| {
            let labels = Labels { kind: "pods", verb: "get", result };
            counts.0.get(&labels).map(|count| count.get())
        };
        assert_eq!(count("not_found"), Some(1));
        assert_eq!(count("no_reply"), Some(1));
        assert_eq!(count("conflict"), Some(0));
    }
}
