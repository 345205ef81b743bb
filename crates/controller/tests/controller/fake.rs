//! An API server in memory: versions, conflicts, preconditions and watches are as the real one has them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::Response;
use futures_util::stream;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Plural, namespace and name.
type Key = (String, String, String);

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) who: String,
    pub(crate) at: Instant,
    pub(crate) method: Method,
    pub(crate) key: Key,
    pub(crate) body: Value,
    /// The reply's status; none: there was none.
    pub(crate) status: Option<u16>,
}

impl Asked {
    /// Whether it was to change anything but the lease.
    pub(crate) fn is_write(&self) -> bool {
        self.method != Method::GET && self.key.0 != "leases"
    }
}

/// What happens to a request instead of what should.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This reply.
    Reply(u16, Value),
    /// No reply.
    Hang,
    /// It is carried out, and nobody hears of it.
    LoseReply,
    /// It is carried out after so many seconds.
    Delay(u64),
}

type Faults = Box<dyn Fn(&Asked) -> Option<Fault> + Send>;

struct Watcher {
    plural: String,
    /// Empty: all.
    namespace: String,
    name: Option<String>,
    events: mpsc::UnboundedSender<Value>,
}

#[derive(Default)]
struct World {
    version: u64,
    objects: BTreeMap<Key, Value>,
    history: Vec<(u64, Key, Value)>,
    watchers: Vec<Watcher>,
    asked: Vec<Asked>,
    faults: Option<Faults>,
}

#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<World>>);

impl Fake {
    /// A client whose requests are known by this name.
    pub(crate) fn client(&self, who: &str) -> Client {
        let state = (self.clone(), who.to_owned());
        Client::new(Router::new().fallback(serve).with_state(state), "default")
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    pub(crate) fn set_faults(&self, faults: impl Fn(&Asked) -> Option<Fault> + Send + 'static) {
        self.world().faults = Some(Box::new(faults));
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.world().asked.clone()
    }

    pub(crate) fn writes(&self) -> Vec<Asked> {
        self.asked().into_iter().filter(Asked::is_write).collect()
    }

    pub(crate) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.world().objects.get(&key(plural, namespace, name)).cloned()
    }

    /// Creates or replaces an object as its author would.
    pub(crate) fn put(&self, plural: &str, namespace: &str, name: &str, mut object: Value) {
        let mut world = self.world();
        let key = key(plural, namespace, name);
        let old = world.objects.get(&key).cloned();
        object["metadata"]["name"] = name.into();
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = namespace.into();
        }
        let generation = old.as_ref().and_then(|old| old["metadata"]["generation"].as_i64()).unwrap_or(0) + 1;
        object["metadata"]["generation"] = generation.into();
        if let Some(old) = &old {
            object["metadata"]["uid"] = old["metadata"]["uid"].clone();
            if object["status"].is_null() {
                object["status"] = old["status"].clone();
            }
        }
        world.store(key, object);
    }

    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        self.world().remove(&key(plural, namespace, name)).unwrap();
    }
}

fn key(plural: &str, namespace: &str, name: &str) -> Key {
    (plural.to_owned(), namespace.to_owned(), name.to_owned())
}

impl Watcher {
    fn wants(&self, (plural, namespace, name): &Key) -> bool {
        *plural == self.plural
            && (self.namespace.is_empty() || *namespace == self.namespace)
            && self.name.as_ref().is_none_or(|wanted| wanted == name)
    }
}

impl World {
    fn store(&mut self, key: Key, mut object: Value) -> Value {
        self.version += 1;
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{}", self.version).into();
        }
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let kind = if self.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        self.objects.insert(key.clone(), object.clone());
        self.tell(key, json!({"type": kind, "object": object}));
        object
    }

    fn remove(&mut self, key: &Key) -> Option<Value> {
        let mut object = self.objects.remove(key)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.tell(key.clone(), json!({"type": "DELETED", "object": object}));
        Some(object)
    }

    fn tell(&mut self, key: Key, event: Value) {
        self.watchers.retain(|watcher| !watcher.wants(&key) || watcher.events.send(event.clone()).is_ok());
        self.history.push((self.version, key, event));
    }
}

