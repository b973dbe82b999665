//! What the coordinator answers, and what is learned from it.
//!
//! Replies come in the order in which the coordinator gave them, and a lease that is held when a reply
//! comes was held when it was given: so what it says may be cached. The one exception is the reply to a
//! request that was sent again over a new stream, which may be an old one: nothing is learned from it.

use mooring_sharedfs_core::coordinator::{Answer, Operation, Reply, RequestId};
use mooring_sharedfs_core::leases::{LeaseLevel, LeaseNumber};
use mooring_sharedfs_core::locks::{Locked, OnConflict};
use mooring_sharedfs_core::{Attributes, FileBlock, FsError, Ino};

use crate::client::{Client, Turn};
use crate::early::Flight;
use crate::kernel::{KernelOperation, KernelReply};
use crate::tasks::{Stage, TaskId};

/// Inodes that a request changes: nothing is answered from their caches until it is answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub(crate) inos: Vec<Ino>,
    /// It touches others, which only the coordinator knows.
    pub(crate) unknown: bool,
    /// What this file holds changes.
    pub(crate) rewrites: Option<Ino>,
}

impl Change {
    pub(crate) fn none() -> Self {
        Self::default()
    }

    pub(crate) fn of(inos: &[Ino]) -> Self {
        Self { inos: inos.to_vec(), ..Self::default() }
    }

    pub(crate) fn rewriting(mut self, ino: Ino) -> Self {
        self.rewrites = Some(ino);
        self
    }

    /// And whatever a name stands for, if that is known.
    pub(crate) fn and(mut self, known: Option<Option<Ino>>) -> Self {
        match known {
            Some(ino) => self.inos.extend(ino),
            None => self.unknown = true,
        }
        self
    }
}

/// What a request was for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// A task's answer.
    Task(TaskId, Change),
    /// A lease.
    Lease(Ino),
    /// What a lease vouches for.
    Attributes(Ino),
    /// Where blocks are, under the lease of that term.
    Layout(Ino, u64),
    /// What lies in the tree of a file, under the lease of that term.
    Inline(Ino, u64),
    /// Blocks to write into.
    Reserve,
    /// What was written back becomes part of a file.
    Commit(Ino),
    /// The coordinator is to know that an inode is open.
    Register(Ino),
    /// An inode is open less.
    Close(Ino),
    /// What was done here.
    Batch(Flight),
    /// Numbers for what is made here.
    Numbers,
    /// A directory with all that is in it.
    Take(Ino),
    /// Nobody waits.
    Nobody,
}

impl Client {
    /// An answer of the coordinator.
    pub(crate) fn answered(&mut self, turn: &mut Turn<'_>, id: RequestId, answer: Answer) {
        let Some((pending, operation)) = self.link.answered(id, turn.out) else { return };
        let Answer { reply, leases, told } = answer;
        for (ino, level, number) in leases {
            self.grant(ino, level, number);
        }
        if let (Operation::Lease { ino, .. }, Reply::Lease(Some((level, number)))) =
            (&operation, &reply)
            && !pending.resent
        {
            self.grant(*ino, *level, *number);
        }
        let old = pending.resent;
        match pending.purpose {
            Purpose::Task(task, change) => {
                self.end_change(&change);
                told.into_iter().for_each(|told| self.learn(told, old));
                self.task_answered(turn, task, &operation, reply, old);
            }
            Purpose::Lease(ino) => self.lease_answered(turn, ino, &reply),
            Purpose::Attributes(ino) => self.attributes_answered(ino, &reply, old),
            Purpose::Layout(ino, term) => self.layout_answered(ino, term, reply, old),
            Purpose::Inline(ino, term) => self.inline_answered(ino, term, reply, old),
            Purpose::Reserve => self.reserved(&reply),
            Purpose::Commit(ino) => self.committed(turn, ino, reply),
            Purpose::Register(ino) => self.registered(ino, &reply),
            Purpose::Close(ino) => {
                let inode = self.inode(ino);
                inode.closing -= 1;
                self.drop_if_idle(ino);
            }
            Purpose::Batch(flight) => self.batch_answered(turn, flight, &reply),
            Purpose::Numbers => self.numbered(&reply),
            Purpose::Take(dir) => self.taken(turn, dir, &reply, old),
            Purpose::Nobody => {}
        }
        self.poked = true;
    }

    /// The client holds a lease from now on.
    fn grant(&mut self, ino: Ino, level: LeaseLevel, number: LeaseNumber) {
        self.told = self.told.max(number);
        let inode = self.inode(ino);
        let known = inode.lease > LeaseLevel::None && number <= inode.number;
        if number <= inode.floor || known {
            // Given back, while this was on its way.
            return;
        }
        let new = inode.lease == LeaseLevel::None;
        (inode.lease, inode.number) = (level, number);
        self.leases += usize::from(new);
    }

