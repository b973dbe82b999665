//! The clock that the core lives by: it stands while the coordinator can't listen.
//!
//! A client is ended when nothing was heard of it for a lease. While this thread waits for a slice in
//! failover, or the process is stopped, clients speak and nobody hears; ending them then would be an error
//! at every one of them, for a fault that promises none. So whatever time a turn takes beyond what turns
//! take is left out. The clock is only ever slower than a client's: sessions end later here than there.
#![allow(clippy::disallowed_methods, reason = "the shell's clock")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mooring_sharedfs_core::Timestamp;
use mooring_terms::Time;

/// What passes between two looks at the clock counts up to here, unless it was waited for.
const TURN: Duration = Duration::from_millis(20);

/// Waking up so much too late is the machine's business, and no reason to stop the clock.
const LATE: Duration = Duration::from_millis(50);

pub(crate) struct Clock {
    /// The core's time at the last look.
    time: Time,
    looked: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { time: Time::ZERO, looked: Instant::now() }
    }

    /// The core's time.
    pub(crate) fn now(&self) -> Time {
        self.time
    }

    /// Looks at the clock in the middle of work.
    pub(crate) fn look(&mut self) {
        self.advance(TURN);
    }

    /// Looks at the clock after a wait that should have taken `planned` at the most.
    pub(crate) fn waited(&mut self, planned: Duration) {
        self.advance(planned + LATE);
    }

    fn advance(&mut self, most: Duration) {
        let now = Instant::now();
        self.time = self.time + now.duration_since(self.looked).min(most);
        self.looked = now;
    }

    /// The date, for inodes.
    pub(crate) fn date() -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: since.subsec_nanos(),
        }
    }
}
