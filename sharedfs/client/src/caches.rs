//! Names and attributes under leases, and how long the kernel may keep them.

use std::time::Duration;

use mooring_sharedfs_core::coordinator::{Operation, Reply, Request};
use mooring_sharedfs_core::leases::LeaseLevel;
use mooring_sharedfs_core::{Attributes, Caller, FileBlock, FsError, Ino, Name};
use mooring_terms::{BLOCK_SIZE, Time};

use crate::client::{Client, Turn};
use crate::inode::Inode;
use crate::kernel::{Entry, KernelOperation, KernelReply, KernelRequest};
use crate::replies::{Change, Purpose};
use crate::tasks::{Attempt, Stage, TaskId};

/// What a name, a number of lookups and a piece of a layout take, with their places in the tables.
const NAME_BYTES: usize = 112;
const LOOKUP_BYTES: usize = 32;
const PIECE_BYTES: usize = 80;

/// As many clean pages are kept in any case: what is read in two parts must be there together.
const CLEAN_MIN: usize = 1024;

/// As many leases are given back at a time: the kernel is made to forget each.
pub(crate) const SHED: usize = 32;

/// As many clean pages beside each other are forgotten together: 256 KiB.
const RUN: u32 = 64;

impl Client {
    /// For how long what leases vouch for is good.
    pub(crate) fn good_for(&self, now: Time) -> Duration {
        #[cfg(feature = "mutations")]
        if self.is_mutated(crate::Mutation::ExpiredServed) {
            return self.options.lease;
        }
        self.link.left(now)
    }

    /// Whether the session's lease is there: nothing is served from a cache without.
    pub(crate) fn is_fresh(&self, now: Time) -> bool {
        self.good_for(now) > Duration::ZERO
    }

    /// Whether an inode's names and attributes are known here.
    fn may_serve(&self, ino: Ino) -> bool {
        self.unknown_changes == 0
            && self
                .inodes
                .get(&ino)
                .is_some_and(|inode| inode.lease >= LeaseLevel::Read && inode.changing == 0)
    }

    /// The attributes, if they are known here.
    pub(crate) fn served(&self, ino: Ino) -> Option<Attributes> {
        self.inodes.get(&ino).filter(|_| self.may_serve(ino))?.seen()
    }

    /// The attributes without what this client has changed on top, if they are known here.
    pub(crate) fn known_attributes(&self, ino: Ino) -> Option<Attributes> {
        self.inodes.get(&ino).filter(|_| self.may_serve(ino))?.attributes
    }

    /// For how long the kernel may keep attributes: no longer than the lease that vouches for them, and
    /// not at all once that is recalled.
    pub(crate) fn attr_time(&self, now: Time, ino: Ino) -> Duration {
        let recalled = self.inodes.get(&ino).is_some_and(|inode| inode.recalled.is_some());
        if self.may_serve(ino) && !recalled { self.good_for(now) } else { Duration::ZERO }
    }

    /// For how long the kernel may keep names of a directory: only if nobody else has a lease on it, and
    /// if they can be taken back without the directory's lock.
    pub(crate) fn entry_time(&self, now: Time, dir: Ino) -> Duration {
        let alone = self.inodes.get(&dir).is_some_and(|inode| {
            inode.lease >= LeaseLevel::Sole && inode.recalled.is_none() && inode.changing == 0
        });
        if self.options.epoch && alone { self.good_for(now) } else { Duration::ZERO }
    }

    /// What is told of an inode, with what this client has changed on top.
    pub(crate) fn with_local(&self, told: Attributes) -> Attributes {
        let Some(inode) = self.inodes.get(&told.ino) else { return told };
        let Some(local) = inode.local else { return told };
        let mut seen = told;
        seen.size = seen.size.max(local.size);
        seen.mtime = local.mtime;
        // A change of its names, say, may have come since.
        seen.ctime = seen.ctime.max(local.ctime);
        seen.blocks += inode.unsettled();
        if local.kill_privileges {
            seen.mode = seen.mode.without_privileges();
        }
        seen
    }

    pub(crate) fn entry(&self, now: Time, dir: Ino, attributes: Attributes) -> Entry {
        Entry {
            attributes: self.with_local(attributes),
            entry_time: self.entry_time(now, dir),
            attr_time: self.attr_time(now, attributes.ino),
        }
    }

    /// What a name stands for, if that is known here: an inode, or nothing.
    pub(crate) fn known(&self, dir: Ino, name: &Name) -> Option<Option<Ino>> {
        let inode = self.inodes.get(&dir).filter(|_| self.may_serve(dir))?;
        match inode.known.as_ref().and_then(|known| known.folder.as_ref()) {
            Some(folder) => Some(folder.entries.get(name).map(|entry| entry.ino)),
            None => inode.names.get(name).copied(),
        }
    }