    fn lease_answered(&mut self, turn: &mut Turn<'_>, ino: Ino, reply: &Reply) {
        let contention = self.options.contention;
        let inode = self.inode(ino);
        inode.lease_asked = false;
        if inode.lease < LeaseLevel::Write || matches!(reply, Reply::Refused(_)) {
            inode.contended_until = turn.now + contention;
            if inode.maps > 0 {
                let again = inode.contended_until;
                self.mapped.insert((again, ino));
            }
        }
    }

    fn attributes_answered(&mut self, ino: Ino, reply: &Reply, old: bool) {
        let inode = self.inode(ino);
        inode.attributes_asked = false;
        if let (Reply::Attributes(attributes), false) = (reply, old) {
            inode.learn(*attributes);
        }
    }

    fn reserved(&mut self, reply: &Reply) {
        self.pool.asked = false;
        match reply {
            Reply::Runs(runs) => self.pool.add(runs.clone()),
            _ => self.refuse_space(),
        }
    }

    /// Learns attributes from a reply, unless it may be an old one.
    pub(crate) fn learn(&mut self, attributes: Attributes, old: bool) {
        if !old {
            self.inode(attributes.ino).learn(attributes);
        }
    }

    fn task_answered(
        &mut self,
        turn: &mut Turn<'_>,
        id: TaskId,
        operation: &Operation,
        reply: Reply,
        old: bool,
    ) {
        self.learn_names(operation, &reply, old);
        if let Operation::Read { ino, .. } = operation {
            self.inode(*ino).reading -= 1;
        }
        let Some(task) = self.tasks.get(&id) else {
            return self.undo(turn, operation, &reply);
        };
        match task.request.operation {
            KernelOperation::Lock { .. } => self.lock_answered(turn, id, operation, &reply, old),
            KernelOperation::Read { .. } => {
                self.read_answered(turn, id, reply, old);
            }
            KernelOperation::Readdir { handle, .. } if matches!(reply, Reply::Directory { .. }) => {
                let Reply::Directory { bound, .. } = reply else { return };
                self.rebound(handle, bound);
                if let Some(task) = self.tasks.get_mut(&id) {
                    task.stage = Stage::Parked;
                    self.parked.insert(id);
                }
            }
            KernelOperation::Fsync { .. } | KernelOperation::Write { .. }
                if matches!(task.stage, Stage::Syncing(_)) =>
            {
                self.synced(turn, id, &reply);
            }
            // What went through the coordinator is not on media yet.
            KernelOperation::Write { sync: true, .. } if matches!(reply, Reply::Written(..)) => {
                let caller = task.request.caller.clone();
                self.learn_written(&reply, old);
                if let Operation::Write { ino, .. } = *operation {
                    let purpose = Purpose::Task(id, Change::none());
                    self.ask(turn, caller, Operation::Fsync { ino }, Vec::new(), purpose);
                }
            }
            _ => {
                let Some(task) = self.tasks.remove(&id) else { return };
                if self.look_up_again(turn, id, &task.request, &reply) {
                    self.tasks.insert(id, task);
                    return;
                }
                let asked = &task.request.operation;
                let reply = self.translate_reply(turn, asked, operation, reply, old);
                let reply = if old { reply.not_to_be_kept() } else { reply };
                self.hold_for_pages(turn, id, task, reply);
            }
        }
    }

    /// Nobody waits for the reply any more: what it gave is given back.
    fn undo(&mut self, turn: &mut Turn<'_>, operation: &Operation, reply: &Reply) {
        let opened = match (operation, reply) {
            (Operation::Open { ino, .. }, Reply::Attributes(_)) => Some(*ino),
            (Operation::Create { .. } | Operation::Tmpfile { .. }, Reply::Opened(opened)) => {
                Some(opened.attributes.ino)
            }
            (Operation::Opendir { dir }, Reply::Directory { .. }) => Some(*dir),
            _ => None,
        };
        if let Some(ino) = opened {
            self.inode(ino).registered += 1;
            self.to_close.insert(ino);
            self.poked = true;
        }
        // Whoever waits for a lock and is here no more was told that it is held, when it was asked for
        // once more: it is theirs, or they have freed it.
        if let (Operation::Lock { request, on_conflict: OnConflict::Fail }, Reply::Locked(held)) =
            (operation, reply)
            && *held == Locked::Held
        {
            self.unlock_for_nobody(turn, request);
        }
    }

    fn learn_written(&mut self, reply: &Reply, old: bool) {
        if let Reply::Written(_, attributes) = reply {
            self.learn(*attributes, old);
        }
    }

