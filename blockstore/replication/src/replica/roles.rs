//! Configurations, and the role that follows from each.

use mooring_config::SliceConfig;

use super::{Replica, Role};
use crate::command::Command;
use crate::core::{Turn, mutated};
use crate::event::{ProposalId, ProposalOutcome};
use crate::joiner::Joiner;
use crate::note::Note;
use crate::primary::Primary;
use crate::restart::Restart;
use crate::secondary::Secondary;

impl Replica {
    pub(super) fn on_proposed(
        &mut self,
        turn: &mut Turn<'_>,
        id: ProposalId,
        outcome: &ProposalOutcome,
    ) {
        let config = match outcome {
            ProposalOutcome::Accepted(config) | ProposalOutcome::Refused(_, config) => Some(config),
            ProposalOutcome::Unknown => None,
        };
        let known = self.core.epoch();
        if let Some(config) = config {
            let accepted = matches!(outcome, ProposalOutcome::Accepted(_));
            let took_over = matches!(&self.role, Role::Secondary(s) if s.is_taking_over());
            if accepted && took_over && config.in_sync_member(self.core.config().primary).is_none()
            {
                let old = self.core.config().primary;
                self.took_over_from = self.core.config().in_sync_member(old).copied();
            }
            self.on_config(turn, config.clone());
            if accepted && config.epoch > known {
                self.core.tell_config(turn);
            }
            if self.core.epoch() > known {
                return;
            }
        }
        let core = &mut self.core;
        match &mut self.role {
            Role::Primary(primary) => primary.on_proposed(core, turn, id, outcome),
            Role::Secondary(secondary) => secondary.on_proposed(core, turn, id, outcome),
            Role::Joiner(joiner) => {
                if let Some(restart) = &mut joiner.restart {
                    restart.on_proposed(core, turn, id, outcome);
                }
            }
            Role::Failed(failed) => failed.on_proposed(core, turn, id, outcome),
            Role::Idle => {}
        }
    }

    pub(super) fn on_config(&mut self, turn: &mut Turn<'_>, config: SliceConfig) {
        let core = &mut self.core;
        let known = core.config.as_ref().map(|config| config.epoch);
        if known.is_some_and(|known| config.epoch < known) {
            return;
        }
        if known == Some(config.epoch) {
            return self.on_same_epoch(turn, config);
        }
        if config.epoch < core.log.state.promised {
            // Raft's state here is older than what this replica has promised: it will follow.
            turn.out.push(Command::QueryConfig);
            return;
        }
        let old = std::mem::replace(&mut self.role, Role::Idle);
        let stays = core.config.as_ref().is_some_and(|before| {
            before.epoch.next() == config.epoch && before.primary == config.primary
        });
        if config.tail_lost == config.epoch && config.primary == core.me.node {
            let last = core.log.state.complete_to(core.log.last);
            core.note(turn, Note::TailLost { last });
        }
        core.config = Some(config);
        self.role = self.next_role(turn, old, stays);
    }

    /// Placement or the minimum changed; the epoch didn't.
    fn on_same_epoch(&mut self, turn: &mut Turn<'_>, config: SliceConfig) {
        let core = &mut self.core;
        if core.config.as_ref() == Some(&config) {
            return;
        }
        core.config = Some(config);
        match &mut self.role {
            Role::Primary(primary) => primary.on_placement(core, turn),
            Role::Idle => self.role = self.next_role(turn, Role::Idle, false),
            Role::Secondary(_) | Role::Joiner(_) | Role::Failed(_) => {}
        }
    }

    /// The role in the configuration that has just been adopted.
    pub(super) fn next_role(&mut self, turn: &mut Turn<'_>, old: Role, stays: bool) -> Role {
        let core = &mut self.core;
        let config = core.config().clone();
        let listed = config.in_sync_member(core.me.node).copied();
        let primary = config.primary == core.me.node;
        let unchecked = mutated!(core, IncarnationUnchecked) && !primary;
        let current = listed
            .is_some_and(|member| member.incarnation == core.me.incarnation || unchecked)
            && !matches!(old, Role::Failed(_));
        core.join = core.join.filter(|_| matches!(old, Role::Joiner(_)) && listed.is_none());
        if let Role::Failed(mut failed) = old {
            failed.next_epoch(core, turn);
            return Role::Failed(failed);
        }
        match old {
            Role::Primary(mut old) if current && primary && stays => {
                old.next_epoch(core, turn);
                return Role::Primary(old);
            }
            Role::Primary(mut old) => {
                let refusal = Primary::moved(core);
                old.step_down(core, turn, &refusal);
            }
            Role::Joiner(mut joiner)
                if stays
                    && joiner.restart.is_none()
                    && listed.is_none()
                    && config.member(core.me.node).is_some() =>
            {
                joiner.next_epoch(core, turn);
                return Role::Joiner(joiner);
            }
            _ => {}
        }
        if current && primary {
            return Role::Primary(Box::new(Primary::new(core, turn)));
        }
        #[cfg(feature = "mutations")]
        if mutated!(core, SequenceReused) && listed.is_some() && primary {
            return Role::Primary(Box::new(Primary::carry_on(core, turn)));
        }
        if current && (core.log.is_whole() || mutated!(core, JoinedEarly)) {
            return Role::Secondary(Secondary::new(core, turn));
        }
        if current {
            // It was being brought level where it stood, and that isn't finished.
            return Role::Joiner(Joiner::new(core, turn, None));
        }
        if listed.is_some() {
            let mut restart = Restart::new(core, turn);
            restart.think(core, turn);
            return Role::Joiner(Joiner::new(core, turn, Some(restart)));
        }
        if config.member(core.me.node).is_some() {
            return Role::Joiner(Joiner::new(core, turn, None));
        }
        core.vouch(turn, None, Vec::new());
        core.space.set(turn.out, 0);
        Role::Idle
    }
}
