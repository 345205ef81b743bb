//! The agent's side of the API: what is watched, what the engine is sent of it, and what is published. Everything
//! here may fail for as long as it likes; the engine goes on by what it was sent last.

use checkpoint_keeper_node::mailbox::Sender;

use super::config_source::ConfigSource;
use super::context::ApiContext;
use super::inventory::Inventory;
use super::schedules::Schedules;
use super::status_publisher::StatusPublisher;

/// The agent's side of the API.
pub(super) struct Api {
    pub(super) context: ApiContext,
    pub(super) source: ConfigSource,
    pub(super) publisher: StatusPublisher,
    /// None where no checkpoints are made.
    pub(super) schedules: Option<Schedules>,
    pub(super) inventory: Inventory,
}

impl Api {
    /// Does all of it, for as long as it is polled.
    pub(super) async fn run(&self, engine: Sender) {
        let context = &self.context;
        tokio::join!(
            context.cluster_watch.run(&context.client, &context.node, &engine),
            context.objects.watch(&context.client),
            context.quotas.watch(&context.client),
            context.watch_node(),
            context.watch_store(),
            self.source.run(&engine),
            self.publisher.run(),
            Box::pin(self.inventory.run()),
            context.log_problems(),
            async {
                if let Some(schedules) = &self.schedules {
                    Box::pin(schedules.run()).await;
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use checkpoint_keeper_api::NodeCheckpointStore;
    use checkpoint_keeper_api::effective::Scope;
    use checkpoint_keeper_core::engine::cluster::ClusterUpdate;
    use checkpoint_keeper_core::engine::config::EngineConfig;
    use checkpoint_keeper_core::policy::Confidence;
    use checkpoint_keeper_node::mailbox::{self, Receiver};
    use kube::Client;
    use serde_json::json;

    use super::*;
    use crate::cluster_watch::ClusterWatch;
    use crate::context::TICK;
    use crate::inventory::ShownArchives;
    use crate::own_objects::OwnObjects;
    use crate::problem_type::ProblemType;
    use crate::state::{AgentState, Observations};
    use crate::status::Staleness;
    use checkpoint_keeper_runtime::liveness::now;
    use checkpoint_keeper_runtime::other_operator::OTHER_OPERATOR_NAMESPACES;
    use checkpoint_keeper_runtime::policy_objects::PolicyObjects;
    use checkpoint_keeper_runtime::quota_objects::QuotaObjects;

    /// An agent's side whose lists are answered, with nothing in them, once that is so.
    fn side(may_list: &tokio::sync::watch::Sender<bool>) -> Api {
        let may_list = may_list.subscribe();
        let answer = move |request: axum::extract::Request| {
            let mut may_list = may_list.clone();
            async move {
                if request.uri().query().unwrap_or_default().contains("watch=") {
                    return std::future::pending().await;
                }
                may_list.wait_for(|may| *may).await.unwrap();
                let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []});
                axum::response::Response::new(axum::body::Body::from(list.to_string()))
            }
        };
        let context = ApiContext {
            client: Client::new(axum::Router::new().fallback(answer), "default"),
            node: "node-1".to_owned(),
            objects: PolicyObjects::new(&OTHER_OPERATOR_NAMESPACES.map(str::to_owned)),
            quotas: QuotaObjects::new(Some("node-1".to_owned())),
            state: AgentState::new(),
            own: OwnObjects::default(),
            cluster_watch: ClusterWatch::default(),
        };
        of(context)
    }

    fn of(context: ApiContext) -> Api {
        Api {
            source: ConfigSource {
                context: context.clone(),
                scope: Scope::default(),
                schedules: None,
                staleness: Duration::from_hours(1),
            },
            publisher: StatusPublisher {
                context: context.clone(),
                directory: String::new(),
                interval: Duration::from_mins(1),
            },
            schedules: None,
            inventory: Inventory::new(
                context.clone(),
                ShownArchives::new(String::new(), 0),
                mailbox::channel().unwrap().0,
            ),
            context,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_spec_counts_as_seen_once_the_engine_was_told() {
        let may_list = tokio::sync::watch::Sender::new(false);
        let side = side(&may_list);
        let mut store = NodeCheckpointStore::new("node-1", serde_json::from_value(json!({})).unwrap());
        store.metadata.generation = Some(5);
        side.context.own.note(|own| own.store = Some(store));
        let (sender, receiver) = mailbox::channel().unwrap();
        let observed = || side.publisher.status_context(&side.context.own.now(), now()).generation;
        let seen = async {
            tokio::time::sleep(TICK * 3).await;
            assert_eq!(observed(), None);
            may_list.send_replace(true);
            tokio::time::sleep(TICK * 3).await;
        };
        tokio::select! { () = Box::pin(side.context.objects.watch(&side.context.client)) => {}, () = side.source.run(&sender) => {}, () = seen => {} }
        assert!(receiver.take().config.is_some());
        assert_eq!(observed(), Some(5));
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_is_ready_once_everything_was_listed_and_while_it_has_a_directory() {
        let may_list = tokio::sync::watch::Sender::new(true);
        let side = side(&may_list);
        tokio::select! {
            () = Box::pin(side.context.objects.watch(&side.context.client)) => {},
            () = tokio::time::sleep(TICK) => {},
        }
        let not_ready_reasons = || side.context.not_ready_reasons(now());
        assert_eq!(
            not_ready_reasons(),
            [
                "nodes were not listed yet",
                "nodecheckpointstores were not listed yet",
                "pods were not listed yet"
            ]
        );
        let (shown, receiver) = mailbox::channel().unwrap();
        tokio::select! {
            () = side.context.watch_node() => {},
            () = side.context.watch_store() => {},
            () = side.context.cluster_watch.run(&side.context.client, "node-1", &shown) => {},
            () = tokio::time::sleep(TICK) => {},
        }
        assert_eq!(not_ready_reasons(), [""; 0]);
        let seen: Vec<_> = receiver.take().updates.into_iter().map(|shown| shown.what).collect();
        assert_eq!(seen.last(), Some(&ClusterUpdate::Pods(Some(Vec::new()))), "{seen:?}");
        side.context.state.gone(Some("the directory is gone".to_owned()));
        assert_eq!(not_ready_reasons(), ["the directory is gone"]);
    }

    /// An API that has the policy that it is told to have, and nothing else, and of which some kinds fail.
    #[derive(Clone, Default)]
    struct Watched {
        watches: Arc<Mutex<BTreeMap<String, Vec<tokio::sync::mpsc::UnboundedSender<String>>>>>,
        broken: Arc<Mutex<BTreeSet<String>>>,
        policy: Arc<Mutex<Option<serde_json::Value>>>,
    }

    impl Watched {
        fn client(&self) -> Client {
            let api = self.clone();
            let answer = move |request: axum::extract::Request| {
                let api = api.clone();
                async move {
                    let kind = request.uri().path().rsplit('/').next().unwrap().to_owned();
                    let reply = |status: u16, body: axum::body::Body| {
                        axum::response::Response::builder().status(status).body(body).unwrap()
                    };
                    if api.broken.lock().unwrap().contains(&kind) {
                        return reply(500, "broken".into());
                    }
                    if request.uri().query().unwrap_or_default().contains("watch=") {
                        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
                        api.watches.lock().unwrap().entry(kind).or_default().push(sender);
                        let lines = futures_util::stream::unfold(receiver, |mut receiver| async {
                            let line: String = receiver.recv().await?;
                            Some((Ok::<_, std::convert::Infallible>(line), receiver))
                        });
                        return reply(200, axum::body::Body::from_stream(lines));
                    }
                    let policy = api.policy.lock().unwrap().clone();
                    let policy = policy.filter(|_| kind == "clustercheckpointpolicies");
                    let items: Vec<_> = policy.into_iter().collect();
                    let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
                    reply(200, list.to_string().into())
                }
            };
            Client::new(axum::Router::new().fallback(answer), "default")
        }

        fn set_broken(&self, kind: &str, is_broken: bool) {
            let mut broken = self.broken.lock().unwrap();
            if is_broken {
                broken.insert(kind.to_owned())
            } else {
                broken.remove(kind)
            };
            self.watches.lock().unwrap().remove(kind);
        }

        fn apply_policy(&self, version: u32) {
            let object = json!({
                "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "ClusterCheckpointPolicy", "spec": {},
                "metadata": {"name": "a", "uid": "u", "generation": version, "resourceVersion": version.to_string()},
            });
            *self.policy.lock().unwrap() = Some(object.clone());
            let line = format!("{}\n", json!({"type": "ADDED", "object": object}));
            for watch in &self.watches.lock().unwrap()["clustercheckpointpolicies"] {
                let _ = watch.send(line.clone());
            }
        }
    }

    /// What the engine is told once it is told this.
    async fn told(receiver: &Receiver, is_it: impl Fn(&EngineConfig) -> bool) -> EngineConfig {
        for _ in 0..20_000 {
            if let Some((config, _)) = receiver.take().config.filter(|(config, _)| is_it(config)) {
                return config;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("the engine was not told");
    }

    #[tokio::test(start_paused = true)]
    async fn while_one_kind_cannot_be_watched_anothers_news_counts_beside_what_was_confirmed() {
        let api = Watched::default();
        let side = side(&tokio::sync::watch::Sender::new(true));
        let side = of(ApiContext { client: api.client(), ..side.context });
        let (sender, receiver) = mailbox::channel().unwrap();
        let is_stale = |config: &EngineConfig| matches!(config.confidence, Confidence::Stale { .. });
        let seen = async {
            let first = told(&receiver, |config| config.confidence == Confidence::Current).await;
            assert!(first.policies.retention.is_empty());
            api.set_broken("checkpointpolicies", true);
            told(&receiver, is_stale).await;
            api.apply_policy(2);
            let news = told(&receiver, |config| !config.policies.retention.is_empty()).await;
            assert_eq!(news.confidence, Confidence::Stale { confirmed: first.policies });
            let begin = now();
            told(&receiver, |config| config.confidence == Confidence::Paused).await;
            let logged = |side: &Api| {
                let problems = side.context.current_problems().into_iter();
                problems.map(|problem| format!("{} {}", problem.kind, problem.subject)).collect::<Vec<_>>()
            };
            assert_eq!(logged(&side), ["WatchFailing checkpointpolicies", "PoliciesPaused "]);
            let minutes = (now() - begin).as_secs() / 60;
            assert!((58..=60).contains(&minutes), "{minutes}");
            let context = side.publisher.status_context(&side.context.own.now(), now());
            assert!(
                matches!(context.stale, Staleness::Paused(why) if why[0].starts_with("checkpointpolicies"))
            );
            assert!(
                side.context
                    .not_ready_reasons(now())
                    .iter()
                    .any(|reason| reason.starts_with("checkpointpolicies cannot be"))
            );
            api.set_broken("checkpointpolicies", false);
            let back = told(&receiver, |config| config.confidence == Confidence::Current).await;
            assert_eq!(back.policies.retention.len(), 1);
            assert_eq!(logged(&side), [""; 0]);
        };
        tokio::select! { () = Box::pin(side.context.objects.watch(&side.context.client)) => {}, () = side.source.run(&sender) => {}, () = seen => {} }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_is_a_problem_once_its_errors_last_and_until_it_lists() {
        let api = Watched::default();
        let kinds = ["nodes", "nodecheckpointstores", "containercheckpoints"];
        let side = side(&tokio::sync::watch::Sender::new(true));
        let side = of(ApiContext { client: api.client(), ..side.context });
        let problems = || side.context.state.read(Observations::kinds_of_problems);
        let seen = async {
            kinds.iter().for_each(|kind| api.set_broken(kind, true));
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(problems(), BTreeSet::new(), "kinds may be defined a moment after the start");
            tokio::time::sleep(Duration::from_mins(2)).await;
            let unwatched =
                [ProblemType::CheckpointsUnwatched, ProblemType::NodeUnwatched, ProblemType::StoreUnwatched];
            assert_eq!(problems(), unwatched.into());
            kinds.iter().for_each(|kind| api.set_broken(kind, false));
            // As long as the longest pause between two tries.
            tokio::time::sleep(Duration::from_mins(1)).await;
            assert_eq!(problems(), BTreeSet::new());
        };
        tokio::select! {
            () = side.context.watch_node() => {},
            () = side.context.watch_store() => {},
            () = Box::pin(side.inventory.run()) => {},
            () = seen => {},
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_certain_once_other_kinds_had_time_to_tell_theirs() {
        let api = Watched::default();
        let side = side(&tokio::sync::watch::Sender::new(true));
        let side = of(ApiContext { client: api.client(), ..side.context });
        let (sender, receiver) = mailbox::channel().unwrap();
        let seen = async {
            let first = told(&receiver, |config| config.confidence == Confidence::Current).await;
            // Hours in which nothing happens change nothing: watches are opened again and again.
            tokio::time::sleep(Duration::from_hours(3)).await;
            assert!(receiver.take().config.is_none());
            api.apply_policy(2);
            let news = told(&receiver, |config| !config.policies.retention.is_empty()).await;
            assert_eq!(news.confidence, Confidence::Stale { confirmed: first.policies });
            let begin = now();
            told(&receiver, |config| config.confidence == Confidence::Current).await;
            assert!(now() - begin <= Duration::from_secs(3));
        };
        tokio::select! { () = Box::pin(side.context.objects.watch(&side.context.client)) => {}, () = side.source.run(&sender) => {}, () = seen => {} }
    }
}
