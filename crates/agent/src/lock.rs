//! Having the directory to oneself. While another collector works on it, this agent waits, and says so in its probes and
//! metrics: an agent that ended would be seen by nobody.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_node::store::{OpenError, Store};
use checkpoint_keeper_runtime::admin::{self, AdminServer};
use checkpoint_keeper_runtime::requests::RequestCounts;
use checkpoint_keeper_runtime::telemetry::Sources;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::runtime::Builder;
use tokio::time::sleep;

use super::{Error, metrics, start_error};

/// How often it is looked whether the other collector has ended.
const AGAIN: Duration = Duration::from_secs(1);

/// The directory, which no other collector works on for as long as the store lives; none if `stop` became readable
/// before the other one had ended. Meanwhile probes and metrics are served at `address`.
pub(super) fn lock(directory: &Path, address: SocketAddr, stop: &UnixStream) -> Result<Option<Store>, Error> {
    match open(directory) {
        Err(error @ OpenError::Locked(_)) => {
            tracing::warn!("{error}: waiting until it has ended");
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(start_error("cannot start a runtime"))?;
            let store = runtime.block_on(wait(directory, address, stop, error.to_string()))?;
            if store.is_some() {
                tracing::info!("the other collector has ended: beginning");
            }
            Ok(store)
        }
        store => Ok(Some(store?)),
    }
}

fn open(directory: &Path) -> Result<Store, OpenError> {
    let store = Store::open(directory)?;
    store.lock().map(|()| store)
}

async fn wait(
    directory: &Path,
    address: SocketAddr,
    stop: &UnixStream,
    why: String,
) -> Result<Option<Store>, Error> {
    let server = AdminServer {
        metrics: metrics::waiting_registry(Sources {
            requests: RequestCounts::default(),
            is_ready: Box::new(|| false),
            watch_ages: Box::new(Vec::new),
        }),
        not_ready_reasons: Box::new(move || vec![why.clone()]),
        is_alive: Box::new(|| true),
    };
    let serve = async {
        if let Err(error) = admin::serve(address, Arc::new(server)).await {
            tracing::error!("cannot serve probes and metrics on {address}: {error}");
        }
        std::future::pending().await
    };
    let try_again = async {
        loop {
            sleep(AGAIN).await;
            if is_readable(stop).map_err(start_error("cannot listen for signals"))? {
                return Ok(None);
            }
            match open(directory) {
                Err(OpenError::Locked(_)) => {}
                store => return Ok(Some(store?)),
            }
        }
    };
    tokio::select! {
        store = try_again => store,
        never = serve => never,
    }
}

fn is_readable(stream: &UnixStream) -> io::Result<bool> {
    let mut descriptors = [PollFd::new(stream, PollFlags::IN)];
    Ok(poll(&mut descriptors, Some(&Timespec::default()))? > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Instant;

    use super::*;

    /// A free port of this machine.
    fn free() -> SocketAddr {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
    }

    fn page(address: SocketAddr, path: &str) -> String {
        let begin = Instant::now();
        loop {
            let answer = std::net::TcpStream::connect(address).and_then(|mut stream| {
                write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
                io::read_to_string(stream)
            });
            match answer {
                Ok(answer) => return answer,
                Err(error) => assert!(begin.elapsed() < Duration::from_secs(10), "{error}"),
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_finds_another_collector_says_so_and_begins_when_it_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let other = open(directory.path()).unwrap();
        let (stop, _trigger) = UnixStream::pair().unwrap();
        let address = free();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| lock(directory.path(), address, &stop));
            let metrics = page(address, "/metrics");
            assert!(metrics.contains("checkpoint_keeper_directory_locked 1\n"), "{metrics}");
            assert!(metrics.contains("checkpoint_keeper_ready 0\n"), "{metrics}");
            let ready = page(address, "/readyz");
            assert!(ready.contains("another collector works on"), "{ready}");
            assert!(page(address, "/livez").starts_with("HTTP/1.1 200"));
            assert!(!second.is_finished());
            drop(other);
            assert!(second.join().unwrap().unwrap().is_some());
        });
    }

    #[test]
    fn who_waits_for_another_collector_ends_when_told_to() {
        let directory = tempfile::tempdir().unwrap();
        let _other = open(directory.path()).unwrap();
        let (stop, mut trigger) = UnixStream::pair().unwrap();
        trigger.write_all(b"x").unwrap();
        assert!(lock(directory.path(), free(), &stop).unwrap().is_none());
    }
}
