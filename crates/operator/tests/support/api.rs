//! An API server made of tables, on a port of this machine.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// How a request is replied to.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// With that status and body.
    Body(u16, String),
    /// With whatever these bytes are.
    Raw(String),
    /// Never.
    Hang,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) accept: String,
    pub(crate) authorization: String,
}

#[derive(Default)]
struct State {
    replies: BTreeMap<String, Reply>,
    requests: Vec<Request>,
    /// How many were replied to.
    replied: usize,
    /// How far its clock is ahead.
    ahead: SignedDuration,
    connections: Vec<TcpStream>,
}

/// The server. What no reply was given for is not found, in the API's own words.
pub(crate) struct Api {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Api {
    /// A server with the namespace `team`, created long before any archive.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        // Ends with the test's process.
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // Held, so that it stays open when it is not replied to.
                shared.lock().unwrap().connections.push(connection.try_clone().unwrap());
                thread::spawn(move || serve(&connection, &shared));
            }
        });
        let api = Self { port, state };
        api.namespace("team", "2025-01-01T00:00:00Z");
        api.namespace("kube-system", "2024-12-31T00:00:00Z");
        api
    }

    /// A kubeconfig that leads to it, with what a user shows of itself.
    pub(crate) fn kubeconfig_of(&self, root: &Path, user: &Value) -> PathBuf {
        kubeconfig_of(root, self.port, user)
    }

    /// A kubeconfig that leads to it.
    pub(crate) fn kubeconfig(&self, root: &Path) -> PathBuf {
        kubeconfig(root, self.port)
    }

    pub(crate) fn reply(&self, path: &str, reply: Reply) {
        self.state.lock().unwrap().replies.insert(path.to_owned(), reply);
    }

    /// From now on it is not found.
    pub(crate) fn delete(&self, path: &str) {
        assert!(self.state.lock().unwrap().replies.remove(path).is_some(), "{path} was there");
    }

    pub(crate) fn set_clock_ahead(&self, ahead: SignedDuration) {
        self.state.lock().unwrap().ahead = ahead;
    }

    /// Closes all connections, as a server does with those that are idle; says how many.
    pub(crate) fn close_connections(&self) -> usize {
        let connections = std::mem::take(&mut self.state.lock().unwrap().connections);
        connections.iter().filter(|connection| connection.shutdown(Shutdown::Both).is_ok()).count()
    }

    pub(crate) fn replied(&self) -> usize {
        self.state.lock().unwrap().replied
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.path).collect()
    }

    pub(crate) fn namespace(&self, name: &str, created: &str) {
        let metadata = json!({"name": name, "uid": "n1", "creationTimestamp": created});
        self.reply(&format!("/api/v1/namespaces/{name}"), object(&metadata));
    }

    /// A pod `team/<name>` with that UID, and its controller as `apps/v1 ReplicaSet web-1`.
    pub(crate) fn pod(&self, name: &str, uid: &str, controller: Option<&str>) {
        self.reply(&pod_path(name), object(&pod(name, uid, controller)));
    }

    /// An owner at a path, and its own controller.
    pub(crate) fn owner(&self, path: &str, controller: Option<&str>) {
        let (collection, name) = path.rsplit_once('/').unwrap();
        let mut metadata = json!({"name": name, "uid": "o1", "ownerReferences": references(controller)});
        if collection.contains("/namespaces/") {
            metadata["namespace"] = "team".into();
        }
        self.reply(path, object(&metadata));
    }

    /// The pods that run on `node-1`.
    pub(crate) fn node_pods(&self, pods: &[Value]) {
        let items: Vec<Value> = pods.iter().map(|metadata| json!({"metadata": metadata})).collect();
        let list = json!({"kind": "PartialObjectMetadataList", "metadata": {}, "items": items});
        self.reply("/api/v1/pods", Reply::Body(200, list.to_string()));
    }
}

pub(crate) fn kubeconfig(root: &Path, port: u16) -> PathBuf {
    kubeconfig_of(root, port, &json!({}))
}

/// The same with what a user shows of itself.
pub(crate) fn kubeconfig_of(root: &Path, port: u16, user: &Value) -> PathBuf {
    let path = root.join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "users": [{"name": "test", "user": user}],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

pub(crate) fn pod_path(name: &str) -> String {
    format!("/api/v1/namespaces/team/pods/{name}")
}

pub(crate) fn pod(name: &str, uid: &str, controller: Option<&str>) -> Value {
    json!({"name": name, "namespace": "team", "uid": uid, "labels": {"app": "web"},
           "creationTimestamp": "2025-06-01T00:00:00Z", "ownerReferences": references(controller)})
}

fn references(controller: Option<&str>) -> Value {
    let reference = controller.map(|text| {
        let parts: Vec<&str> = text.split(' ').collect();
        json!({"apiVersion": parts[0], "kind": parts[1], "name": parts[2], "uid": "c1", "controller": true})
    });
    let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "no-controller", "uid": "x"});
    reference.map_or_else(|| json!([]), |reference| json!([other, reference]))
}

pub(crate) fn object(metadata: &Value) -> Reply {
    let object =
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
    Reply::Body(200, object.to_string())
}

/// `Status`, as the API says what is wrong.
pub(crate) fn status(code: u16, reason: &str, details: &Value) -> Reply {
    let message = format!("it is {reason}");
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "message": message, "reason": reason, "details": details, "code": code});
    Reply::Body(code, status.to_string())
}

pub(crate) fn not_found(path: &str) -> Reply {
    let parts: Vec<&str> = path.split('/').collect();
    let group = if parts[1] == "apis" { parts[2] } else { "" };
    let (plural, name) = (parts[parts.len() - 2], parts[parts.len() - 1]);
    status(404, "NotFound", &json!({"name": name, "group": group, "kind": plural}))
}

fn serve(connection: &TcpStream, shared: &Mutex<State>) {
    let mut lines = BufReader::new(connection).lines().map_while(Result::ok);
    loop {
        let Some(first) = lines.next() else { return };
        let mut words = first.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let (mut accept, mut authorization) = (String::new(), String::new());
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            if let Some(value) = line.to_lowercase().strip_prefix("accept: ") {
                value.clone_into(&mut accept);
            }
            if let Some((_, value)) =
                line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("authorization"))
            {
                value.clone_into(&mut authorization);
            }
        }
        let mut state = shared.lock().unwrap();
        state.requests.push(Request { method, path: path.clone(), accept, authorization });
        let bare = path.split('?').next().unwrap();
        let reply = state.replies.get(bare).cloned().unwrap_or_else(|| not_found(bare));
        let date = (Timestamp::now() + state.ahead).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let bytes = match reply {
            Reply::Hang => return,
            Reply::Raw(bytes) => bytes,
            Reply::Body(code, body) => {
                let mut head = format!("HTTP/1.1 {code} Whatever\r\nDate: {date}\r\n");
                write!(head, "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len())
                    .unwrap();
                head + &body
            }
        };
        drop(state);
        let is_whole = bytes.starts_with("HTTP/1.1") && !bytes.contains("Content-Length: 99999");
        if (&mut &*connection).write_all(bytes.as_bytes()).is_err() || !is_whole {
            let _ = connection.shutdown(Shutdown::Both);
            return;
        }
        shared.lock().unwrap().replied += 1;
    }
}
