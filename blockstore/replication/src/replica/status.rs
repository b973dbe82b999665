//! What people see of a replica.

use mooring_terms::{AttachmentEpoch, Epoch, Sequence, Time};

use super::{Replica, Role};
use crate::core::Turn;
use crate::lease::Leases;
use crate::status::{Role as RoleName, Status};

impl Replica {
    /// What people see.
    #[must_use]
    pub fn status(&self) -> Status {
        let config = self.core.config.as_ref();
        let mut status = Status {
            role: self.role_name(),
            epoch: self.core.epoch(),
            primary: config.map(|config| config.primary),
            in_sync: config
                .map(|config| config.in_sync.iter().map(|member| member.node).collect())
                .unwrap_or_default(),
            too_few: config
                .is_some_and(|config| config.in_sync.len() < config.min_in_sync as usize),
            last: self.core.log.last,
            durable: self.core.log.durable,
            committed: Sequence(0),
            stable: Sequence(0),
            queued: 0,
            in_flight: 0,
            replicas: Vec::new(),
        };
        if let Role::Primary(primary) = &self.role {
            (status.committed, status.stable) = primary.positions();
            (status.queued, status.in_flight) = primary.waiting();
            status.replicas = primary.replicas(&self.core);
            let counted = status.replicas.iter().filter(|replica| replica.in_sync).count() + 1;
            status.too_few |= config.is_some_and(|c| counted < c.min_in_sync as usize)
                || primary.waits_for_replicas();
        }
        status
    }

    /// The epoch in which it is primary, holds every lease and has committed every record: then what
    /// its store has is what reads are answered with.
    #[must_use]
    pub fn settled(&self, now: Time, leases: &dyn Leases) -> Option<Epoch> {
        let Role::Primary(primary) = &self.role else { return None };
        let turn = Turn { now, leases, out: &mut Vec::new() };
        primary.is_settled(&self.core, &turn).then(|| self.core.epoch())
    }

    /// Until when no other can be primary, if `attachment` is the newest sealed here: what a coordinator
    /// needs before it answers, and before it renews sessions. `None` where there is no such moment to
    /// come. (A newer attachment may be sealed here before that.)
    #[must_use]
    pub fn leased_until(
        &self,
        now: Time,
        leases: &dyn Leases,
        attachment: AttachmentEpoch,
    ) -> Option<Time> {
        let Role::Primary(primary) = &self.role else { return None };
        let turn = Turn { now, leases, out: &mut Vec::new() };
        primary.leased_until(&self.core, &turn, attachment)
    }

    fn role_name(&self) -> RoleName {
        match &self.role {
            Role::Idle => RoleName::Idle,
            Role::Primary(primary) => primary.role(),
            Role::Secondary(secondary) if secondary.is_taking_over() => RoleName::TakingOver,
            Role::Secondary(_) => RoleName::Secondary,
            Role::Joiner(joiner) if joiner.restart.is_some() => RoleName::Restarted,
            Role::Joiner(_) => RoleName::Joining,
            Role::Failed(_) => RoleName::Failed,
        }
    }

    /// Role and state in two words: what transitions are counted by.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match &self.role {
            Role::Idle => "idle",
            Role::Primary(primary) => primary.state_name(),
            Role::Secondary(secondary) if secondary.is_taking_over() => "secondary: taking over",
            Role::Secondary(_) => "secondary",
            Role::Joiner(joiner) => joiner.state_name(),
            Role::Failed(_) => "failed",
        }
    }
}
