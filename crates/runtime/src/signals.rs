//! Ending by SIGTERM or SIGINT.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A stream that becomes readable with SIGTERM or SIGINT, and its other end: a byte written there has the same
/// effect. A second signal ends the program at once, also in the middle of a long read.
pub fn until_told() -> std::io::Result<(UnixStream, UnixStream)> {
    let (stop, trigger) = UnixStream::pair()?;
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&asked))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&asked)))?;
        let end = trigger.try_clone()?;
        signal_hook::low_level::pipe::register(signal, end)?;
    }
    Ok((stop, trigger))
}
