//! The server for probes and metrics: `/livez`, `/readyz`, `/metrics`.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use checkpoint_keeper_core::name::printable;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Everything that probes and metrics are answered from.
pub struct AdminServer {
    /// The metrics.
    pub metrics: Registry,
    /// What keeps the program from doing its work; none: it is ready.
    pub not_ready_reasons: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Whether it is stuck for good: it is then restarted.
    pub is_alive: Box<dyn Fn() -> bool + Send + Sync>,
}

/// So many connections are open at once; one more, and the oldest is closed. A probe needs its own for an
/// instant, so it is never a silent one that is left.
const MOST_CONNECTIONS: usize = 32;

/// How long a connection may take, for one request.
const CONNECTION: Duration = Duration::from_secs(10);

/// Answers probes and requests for metrics for as long as it is polled.
pub async fn serve(address: SocketAddr, server: Arc<AdminServer>) -> std::io::Result<()> {
    serve_on(listen(address, bind)?, server).await;
    Ok(())
}

/// Answers by `router` on a loopback address, and on that of the other family where there is one, for as long as it is
/// polled. A connection may take as long as `most`, for one request.
///
/// Errors: `address` cannot be bound.
pub async fn serve_loopback(address: SocketAddr, router: Router, most: Duration) -> std::io::Result<()> {
    let first = bind(address)?;
    let other: std::net::IpAddr =
        if address.is_ipv4() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    let other = bind(SocketAddr::new(other, first.local_addr()?.port()));
    let serve_other = async {
        if let Ok(other) = other {
            serve_router(other, router.clone(), most).await;
        }
    };
    tokio::join!(serve_router(first, router.clone(), most), serve_other);
    Ok(())
}

/// A listener; of every address (`[::]`) one of both families, and of IPv4 alone where there is no IPv6.
fn listen<L>(address: SocketAddr, bind: impl Fn(SocketAddr) -> std::io::Result<L>) -> std::io::Result<L> {
    let bound = bind(address);
    if bound.is_err() && address.is_ipv6() && address.ip().is_unspecified() {
        let other = bind((Ipv4Addr::UNSPECIFIED, address.port()).into());
        // What is wrong with the address that was asked for is what is to be told.
        return other.or(bound);
    }
    bound
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    if address.is_ipv6() {
        // Whatever the node's default is (net.ipv6.bindv6only).
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1_024)?;
    TcpListener::from_std(socket.into())
}

async fn serve_on(listener: TcpListener, server: Arc<AdminServer>) {
    let router = Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(server);
    serve_router(listener, router, CONNECTION).await;
}

async fn serve_router(listener: TcpListener, router: Router, most: Duration) {
    let mut connections = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptor is left, for one: this does not get better at once.
            sleep(Duration::from_secs(1)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MOST_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let service = TowerToHyperService::new(router.clone());
        let connection =
            http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
        open.push_back(connections.spawn(async move {
            let _ = timeout(most, connection).await;
        }));
    }
}

async fn live(State(server): State<Arc<AdminServer>>) -> (StatusCode, &'static str) {
    if (server.is_alive)() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, "stuck\n")
    }
}

async fn ready(State(server): State<Arc<AdminServer>>) -> (StatusCode, String) {
    let not_ready_reasons = (server.not_ready_reasons)();
    if not_ready_reasons.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        // The reasons hold names and replies from outside, and may be shown on a terminal.
        let lines = not_ready_reasons.iter().map(|reason| printable(reason).into_owned() + "\n");
        // As the API server's own: of a 503 `kubectl get --raw` would not show the text.
        (StatusCode::INTERNAL_SERVER_ERROR, lines.collect())
    }
}

async fn metrics(
    State(server): State<Arc<AdminServer>>,
) -> Result<([(&'static str, &'static str); 1], String), StatusCode> {
    let mut text = String::new();
    encode(&mut text, &server.metrics).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn start() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = AdminServer {
            metrics: Registry::default(),
            not_ready_reasons: Box::new(Vec::new),
            is_alive: Box::new(|| true),
        };
        tokio::spawn(serve_on(listener, Arc::new(server)));
        address
    }

    async fn live(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn every_address_is_one_of_both_families() {
        let listener = listen("[::]:0".parse().unwrap(), bind).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = AdminServer {
            metrics: Registry::default(),
            not_ready_reasons: Box::new(Vec::new),
            is_alive: Box::new(|| true),
        };
        let by_ipv6 = listener.local_addr().unwrap().is_ipv6();
        tokio::spawn(serve_on(listener, Arc::new(server)));
        assert!(live(([127, 0, 0, 1], port).into()).await.starts_with("HTTP/1.1 200 OK"));
        let localhost = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
        // A machine may have IPv6, and yet no address of it.
        if by_ipv6 && std::net::TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, 0)).is_ok() {
            assert!(live(localhost).await.starts_with("HTTP/1.1 200 OK"));
        }
    }

    #[test]
    fn without_ipv6_every_address_is_one_of_ipv4_and_no_other_address_changes() {
        let without_ipv6 = |address: SocketAddr| match address {
            SocketAddr::V4(_) => Ok(address),
            SocketAddr::V6(_) => Err(std::io::ErrorKind::AddrNotAvailable.into()),
        };
        let asked = |address: &str| listen(address.parse().unwrap(), without_ipv6);
        assert_eq!(asked("[::]:9464").unwrap(), "0.0.0.0:9464".parse().unwrap());
        assert_eq!(asked("127.0.0.1:1").unwrap(), "127.0.0.1:1".parse().unwrap());
        assert!(asked("[::1]:9464").is_err());
    }

    #[tokio::test]
    async fn silent_connections_however_many_use_nothing_up_and_keep_no_probe_waiting() {
        let address = start().await;
        let mut silent = Vec::new();
        for _ in 0..200 {
            silent.push(TcpStream::connect(address).await.unwrap());
            // Half a request is no better.
            silent.last_mut().unwrap().write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
        }
        let answer = timeout(CONNECTION / 2, live(address)).await.expect("in time for a probe");
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        let newest = silent.split_off(silent.len() - MOST_CONNECTIONS);
        for mut stream in silent {
            let closed = timeout(CONNECTION / 2, stream.read(&mut [0])).await.expect("closed");
            assert!(matches!(closed, Ok(0) | Err(_)));
        }
        drop(newest);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_closed_after_a_while() {
        let address = start().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let closed = timeout(CONNECTION * 2, stream.read(&mut [0])).await.expect("closed");
        assert!(matches!(closed, Ok(0) | Err(_)));
    }
}