async fn serve(State((fake, who)): State<(Fake, String)>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let words: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
    let skip = if words[0] == "apis" { 3 } else { 2 };
    let (namespace, rest) = match &words[skip..] {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let key = key(rest[0], namespace, rest.get(1).copied().unwrap_or_default());
    let query: BTreeMap<String, String> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.replace("%3D", "=")))
        .collect();
    let asked = Asked { who, at: Instant::now(), method: parts.method, key, body, status: None };
    let (number, fault) = {
        let mut world = fake.world();
        let fault = world.faults.as_ref().and_then(|faults| faults(&asked));
        world.asked.push(asked.clone());
        (world.asked.len() - 1, fault)
    };
    let response = match fault {
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::Reply(status, body)) => reply(status, &body),
        Some(Fault::LoseReply) => {
            carry_out(&fake, &asked, &query);
            return std::future::pending().await;
        }
        Some(Fault::Delay(seconds)) => {
            tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
            carry_out(&fake, &asked, &query)
        }
        None => carry_out(&fake, &asked, &query),
    };
    fake.world().asked[number].status = Some(response.status().as_u16());
    response
}

fn carry_out(fake: &Fake, asked: &Asked, query: &BTreeMap<String, String>) -> Response {
    let mut world = fake.world();
    let key = &asked.key;
    let known = world.objects.get(key).cloned();
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    match (&asked.method, key.2.is_empty()) {
        (&Method::GET, true) if query.contains_key("watch") => {
            let (events, receiver) = mpsc::unbounded_channel();
            let name = query.get("fieldSelector").and_then(|field| field.strip_prefix("metadata.name="));
            let (plural, namespace, name) = (key.0.clone(), key.1.clone(), name.map(str::to_owned));
            let watcher = Watcher { plural, namespace, name, events };
            let since: u64 = query["resourceVersion"].parse().unwrap();
            for (version, key, event) in &world.history {
                if *version > since && watcher.wants(key) {
                    watcher.events.send(event.clone()).unwrap();
                }
            }
            world.watchers.push(watcher);
            let lines = stream::unfold(receiver, |mut receiver| async {
                let event = receiver.recv().await?;
                Some((Ok::<_, Infallible>(Bytes::from(format!("{event}\n"))), receiver))
            });
            Response::new(Body::from_stream(lines))
        }
        (&Method::GET, true) => {
            let name = query.get("fieldSelector").and_then(|field| field.strip_prefix("metadata.name="));
            let items: Vec<&Value> = world
                .objects
                .iter()
                .filter(|(other, _)| other.0 == key.0 && name.is_none_or(|name| name == other.2))
                .filter(|(other, _)| key.1.is_empty() || other.1 == key.1)
                .map(|(_, object)| object)
                .collect();
            let metadata = json!({"resourceVersion": world.version.to_string()});
            reply(200, &json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
        }
        (&Method::GET, false) => known.map_or_else(|| missing(key), |object| reply(200, &object)),
        (&Method::POST, _) => {
            let name = asked.body["metadata"]["name"].as_str().unwrap();
            let key = (key.0.clone(), key.1.clone(), name.to_owned());
            if world.objects.contains_key(&key) {
                return failure(409, "AlreadyExists", &key);
            }
            reply(201, &world.store(key, asked.body.clone()))
        }
        (&Method::PUT, _) => match known {
            None => missing(key),
            Some(known) if version(&known) != version(&asked.body) => failure(409, "Conflict", key),
            Some(_) => reply(200, &world.store(key.clone(), asked.body.clone())),
        },
        (&Method::PATCH, _) => {
            let Some(known) = known else { return missing(key) };
            let wanted = &asked.body["metadata"];
            if *wanted != json!({"uid": known["metadata"]["uid"], "resourceVersion": version(&known)}) {
                return failure(409, "Conflict", key);
            }
            let mut object = known.clone();
            for (field, value) in asked.body["status"].as_object().unwrap() {
                object["status"][field] = value.clone();
            }
            // What changes nothing makes no new version.
            if object == known { reply(200, &known) } else { reply(200, &world.store(key.clone(), object)) }
        }
        (&Method::DELETE, _) => match known {
            None => missing(key),
            Some(known) if known["metadata"]["uid"] != asked.body["preconditions"]["uid"] => {
                failure(409, "Conflict", key)
            }
            Some(_) => reply(200, &world.remove(key).unwrap()),
        },
        other => panic!("{other:?}"),
    }
}

fn reply(status: u16, body: &Value) -> Response {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Body::from(body.to_string())).unwrap()
}

fn missing(key: &Key) -> Response {
    failure(404, "NotFound", key)
}

fn failure(status: u16, reason: &str, key: &Key) -> Response {
    reply(status, &words(status, reason, &key.0, &key.2))
}

/// The API's own words on what is wrong.
pub(crate) fn words(status: u16, reason: &str, plural: &str, name: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": status,
        "message": format!("{plural} {name}: {reason}"), "reason": reason,
        "details": {"name": name, "kind": plural},
    })
}