    pub(crate) fn try_lookup(
        &mut self,
        turn: &mut Turn<'_>,
        id: TaskId,
        caller: Caller,
        dir: Ino,
        name: &Name,
    ) -> Attempt {
        // Whom the kernel's checks don't bind, the coordinator checks.
        let known = self.known(dir, name).filter(|_| caller.is_checked());
        if known.is_some() && !self.is_fresh(turn.now) {
            return Attempt::Park;
        }
        let asked = match known {
            Some(None) => {
                let time = self.entry_time(turn.now, dir);
                return Attempt::Answer(KernelReply::NoEntry(time));
            }
            Some(Some(ino)) => match self.known_attributes(ino) {
                Some(attributes) => {
                    let entry = self.entry(turn.now, dir, attributes);
                    return Attempt::Answer(KernelReply::Entry(entry));
                }
                None => Operation::Getattr { ino },
            },
            None => Operation::Lookup { dir, name: name.clone() },
        };
        let wanted = self.wanted(&[(dir, LeaseLevel::Sole), (Request::FOUND, LeaseLevel::Read)]);
        self.ask(turn, caller, asked, wanted, Purpose::Task(id, Change::none()));
        Attempt::Wait(Stage::Asked)
    }

    /// An inode that a cached name stood for is gone: the name is looked up at the coordinator.
    pub(crate) fn look_up_again(
        &mut self,
        turn: &mut Turn<'_>,
        id: TaskId,
        request: &KernelRequest,
        reply: &Reply,
    ) -> bool {
        match (&request.operation, reply) {
            (KernelOperation::Lookup { dir, name }, Reply::Refused(FsError::Stale)) => {
                self.inode(*dir).names.remove(name);
                let asked = Operation::Lookup { dir: *dir, name: name.clone() };
                let purpose = Purpose::Task(id, Change::none());
                self.ask(turn, request.caller.clone(), asked, Vec::new(), purpose);
                true
            }
            _ => false,
        }
    }

    pub(crate) fn try_getattr(
        &mut self,
        turn: &mut Turn<'_>,
        id: TaskId,
        caller: Caller,
        ino: Ino,
    ) -> Attempt {
        if let Some(attributes) = self.served(ino) {
            if !self.is_fresh(turn.now) {
                return Attempt::Park;
            }
            if let Some(attempt) = self.hold_for_old_pages(turn, attributes) {
                return attempt;
            }
            let time = self.attr_time(turn.now, ino);
            return Attempt::Answer(KernelReply::Attributes(attributes, time));
        }
        let wanted = self.wanted(&[(ino, LeaseLevel::Read)]);
        let purpose = Purpose::Task(id, Change::none());
        self.ask(turn, caller, Operation::Getattr { ino }, wanted, purpose);
        Attempt::Wait(Stage::Asked)
    }

    /// The leases to ask for beside an answer: none while there are more than are kept, and those that go
    /// have not gone yet.
    pub(crate) fn wanted(&self, wanted: &[(Ino, LeaseLevel)]) -> Vec<(Ino, LeaseLevel)> {
        let most = self.options.leases_max + self.options.leases_max / 8;
        if self.leases >= most { Vec::new() } else { wanted.to_vec() }
    }

    /// Has attributes asked for that a lease vouches for, if they aren't known.
    pub(crate) fn need_attributes(&mut self, turn: &mut Turn<'_>, ino: Ino) -> Option<Attributes> {
        let inode = self.inode(ino);
        if let Some(seen) = inode.seen() {
            return Some(seen);
        }
        if !inode.attributes_asked {
            inode.attributes_asked = true;
            let asked = Operation::Getattr { ino };
            self.ask(turn, Caller::ROOT, asked, Vec::new(), Purpose::Attributes(ino));
        }
        None
    }

    /// A request that changes these is on its way.
    pub(crate) fn begin_change(&mut self, change: &Change) {
        for &ino in &change.inos {
            self.inode(ino).changing += 1;
        }
        if let Some(ino) = change.rewrites {
            self.with_pages(ino, |inode| {
                inode.rewriting += 1;
                inode.term += 1;
                inode.layout.clear();
                inode.pages.drop_clean();
            });
        }
        self.unknown_changes += u32::from(change.unknown);
    }

    /// It is answered: what was known of them is not true any more.
    pub(crate) fn end_change(&mut self, change: &Change) {
        for &ino in &change.inos {
            let inode = self.inode(ino);
            inode.changing -= 1;
            inode.attributes = None;
        }
        if let Some(ino) = change.rewrites {
            self.inode(ino).rewriting -= 1;
        }
        if change.unknown {
            self.unknown_changes -= 1;
            self.inodes.values_mut().for_each(|inode| inode.attributes = None);
        }
        self.poked = true;
    }

