//! Asking agents for what only they know: every archive of a node with what becomes of it, and why.
//!
//! An agent answers inside its pod only. Whoever may forward a port of that pod may ask.

use std::time::Duration;

use checkpoint_keeper_api::{AGENT_SELECTOR, AGENT_VIEW_PORT};
use futures_util::StreamExt;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::failure::{Failure, missing, said};
use crate::session::Session;

/// How many agents are asked at a time.
const AT_ONCE: usize = 8;

/// How much longer than another request a question may take: an agent may have 100 000 archives to plan for.
const EXTRA_TIMEOUT: Duration = Duration::from_secs(20);

/// What is asked of an agent.
#[derive(Debug, Clone)]
pub enum Question {
    /// All archives, with what becomes of each.
    Archives,
    /// Why one archive stays or goes.
    Explain(String),
    /// What would change if these manifests were applied.
    Preview(String),
    /// What would change if the older operator ended.
    WithoutOlderOperator,
}

impl Question {
    fn request(&self) -> (Method, String, String) {
        match self {
            Self::Archives => (Method::GET, "/v1alpha1/archives".to_owned(), String::new()),
            Self::Explain(file) => {
                (Method::GET, format!("/v1alpha1/explain?file={}", encoded(file)), String::new())
            }
            Self::WithoutOlderOperator => {
                (Method::POST, "/v1alpha1/preview?olderOperator=absent".to_owned(), String::new())
            }
            Self::Preview(manifests) => (Method::POST, "/v1alpha1/preview".to_owned(), manifests.clone()),
        }
    }
}

/// A text as it stands in a query.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// An agent, by its node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Agent {
    /// The node.
    pub node: String,
    /// Its pod.
    pub pod: String,
}

/// All agents, or that of one node.
pub async fn find(session: &Session, node: Option<&str>) -> Result<Vec<Agent>, Failure> {
    if let Some(address) = &session.agent_address {
        return Ok(vec![Agent { node: node.unwrap_or(address).to_owned(), pod: String::new() }]);
    }
    let mut params = ListParams::default().labels(AGENT_SELECTOR);
    if let Some(node) = node {
        params = params.fields(&format!("spec.nodeName={node}"));
    }
    let api: Api<Pod> = Api::namespaced(session.client.clone(), &session.operator_namespace);
    let pods = api.list(&params).await.map_err(|error| Failure::of_request("find the agents", &error))?;
    let agent = |pod: Pod| {
        let node = pod.spec.as_ref()?.node_name.clone()?;
        Some(Agent { node, pod: pod.name_any() })
    };
    let mut agents: Vec<Agent> = pods.items.into_iter().filter_map(agent).collect();
    agents.sort();
    if agents.is_empty() {
        if let Some(node) = node
            && let Err(error) = Api::<Node>::all(session.client.clone()).get_metadata(node).await
            && missing(&error) == Some(node)
        {
            return Err(Failure::with_hint(
                format!("there is no node {node}"),
                "kubectl get nodes shows all there are",
            ));
        }
        let what = match node {
            Some(node) => format!("no agent runs on the node {node}"),
            None => format!("no agent runs in the namespace {}", session.operator_namespace),
        };
        let hint = "name the namespace that checkpoint-keeper is installed in with --operator-namespace";
        return Err(Failure::with_hint(what, hint));
    }
    Ok(agents)
}

/// Asks one agent.
pub async fn ask(session: &Session, agent: &Agent, question: &Question) -> Result<Value, Failure> {
    let node = &agent.node;
    let late = || Failure::new(format!("the agent of {node} does not answer"));
    let asked = async {
        if let Some(address) = &session.agent_address {
            let stream = TcpStream::connect(address)
                .await
                .map_err(|error| Failure::new(format!("cannot reach the agent at {address}: {error}")))?;
            exchange(stream, question).await
        } else {
            let api: Api<Pod> = Api::namespaced(session.client.clone(), &session.operator_namespace);
            let mut forwarder = api.portforward(&agent.pod, &[AGENT_VIEW_PORT]).await.map_err(|error| {
                let what = format!("cannot forward a port of {node}'s agent: {}", said(&error));
                let right = format!(
                    "this takes the rights to get and to create pods/portforward in the namespace {}",
                    session.operator_namespace
                );
                Failure::with_hint(what, right)
            })?;
            let stream = forwarder.take_stream(AGENT_VIEW_PORT).ok_or_else(late)?;
            exchange(stream, question).await
        }
    };
    let (code, body) =
        timeout(session.request_timeout + EXTRA_TIMEOUT, asked).await.map_err(|_| late())??;
    let value: Value = serde_json::from_slice(&body).map_err(|_| {
        Failure::new(format!("the agent of {node} answers {code} and no JSON: is it of another version?"))
    })?;
    if code == 200 {
        return Ok(value);
    }
    Err(Failure::new(format!("{}{}", whose(node), complaint(&value))))
}

/// How a message begins that is an agent's.
pub fn whose(node: &str) -> String {
    format!("the agent of {node}: ")
}

/// What an answer that is none says.
fn complaint(value: &Value) -> String {
    if let Some(text) = value["error"].as_str() {
        return text.to_owned();
    }
    let errors = value["errors"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let errors: Vec<&str> = errors.collect();
    if errors.is_empty() { value.to_string() } else { errors.join("\n") }
}

/// Asks all of them, some at a time.
pub async fn ask_all(
    session: &Session,
    agents: Vec<Agent>,
    question: &Question,
) -> Vec<(Agent, Result<Value, Failure>)> {
    let asked = agents.into_iter().map(|agent| async move {
        let answer = ask(session, &agent, question).await;
        (agent, answer)
    });
    let mut answers: Vec<_> = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    answers.sort_by(|(one, _), (other, _)| one.cmp(other));
    answers
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    question: &Question,
) -> Result<(u16, Bytes), Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::new(format!("the agent does not answer: {error}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| wrong(&error))?;
    let (method, path, body) = question.request();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| wrong(&error))?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| wrong(&error))?;
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.map_err(|error| wrong(&error))?;
        Ok((code, body.to_bytes()))
    };
    tokio::select! {
        answer = answer => answer,
        Err(error) = async { connection.await.map_err(|error| error.to_string()) } => Err(wrong(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_is_a_query_whatever_it_holds() {
        assert_eq!(
            encoded("checkpoint-a_b-c-2026-11-27T10:00:00+01:00.tar"),
            "checkpoint-a_b-c-2026-11-27T10%3A00%3A00%2B01%3A00.tar"
        );
        assert_eq!(encoded("é&?"), "%C3%A9%26%3F");
    }
}
