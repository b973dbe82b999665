//! The real clock behind [`Time`]: `CLOCK_BOOTTIME`, so that the leases of a suspended machine run
//! out while it sleeps.

use std::time::Duration;

use mooring_terms::Time;
use rustix::time::{ClockId, clock_gettime};

/// The time since the machine booted.
#[must_use]
pub fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).expect("the time since boot is positive");
    let nanoseconds = u32::try_from(now.tv_nsec).expect("below one second");
    Time(Duration::new(seconds, nanoseconds))
}

/// Milliseconds since 1970, for people: event logs, certificates, token expiry. Never for leases.
#[must_use]
pub fn unix_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
