//! One change on its way to Raft.
//!
//! ```text
//!   proposed ──Accepted──> the new epoch
//!      │  ^ ──Refused, another epoch──> that epoch
//!      │  │ ──Refused, same epoch──> given up, unless an earlier try is in doubt
//!   Unknown (in doubt: the change may still be applied; repeated until the epoch moves)
//! ```
//!
//! A change in doubt is over only when the epoch has moved: the compare-and-set then refuses it for
//! ever. Until then both outcomes are prepared for.

use mooring_config::{ChangeReason, Member, SliceChange};
use mooring_terms::{NodeId, Time};

use crate::command::Command;
use crate::core::{Core, Turn};
use crate::event::ProposalId;

/// A proposed change.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) id: ProposalId,
    pub(crate) change: SliceChange,
    /// Whether an earlier try had an unknown outcome.
    pub(crate) in_doubt: bool,
    /// When it is proposed again.
    pub(crate) again: Option<Time>,
}

impl Proposal {
    /// Proposes a change of the slice as this replica knows it.
    pub(crate) fn new(
        core: &mut Core,
        turn: &mut Turn<'_>,
        primary: NodeId,
        mut in_sync: Vec<Member>,
        reason: ChangeReason,
    ) -> Self {
        in_sync.sort_unstable();
        let change = SliceChange {
            slice: core.slice,
            expected: core.config().epoch,
            by: core.me.node,
            primary,
            in_sync,
            reason,
        };
        let id = core.proposal();
        turn.out.push(Command::Propose { id, change: change.clone() });
        Self { id, change, in_doubt: false, again: None }
    }

    /// The outcome of this try is unknown: asks, and will try again.
    pub(crate) fn unknown(&mut self, core: &Core, turn: &mut Turn<'_>) {
        self.in_doubt = true;
        self.again = Some(turn.now + core.options.retry);
        turn.out.push(Command::QueryConfig);
    }

    /// Proposes once more if it is time.
    pub(crate) fn repeat_if_due(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        if self.again.is_some_and(|again| again <= turn.now) {
            self.again = None;
            self.id = core.proposal();
            turn.out.push(Command::Propose { id: self.id, change: self.change.clone() });
        }
    }
}
