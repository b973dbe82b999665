//! FLUSH and FUA: answered when durable on every in-sync replica.

use mooring_terms::{Sequence, Version};

use super::Primary;
use crate::core::{Core, Turn};
use crate::request::{Outcome, RequestId};

/// A request that is answered when everything up to a record is durable.
#[derive(Debug)]
pub(super) struct DurableWait {
    pub(super) id: RequestId,
    pub(super) sequence: Sequence,
    pub(super) waits: Waits,
}

/// What kind of request waits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waits {
    Flush,
    Write(Version),
    Seal,
}

impl Primary {
    /// A flush covers what was answered before it; what is not committed was answered to nobody.
    pub(super) fn begin_flush(&mut self, turn: &mut Turn<'_>, id: RequestId) {
        let sequence = self.committed;
        if self.stable >= sequence {
            self.reply(turn, id, Outcome::Flushed);
            return;
        }
        self.sync_target = self.sync_target.max(sequence);
        self.durable_waits.push_back(DurableWait { id, sequence, waits: Waits::Flush });
    }

    /// Answers what has become durable.
    pub(super) fn answer_durable(&mut self, _core: &Core, turn: &mut Turn<'_>) {
        let waiting = std::mem::take(&mut self.durable_waits);
        for wait in waiting {
            if wait.sequence > self.stable {
                self.durable_waits.push_back(wait);
                continue;
            }
            let outcome = match wait.waits {
                Waits::Flush => Outcome::Flushed,
                Waits::Write(version) => Outcome::Written(version),
                Waits::Seal => Outcome::Sealed,
            };
            self.reply(turn, wait.id, outcome);
        }
    }
}
