//! A slice's configuration, and how it changes: by compare-and-set on its epoch.
//!
//! ```text
//!            Joined (listed with its incarnation, level and durable)
//!   joining ────────────────────────────────────────────────────────> in sync
//!      ^                                                                 │
//!      └──────────────── silent, restarted, failed ──────────────────────┘
//! ```
//!
//! Invariants:
//! - the primary is in the in-sync set; no node is in both sets; no node holds two replicas;
//! - every accepted change raises the epoch by one;
//! - the in-sync set never shrinks below `min_in_sync`, except by accept-loss.

use std::collections::BTreeSet;

use mooring_terms::{AttachmentEpoch, Epoch, Incarnation, NodeId, PoolId, SliceId};
use serde::{Deserialize, Serialize};

/// One replica of a slice: where it is, and which opening of its pool was last brought level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The node that holds the replica.
    pub node: NodeId,
    /// The pool it lies in.
    pub pool: PoolId,
    /// The opening of the pool that the in-sync set vouches for. A replica whose pool has another
    /// incarnation gives no acknowledgement, holds no lease and can't be elected.
    pub incarnation: Incarnation,
}

/// What Raft holds about one slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceConfig {
    /// Raised at each change of primary or in-sync set.
    pub epoch: Epoch,
    /// The replica that orders the slice's writes; one of `in_sync`.
    pub primary: NodeId,
    /// The replicas that have every acknowledged write, ordered by node.
    pub in_sync: Vec<Member>,
    /// The replicas that are placed but have not all acknowledged writes, ordered by node.
    pub joining: Vec<Member>,
    /// The in-sync set never shrinks below this.
    pub min_in_sync: u32,
    /// The newest epoch that began without certainty about the acknowledged, unflushed tail of the
    /// one before (every in-sync replica had been restarted, or an operator accepted a loss);
    /// `Epoch(0)` if none did. It is kept through later epochs: one that never came to serve must
    /// not hide the loss from a client whose last acknowledgement is older.
    pub tail_lost: Epoch,
    /// Attachments older than this are refused, whatever the slice's log says: an accepted loss takes
    /// the seals that lie in the history given up, and would bring back those whom they fenced.
    pub seal: AttachmentEpoch,
}

/// A proposed change, applied only if the slice still has the expected epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceChange {
    /// Which slice.
    pub slice: SliceId,
    /// The epoch that the proposer knows; anything else refuses the change.
    pub expected: Epoch,
    /// Who asks.
    pub by: NodeId,
    /// The primary from now on.
    pub primary: NodeId,
    /// The in-sync set from now on, ordered by node. Members that leave it become joining.
    pub in_sync: Vec<Member>,
    /// Why.
    pub reason: ChangeReason,
}

/// Why a slice's configuration is to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ChangeReason {
    /// The primary has not heard from a secondary for a lease, or its pool failed.
    SecondaryLost,
    /// A secondary has not heard from the primary for the grace.
    PrimaryLost,
    /// The primary (restarted, with a new incarnation) or its pool can't go on and names another.
    PrimaryResigned,
    /// A joining replica is level, and durably so.
    Joined,
    /// The primary was drained and hands over as asked.
    HandOver,
    /// The primary was restarted, has all that was acknowledged, and goes on.
    PrimaryRestarted,
    /// Every in-sync replica was restarted; the furthest of those that reported goes on. Sets
    /// `tail_lost` to the epoch that it begins.
    AllRestarted,
}

/// Why a change was refused. The proposer takes the current configuration and thinks again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ChangeRefused {
    /// The slice has another epoch than the change expects.
    #[error("the slice is at epoch {current}, not at {expected}")]
    EpochChanged {
        /// The epoch the proposer knew.
        expected: Epoch,
        /// The epoch it has.
        current: Epoch,
    },
    /// The in-sync set would shrink below the minimum.
    #[error("{left} in-sync replicas would be left, and the volume demands {min}")]
    TooFew {
        /// How many would be left.
        left: u32,
        /// How many must be.
        min: u32,
    },
    /// A named member is not a replica of the slice, or its pool has been opened anew since.
    #[error("{node:?} is no replica of this slice with the incarnation named")]
    UnknownMember {
        /// The member's node.
        node: NodeId,
    },
    /// The primary is not in the in-sync set named.
    #[error("the primary {node:?} is not in the in-sync set")]
    PrimaryNotInSync {
        /// The primary named.
        node: NodeId,
    },
    /// There is no such slice (its volume was removed).
    #[error("the slice {0} does not exist")]
    NotFound(SliceId),
    /// Whoever asks has no say in this: only the primary may change its slice, and only an in-sync
    /// secondary may take over from it.
    #[error("{by:?} may not ask for this: {primary:?} is the primary")]
    NotEntitled {
        /// Who asked.
        by: NodeId,
        /// Who is the primary.
        primary: NodeId,
    },
    /// The new primary's pool has failed, or has been opened anew since it was brought level.
    #[error("{node:?} was restarted and must be brought level before it can be primary")]
    PrimaryNotLevel {
        /// The primary named.
        node: NodeId,
    },
    /// A replica that was not restarted has everything, and the leader hears its node: nothing needs
    /// to be lost.
    #[error("{node:?} was not restarted and is there: it goes on, or brings the others level")]
    StillThere {
        /// Its node.
        node: NodeId,
    },
    /// A primary's replica can't be taken away.
    #[error("{node:?} is the primary: have it hand over first")]
    IsPrimary {
        /// The primary.
        node: NodeId,
    },
    /// The node holds a replica of the slice already.
    #[error("{node:?} holds a replica of this slice already")]
    AlreadyPlaced {
        /// The node.
        node: NodeId,
    },
    /// The pool is failed, draining or gone, or its node is.
    #[error("{pool:?} takes no replicas")]
    TakesNone {
        /// The pool.
        pool: PoolId,
    },
}

