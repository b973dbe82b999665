//! Requests of the kernel that are not answered yet.
//!
//! ```text
//!   kernel ──> attempt ──all there──> answer
//!                │  └──something lacks──> asked for, once an inode; parked, and attempted again
//!                └──the coordinator's to do──> asked; its reply is the answer
//! ```
//! An attempt changes nothing unless it answers or asks, so attempting again is harmless, and a parked
//! task needs no list of what it waits for.

use std::time::Duration;

use mooring_sharedfs_core::coordinator::Operation;
use mooring_sharedfs_core::leases::LeaseLevel;
use mooring_sharedfs_core::locks::WaitId;
use mooring_sharedfs_core::ops::New;
use mooring_sharedfs_core::{Caller, FsError, Ino, Name};
use mooring_terms::Time;

use crate::client::{Client, Turn};
use crate::command::Command;
use crate::event::InvalidationNumber;
use crate::kernel::{AllocateMode, KernelId, KernelOperation, KernelReply, KernelRequest};
use crate::reading::Gathering;
use crate::replies::{Change, Purpose};

/// With so many changes of a directory, all its entries are asked for.
const TAKEN_FROM: u32 = 3;

/// As many removals, each so soon after the one before, are one that goes on.
const REMOVING_FROM: u32 = 2;
const REMOVING: Duration = Duration::from_millis(200);

/// A task's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TaskId(pub(crate) u64);

/// How far a task is.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// It is attempted whenever something has happened.
    Parked,
    /// Its answer comes from the coordinator.
    Asked,
    /// It reads without a lease.
    Gathering(Gathering),
    /// It asks for a lock, and waits if that isn't free.
    Locking(WaitId),
    /// It waits for a lock.
    Waiting(WaitId),
    /// It waits for a lock and was told to stop.
    Cancelling(WaitId),
    /// What was written up to this number is to be part of the file; then fsync goes on.
    Committing(u64),
    /// An fsync is asked for, behind the commit of what was written up to this number.
    Syncing(u64),
    /// Its answer waits until the kernel has given up pages.
    Holding(InvalidationNumber, Box<KernelReply>),
    /// And has.
    Released(Box<KernelReply>),
}

/// A request that is not answered.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) request: KernelRequest,
    pub(crate) stage: Stage,
}

/// What an attempt came to.
pub(crate) enum Attempt {
    Answer(KernelReply),
    /// It can't go on yet.
    Park,
    /// It waits in this stage for an event of its own.
    Wait(Stage),
}

impl Attempt {
    pub(crate) fn error(error: FsError) -> Self {
        Self::Answer(KernelReply::Error(error))
    }
}

impl Client {
    /// A request of the kernel.
    pub(crate) fn kernel(&mut self, turn: &mut Turn<'_>, request: KernelRequest) {
        if let KernelOperation::Forget { ino, count } = request.operation {
            return self.forget(ino, count);
        }
        self.last_task = TaskId(self.last_task.0 + 1);
        let id = self.last_task;
        self.by_kernel.insert(request.id, id);
        self.tasks.insert(id, Task { request, stage: Stage::Parked });
        self.attempt(turn, id);
    }

    /// Attempts all parked tasks, in the order of their coming.
    pub(crate) fn retry(&mut self, turn: &mut Turn<'_>) {
        for id in self.parked.clone() {
            self.attempt(turn, id);
        }
    }

    pub(crate) fn attempt(&mut self, turn: &mut Turn<'_>, id: TaskId) {
        let Some(mut task) = self.tasks.remove(&id) else { return };
        self.parked.remove(&id);
        let attempt = match self.ended {
            Some(_) => Attempt::Answer(self.over(&task.request.operation)),
            None => match &task.stage {
                Stage::Released(reply) => Attempt::Answer((**reply).clone()),
                _ => self.attempt_operation(turn, id, &mut task),
            },
        };
        match attempt {
            Attempt::Answer(reply) => self.reply(turn, &task.request, reply),
            Attempt::Park => {
                self.parked.insert(id);
                self.tasks.insert(id, task);
            }
            Attempt::Wait(stage) => {
                if matches!(stage, Stage::Committing(_)) {
                    self.parked.insert(id);
                }
                task.stage = stage;
                self.tasks.insert(id, task);
            }
        }
    }

