//! The real clocks: one for leases, one for dates.

#![allow(clippy::disallowed_methods, reason = "a shell: it reads the clocks for the core")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mooring_sharedfs_core::Timestamp;
use mooring_terms::Time;
use rustix::time::{ClockId, clock_gettime};

/// The time since the machine booted: a suspended machine's leases run out while it sleeps.
pub(crate) fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).expect("the time since boot is positive");
    let nanoseconds = u32::try_from(now.tv_nsec).expect("below one second");
    Time(Duration::new(seconds, nanoseconds))
}

/// The date, for files.
pub(crate) fn date() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds, nanoseconds: since.subsec_nanos() }
}
