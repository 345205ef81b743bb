//! Asking a cluster about pods, namespaces and owners: live requests, and never a write.
//!
//! `credentials` says who asks, `request` says what is requested, `reply` what a reply means; here are the connection, its
//! timeouts, and when it pauses. What follows from the answers is the core's part.

pub mod credentials;
mod reply;
mod request;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use checkpoint_keeper_core::engine::clock::Now;
use checkpoint_keeper_core::engine::cluster::Resolved;
use checkpoint_keeper_core::pods::{Lookup, LookupResult};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, KubeconfigError};
use kube::{Client, Config};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tower::timeout::TimeoutLayer;
use tower::util::MapErrLayer;

use super::error_text::{NoReply, plain};
use super::requests::RequestCounts;
use credentials::CredentialError;
use reply::Refusal;
pub use reply::{MIRROR, live_pod, namespace};
use request::{Get, Kind};
pub use request::{is_node_name, running_on};

/// How long one request may take. The API answers such requests in milliseconds, or is overloaded.
const REQUEST: Duration = Duration::from_secs(10);

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a reply may take to begin, a watch's too: the API gives up on a request after that long.
const REPLY: Duration = Duration::from_mins(1);

/// How long a reply that has begun may pause: a watch ends by itself before that.
const SILENCE: Duration = Duration::from_mins(5);

/// So many requests in a row without a reply, and the API is left in peace for a while.
const MAX_UNANSWERED: u32 = 2;

/// How long it is left in peace.
const PAUSE: Duration = Duration::from_secs(10);

/// A cluster that can be asked.
pub struct Cluster {
    runtime: Runtime,
    client: Client,
    node_name: Option<String>,
    /// Reads the clocks of this machine.
    now: fn() -> Now,
    /// How kinds are requested that not every cluster has.
    kinds: HashMap<(String, String), Kind>,
    /// How many requests in a row had no reply.
    silence: u32,
    /// Until when it is left in peace.
    quiet_until: Option<Instant>,
}

/// Why a cluster cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("cannot be used: {0}")]
    Kubeconfig(#[from] KubeconfigError),
    /// A credential cannot be used.
    #[error("{0}")]
    Credential(#[from] CredentialError),
    /// There is no service account.
    #[error("no service account of a pod is here; outside of a pod, give a --kubeconfig: {0}")]
    InCluster(#[from] kube::config::InClusterError),
    /// No client can be made of it.
    #[error("no client can be made: {0}")]
    Client(#[from] kube::Error),
    /// Nothing can be waited for.
    #[error("cannot start a runtime: {0}")]
    Runtime(#[from] std::io::Error),
}

/// A client of the cluster that a kubeconfig's current context leads to; none: the one that this pod runs
/// in, by the address in the pod's environment.
pub fn client(runtime: &Runtime, kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let kubeconfig = credentials::read_kubeconfig(path)?;
            runtime.block_on(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()))?
        }
        None => Config::incluster_env()?,
    };
    credentials::check_authority(config.root_cert.as_ref())?;
    // The callers decide themselves whether and when to repeat a request.
    config.default_retry = false;
    tracing::debug!(server = server(&config), "requests go to this API server");
    let _inside = runtime.enter();
    impatient(config, REPLY, SILENCE)
}

/// A client that gives up: where the API's machine loses its power, the connection is never closed, and no
/// reply ever comes by it.
fn impatient(mut config: Config, reply: Duration, silence: Duration) -> Result<Client, ConnectError> {
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(silence);
    config.reset_reader_on_write = true;
    let token = credentials::take_token(&mut config.auth_info)?;
    let server = server(&config);
    let named = MapErrLayer::new(move |source| NoReply { server: server.clone(), source });
    let builder = ClientBuilder::try_from(config)?;
    Ok(match token {
        Some(token) => {
            builder.with_layer(&token).with_layer(&TimeoutLayer::new(reply)).with_layer(&named).build()
        }
        None => builder.with_layer(&TimeoutLayer::new(reply)).with_layer(&named).build(),
    })
}

/// The address of the API server, without a name and password that may stand in it.
fn server(config: &Config) -> String {
    let url = &config.cluster_url;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme_str().unwrap_or("https"), url.host().unwrap_or_default())
}

