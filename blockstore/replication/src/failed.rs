//! A replica whose pool has failed: it asks for nothing of the pool, and to be taken out.

use mooring_config::ChangeReason;
use mooring_terms::{NodeId, Time};

use crate::core::{Core, Turn};
use crate::event::{ProposalId, ProposalOutcome};
use crate::message::MessageBody;
use crate::proposal::Proposal;

/// A replica without a pool.
#[derive(Debug)]
pub(crate) struct Failed {
    /// Its last act as primary: naming another.
    proposal: Option<Proposal>,
}

impl Failed {
    pub(crate) fn new(core: &Core, turn: &mut Turn<'_>, proposal: Option<Proposal>) -> Self {
        let failed = Self { proposal };
        failed.tell(core, turn);
        failed
    }

    fn tell(&self, core: &Core, turn: &mut Turn<'_>) {
        if let Some(config) = &core.config {
            core.send(turn, config.primary, None, MessageBody::Failed);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.proposal.as_ref().and_then(|proposal| proposal.again)
    }

    pub(crate) fn on_connected(&self, core: &Core, turn: &mut Turn<'_>, peer: NodeId) {
        if core.config.as_ref().is_some_and(|config| config.primary == peer) {
            self.tell(core, turn);
        }
    }

    /// The slice has a new epoch.
    pub(crate) fn next_epoch(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        self.proposal = None;
        core.vouch(turn, None, Vec::new());
        self.tell(core, turn);
        let config = core.config();
        if config.primary == core.me.node {
            // An earlier change kept it primary: it names another once more.
            let reachable = |node: &NodeId| core.connected.contains(node);
            let others = config.in_sync.iter().map(|member| member.node);
            if let Some(to) = others.filter(|node| *node != core.me.node).find(reachable) {
                let mut in_sync = config.in_sync.clone();
                if in_sync.len() > config.min_in_sync as usize {
                    in_sync.retain(|member| member.node != core.me.node);
                }
                let reason = ChangeReason::PrimaryResigned;
                self.proposal = Some(Proposal::new(core, turn, to, in_sync, reason));
            }
        }
    }

    pub(crate) fn on_tick(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        if let Some(proposal) = &mut self.proposal {
            proposal.repeat_if_due(core, turn);
        }
    }

    /// The outcome of a proposal that left the epoch as it was: tries again.
    pub(crate) fn on_proposed(
        &mut self,
        core: &Core,
        turn: &mut Turn<'_>,
        id: ProposalId,
        outcome: &ProposalOutcome,
    ) {
        let Some(proposal) = self.proposal.as_mut().filter(|proposal| proposal.id == id) else {
            return;
        };
        if matches!(outcome, ProposalOutcome::Unknown) {
            proposal.unknown(core, turn);
        } else {
            proposal.again = Some(turn.now + core.options.retry);
        }
    }
}
