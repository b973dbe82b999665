//! Recalls: what is taken back is written back, the kernel gives up its caches, then it is answered.
//!
//! ```text
//!   recalled ──> write back ──> tell opens ──> invalidate ──> reads under way end ──> Answered
//!                    ^                            │
//!                    └── pages were laundered ────┘── pages were read meanwhile: once more
//! ```
//! What was done here and touched the inode is at the coordinator, too, before anything else goes on.
//!
//! Reads are served under the lease until the kernel has given its pages up: its invalidation waits for
//! pages that are locked by reads, so those must be answered. After it they are held, or they would
//! fill the page cache again with what is about to change.

use mooring_sharedfs_core::coordinator::ToCoordinator;
use mooring_sharedfs_core::leases::{LeaseLevel, LeaseNumber, Recall};
use mooring_sharedfs_core::{Attributes, FileType, Ino};

use crate::caches::SHED;
use crate::client::{Client, Turn};
use crate::command::{Command, Invalidation};
use crate::event::InvalidationNumber;
use crate::kernel::{KernelOperation, KernelReply};
use crate::known::Folder;
use crate::tasks::{Attempt, Stage, Task, TaskId};

/// A recall that is not answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recalled {
    keep: LeaseLevel,
    number: LeaseNumber,
    invalidating: Option<InvalidationNumber>,
    invalidated: bool,
    /// The kernel got pages since its invalidation began.
    again: bool,
}

impl Recalled {
    /// Whether reads have to wait until it is over.
    pub(crate) fn holds_reads(&self) -> bool {
        self.keep < LeaseLevel::Read && self.invalidated && self.invalidating.is_none()
    }

    /// The kernel was given pages.
    pub(crate) fn repopulated(&mut self) {
        self.again |= self.keep < LeaseLevel::Read;
    }

    /// The kernel has written pages.
    pub(crate) fn laundered(&mut self) {
        self.again = true;
    }
}

impl Client {
    /// The coordinator wants something back.
    pub(crate) fn recall(&mut self, turn: &mut Turn<'_>, recall: Recall) {
        let Recall { ino, keep, number, .. } = recall;
        self.told = self.told.max(number);
        let inode = self.inode(ino);
        if inode.lease <= keep {
            // Given back, or never heard of: an answer was lost with its stream.
            let kept = inode.lease;
            inode.floor = inode.floor.max(number);
            self.say_answered(turn, ino, number, kept);
            self.drop_if_idle(ino);
            return;
        }
        // Pages come back with a lease to write, or not at all.
        let keep = if inode.maps > 0 { LeaseLevel::None } else { keep };
        match &mut inode.recalled {
            Some(before) if before.number == number && before.keep <= keep => {}
            Some(before) => {
                (before.keep, before.number) = (keep.min(before.keep), number);
                before.invalidated = false;
            }
            None => {
                let recalled =
                    Recalled { keep, number, invalidating: None, invalidated: false, again: false };
                inode.recalled = Some(recalled);
            }
        }
        self.recalling.insert(ino);
        self.poked = true;
    }

    /// Gives leases back that nobody uses, so that there is room for others: some at a time, of all in turn.
    pub(crate) fn shed(&mut self) {
        let idle = self.inodes.range(self.shed_from..).filter(|(_, inode)| {
            inode.lease > LeaseLevel::None
                && inode.recalled.is_none()
                && inode.handles == 0
                && !inode.is_whole()
        });
        let inos: Vec<Ino> = idle.map(|(&ino, _)| ino).take(SHED).collect();
        self.shed_from = inos.last().map_or(Ino(0), |ino| Ino(ino.0 + 1));
        for ino in inos {
            self.give_back(ino);
        }
    }

    /// Gives a lease back that nobody has asked for.
    fn give_back(&mut self, ino: Ino) {
        let inode = self.inode(ino);
        inode.recalled = Some(Recalled {
            keep: LeaseLevel::None,
            number: inode.number,
            invalidating: None,
            invalidated: false,
            again: false,
        });
        self.recalling.insert(ino);
        self.poked = true;
    }