impl SliceConfig {
    /// The in-sync member on `node`.
    #[must_use]
    pub fn in_sync_member(&self, node: NodeId) -> Option<&Member> {
        self.in_sync.iter().find(|member| member.node == node)
    }

    /// The member on `node`, in sync or joining.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.in_sync.iter().chain(&self.joining).find(|member| member.node == node)
    }

    /// Whether the node that asks for `change` may: the primary for everything that is its own
    /// business, an in-sync secondary to take over from a silent primary, any in-sync member after
    /// all were restarted.
    ///
    /// # Errors
    /// [`ChangeRefused::NotEntitled`].
    pub fn check_entitled(&self, change: &SliceChange) -> Result<(), ChangeRefused> {
        let by_primary = change.by == self.primary;
        let by_member = self.in_sync_member(change.by).is_some();
        let entitled = match change.reason {
            ChangeReason::SecondaryLost
            | ChangeReason::PrimaryResigned
            | ChangeReason::Joined
            | ChangeReason::HandOver
            | ChangeReason::PrimaryRestarted => by_primary,
            ChangeReason::PrimaryLost => {
                by_member
                    && !by_primary
                    && change.primary == change.by
                    // Where the minimum forbids to drop the silent primary, it stays listed: the new
                    // one serves nothing, but brings other replicas level until there are enough.
                    && (self.in_sync.len() <= self.min_in_sync as usize
                        || change.in_sync.iter().all(|member| member.node != self.primary))
            }
            ChangeReason::AllRestarted => by_member,
        };
        if entitled {
            Ok(())
        } else {
            Err(ChangeRefused::NotEntitled { by: change.by, primary: self.primary })
        }
    }

    /// Whether nothing is given up without need: after all were restarted, whoever is not known to
    /// have been must be gone, or stay listed.
    ///
    /// # Errors
    /// [`ChangeRefused::StillThere`].
    pub fn check_needed(
        &self,
        change: &SliceChange,
        opened: impl Fn(PoolId) -> Option<Incarnation>,
        gone: &BTreeSet<NodeId>,
    ) -> Result<(), ChangeRefused> {
        if change.reason != ChangeReason::AllRestarted {
            return Ok(());
        }
        let has_all = |member: &&Member| {
            opened(member.pool) == Some(member.incarnation)
                && !gone.contains(&member.node)
                && !change.in_sync.contains(member)
        };
        match self.in_sync.iter().find(has_all) {
            Some(member) => Err(ChangeRefused::StillThere { node: member.node }),
            None => Ok(()),
        }
    }

    /// Applies `change`; `opened` tells the incarnation that each pool has now (a member that is
    /// new to the in-sync set, or listed with another incarnation, must be named with it).
    ///
    /// # Errors
    /// [`ChangeRefused`]; the configuration is then as it was.
    pub fn apply(
        &mut self,
        change: &SliceChange,
        opened: impl Fn(PoolId) -> Option<Incarnation>,
    ) -> Result<(), ChangeRefused> {
        if change.expected != self.epoch {
            return Err(ChangeRefused::EpochChanged {
                expected: change.expected,
                current: self.epoch,
            });
        }
        for member in &change.in_sync {
            let unchanged = self.in_sync.contains(member);
            let placed = self.member(member.node).is_some_and(|m| m.pool == member.pool);
            let current = opened(member.pool) == Some(member.incarnation);
            let level = placed && current;
            if !unchanged && !level {
                return Err(ChangeRefused::UnknownMember { node: member.node });
            }
        }
        if has_duplicates(&change.in_sync) {
            return Err(ChangeRefused::UnknownMember { node: change.primary });
        }
        let Some(primary) = change.in_sync.iter().find(|member| member.node == change.primary)
        else {
            return Err(ChangeRefused::PrimaryNotInSync { node: change.primary });
        };
        if opened(primary.pool) != Some(primary.incarnation) {
            return Err(ChangeRefused::PrimaryNotLevel { node: change.primary });
        }
        let left = u32::try_from(change.in_sync.len()).expect("a slice has few replicas");
        if left < self.min_in_sync && change.in_sync.len() < self.in_sync.len() {
            return Err(ChangeRefused::TooFew { left, min: self.min_in_sync });
        }
        let mut placed: Vec<Member> = self.in_sync.iter().chain(&self.joining).copied().collect();
        placed.retain(|old| !change.in_sync.iter().any(|new| new.node == old.node));
        placed.sort_unstable();
        self.joining = placed;
        self.in_sync.clone_from(&change.in_sync);
        self.in_sync.sort_unstable();
        self.primary = change.primary;
        self.epoch = self.epoch.next();
        if change.reason == ChangeReason::AllRestarted {
            self.tail_lost = self.epoch;
        }
        Ok(())
    }
}

/// Whether two of `members` are on one node.
fn has_duplicates(members: &[Member]) -> bool {
    members.iter().enumerate().any(|(i, a)| members[..i].iter().any(|b| a.node == b.node))
}
