//! The page for probes and metrics: `/livez`, `/readyz`, `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// What the page shows.
pub struct Page {
    /// The metrics.
    pub metrics: Registry,
    /// What keeps the program from doing its work; none: it is ready.
    pub troubles: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Whether it is stuck for good: it is then restarted.
    pub is_alive: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Serves the page for as long as it is polled.
pub async fn serve(address: SocketAddr, page: Arc<Page>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(page);
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router).await
}

async fn live(State(page): State<Arc<Page>>) -> (StatusCode, &'static str) {
    if (page.is_alive)() { (StatusCode::OK, "ok\n") } else { (StatusCode::INTERNAL_SERVER_ERROR, "stuck\n") }
}

async fn ready(State(page): State<Arc<Page>>) -> (StatusCode, String) {
    let troubles = (page.troubles)();
    if troubles.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, troubles.join("\n") + "\n")
    }
}

async fn metrics(
    State(page): State<Arc<Page>>,
) -> Result<([(&'static str, &'static str); 1], String), StatusCode> {
    let mut text = String::new();
    encode(&mut text, &page.metrics).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}
