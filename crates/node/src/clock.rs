//! The machine's clocks, and its boots.

use std::time::Duration;

use checkpoint_keeper_core::engine::clock::Now;
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Reads both clocks.
pub fn now() -> Now {
    let uptime = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(uptime.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(uptime.tv_nsec).unwrap_or(0);
    Now { wall: Timestamp::now(), uptime: Duration::new(seconds, nanoseconds) }
}

/// Which boot of the machine this is: uptimes of two are not to be compared. Empty where that cannot be told.
pub fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_boot_has_an_id_of_its_own() {
        let id = boot();
        let is_id = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
        assert!(id.len() == 36 && id.bytes().all(is_id), "{id:?}");
        assert_eq!(boot(), id);
    }
}