impl Cluster {
    /// The cluster that a kubeconfig's current context leads to; none: the one that this pod runs in. `now` reads the
    /// clocks of this machine: each answer has the time at which it arrived.
    pub fn new(
        kubeconfig: Option<&Path>,
        node_name: Option<String>,
        now: fn() -> Now,
    ) -> Result<Self, ConnectError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let client = client(&runtime, kubeconfig)?;
        Ok(Self { runtime, client, node_name, now, kinds: HashMap::new(), silence: 0, quiet_until: None })
    }

    /// Counts its requests from here on.
    pub fn count_requests(&mut self, counts: &RequestCounts) {
        let _inside = self.runtime.enter();
        self.client = counts.counted(&self.client);
    }

    /// Sends lookups one after the other. There are no parallel requests, so that a mass deletion does not load the
    /// API.
    pub fn ask(&mut self, lookups: Vec<Lookup>) -> Vec<Resolved> {
        lookups.into_iter().map(|lookup| self.ask_one(lookup)).collect()
    }

    fn ask_one(&mut self, lookup: Lookup) -> Resolved {
        if self.quiet_until.take_if(|until| *until <= Instant::now()).is_some() {
            self.silence = 0;
        }
        if self.quiet_until.is_some() {
            return Resolved { lookup, result: LookupResult::NotAsked, at: (self.now)(), server_time: None };
        }
        let mut server_time = None;
        let result = self.find(&lookup, &mut server_time).unwrap_or_else(LookupResult::from);
        if self.silence >= MAX_UNANSWERED {
            self.quiet_until.get_or_insert_with(|| Instant::now() + PAUSE);
        }
        Resolved { lookup, result, at: (self.now)(), server_time }
    }

    fn find(
        &mut self,
        lookup: &Lookup,
        server_time: &mut Option<Timestamp>,
    ) -> Result<LookupResult, Refusal> {
        let request = self.request_for(lookup, server_time)?;
        let (status, body) = self.send(&request, server_time)?;
        Ok(reply::finding(&request, status, &body))
    }

    /// The request for a lookup. For a kind that not every cluster has, the API's discovery is read first.
    fn request_for(&mut self, lookup: &Lookup, server_time: &mut Option<Timestamp>) -> Result<Get, Refusal> {
        let failed = Refusal::Failed;
        match lookup {
            Lookup::Cluster => Ok(Get::cluster()),
            Lookup::Namespace(name) => Ok(Get::namespace(name)),
            Lookup::NodePods => {
                let node = self.node_name.as_deref().ok_or_else(|| failed("no --node-name".to_owned()))?;
                Ok(Get::pods_on(node))
            }
            Lookup::Pod { namespace, name } => Ok(Get::pod(namespace, name)),
            Lookup::Owner { namespace, owner } => {
                request::check(owner).map_err(failed)?;
                if let Some(kind) = Kind::built_in(owner) {
                    return Ok(Get::owner(&kind, namespace, &owner.name));
                }
                let key = (owner.api_version.clone(), owner.kind.clone());
                if !self.kinds.contains_key(&key) {
                    let discovery = Get::kinds_of(&owner.api_version);
                    let (status, body) = self.send(&discovery, server_time)?;
                    self.kinds.insert(key.clone(), reply::kind(owner, status, &body)?);
                }
                Ok(Get::owner(&self.kinds[&key], namespace, &owner.name))
            }
        }
    }

    /// One request, and the whole of its reply: status and body.
    fn send(&mut self, get: &Get, server_time: &mut Option<Timestamp>) -> Result<(u16, Vec<u8>), Refusal> {
        let request = get.http().map_err(|error| Refusal::Failed(error.to_string()))?;
        let exchange = async {
            let response = self.client.send(request.map(Body::from)).await?;
            let date = response.headers().get("date").and_then(|date| date.to_str().ok());
            let date = date.and_then(|date| rfc2822::parse(date).ok()).map(|date| date.timestamp());
            let status = response.status().as_u16();
            Ok::<_, kube::Error>((date, status, response.into_body().collect_bytes().await?))
        };
        match self.runtime.block_on(async { timeout(REQUEST, exchange).await }) {
            Ok(Ok((date, status, body))) => {
                *server_time = date.or(*server_time);
                // 429 and 503 (too many requests, no server available) count as no answer.
                self.silence = if matches!(status, 429 | 503) { self.silence + 1 } else { 0 };
                Ok((status, body.to_vec()))
            }
            Ok(Err(error)) => {
                self.silence += 1;
                Err(Refusal::Failed(reply::plain(&plain(&error))))
            }
            Err(_) => {
                self.silence += 1;
                Err(Refusal::Failed(format!("no reply within {} s", REQUEST.as_secs())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU8, Ordering};

    use k8s_openapi::api::core::v1::Node;
    use kube::runtime::watcher::{self, watcher};
    use kube::{Api, api::DynamicObject};
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::watch::{Change, follow};

    #[test]
    fn an_address_in_the_log_holds_no_password() {
        let address = |url: &str| server(&Config::new(url.parse().unwrap()));
        assert_eq!(address("https://me:secret@10.0.0.1:6443/path?token=secret"), "https://10.0.0.1:6443");
        assert_eq!(address("https://[fd00::1]:443"), "https://[fd00::1]:443");
        assert_eq!(address("https://kubernetes.default.svc/"), "https://kubernetes.default.svc");
    }

    const LISTS: u8 = 1;
    const WATCHES: u8 = 2;

    /// Replies to what it may, and leaves a connection silent for good that asked for anything else.
    async fn serve(stream: TcpStream, may: Arc<AtomicU8>) {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if !line.starts_with("GET") {
                continue;
            }
            let is_watch = line.contains("watch=");
            if may.load(Ordering::SeqCst) & if is_watch { WATCHES } else { LISTS } == 0 {
                std::future::pending::<()>().await;
            }
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
            let node = r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n","resourceVersion":"2"}}"#;
            let reply = if is_watch {
                let event = format!("{{\"type\":\"ADDED\",\"object\":{node}}}\n");
                format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{event}\r\n", event.len())
            } else {
                let list =
                    r#"{"apiVersion":"v1","kind":"NodeList","metadata":{"resourceVersion":"1"},"items":[]}"#;
                format!("{head}Content-Length: {}\r\n\r\n{list}", list.len())
            };
            write.write_all(reply.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_request_that_is_never_answered_is_given_up_and_made_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let may = Arc::new(AtomicU8::new(0));
        let shared = Arc::clone(&may);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        let config = Config::new(format!("http://{address}").parse().unwrap());
        let soon = Duration::from_millis(100);
        let client = impatient(config, soon, Duration::from_mins(5)).unwrap();
        let nodes = Api::<DynamicObject>::all_with(client, &kube::api::ApiResource::erase::<Node>(&()));
        let mut listed = false;
        let (mut failed, mut failed_since) = (0, 0);
        let done = tokio::sync::Notify::new();
        let follows = follow(watcher(nodes, watcher::Config::default()), |change| match change {
            Change::Failed(_) if !listed => {
                failed += 1;
                may.store(LISTS, Ordering::SeqCst);
            }
            Change::Failed(_) => {
                failed_since += 1;
                may.store(LISTS | WATCHES, Ordering::SeqCst);
            }
            Change::Listed(_) => listed = true,
            Change::Applied(_) | Change::Deleted(_) => done.notify_one(),
        });
        let seen = async {
            tokio::select! { () = follows => {}, () = done.notified() => {} }
        };
        timeout(Duration::from_mins(1), seen).await.expect("the object is seen at last");
        assert_eq!((failed, failed_since, listed), (1, 1, true), "a list, and a watch");
    }
}
