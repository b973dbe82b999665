//! Dates, as the configuration knows them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970 (UTC), proposed by the Raft leader with each command. The state machine
/// only ever moves it forward, so an order of events is never contradicted by their dates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Milliseconds from `earlier` to this; zero if it isn't later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This date `millis` later.
    #[must_use]
    pub fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

impl fmt::Debug for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix+{}ms", self.0)
    }
}