    /// Gives the lease on an inode back that has lost its last name, once the kernel knows nothing of it:
    /// it never comes again.
    pub(crate) fn give_back_if_gone(&mut self, ino: Ino) {
        let (lookups, done) = (self.lookups(ino), self.early.done());
        let gone = |inode: &crate::inode::Inode| {
            inode.gone
                && inode.lease > LeaseLevel::None
                && inode.recalled.is_none()
                && inode.handles + lookups == 0
                && inode.early <= done
        };
        if self.inodes.get(&ino).is_some_and(|inode| gone(inode)) {
            self.give_back(ino);
        }
    }

    /// Goes on with all recalls.
    pub(crate) fn step_recalls(&mut self, turn: &mut Turn<'_>) {
        for ino in self.recalling.clone() {
            self.step_recall(turn, ino);
        }
    }

    fn step_recall(&mut self, turn: &mut Turn<'_>, ino: Ino) {
        let inode = self.inode(ino);
        let Some(recalled) = inode.recalled else {
            self.recalling.remove(&ino);
            return;
        };
        let early = inode.early;
        let unwritten = recalled.keep < LeaseLevel::Write && inode.is_dirty();
        #[cfg(feature = "mutations")]
        let unwritten = unwritten && !self.is_mutated(crate::Mutation::RecallUnflushed);
        if unwritten {
            self.write_back(turn, ino);
            return self.send_early(turn);
        }
        let unsent = early > self.early.done();
        #[cfg(feature = "mutations")]
        let unsent = unsent && !self.is_mutated(crate::Mutation::RecallUnqueued);
        if unsent {
            return self.send_early(turn);
        }
        let leaves = recalled.keep < LeaseLevel::Read;
        if leaves && !self.is_registered(turn, ino) {
            return;
        }
        if recalled.invalidating.is_some() {
            return;
        }
        if recalled.again || !recalled.invalidated {
            return self.invalidate_for_recall(turn, ino);
        }
        if leaves && self.inode(ino).reading > 0 {
            return;
        }
        self.answer_recall(turn, ino, recalled);
    }

    fn invalidate_for_recall(&mut self, turn: &mut Turn<'_>, ino: Ino) {
        let names = self.options.epoch;
        #[cfg(feature = "mutations")]
        let kept = self.is_mutated(crate::Mutation::KernelUninvalidated);
        #[cfg(not(feature = "mutations"))]
        let kept = false;
        let lookups = self.lookups(ino);
        let inode = self.inode(ino);
        let known = (lookups > 0 || inode.handles > 0 || ino == Ino::ROOT) && !kept;
        let pages = (inode.handles > 0 || inode.kernel_pages.is_some()) && !kept;
        // The kernel may have names that are not kept here.
        let names = names && inode.lease >= LeaseLevel::Sole && !kept;
        let Some(recalled) = &mut inode.recalled else { return };
        (recalled.invalidated, recalled.again) = (true, false);
        if !known && !pages && !names {
            self.poked = true;
            return;
        }
        inode.kernel_pages = None;
        let number = self.invalidate(turn, Invalidation { ino, pages, names });
        if let Some(recalled) = &mut self.inode(ino).recalled {
            recalled.invalidating = Some(number);
        }
    }

    fn invalidate(&mut self, turn: &mut Turn<'_>, what: Invalidation) -> InvalidationNumber {
        self.last_invalidation = InvalidationNumber(self.last_invalidation.0 + 1);
        self.invalidations.insert(self.last_invalidation, what.ino);
        turn.out.push(Command::Invalidate(self.last_invalidation, what));
        self.last_invalidation
    }

    /// Has the kernel give up pages that no lease vouches for: nobody would recall them.
    pub(crate) fn take_pages_back(&mut self, turn: &mut Turn<'_>, ino: Ino) {
        self.invalidate(turn, Invalidation { ino, pages: true, names: false });
    }

