//! A client of an API server or a kubelet: whom it speaks for, and requests by path.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use ureq::config::ConfigBuilder;
use ureq::http::Request;
use ureq::middleware::MiddlewareNext;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;

use crate::paths::State;

/// How long a request to the API server may take.
const REQUEST: Duration = Duration::from_secs(30);

/// Speaks to the API server as one user.
#[derive(Debug, Clone)]
pub struct Client {
    agent: ureq::Agent,
    port: u16,
}

impl Client {
    /// Whoever has the certificate of this name.
    pub(crate) fn with_certificate(state: &State, name: &str, port: u16) -> anyhow::Result<Self> {
        Ok(Self { agent: agent(state, name, REQUEST)?, port })
    }

    /// Whoever has this token.
    pub(crate) fn with_token(state: &State, token: &str, port: u16) -> anyhow::Result<Self> {
        let authorization = format!("Bearer {}", token.trim());
        let value = ureq::http::HeaderValue::from_str(&authorization).context("this is no token")?;
        let config = configuration(state, None, REQUEST)?.middleware(
            move |mut request: Request<ureq::SendBody>, next: MiddlewareNext| {
                request.headers_mut().insert("authorization", value.clone());
                next.handle(request)
            },
        );
        Ok(Self { agent: config.build().new_agent(), port })
    }

    /// An object or a list, by its path in the API.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        let (status, body) = self.request("GET", path)?;
        ensure!(status == 200, "GET {path}: {status}: {body}");
        Ok(body)
    }

    /// Any request without a body; its status, and what came back.
    pub fn request(&self, method: &str, path: &str) -> anyhow::Result<(u16, Value)> {
        let request = Request::builder().method(method).uri(self.url(path)).body(())?;
        answer(self.agent.run(request).with_context(|| format!("{method} {path}"))?)
    }

    /// Creates an object below this path; the status, and what came back.
    pub fn create(&self, path: &str, object: &Value) -> anyhow::Result<(u16, Value)> {
        answer(self.agent.post(self.url(path)).send_json(object).with_context(|| format!("POST {path}"))?)
    }

    /// Applies an object at this path, which names the field manager; the status, and what came back.
    pub fn apply(&self, path: &str, object: &Value) -> anyhow::Result<(u16, Value)> {
        // JSON is YAML too.
        let request = self.agent.patch(self.url(path)).content_type("application/apply-patch+yaml");
        answer(request.send(&object.to_string()).with_context(|| format!("PATCH {path}"))?)
    }

    /// Merges this into the object at this path; the status, and what came back.
    pub fn merge(&self, path: &str, change: &Value) -> anyhow::Result<(u16, Value)> {
        self.patch(path, "application/merge-patch+json", change)
    }

    /// Patches the object at this path in a way that its content type says; the status, and what came back.
    pub fn patch(&self, path: &str, content_type: &str, change: &Value) -> anyhow::Result<(u16, Value)> {
        let request = self.agent.patch(self.url(path)).content_type(content_type);
        answer(request.send(&change.to_string()).with_context(|| format!("PATCH {path}"))?)
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> anyhow::Result<(u16, Value)> {
    let text = response.body_mut().read_to_string()?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok((response.status().as_u16(), body))
}

/// An HTTP client with a certificate of the cluster's.
pub(crate) fn agent(state: &State, client: &str, timeout: Duration) -> anyhow::Result<ureq::Agent> {
    let certificate = Certificate::from_pem(&read(state, &format!("{client}.crt"))?)?;
    let key = PrivateKey::from_pem(&read(state, &format!("{client}.key"))?)?;
    let identity = ClientCert::new_with_certs(&[certificate], key);
    Ok(configuration(state, Some(identity), timeout)?.build().new_agent())
}

/// An HTTP client that trusts the cluster.
fn configuration(
    state: &State,
    identity: Option<ClientCert>,
    timeout: Duration,
) -> anyhow::Result<ConfigBuilder<AgentScope>> {
    let authority = Certificate::from_pem(&read(state, "ca.crt")?)?;
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&[authority]))
        .client_cert(identity)
        .build();
    Ok(ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .timeout_global(Some(timeout))
        // The proxies of this machine do not lead to its own loopback.
        .proxy(None))
}

fn read(state: &State, name: &str) -> anyhow::Result<Vec<u8>> {
    let path = state.pki().join(name);
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}