    /// Answers the kernel.
    pub(crate) fn reply(
        &mut self,
        turn: &mut Turn<'_>,
        request: &KernelRequest,
        reply: KernelReply,
    ) {
        self.by_kernel.remove(&request.id);
        match &reply {
            KernelReply::Entry(entry) | KernelReply::Created(entry, ..) => {
                *self.lookups.entry(entry.attributes.ino).or_default() += 1;
            }
            KernelReply::Directory(items) => {
                for item in items.iter().filter(|item| item.entry.is_some()) {
                    *self.lookups.entry(item.ino).or_default() += 1;
                }
            }
            _ => {}
        }
        turn.out.push(Command::Answer(request.id, reply));
    }

    /// What a mount that is over answers: handles can be closed, and those that lost something say so.
    fn over(&mut self, operation: &KernelOperation) -> KernelReply {
        match operation {
            KernelOperation::Release { handle, .. } => {
                self.handles.remove(handle);
                KernelReply::Done
            }
            KernelOperation::Flush { handle, .. } => match self.take_error(*handle) {
                true => Self::refused(),
                false => KernelReply::Done,
            },
            _ => Self::refused(),
        }
    }

    fn attempt_operation(&mut self, turn: &mut Turn<'_>, id: TaskId, task: &mut Task) -> Attempt {
        let caller = task.request.caller.clone();
        match &task.request.operation {
            KernelOperation::Forget { .. } => Attempt::Answer(KernelReply::Done),
            KernelOperation::Lookup { dir, name } => self.try_lookup(turn, id, caller, *dir, name),
            KernelOperation::Getattr { ino } => self.try_getattr(turn, id, caller, *ino),
            KernelOperation::Open { ino, access } => self.try_open(turn, id, caller, *ino, *access),
            KernelOperation::Read { .. } => self.try_read(turn, id, task),
            KernelOperation::Write { .. } => self.try_write(turn, id, task),
            KernelOperation::Flush { handle, owner } => {
                self.try_flush(turn, &task.stage, *handle, *owner)
            }
            KernelOperation::Fsync { handle } => {
                self.try_fsync(turn, id, caller, &task.stage, *handle)
            }
            KernelOperation::Release { handle, flock } => self.release(turn, *handle, *flock),
            KernelOperation::Readdir { handle, after, limit, plus } => {
                self.try_readdir(turn, id, caller, *handle, *after, (*limit, *plus))
            }
            KernelOperation::Lock { .. } => self.try_lock(turn, id, task),
            operation => {
                let operation = operation.clone();
                self.try_asking(turn, id, caller, &operation)
            }
        }
    }