    /// The kernel's answer for the coordinator's.
    fn translate_reply(
        &mut self,
        turn: &mut Turn<'_>,
        asked: &KernelOperation,
        operation: &Operation,
        reply: Reply,
        old: bool,
    ) -> KernelReply {
        match reply {
            Reply::Refused(FsError::NotFound) => match operation {
                Operation::Lookup { dir, .. } => {
                    KernelReply::NoEntry(self.entry_time(turn.now, *dir))
                }
                _ => KernelReply::Error(FsError::NotFound),
            },
            Reply::Refused(error) => KernelReply::Error(error),
            Reply::Attributes(attributes) => {
                self.learn(attributes, old);
                self.attributes_reply(turn, asked, operation, attributes)
            }
            Reply::Opened(opened) => {
                self.learn(opened.attributes, old);
                self.created(turn, asked, opened.attributes)
            }
            Reply::Removed(removed) => {
                if let Some(removed) = removed.filter(|removed| removed.attributes.links == 0) {
                    let ino = removed.attributes.ino;
                    self.inode(ino).gone = true;
                    self.give_back_if_gone(ino);
                    self.drop_if_idle(ino);
                }
                KernelReply::Done
            }
            Reply::Target(target) => KernelReply::Target(target),
            Reply::Directory { parent, bound } => self.opened_directory(operation, parent, bound),
            Reply::Page(page) => self.directory_page(turn, asked, page, old),
            Reply::Value(value) => KernelReply::Value(value),
            Reply::Names(names) => KernelReply::Names(names),
            Reply::Statistics(statistics) => KernelReply::Statistics(statistics),
            Reply::Offset(offset) => KernelReply::Offset(offset),
            Reply::Lock(lock) => KernelReply::Lock(lock),
            Reply::Written(..) => {
                self.learn_written(&reply, old);
                self.written_through(asked)
            }
            // Also of the fsync behind a write that is to be on media; what it covers may have failed.
            Reply::Done => match asked {
                KernelOperation::Fsync { handle } | KernelOperation::Write { handle, .. }
                    if self.take_error(*handle) =>
                {
                    Self::refused()
                }
                _ => self.written_through(asked),
            },
            Reply::Segments(..)
            | Reply::Mappings(_)
            | Reply::Runs(_)
            | Reply::Lease(_)
            | Reply::Numbers(..)
            | Reply::Batch { .. }
            | Reply::Taken(_)
            | Reply::Locked(_)
            | Reply::Cancelled(_) => KernelReply::Done,
        }
    }

    fn attributes_reply(
        &mut self,
        turn: &mut Turn<'_>,
        asked: &KernelOperation,
        operation: &Operation,
        attributes: Attributes,
    ) -> KernelReply {
        match asked {
            KernelOperation::Getattr { .. } | KernelOperation::Setattr { .. } => {
                let time = self.attr_time(turn.now, attributes.ino);
                KernelReply::Attributes(self.with_local(attributes), time)
            }
            KernelOperation::Open { .. } => {
                self.inode(attributes.ino).registered += 1;
                self.opened(asked, attributes.ino)
            }
            KernelOperation::Make { dir, .. } => {
                self.made_alone(*dir, attributes);
                KernelReply::Entry(self.entry(turn.now, *dir, attributes))
            }
            KernelOperation::Lookup { dir, .. } | KernelOperation::Link { dir, .. } => {
                let _ = operation;
                KernelReply::Entry(self.entry(turn.now, *dir, attributes))
            }
            _ => KernelReply::Done,
        }
    }

    /// Where the layout of a file was asked for.
    fn layout_answered(&mut self, ino: Ino, term: u64, reply: Reply, old: bool) {
        let inode = self.inode(ino);
        (inode.layout_asked, inode.reading) = (false, inode.reading - 1);
        let before = inode.layout.len();
        let good = !old && inode.term == term && inode.lease >= LeaseLevel::Read;
        if let (Reply::Mappings(mappings), true) = (reply, good) {
            mappings.into_iter().for_each(|mapping| inode.layout.put(mapping));
        }
        let more = inode.layout.len().saturating_sub(before);
        self.pieces += more;
    }

    fn inline_answered(&mut self, ino: Ino, term: u64, reply: Reply, old: bool) {
        self.with_pages(ino, |inode| {
            inode.loading.remove(&FileBlock(0));
            inode.reading -= 1;
            let good = !old && inode.term == term && inode.lease >= LeaseLevel::Read;
            if let (Reply::Segments(_, segments), true) = (reply, good) {
                let mut bytes = Vec::new();
                for segment in segments {
                    if let mooring_sharedfs_core::file::Source::Bytes(of) = segment.source {
                        bytes.resize(segment.offset as usize, 0);
                        bytes.extend(of);
                    }
                }
                inode.pages.load_part(FileBlock(0), &bytes);
            }
        });
        self.keep_for_now(ino, &[FileBlock(0)]);
    }
}
