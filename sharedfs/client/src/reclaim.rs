//! After a failover: the new coordinator is told what this client holds. Until the old session's lease
//! is over by its own time, what is cached goes on being good: the grace period keeps others away.

use mooring_sharedfs_core::Ino;
use mooring_sharedfs_core::coordinator::{Claim, ToCoordinator};
use mooring_sharedfs_core::leases::{LeaseLevel, LeaseNumber};
use mooring_sharedfs_core::locks::{HeldLock, LockRequest, LockSpace};

use crate::client::{Client, Turn};
use crate::inode::Inode;
use crate::link::LinkState;

impl Client {
    /// Says all that it holds.
    pub(crate) fn reclaim(&mut self, turn: &mut Turn<'_>) {
        if self.link.state == LinkState::Reclaiming {
            return;
        }
        let Some(session) = self.link.session else { return };
        self.link.state = LinkState::Reclaiming;
        // Numbers of leases begin anew with each coordinator, and what the one before wanted back the
        // new one will ask for itself. Not so layouts that are to be returned: it may have asked for them
        // by now, and freed blocks keep their number.
        (self.told, self.dropped) = (LeaseNumber(0), LeaseNumber(0));
        self.recalling.clear();
        let mut claims = Vec::new();
        for (&ino, inode) in &mut self.inodes {
            (inode.number, inode.floor, inode.recalled) = (LeaseNumber(0), LeaseNumber(0), None);
            if inode.handles > 0 && inode.registered + inode.closing == 0 {
                inode.registered = 1;
            }
            let opens = inode.registered + inode.closing;
            if opens > 0 {
                claims.push(Claim::Open(ino, opens));
            }
            if inode.lease > LeaseLevel::None {
                claims.push(Claim::Lease(ino, inode.lease));
            }
        }
        claims.extend(self.locks.all().map(|(ino, space, held)| claim(ino, space, &held)));
        claims.push(Claim::Done);
        for claim in claims {
            self.link.send(ToCoordinator::Reclaim(session, claim), turn.out);
        }
    }

    /// What became of a claim.
    pub(crate) fn claimed(
        &mut self,
        turn: &mut Turn<'_>,
        claim: Claim,
        number: Option<LeaseNumber>,
    ) {
        if self.link.state != LinkState::Reclaiming {
            return;
        }
        match (claim, number) {
            (Claim::Lease(ino, level), Some(number)) => {
                self.told = self.told.max(number);
                let inode = self.inode(ino);
                if inode.lease == level {
                    inode.number = number;
                }
            }
            (Claim::Lease(ino, _), None) => {
                // Somebody else has it: nothing that was cached is good.
                let inode = self.inode(ino);
                if inode.lease > LeaseLevel::None {
                    inode.lease = LeaseLevel::None;
                    let pages = inode.kernel_pages.is_some();
                    inode.kernel_pages = inode.kernel_pages.and(Some(Inode::UNVOUCHED));
                    self.leases = self.leases.saturating_sub(1);
                    self.with_pages(ino, Inode::forget);
                    if pages {
                        self.take_pages_back(turn, ino);
                    }
                }
            }
            (Claim::Done, _) => {
                self.link.renew_soon();
                self.up(turn);
            }
            _ => {}
        }
    }
}

fn claim(ino: Ino, space: LockSpace, held: &HeldLock) -> Claim {
    let &HeldLock { owner, mode, range, pid } = held;
    Claim::Lock(LockRequest { ino, owner, space, mode, range, pid })
}
