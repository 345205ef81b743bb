//! One use of the plugin: the cluster, the namespace, and what could not be seen.

use std::cell::RefCell;
use std::fmt::Debug;
use std::time::Duration;

use checkpoint_keeper_api::api_object::ApiObject;
use checkpoint_keeper_terminal::say::say;
use kube::api::{ApiResource, ListParams};
use kube::client::retry::RetryPolicy;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tower::retry::RetryLayer;
use tower::{BoxError, Layer, service_fn};

use crate::cli::Global;
use crate::failure::{Failure, said};

/// So many objects are asked for at a time.
const PAGE: u32 = 500;

/// How long to wait before a request is made again that the API server was not ready for.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// The longest such wait, unless the API server asks for a longer one.
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(1);

/// One use of the plugin.
pub struct Session {
    /// The cluster.
    pub client: Client,
    /// The namespace that is meant where none is named.
    pub namespace: String,
    /// Whether the user named it.
    pub is_namespace_given: bool,
    /// The namespace that checkpoint-keeper is installed in.
    pub operator_namespace: String,
    /// The one agent to be asked, whichever node is meant.
    pub agent_address: Option<String>,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// What could not be seen.
    unseen: RefCell<Vec<String>>,
}

impl Session {
    /// Finds the cluster.
    pub async fn open(global: &Global) -> Result<Self, Failure> {
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::with_hint(
                format!("cannot find the cluster: {error}"),
                "name a file with --kubeconfig, and a context of it with --context",
            )
        };
        let options = KubeConfigOptions { context: global.context.clone(), ..KubeConfigOptions::default() };
        let mut config = match &global.kubeconfig {
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path).map_err(|error| wrong(&error))?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| wrong(&error))?
            }
            None if global.context.is_some() => {
                Config::from_kubeconfig(&options).await.map_err(|error| wrong(&error))?
            }
            None => Config::infer().await.map_err(|error| wrong(&error))?,
        };
        config.auth_info.impersonate.clone_from(&global.impersonate);
        config.read_timeout = Some(global.request_timeout);
        config.connect_timeout = Some(global.request_timeout);
        let namespace = global.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        // Right after an installation the API server is not ready for the new kinds for some seconds. The client's own
        // retries may take minutes.
        let retries = u32::try_from(global.request_timeout.as_secs()).unwrap_or(u32::MAX);
        config.default_retry = false;
        let retry = RetryPolicy::new(RETRY_DELAY, LONGEST_RETRY_DELAY, retries, true)
            .map_err(|error| wrong(&error))?;
        let client = Client::try_from(config).map_err(|error| wrong(&error))?;
        let client_namespace = client.default_namespace().to_owned();
        let send = service_fn(move |request| {
            let client = client.clone();
            async move { client.send(request).await.map_err(BoxError::from) }
        });
        let client = Client::new(RetryLayer::new(retry).layer(send), client_namespace);
        Ok(Self {
            client,
            namespace,
            is_namespace_given: global.namespace.is_some(),
            operator_namespace: global.operator_namespace.clone(),
            agent_address: global.agent_address.clone(),
            request_timeout: global.request_timeout,
            unseen: RefCell::default(),
        })
    }

    /// The objects of a kind in the namespace that is meant.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Lists objects of a kind, of one namespace or of all. What cannot be read as its kind is left out, and said.
    pub async fn list<K>(&self, namespace: Option<&str>, params: &ListParams) -> Result<Vec<K>, kube::Error>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Debug,
    {
        let resource = ApiResource::erase::<K>(&());
        let api: Api<ApiObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let mut params = ListParams { limit: Some(PAGE), ..params.clone() };
        let mut objects = Vec::new();
        loop {
            let page = api.list(&params).await?;
            for object in page.items {
                let name = object.name_any();
                match object.parse() {
                    Ok(object) => objects.push(object),
                    Err(error) => self.unseen(format!("{} {name}: it cannot be read: {error}", K::kind(&()))),
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(objects),
            }
        }
    }

    /// Lists objects that are not necessary for a result. Where that fails, it is said that they could not be seen.
    pub async fn list_if_allowed<K>(&self, namespace: Option<&str>) -> Option<Vec<K>>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Debug,
    {
        match self.list(namespace, &ListParams::default()).await {
            Ok(objects) => Some(objects),
            Err(error) => {
                self.unseen(format!("{}: {}", K::plural(&()), said(&error)));
                None
            }
        }
    }

    /// Notes that something could not be seen.
    pub fn unseen(&self, what: String) {
        self.unseen.borrow_mut().push(what);
    }

    /// Says what could not be seen, once all else was shown.
    pub fn say_unseen(&self) {
        for what in self.unseen.take() {
            say("note", format!("not seen: {what}"));
        }
    }
}
