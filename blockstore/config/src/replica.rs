//! How a slice gains and loses replicas: what placement and operators may do, beside the
//! compare-and-set of its members.
//!
//! ```text
//!   assign ──> joining ──(Joined, by the primary)──> in sync
//!                 │                                     │
//!                 └──────> taken away <─────────────────┘ not the primary, not below the minimum
//! ```
//!
//! Taking away a secondary needs no consent of the primary: whatever was acknowledged is on every
//! in-sync replica, so on those that stay. The epoch is raised, and with it every copy of the old
//! configuration is over. Placing a replica changes neither primary nor in-sync set, and so not the
//! epoch.

use mooring_terms::{AttachmentEpoch, Epoch, Incarnation, NodeId, PoolId};

use crate::{ChangeRefused, Member, SliceConfig};

impl SliceConfig {
    /// A slice that never held anything: all its members are in sync, the first is primary.
    ///
    /// # Panics
    /// Without members.
    #[must_use]
    pub fn new(members: &[Member], min_in_sync: u32) -> Self {
        let primary = members.first().expect("a slice has at least one replica").node;
        let mut in_sync = members.to_vec();
        in_sync.sort_unstable();
        Self {
            epoch: Epoch(1),
            primary,
            in_sync,
            joining: Vec::new(),
            min_in_sync,
            tail_lost: Epoch(0),
            seal: AttachmentEpoch(0),
        }
    }

    /// Every member, in sync or joining.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.in_sync.iter().chain(&self.joining)
    }

    /// Adds a replica, which begins as joining.
    ///
    /// # Errors
    /// [`ChangeRefused::AlreadyPlaced`].
    pub fn assign(&mut self, member: Member) -> Result<(), ChangeRefused> {
        if self.member(member.node).is_some() {
            return Err(ChangeRefused::AlreadyPlaced { node: member.node });
        }
        self.joining.push(member);
        self.joining.sort_unstable();
        Ok(())
    }

    /// Whether [`Self::remove`] would take the replica on `node` away.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub fn check_remove(&self, node: NodeId) -> Result<(), ChangeRefused> {
        if self.member(node).is_none() {
            return Err(ChangeRefused::UnknownMember { node });
        }
        if self.in_sync_member(node).is_none() {
            return Ok(());
        }
        if node == self.primary {
            return Err(ChangeRefused::IsPrimary { node });
        }
        let left = u32::try_from(self.in_sync.len() - 1).expect("a slice has few replicas");
        if left < self.min_in_sync {
            return Err(ChangeRefused::TooFew { left, min: self.min_in_sync });
        }
        Ok(())
    }

    /// Takes the replica on `node` away; raises the epoch if it was in sync.
    ///
    /// # Errors
    /// [`ChangeRefused::UnknownMember`], [`ChangeRefused::IsPrimary`] or [`ChangeRefused::TooFew`].
    pub fn remove(&mut self, node: NodeId) -> Result<(), ChangeRefused> {
        self.check_remove(node)?;
        self.joining.retain(|member| member.node != node);
        self.drop_in_sync(node);
        Ok(())
    }

    /// Puts the in-sync secondary on `node` among the joining: its pool has failed.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub fn demote(&mut self, node: NodeId) -> Result<(), ChangeRefused> {
        self.check_remove(node)?;
        if let Some(member) = self.in_sync_member(node).copied() {
            self.drop_in_sync(node);
            self.joining.push(member);
            self.joining.sort_unstable();
        }
        Ok(())
    }

    /// Makes the replica on `from` the slice's only in-sync one, and all others joining. `opened`
    /// is the opening that its pool has now. The tail is lost unless the replica was in sync and
    /// has not been restarted since.
    ///
    /// # Errors
    /// [`ChangeRefused::UnknownMember`].
    pub fn accept_loss(
        &mut self,
        from: NodeId,
        opened: impl Fn(PoolId) -> Option<Incarnation>,
    ) -> Result<(), ChangeRefused> {
        let unknown = ChangeRefused::UnknownMember { node: from };
        let mut survivor = *self.member(from).ok_or(unknown.clone())?;
        survivor.incarnation = opened(survivor.pool).ok_or(unknown)?;
        let kept_all = self.in_sync.contains(&survivor);
        let mut others: Vec<Member> = self.members().copied().collect();
        others.retain(|member| member.node != from);
        others.sort_unstable();
        self.joining = others;
        self.in_sync = vec![survivor];
        self.primary = from;
        self.epoch = self.epoch.next();
        if !kept_all {
            self.tail_lost = self.epoch;
        }
        Ok(())
    }

    /// Panics if the configuration contradicts itself.
    ///
    /// # Panics
    /// Then.
    pub fn check_invariants(&self) {
        assert!(self.in_sync_member(self.primary).is_some(), "the primary is in sync: {self:?}");
        assert!(self.epoch >= Epoch(1), "epochs begin with 1: {self:?}");
        assert!(self.min_in_sync >= 1, "at least one replica is in sync: {self:?}");
        assert!(self.in_sync.is_sorted() && self.joining.is_sorted(), "in order: {self:?}");
        let mut nodes: Vec<NodeId> = self.members().map(|member| member.node).collect();
        let placed = nodes.len();
        nodes.sort_unstable();
        nodes.dedup();
        assert_eq!(nodes.len(), placed, "one replica a node: {self:?}");
    }

    fn drop_in_sync(&mut self, node: NodeId) {
        let before = self.in_sync.len();
        self.in_sync.retain(|member| member.node != node);
        if self.in_sync.len() != before {
            self.epoch = self.epoch.next();
        }
    }
}