    /// What a reply says about names.
    pub(crate) fn learn_names(&mut self, operation: &Operation, reply: &Reply, old: bool) {
        let refused = matches!(reply, Reply::Refused(_));
        match (operation, reply) {
            (Operation::Lookup { dir, name }, Reply::Attributes(attributes)) => {
                self.learn_name(*dir, name, Some(attributes.ino), old);
            }
            (Operation::Lookup { dir, name }, Reply::Refused(FsError::NotFound)) => {
                self.learn_name(*dir, name, None, old);
            }
            (Operation::Create { dir, name, .. }, Reply::Opened(opened)) => {
                self.learn_name(*dir, name, Some(opened.attributes.ino), old);
            }
            (
                Operation::Make { dir, name, .. } | Operation::Link { dir, name, .. },
                Reply::Attributes(attributes),
            ) => self.learn_name(*dir, name, Some(attributes.ino), old),
            (Operation::Unlink { dir, name } | Operation::Rmdir { dir, name }, _) => {
                self.learn_name(*dir, name, None, old || refused);
            }
            (Operation::Rename { from, to, .. }, _) => {
                // Exchanged or replaced: looked up when it is asked for.
                self.learn_name(from.0, &from.1, None, true);
                self.learn_name(to.0, &to.1, None, true);
            }
            _ => {}
        }
    }

    /// Learns a name; forgets it if what is said may be old.
    pub(crate) fn learn_name(&mut self, dir: Ino, name: &Name, ino: Option<Ino>, old: bool) {
        let inode = self.inode(dir);
        if let Some(known) = &mut inode.known
            && known.folder.is_some()
        {
            match ino {
                _ if old => inode.known = None,
                None => known.removed(name),
                Some(_) => {}
            }
            return;
        }
        if old || inode.lease < LeaseLevel::Read {
            inode.names.remove(name);
        } else if inode.names.insert(name.clone(), ino).is_none() {
            self.names += 1;
        }
    }

    /// The kernel forgets an inode.
    pub(crate) fn forget(&mut self, ino: Ino, count: u64) {
        if let Some(lookups) = self.lookups.get_mut(&ino) {
            *lookups = lookups.saturating_sub(count);
            if *lookups == 0 {
                self.lookups.remove(&ino);
            }
        }
        if let Some(inode) = self.inodes.get_mut(&ino).filter(|_| !self.lookups.contains_key(&ino))
        {
            // It has forgotten the pages, too.
            if inode.handles == 0 && inode.recalled.is_none() {
                inode.kernel_pages = None;
            }
        }
        self.give_back_if_gone(ino);
        self.drop_if_idle(ino);
    }

    /// Drops an inode that nobody uses and of which no lease is held.
    pub(crate) fn drop_if_idle(&mut self, ino: Ino) {
        let idle = |inode: &Inode| inode.lease == LeaseLevel::None && inode.is_idle();
        if self.inodes.get(&ino).is_some_and(|inode| idle(inode)) {
            self.with_pages(ino, |inode| inode.pages.clear());
            self.inodes.remove(&ino);
            self.dropped = self.told;
        }
    }

    /// Pages are clean, and kept as long as there is room.
    pub(crate) fn keep_for_now(&mut self, ino: Ino, blocks: &[FileBlock]) {
        for &block in blocks {
            match self.clean.back_mut() {
                Some((of, first, count))
                    if *of == ino && *count < RUN && block == first.plus(u64::from(*count)) =>
                {
                    *count += 1;
                }
                _ => self.clean.push_back((ino, block, 1)),
            }
        }
    }

    /// How many pages there is room for beside all else.
    fn pages_most(&self) -> usize {
        let others = self.inodes.len() * (size_of::<Inode>() + 64)
            + self.names * NAME_BYTES
            + self.lookups.len() * LOOKUP_BYTES
            + self.pieces * PIECE_BYTES;
        let room = self.options.memory_max.saturating_sub(others);
        room.min(self.options.pages_max) / BLOCK_SIZE
    }

    /// Keeps pages, places, names and leases within their bounds.
    pub(crate) fn evict(&mut self) {
        let most = self.pages_most().saturating_sub(self.dirty_pages).max(CLEAN_MIN);
        // What is gone already still stands in the queue.
        while self.pages - self.dirty_pages > most || self.clean.len() > most {
            let Some((ino, from, count)) = self.clean.pop_front() else { break };
            if self.inodes.contains_key(&ino) {
                self.with_pages(ino, |inode| {
                    inode.pages.drop_clean_of(from, u64::from(count), &inode.loading);
                });
            }
        }
        if self.pieces > self.options.pieces_max {
            // Of what is dirty it says which pages need no new block: no promise covers those.
            let clean = self.inodes.values_mut().filter(|inode| !inode.is_dirty());
            clean.for_each(|inode| inode.layout.clear());
            self.pieces = 0;
        }
        if self.names > self.options.names_max {
            self.inodes.values_mut().for_each(|inode| inode.forget_names());
            self.names = 0;
        }
        if self.leases > self.options.leases_max && self.recalling.len() < SHED {
            self.shed();
        }
    }
}
