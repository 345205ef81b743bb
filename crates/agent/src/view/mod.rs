//! What the agent tells to those who may forward a port of its pod: every archive with its verdict, why one has it, and
//! what other policies would change. It names the pods of all tenants, so it is served inside the pod alone.

mod latest;
mod preview;
#[cfg(test)]
mod preview_properties;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use checkpoint_keeper_api::effective::{Objects, Scope};
use checkpoint_keeper_core::engine::View;
use checkpoint_keeper_core::report::{Explanation, NodeReport, write_pretty};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::spawn_blocking;

pub(crate) use self::latest::LatestView;
use self::preview::preview;

/// How long a connection may take, for one request: the list of 100 000 archives has some 60 MiB.
pub(crate) const CONNECTION: Duration = Duration::from_mins(1);

/// The largest manifests that are previewed, in bytes.
const LARGEST_MANIFESTS: usize = 1 << 20;

/// An answer is written in pieces of so many bytes.
const PIECE: usize = 64 << 10;

/// So many pieces are under way.
const PIECES: usize = 4;

/// What views are told from.
pub(crate) struct ViewServer {
    /// The node's name.
    pub(crate) node: String,
    /// The directory's path.
    pub(crate) directory: String,
    /// The views.
    pub(crate) latest: LatestView,
    /// Has the engine make a plan.
    pub(crate) request_plan: Box<dyn Fn() + Send + Sync>,
    /// The objects that say what may be deleted, once all are known, and what decides which are in force.
    pub(crate) objects: Box<dyn Fn() -> Option<(Objects, Scope)> + Send + Sync>,
}

#[derive(Clone)]
struct Served {
    server: Arc<ViewServer>,
    /// One answer is worked out at a time.
    turn: Arc<Semaphore>,
}

/// The routes of the view.
pub(crate) fn router(server: ViewServer) -> Router {
    Router::new()
        .route("/v1alpha1/archives", get(archives))
        .route("/v1alpha1/explain", get(explain))
        .route("/v1alpha1/preview", post(previewed))
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "there is nothing here") })
        .layer(middleware::from_fn(check_host))
        .with_state(Served { server: Arc::new(server), turn: Arc::new(Semaphore::new(1)) })
}

/// Refuses what a browser sends whose page made it take another name for this address (DNS rebinding).
async fn check_host(request: Request, next: Next) -> Response {
    if is_local(request.headers()) {
        next.run(request).await
    } else {
        refuse(StatusCode::FORBIDDEN, "ask for localhost, 127.0.0.1 or [::1]")
    }
}

fn is_local(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = host.to_str() else { return false };
    ["localhost", "127.0.0.1", "[::1]"].into_iter().any(|name| {
        let rest = host.get(..name.len()).filter(|begin| begin.eq_ignore_ascii_case(name));
        let port = rest.and_then(|_| host.get(name.len()..));
        port.is_some_and(|port| {
            port.is_empty()
                || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
        })
    })
}

/// What a preview is asked that is to show what comes when the older operator has ended.
const WITHOUT_OTHER: &str = "olderOperator=absent";

impl Served {
    /// Waits for its turn, and for a view.
    async fn view(&self) -> Result<(OwnedSemaphorePermit, Arc<View>), Response> {
        let late = |_| refuse(StatusCode::SERVICE_UNAVAILABLE, "the agent ends");
        let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(late)?;
        let view = self.server.latest.get(&self.server.request_plan).await;
        let view = view.map_err(|error| refuse(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()))?;
        Ok((turn, view))
    }
}

async fn archives(State(served): State<Served>) -> Response {
    let (turn, view) = match served.view().await {
        Ok(view) => view,
        Err(refused) => return refused,
    };
    let (sender, receiver) = mpsc::channel(PIECES);
    spawn_blocking(move || {
        let _turn = turn;
        let ViewServer { node, directory, .. } = &*served.server;
        let mut out = Pieces { sender, piece: Vec::with_capacity(PIECE) };
        // Whoever does not wait for all of it needs no answer.
        let _ =
            write_pretty(&mut out, &NodeReport { node, directory, view: &view }).and_then(|()| out.flush());
    });
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async {
        let piece = receiver.recv().await?;
        Some((Ok::<Bytes, io::Error>(piece), receiver))
    });
    answer(StatusCode::OK, Body::from_stream(pieces))
}