    /// What the coordinator does: asked, once nothing that is dirty would come after it.
    fn try_asking(
        &mut self,
        turn: &mut Turn<'_>,
        id: TaskId,
        caller: Caller,
        operation: &KernelOperation,
    ) -> Attempt {
        if let Some(attempt) = self.try_alone(turn, &caller, operation) {
            return attempt;
        }
        if let KernelOperation::Opendir { dir } = operation
            && let Some(attempt) = self.try_opendir(turn, &caller, *dir)
        {
            return attempt;
        }
        if self.takes(turn, operation) {
            return Attempt::Park;
        }
        let Some((asked, change, contents)) = self.translate(operation) else {
            return Attempt::error(FsError::Invalid);
        };
        if let Some(ino) = contents
            && self.inodes.get(&ino).is_some_and(|inode| inode.is_dirty())
        {
            self.inode(ino).hurry = true;
            self.write_back(turn, ino);
            self.send_early(turn);
            return Attempt::Park;
        }
        let removes = matches!(
            operation,
            KernelOperation::Unlink { .. }
                | KernelOperation::Rmdir { .. }
                | KernelOperation::Rename { .. }
        );
        if removes && !self.victims_are_registered(turn, &change) {
            return Attempt::Park;
        }
        let wanted = match operation {
            KernelOperation::Create { dir, .. } => {
                let found = mooring_sharedfs_core::coordinator::Request::FOUND;
                vec![(*dir, LeaseLevel::Sole), (found, LeaseLevel::Write)]
            }
            KernelOperation::Tmpfile { .. } => {
                let found = mooring_sharedfs_core::coordinator::Request::FOUND;
                vec![(found, LeaseLevel::Write)]
            }
            KernelOperation::Make { dir, make, .. } => {
                let found = mooring_sharedfs_core::coordinator::Request::FOUND;
                let level = match make.new {
                    New::Directory if self.options.alone => LeaseLevel::Exclusive,
                    _ => LeaseLevel::Sole,
                };
                vec![(*dir, LeaseLevel::Sole), (found, level)]
            }
            _ => Vec::new(),
        };
        if removes || !change.inos.is_empty() {
            self.note_change(turn.now, operation);
        }
        self.forget_what_changes(operation, &change);
        self.begin_change(&change);
        self.ask(turn, caller, asked, wanted, Purpose::Task(id, change));
        Attempt::Wait(Stage::Asked)
    }

    /// What is known of rows that the coordinator will change otherwise than is learned from its answer.
    fn forget_what_changes(&mut self, operation: &KernelOperation, change: &Change) {
        match operation {
            KernelOperation::Unlink { .. }
            | KernelOperation::Rmdir { .. }
            | KernelOperation::Setattr { .. }
            | KernelOperation::Allocate { .. } => {}
            // It is there, and opened.
            KernelOperation::Create { dir, name, .. }
                if matches!(self.known(*dir, name), Some(Some(_))) => {}
            _ => self.forget_known(&change.inos),
        }
    }

    /// Whether a directory is being taken: of which nobody else has anything, before its third change;
    /// and whatever others have, where one thing after another is being removed.
    fn takes(&mut self, turn: &mut Turn<'_>, operation: &KernelOperation) -> bool {
        let removing = self.is_removing(turn.now);
        let dir = match operation {
            KernelOperation::Make { dir, .. }
            | KernelOperation::Create { dir, .. }
            | KernelOperation::Unlink { dir, .. }
            | KernelOperation::Rmdir { dir, .. } => *dir,
            KernelOperation::Rename { from, .. } => from.0,
            KernelOperation::Opendir { dir } if removing => *dir,
            _ => return false,
        };
        let (alone, now) = (self.options.alone && !self.unmounting, turn.now);
        let Some(inode) = self.inodes.get_mut(&dir) else { return false };
        if inode.taking {
            return true;
        }
        let known = inode.known.as_ref().is_some_and(|known| known.folder.is_some());
        let may = (inode.lease >= LeaseLevel::Sole || removing) && inode.recalled.is_none();
        if !alone || !may || known || now < inode.take_after {
            return false;
        }
        inode.changes += 1;
        if (inode.changes < TAKEN_FROM && !removing) || inode.changing > 0 {
            return false;
        }
        inode.taking = true;
        inode.known = None;
        let asked = Operation::Take { dir, whole: removing };
        self.ask(turn, Caller::ROOT, asked, Vec::new(), Purpose::Take(dir));
        true
    }

    /// Remembers whether one thing after another is being removed.
    pub(crate) fn note_change(&mut self, now: Time, operation: &KernelOperation) {
        let removes =
            matches!(operation, KernelOperation::Unlink { .. } | KernelOperation::Rmdir { .. });
        self.removals = if removes { (self.removals.0.saturating_add(1), now) } else { (0, now) };
    }

    fn is_removing(&self, now: Time) -> bool {
        self.removals.0 >= REMOVING_FROM && now < self.removals.1 + REMOVING
    }

