//! An API server, and an agent, made of tables; and the plugin run against them with nothing of this machine's user.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub(crate) const CHECKPOINTS: &str =
    "/apis/checkpoint-keeper.io/v1alpha1/namespaces/shop/containercheckpoints";
pub(crate) const ALL_CHECKPOINTS: &str = "/apis/checkpoint-keeper.io/v1alpha1/containercheckpoints";
pub(crate) const QUOTAS: &str = "/apis/checkpoint-keeper.io/v1alpha1/namespaces/shop/checkpointquotas";
pub(crate) const ALL_QUOTAS: &str = "/apis/checkpoint-keeper.io/v1alpha1/checkpointquotas";
pub(crate) const STORES: &str = "/apis/checkpoint-keeper.io/v1alpha1/nodecheckpointstores";

/// What is answered to each method and path: one answer after the other, and then the last one again and again.
type Answers = BTreeMap<String, Vec<(u16, Value)>>;

/// A server of tables. What no answer was given for is not found.
pub(crate) struct World {
    directory: tempfile::TempDir,
    port: u16,
    answers: Arc<Mutex<Answers>>,
    /// The bodies of what was written.
    written: Arc<Mutex<Vec<String>>>,
    /// Each request: its method, and its path with the query.
    asked: Arc<Mutex<Vec<String>>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answers, written): (Arc<Mutex<Answers>>, Arc<Mutex<Vec<String>>>) = Default::default();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (shared, bodies, requests) = (Arc::clone(&answers), Arc::clone(&written), Arc::clone(&asked));
        // Ends with the test's process.
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (shared, bodies, requests) =
                    (Arc::clone(&shared), Arc::clone(&bodies), Arc::clone(&requests));
                std::thread::spawn(move || serve(&connection, &shared, &bodies, &requests));
            }
        });
        let directory = tempfile::tempdir().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "shop"}}],
            "users": [{"name": "test", "user": {}}],
        });
        std::fs::write(directory.path().join("kubeconfig"), config.to_string()).unwrap();
        let world = Self { directory, port, answers, written, asked };
        world.on(
            "POST /apis/authentication.k8s.io/v1/selfsubjectreviews",
            201,
            json!({
                "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1",
                "status": {"userInfo": {"username": "alice"}},
            }),
        );
        world
    }

    /// Has a method and path answered so; of several answers each once, in their order.
    pub(crate) fn on(&self, what: &str, code: u16, answer: Value) {
        self.answers.lock().unwrap().entry(what.to_owned()).or_default().push((code, answer));
    }

    /// Has a list answered.
    pub(crate) fn list(&self, path: &str, items: &[Value]) {
        self.on(
            &format!("GET {path}"),
            200,
            json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}),
        );
    }

    pub(crate) fn refuse(&self, what: &str) {
        self.on(what, 403, status(403, "Forbidden", "you lack a right: User \"alice\" cannot do this"));
    }

    /// What was written, as JSON.
    pub(crate) fn written(&self) -> Vec<Value> {
        let written = self.written.lock().unwrap();
        written.iter().filter_map(|body| serde_json::from_str(body).ok()).collect()
    }

    /// The requests of a method so far, each as its path with the query.
    pub(crate) fn asked(&self, method: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let of_method = asked.iter().filter_map(|one| one.strip_prefix(method)?.strip_prefix(' '));
        of_method.map(str::to_owned).collect()
    }

    /// Where the tables are also an agent's.
    pub(crate) fn agent(&self) -> String {
        format!("--agent-address=127.0.0.1:{}", self.port)
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_string_lossy().into_owned()
    }

    /// Runs the plugin: its exit code, and what it says on both streams.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_kubectl-checkpoints"))
            .args(arguments)
            .env_clear()
            .env("HOME", self.directory.path())
            .env("KUBECONFIG", self.directory.path().join("kubeconfig"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let directory = self.directory.path().to_string_lossy().into_owned();
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).replace(&directory, "DIR");
            text.replace(&self.port.to_string(), "PORT")
        };
        format!(
            "$ kubectl checkpoints {}\nexit code {}\n--- stdout\n{}--- stderr\n{}",
            arguments.join(" ").replace(&directory, "DIR").replace(&self.port.to_string(), "PORT"),
            output.status.code().unwrap_or(-1),
            text(&output.stdout),
            text(&output.stderr)
        )
    }
}

/// So long ago, or from now on; and half an hour more, so that no age that is shown changes within seconds.
pub(crate) fn ago(hours: i64) -> String {
    let time = Timestamp::now() - SignedDuration::from_hours(hours) - SignedDuration::from_mins(30);
    Timestamp::from_second(time.as_second()).unwrap().to_string()
}

pub(crate) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
           "reason": reason, "code": code})
}

/// A checkpoint of that pod's container `app`, taken so many hours ago.
pub(crate) fn checkpoint(name: &str, pod: &str, hours: i64, size: &str) -> Value {
    json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "ContainerCheckpoint",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "generation": 1},
        "spec": {},
        "status": {
            "nodeName": "node-1", "file": format!("checkpoint-{pod}_shop-app-{hours}.tar"), "podName": pod,
            "containerName": "app", "checkpointedAt": ago(hours), "size": size, "state": "Complete",
            "runtime": "runc", "image": "docker.io/library/redis:7", "observedGeneration": 1,
            "owner": {"apiGroup": "apps", "kind": "Deployment", "name": pod.split('-').next().unwrap()},
            "conditions": [held("False", "NotHeld", "Policies decide about the archive.", 1)],
        },
    })
}

pub(crate) fn held(status: &str, reason: &str, message: &str, generation: i64) -> Value {
    json!({"type": "Held", "status": status, "reason": reason, "message": message,
           "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

pub(crate) fn store(node: &str, status: Value) -> Value {
    let mut all = json!({"archives": 0, "size": "0", "pinned": 0, "conditions": [
        {"type": "Ready", "status": "True", "reason": "Collecting", "message": "Archives are collected.",
         "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    all.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
    json!({"apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "NodeCheckpointStore",
           "metadata": {"name": node}, "spec": {}, "status": all})
}

fn serve(
    connection: &TcpStream,
    answers: &Mutex<Answers>,
    written: &Mutex<Vec<String>>,
    asked: &Mutex<Vec<String>>,
) {
    let mut reader = BufReader::new(connection);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        asked.lock().unwrap().push(format!("{method} {path}"));
        if method != "GET" {
            written.lock().unwrap().push(String::from_utf8_lossy(&body).into_owned());
        }
        let what = format!("{method} {}", path.split('?').next().unwrap_or_default());
        let (code, answer) = {
            let mut answers = answers.lock().unwrap();
            match answers.get_mut(&what) {
                Some(list) if list.len() > 1 => list.remove(0),
                Some(list) => list[0].clone(),
                None => {
                    let mut answer = status(404, "NotFound", &format!("{what} not found"));
                    answer["details"] = json!({"name": what.rsplit('/').next()});
                    (404, answer)
                }
            }
        };
        let text = answer.to_string();
        let head = format!(
            "HTTP/1.1 {code} Whatever\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            text.len()
        );
        if (&mut &*connection).write_all((head + &text).as_bytes()).is_err() {
            let _ = connection.shutdown(Shutdown::Both);
            return;
        }
    }
}