async fn explain(State(served): State<Served>, uri: Uri) -> Response {
    let Some(file) = uri.query().and_then(file_of) else {
        return refuse(StatusCode::BAD_REQUEST, "the file is missing: explain?file=NAME");
    };
    let (turn, view) = match served.view().await {
        Ok(view) => view,
        Err(refused) => return refused,
    };
    work(move || {
        let _turn = turn;
        match Explanation::of(&view, &file) {
            Ok(explanation) => json_answer(StatusCode::OK, &explanation),
            Err(error) => refuse(StatusCode::NOT_FOUND, &error.to_string()),
        }
    })
    .await
}

async fn previewed(State(served): State<Served>, request: Request) -> Response {
    // As if the older operator did not run: its objects are then obeyed here.
    let is_without_other =
        request.uri().query().is_some_and(|query| query.split('&').any(|part| part == WITHOUT_OTHER));
    let Ok(body) = to_bytes(request.into_body(), LARGEST_MANIFESTS).await else {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "manifests may have at most 1 MiB");
    };
    let Ok(manifests) = String::from_utf8(body.into()) else {
        return refuse(StatusCode::BAD_REQUEST, "the manifests are not UTF-8");
    };
    let Some((objects, mut scope)) = (served.server.objects)() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the policies of the cluster are not known yet");
    };
    scope.other_operator &= !is_without_other;
    let (turn, view) = match served.view().await {
        Ok(view) => view,
        Err(refused) => return refused,
    };
    work(move || {
        let _turn = turn;
        match preview(&served.server.node, &view, &objects, &scope, &manifests) {
            Ok(preview) => json_answer(StatusCode::OK, &preview),
            Err(refused) => json_answer(StatusCode::BAD_REQUEST, &refused),
        }
    })
    .await
}

/// Works an answer out on a thread of its own.
async fn work(work: impl FnOnce() -> Response + Send + 'static) -> Response {
    let failed = |_| refuse(StatusCode::INTERNAL_SERVER_ERROR, "this could not be worked out");
    spawn_blocking(work).await.unwrap_or_else(failed)
}