    /// The coordinator's operation for one of the kernel's, what it changes, and the inode whose
    /// contents it changes or looks at.
    fn translate(&self, operation: &KernelOperation) -> Option<(Operation, Change, Option<Ino>)> {
        use KernelOperation as K;
        let named = |dir: Ino, name: &Name| self.known(dir, name);
        let ino_of = |handle| self.handles.get(handle).map(|of| of.ino);
        Some(match operation.clone() {
            K::Setattr { ino, set } => {
                let change = Change::of(&[ino]);
                let change = if set.size.is_some() { change.rewriting(ino) } else { change };
                (Operation::Setattr { ino, set }, change, Some(ino))
            }
            K::Access { ino, access } => (Operation::Access { ino, access }, Change::none(), None),
            K::Readlink { ino } => (Operation::Readlink { ino }, Change::none(), None),
            K::Make { dir, name, make } => {
                (Operation::Make { dir, name, make }, Change::of(&[dir]), None)
            }
            K::Create { dir, name, modes, exclusive, access } => (
                Operation::Create { dir, name, modes, exclusive, access },
                Change::of(&[dir]),
                None,
            ),
            K::Tmpfile { dir, modes, access } => {
                (Operation::Tmpfile { dir, modes, access }, Change::none(), None)
            }
            K::Unlink { dir, name } => {
                let change = Change::of(&[dir]).and(named(dir, &name));
                (Operation::Unlink { dir, name }, change, None)
            }
            K::Rmdir { dir, name } => {
                let change = Change::of(&[dir]).and(named(dir, &name));
                (Operation::Rmdir { dir, name }, change, None)
            }
            K::Rename { from, to, mode } => {
                let change = Change::of(&[from.0, to.0]);
                let change = change.and(named(from.0, &from.1)).and(named(to.0, &to.1));
                (Operation::Rename { from, to, mode }, change, None)
            }
            K::Link { ino, dir, name } => {
                (Operation::Link { ino, dir, name }, Change::of(&[dir, ino]), None)
            }
            K::Opendir { dir } => (Operation::Opendir { dir }, Change::none(), None),
            K::Statfs => (Operation::Statfs, Change::none(), None),
            K::Getxattr { ino, name } => (Operation::Getxattr { ino, name }, Change::none(), None),
            K::Listxattr { ino } => (Operation::Listxattr { ino }, Change::none(), None),
            K::Setxattr { ino, name, value, mode } => {
                (Operation::Setxattr { ino, name, value, mode }, Change::of(&[ino]), None)
            }
            K::Removexattr { ino, name } => {
                (Operation::Removexattr { ino, name }, Change::of(&[ino]), None)
            }
            K::Getlock { ino, space, owner, mode, range } => {
                let request = self.lock_request(ino, space, owner, mode, range, 0)?;
                (Operation::GetLock { request }, Change::none(), None)
            }
            K::Allocate { handle, mode, range, keep_size } => {
                let (ino, near) = (ino_of(&handle)?, self.pool.near());
                let asked = match mode {
                    AllocateMode::Allocate => Operation::Allocate { ino, range, keep_size, near },
                    AllocateMode::Punch => Operation::Punch { ino, range },
                    AllocateMode::Zero => Operation::Zero { ino, range, keep_size, near },
                };
                (asked, Change::of(&[ino]).rewriting(ino), Some(ino))
            }
            K::Seek { handle, offset, seek } => {
                let ino = ino_of(&handle)?;
                (Operation::Seek { ino, offset, seek }, Change::none(), Some(ino))
            }
            _ => return None,
        })
    }

    /// A caller does not want to wait any longer. What was asked may be done all the same.
    pub(crate) fn interrupt(&mut self, turn: &mut Turn<'_>, kernel: KernelId) {
        let Some(&id) = self.by_kernel.get(&kernel) else { return };
        let Some(task) = self.tasks.get(&id) else { return };
        match task.stage {
            Stage::Locking(wait) | Stage::Waiting(wait) => self.cancel_lock(turn, id, wait),
            Stage::Cancelling(_) => {}
            _ => {
                let Some(task) = self.tasks.remove(&id) else { return };
                self.parked.remove(&id);
                self.reply(turn, &task.request, KernelReply::Error(FsError::Interrupted));
            }
        }
    }
}