    /// The kernel has given up what it was told to.
    pub(crate) fn invalidated(&mut self, number: InvalidationNumber) {
        let Some(ino) = self.invalidations.remove(&number) else { return };
        self.poked = true;
        if let Some(recalled) = &mut self.inode(ino).recalled
            && recalled.invalidating == Some(number)
        {
            recalled.invalidating = None;
        }
        let held: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|(_, task)| matches!(&task.stage, Stage::Holding(of, _) if *of == number))
            .map(|(&id, _)| id)
            .collect();
        // Answered by the next attempt.
        for id in held {
            if let Some(task) = self.tasks.get_mut(&id)
                && let Stage::Holding(_, reply) = &task.stage
            {
                task.stage = Stage::Released(reply.clone());
                self.parked.insert(id);
            }
        }
    }

    fn answer_recall(&mut self, turn: &mut Turn<'_>, ino: Ino, recalled: Recalled) {
        let inode = self.inode(ino);
        let kept = inode.lease.min(recalled.keep);
        inode.recalled = None;
        (inode.lease, inode.number) = (kept, recalled.number);
        let known = inode.known.take();
        inode.floor = inode.floor.max(recalled.number);
        if kept < LeaseLevel::Read {
            self.with_pages(ino, crate::inode::Inode::forget);
            self.leases = self.leases.saturating_sub(1);
        }
        self.recalling.remove(&ino);
        self.say_answered(turn, ino, recalled.number, kept);
        if let Some(folder) = known.and_then(|known| known.folder)
            && kept == LeaseLevel::Read
        {
            self.share_inside(turn, &folder);
        }
        self.poked = true;
        self.drop_if_idle(ino);
    }

    /// Somebody looks at a directory that was this client's alone, and will look at what is in it: files
    /// that nobody has open here are shared at once, rather than recalled one by one.
    fn share_inside(&mut self, turn: &mut Turn<'_>, folder: &Folder) {
        let done = self.early.done();
        for entry in folder.entries.values() {
            let Some(inode) = self.inodes.get_mut(&entry.ino) else { continue };
            let busy = inode.handles + inode.registered + inode.closing > 0
                || inode.reading > 0
                || inode.recalled.is_some()
                || inode.is_dirty()
                || inode.changing > 0
                || inode.lease_asked
                || inode.early > done;
            if inode.lease <= LeaseLevel::Read || busy || entry.file_type != FileType::Regular {
                continue;
            }
            inode.lease = LeaseLevel::Read;
            inode.known = None;
            let number = inode.number;
            self.say_answered(turn, entry.ino, number, LeaseLevel::Read);
        }
    }

    fn say_answered(
        &mut self,
        turn: &mut Turn<'_>,
        ino: Ino,
        number: LeaseNumber,
        kept: LeaseLevel,
    ) {
        if let Some(session) = self.link.session {
            let answer = ToCoordinator::Answered(session, ino, number, kept);
            self.link.send(answer, turn.out);
        }
    }

    /// Attributes that would make the kernel believe in pages of an older state: they go first. (It
    /// looks at size and date alone, and a date can be set.)
    fn old_pages(&mut self, attributes: Attributes) -> bool {
        let inode = self.inode(attributes.ino);
        let old = inode.kernel_pages.is_some_and(|change| change != attributes.change);
        old && inode.recalled.is_none()
    }

    pub(crate) fn hold_for_old_pages(
        &mut self,
        turn: &mut Turn<'_>,
        attributes: Attributes,
    ) -> Option<Attempt> {
        if !self.old_pages(attributes) {
            return None;
        }
        let ino = attributes.ino;
        self.inode(ino).kernel_pages = None;
        let time = self.attr_time(turn.now, ino);
        let number = self.invalidate(turn, Invalidation { ino, pages: true, names: false });
        let reply = KernelReply::Attributes(attributes, time);
        Some(Attempt::Wait(Stage::Holding(number, Box::new(reply))))
    }

    /// Answers, once the kernel has given up pages that the answer would vouch for.
    pub(crate) fn hold_for_pages(
        &mut self,
        turn: &mut Turn<'_>,
        id: TaskId,
        mut task: Task,
        reply: KernelReply,
    ) {
        let told = match (&reply, &task.request.operation) {
            (KernelReply::Attributes(told, _), KernelOperation::Getattr { .. }) => Some(*told),
            (KernelReply::Entry(entry), _) => Some(entry.attributes),
            _ => None,
        };
        match told.filter(|told| self.old_pages(*told)) {
            Some(told) => {
                self.inode(told.ino).kernel_pages = None;
                let what = Invalidation { ino: told.ino, pages: true, names: false };
                let number = self.invalidate(turn, what);
                task.stage = Stage::Holding(number, Box::new(reply));
                self.tasks.insert(id, task);
            }
            None => self.reply(turn, &task.request, reply),
        }
    }
}