fn answer(code: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn json_answer(code: StatusCode, value: &impl Serialize) -> Response {
    let mut body = Vec::new();
    // Nothing that is answered fails to be written to memory.
    let _ = write_pretty(&mut body, value);
    answer(code, body.into())
}

fn refuse(code: StatusCode, error: &str) -> Response {
    json_answer(code, &json!({"error": error}))
}

/// The file that a query asks for. A plus is a plus: the names of archives have some.
fn file_of(query: &str) -> Option<String> {
    let text = query.split('&').find_map(|part| part.strip_prefix("file="))?;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = (first == b'%').then(|| after.get(..2)).flatten();
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            rest = after.get(2..).unwrap_or_default();
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok().filter(|file| !file.is_empty())
}

/// Sends what is written, piece by piece; waits while too many are under way.
struct Pieces {
    sender: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.sender.blocking_send(piece.into()).map_err(gone)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use checkpoint_keeper_api::effective::Seen;

    use checkpoint_keeper_core::identity::Identity;
    use checkpoint_keeper_core::name::FileName;
    use checkpoint_keeper_core::plan::{Archive, Snapshot, plan_with};
    use checkpoint_keeper_core::policy::Confidence;
    use checkpoint_keeper_core::report::{Report, differences};
    use jiff::Timestamp;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-26T12:00:00Z".parse().unwrap()
    }

    /// Three archives of one container, a day apart, the newest a day old.
    fn archives() -> Snapshot {
        let identity = Arc::new(Identity {
            namespace: "shop".to_owned(),
            pod: "web".to_owned(),
            pod_uid: None,
            container: "a".to_owned(),
        });
        let archive = |number: i64| {
            let taken = now() - jiff::SignedDuration::from_hours(24 * (4 - number));
            let file = FileName::new(format!("checkpoint-web_shop-a-{number}.tar").into_bytes()).unwrap();
            Archive::whole(file, Arc::clone(&identity), taken, 1 << 20)
        };
        Snapshot { archives: (1..=3).map(archive).collect(), ..Snapshot::default() }
    }

    /// A view of these archives by the policies of the manifests, and the objects.
    fn view_of(manifests: &str) -> (Arc<View>, Objects) {
        let loaded = checkpoint_keeper_api::manifest::load(&[("policies", manifests)]).unwrap();
        let snapshot = archives();
        let confidence = Confidence::Current;
        let plan = plan_with(&snapshot, &loaded.policies, &confidence, now());
        let policies = Arc::new(loaded.policies);
        (Arc::new(View { snapshot, policies, plan, confidence, made_at: now() }), loaded.objects)
    }

    const KEEP_TWO: &str = "apiVersion: checkpoint-keeper.io/v1alpha1\nkind: ClusterCheckpointPolicy\n\
        metadata: {name: default}\nspec: {retention: {maxAge: 30d, perContainer: {maxCount: 2}}}\n---\n\
        apiVersion: checkpoint-keeper.io/v1alpha1\nkind: CheckpointPolicy\nmetadata: {name: try, namespace: shop}\n\
        spec: {mode: DryRun, retention: {perContainer: {maxCount: 1}}}\n";

    /// The router of an agent whose engine answers every request for a plan with this view.
    fn served(view: &Arc<View>, objects: &Objects, has_planned: bool) -> Router {
        let latest = LatestView::default();
        if has_planned {
            latest.note(view);
        }
        let (engine, view, objects) = (latest.clone(), Arc::clone(view), objects.clone());
        router(ViewServer {
            node: "node-1".to_owned(),
            directory: "/archives".to_owned(),
            latest,
            request_plan: Box::new(move || engine.note(&view)),
            objects: Box::new(move || Some((objects.clone(), Scope::default()))),
        })
    }

    async fn ask_as(
        router: &Router,
        host: &str,
        method: Method,
        path: &str,
        body: &str,
    ) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).header("host", host);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let code = response.status();
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (code, serde_json::from_slice(&body).unwrap())
    }

    async fn ask(router: &Router, method: Method, path: &str, body: &str) -> (StatusCode, Value) {
        ask_as(router, "localhost:9091", method, path, body).await
    }

    #[tokio::test]
    async fn the_archives_are_those_of_a_report_of_the_same_view_and_the_node() {
        let (view, objects) = view_of(KEEP_TWO);
        let (code, shown) = ask(&served(&view, &objects, true), Method::GET, "/v1alpha1/archives", "").await;
        let View { snapshot, policies, plan, .. } = &*view;
        let mut report = Report::new("/archives".to_owned(), snapshot, plan, now());
        report.add_differences(snapshot, &differences(snapshot, policies, now(), plan, usize::MAX));
        let mut report = serde_json::to_value(&report).unwrap();
        assert_eq!(report["dryRunPolicies"].as_array().unwrap().len(), 1, "{report}");
        assert!(report["totals"]["deleteArchives"].as_u64().unwrap() > 0, "{report}");
        report["node"] = "node-1".into();
        assert_eq!((code, shown), (StatusCode::OK, report));
    }

    #[tokio::test]
    async fn before_the_first_plan_nothing_is_told_and_that_is_said() {
        let (view, objects) = view_of(KEEP_TWO);
        let router = served(&view, &objects, false);
        let (code, shown) = ask(&router, Method::GET, "/v1alpha1/archives", "").await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        assert!(shown["error"].as_str().unwrap().contains("no plan was made yet"), "{shown}");
    }

    #[tokio::test]
    async fn one_archive_is_explained_and_one_that_is_not_there_is_not_found() {
        let (view, objects) = view_of(KEEP_TWO);
        let router = served(&view, &objects, true);
        let (code, shown) =
            ask(&router, Method::GET, "/v1alpha1/explain?file=checkpoint-web_shop-a%2D1.tar", "").await;
        assert_eq!(code, StatusCode::OK, "{shown}");
        assert_eq!(shown["verdict"]["reason"], "MaxCountPerContainer");
        let rules = shown["rules"].as_array().unwrap();
        let taking: Vec<_> = rules.iter().filter(|rule| rule["outcome"] == "Deletes").collect();
        assert_eq!(taking.len(), 1, "{shown}");
        assert_eq!(taking[0]["figures"]["position"], 3);
        let (code, shown) =
            ask(&router, Method::GET, "/v1alpha1/explain?file=checkpoint-web_shop-a-9.tar", "").await;
        assert_eq!(code, StatusCode::NOT_FOUND);
        assert!(
            shown["error"].as_str().unwrap().contains("did you mean checkpoint-web_shop-a-1.tar"),
            "{shown}"
        );
        let (code, _) = ask(&router, Method::GET, "/v1alpha1/explain", "").await;
        assert_eq!(code, StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn what_other_policies_would_change_is_previewed() {
        let (view, objects) = view_of(KEEP_TWO);
        let router = served(&view, &objects, true);
        let stricter = KEEP_TWO.split("---").nth(1).unwrap();
        let (code, shown) = ask(&router, Method::POST, "/v1alpha1/preview", stricter).await;
        assert_eq!(code, StatusCode::OK, "{shown}");
        assert_eq!((&shown["node"], &shown["before"]["deleteArchives"]), (&"node-1".into(), &1.into()));
        assert_eq!(shown["after"]["deleteArchives"], 2);
        let problems = shown["problems"].as_array().unwrap();
        assert!(problems.iter().any(|problem| problem.as_str().unwrap().contains("mode DryRun")), "{shown}");
        let changes = shown["changes"].as_array().unwrap();
        let second = changes.iter().find(|change| change["file"] == "checkpoint-web_shop-a-2.tar").unwrap();
        assert!(second["checkpointedAt"].as_str().is_some_and(|taken| taken.starts_with("20")), "{second}");
        assert_eq!(second["before"]["verdict"], "Keep");
        assert_eq!(second["after"]["verdict"], "Delete");
        assert_eq!(second["after"]["policy"], "CheckpointPolicy/shop/try");
        // An object of the same name is replaced.
        let looser = KEEP_TWO.split("---").next().unwrap().replace("maxCount: 2", "maxCount: 9");
        let (_, shown) = ask(&router, Method::POST, "/v1alpha1/preview", &looser).await;
        assert_eq!((&shown["after"]["deleteArchives"], &shown["problems"]), (&0.into(), &json!([])));
        assert!(matches!(objects.cluster[..], [Seen::Parsed(_)]));
        // What can never act once it is applied, or because of it.
        let over_all =
            looser.replace("name: default", "name: all").replace("spec: {", "spec: {precedence: Override, ");
        let (_, shown) = ask(&router, Method::POST, "/v1alpha1/preview", &over_all).await;
        let nothing = |name: &str| {
            format!(
                "{name} governs nothing: ClusterCheckpointPolicy/all goes before it for every archive that it is for"
            )
        };
        let expected = ["CheckpointPolicy/shop/try", "ClusterCheckpointPolicy/default"].map(nothing);
        let told = shown["problems"].as_array().unwrap();
        assert!(expected.iter().all(|one| told.iter().any(|problem| problem == one)), "{shown}");
    }

    #[tokio::test]
    async fn manifests_that_are_not_understood_are_refused_with_line_field_and_hint() {
        let (view, objects) = view_of(KEEP_TWO);
        let router = served(&view, &objects, true);
        let wrong = KEEP_TWO.replace("maxAge", "maxAgee");
        let (code, shown) = ask(&router, Method::POST, "/v1alpha1/preview", &wrong).await;
        assert_eq!(code, StatusCode::BAD_REQUEST);
        let detail = &shown["details"][0];
        assert_eq!(
            (&detail["line"], &detail["field"]),
            (&4.into(), &"spec.retention.maxAgee".into()),
            "{shown}"
        );
        assert!(detail["hint"].is_string() && shown["errors"][0].is_string(), "{shown}");
        let large = "#".repeat(LARGEST_MANIFESTS + 1);
        let (code, _) = ask(&router, Method::POST, "/v1alpha1/preview", &large).await;
        assert_eq!(code, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn only_who_asks_for_this_machine_is_answered() {
        let (view, objects) = view_of(KEEP_TWO);
        let router = served(&view, &objects, true);
        let path = "/v1alpha1/archives";
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1:9091", "[::1]", "[::1]:9091"] {
            assert_eq!(ask_as(&router, host, Method::GET, path, "").await.0, StatusCode::OK, "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:9091", "localhost:a", ""]
        {
            assert_eq!(ask_as(&router, host, Method::GET, path, "").await.0, StatusCode::FORBIDDEN, "{host}");
        }
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "no host is no such host");
    }

    #[tokio::test(start_paused = true)]
    async fn a_view_is_made_for_who_asks_given_to_all_who_ask_soon_and_then_let_go() {
        let (view, _) = view_of(KEEP_TWO);
        let latest = LatestView::default();
        let requests = std::sync::atomic::AtomicUsize::new(0);
        let request = || {
            requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            latest.note(&view);
        };
        latest.note(&view);
        assert_eq!(Arc::strong_count(&view), 1, "none is kept that nobody asked for");
        assert!(latest.get(request).await.is_ok() && latest.get(request).await.is_ok());
        assert_eq!(requests.load(std::sync::atomic::Ordering::Relaxed), 1);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(Arc::strong_count(&view), 1, "it is let go");
        assert!(latest.get(|| {}).await.is_err(), "an engine that makes no plan");
    }

    #[test]
    fn a_file_is_asked_for_as_it_is_named() {
        assert_eq!(file_of("a=b&file=x%2Fy+z%").as_deref(), Some("x/y+z%"));
        assert_eq!(file_of("file="), None);
        assert_eq!(file_of("fil=a"), None);
    }
}
