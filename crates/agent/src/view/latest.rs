//! The latest plan, for whoever asks to see it.
//!
//! A view of 100 000 archives takes some 40 MiB, so none is kept: one that is asked for is made for it, and given away
//! to all who ask within the next seconds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use checkpoint_keeper_core::engine::View;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// How long a view is given away: the engine makes no more plans for those who ask than one in this time.
const FRESH: Duration = Duration::from_secs(5);

/// How long a request waits for the plan that it asked for.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Hands views over from the engine's thread to that of the API.
#[derive(Debug, Clone, Default)]
pub(crate) struct LatestView {
    shared: Arc<Mutex<Shared>>,
    arrived: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Shared {
    is_wanted: bool,
    has_planned: bool,
    view: Option<(Instant, Arc<View>)>,
}

/// Why there is no view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoView {
    /// No plan was made yet.
    #[error("no plan was made yet: the agent has yet to read all archives and all policies")]
    NotPlanned,
    /// The engine makes none in time.
    #[error("no plan was made in time: the directory is gone, or archives are being read")]
    Late,
}

impl LatestView {
    /// Notes that a plan was made.
    pub(crate) fn note(&self, view: &Arc<View>) {
        let mut shared = self.shared();
        shared.has_planned = true;
        if std::mem::take(&mut shared.is_wanted) {
            shared.view = Some((Instant::now(), Arc::clone(view)));
            self.arrived.notify_waiters();
        } else if let Some((_, held)) = &mut shared.view {
            // Who asks again sees what came of what was done meanwhile; it is dropped no later for it.
            *held = Arc::clone(view);
        }
    }

    /// A view of now; `request` has one made.
    pub(super) async fn get(&self, request: impl Fn()) -> Result<Arc<View>, NoView> {
        let arrived = self.arrived.notified();
        tokio::pin!(arrived);
        arrived.as_mut().enable();
        {
            let mut shared = self.shared();
            if !shared.has_planned {
                return Err(NoView::NotPlanned);
            }
            if let Some((_, view)) = shared.view.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
                return Ok(Arc::clone(view));
            }
            shared.is_wanted = true;
        }
        request();
        let _ = timeout(TIMEOUT, arrived).await;
        let view = self.shared().view.as_ref().map(|(_, view)| Arc::clone(view)).ok_or(NoView::Late)?;
        let of = self.clone();
        tokio::spawn(async move {
            sleep(FRESH).await;
            of.shared().view.take_if(|(at, _)| at.elapsed() >= FRESH);
        });
        Ok(view)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
