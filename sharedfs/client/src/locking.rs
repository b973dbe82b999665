//! File locks: asked of the coordinator, mirrored here so that they can be reclaimed.

use mooring_sharedfs_core::coordinator::{Operation, Reply};
use mooring_sharedfs_core::locks::{
    LockMode, LockOwner, LockRange, LockRequest, LockSpace, Locked, OnConflict, WaitId,
};
use mooring_sharedfs_core::{Caller, FsError, Ino};

use crate::client::{Client, Turn};
use crate::kernel::{KernelOperation, KernelReply, LockKind};
use crate::replies::{Change, Purpose};
use crate::tasks::{Attempt, Stage, Task, TaskId};

impl Client {
    /// An owner, as the coordinator names it.
    pub(crate) fn owner(&self, owner: u64) -> Option<LockOwner> {
        self.link.session.map(|session| LockOwner { session, owner })
    }

    pub(crate) fn lock_request(
        &self,
        ino: Ino,
        space: LockSpace,
        owner: u64,
        mode: LockMode,
        range: LockRange,
        pid: u32,
    ) -> Option<LockRequest> {
        let owner = self.owner(owner)?;
        Some(LockRequest { ino, owner, space, mode, range, pid })
    }

    pub(crate) fn try_lock(&mut self, turn: &mut Turn<'_>, id: TaskId, task: &Task) -> Attempt {
        let KernelOperation::Lock { ino, space, owner, kind, range, pid } = task.request.operation
        else {
            return Attempt::error(FsError::Invalid);
        };
        let Some(owner) = self.owner(owner) else { return Attempt::Park };
        let request = |mode| LockRequest { ino, owner, space, mode, range, pid };
        let (asked, stage) = match kind {
            LockKind::Unlock => {
                (Operation::Unlock { place: (ino, space), owner, range }, Stage::Asked)
            }
            LockKind::Set(mode) => {
                let on_conflict = OnConflict::Fail;
                (Operation::Lock { request: request(mode), on_conflict }, Stage::Asked)
            }
            LockKind::Wait(mode) => {
                self.last_wait = WaitId(self.last_wait.0 + 1);
                let wait = self.last_wait;
                (Self::waiting(request(mode), wait), Stage::Locking(wait))
            }
        };
        self.let_go(&asked);
        let purpose = Purpose::Task(id, Change::none());
        self.ask(turn, task.request.caller.clone(), asked, Vec::new(), purpose);
        Attempt::Wait(stage)
    }

    /// What the coordinator may take away while it does this is not reclaimed any more: it may have
    /// done it, and given the lock to somebody, and have failed before its answer came.
    fn let_go(&mut self, asked: &Operation) {
        match asked {
            Operation::Unlock { place, owner, range } => {
                self.locks.unlock(*place, *owner, *range, &mut Vec::new());
            }
            Operation::Lock { request, .. } if request.space == LockSpace::Flock => {
                self.lose_converted(request);
            }
            Operation::Lock { request, .. } if request.mode == LockMode::Read => {
                let held: Vec<_> = self.locks.of(request.ino, request.space).collect();
                let written = held
                    .iter()
                    .filter(|lock| lock.owner == request.owner && lock.mode == LockMode::Write);
                for lock in written {
                    let start = lock.range.start.max(request.range.start);
                    let end = lock.range.end.min(request.range.end);
                    if start <= end {
                        let range = LockRange { start, end };
                        self.locks.reclaim(&LockRequest { range, ..*request });
                    }
                }
            }
            _ => {}
        }
    }

    fn waiting(request: LockRequest, wait: WaitId) -> Operation {
        let process = request.space == LockSpace::Range;
        Operation::Lock { request, on_conflict: OnConflict::Wait { wait, process } }
    }

    /// The lock that a task wants.
    fn wanted_lock(&self, id: TaskId) -> Option<LockRequest> {
        let task = self.tasks.get(&id)?;
        match task.request.operation {
            KernelOperation::Lock {
                ino,
                space,
                owner,
                kind: LockKind::Set(mode) | LockKind::Wait(mode),
                range,
                pid,
            } => self.lock_request(ino, space, owner, mode, range, pid),
            _ => None,
        }
    }

    pub(crate) fn lock_answered(
        &mut self,
        turn: &mut Turn<'_>,
        id: TaskId,
        operation: &Operation,
        reply: &Reply,
        old: bool,
    ) {
        let cancelling =
            self.tasks.get(&id).is_some_and(|task| matches!(task.stage, Stage::Cancelling(_)));
        match (operation, reply) {
            (Operation::Lock { request, .. }, Reply::Locked(Locked::Held)) => {
                self.hold(request);
                self.answer_lock(turn, id, KernelReply::Done);
            }
            (Operation::Lock { request, on_conflict }, Reply::Locked(Locked::Waiting)) => {
                self.lose_converted(request);
                let OnConflict::Wait { wait, .. } = *on_conflict else { return };
                if let Some(task) = self.tasks.get_mut(&id).filter(|_| !cancelling) {
                    task.stage = Stage::Waiting(wait);
                    if old {
                        // Word that it is held may have been lost.
                        self.wait_once_more(turn, id, wait);
                    }
                }
            }
            (Operation::Lock { request, .. }, Reply::Refused(error)) => {
                if *error == FsError::WouldBlock {
                    self.lose_converted(request);
                }
                let error = if cancelling { FsError::Interrupted } else { *error };
                self.answer_lock(turn, id, KernelReply::Error(error));
            }
            (Operation::Unlock { place, owner, range }, Reply::Done) => {
                self.locks.unlock(*place, *owner, *range, &mut Vec::new());
                self.answer_lock(turn, id, KernelReply::Done);
            }
            (Operation::CancelLock { .. }, Reply::Cancelled(false)) => {
                // It is held, and word of that is lost; or nobody knows of it.
                let Some(request) = self.wanted_lock(id) else { return };
                let asked = Operation::Lock { request, on_conflict: OnConflict::Fail };
                let purpose = Purpose::Task(id, Change::none());
                self.ask(turn, Caller::ROOT, asked, Vec::new(), purpose);
            }
            (Operation::CancelLock { .. }, _) => {
                self.answer_lock(turn, id, KernelReply::Error(FsError::Interrupted));
            }
            (_, Reply::Refused(error)) => {
                self.answer_lock(turn, id, KernelReply::Error(*error));
            }
            _ => self.answer_lock(turn, id, Self::refused()),
        }
    }

    fn answer_lock(&mut self, turn: &mut Turn<'_>, id: TaskId, reply: KernelReply) {
        if let Some(task) = self.tasks.remove(&id) {
            self.reply(turn, &task.request, reply);
        }
    }

    fn hold(&mut self, request: &LockRequest) {
        if request.space == LockSpace::Flock {
            let place = (request.ino, request.space);
            self.locks.unlock(place, request.owner, LockRange::ALL, &mut Vec::new());
        }
        self.locks.reclaim(request);
    }

    /// `flock` changes a lock by giving it up first.
    fn lose_converted(&mut self, request: &LockRequest) {
        let place = (request.ino, request.space);
        let converts = self
            .locks
            .of(request.ino, request.space)
            .any(|lock| lock.owner == request.owner && lock.mode != request.mode);
        if request.space == LockSpace::Flock && converts {
            self.locks.unlock(place, request.owner, LockRange::ALL, &mut Vec::new());
        }
    }

    /// A lock that was waited for is held.
    pub(crate) fn lock_held(&mut self, turn: &mut Turn<'_>, wait: WaitId) {
        let waits = |task: &Task| match task.stage {
            Stage::Locking(of) | Stage::Waiting(of) | Stage::Cancelling(of) => of == wait,
            _ => false,
        };
        let found = self.tasks.iter().find(|(_, task)| waits(task));
        let Some(id) = found.map(|(&id, _)| id) else { return };
        if let Some(request) = self.wanted_lock(id) {
            self.hold(&request);
        }
        self.answer_lock(turn, id, KernelReply::Done);
    }

    /// A caller does not want to wait any longer. The lock may be on its way.
    pub(crate) fn cancel_lock(&mut self, turn: &mut Turn<'_>, id: TaskId, wait: WaitId) {
        if let Some(task) = self.tasks.get_mut(&id) {
            task.stage = Stage::Cancelling(wait);
        }
        let asked = Operation::CancelLock { wait };
        self.ask(turn, Caller::ROOT, asked, Vec::new(), Purpose::Task(id, Change::none()));
    }

    /// Over a new stream: whoever waits asks once more, as word that a lock is held may be lost.
    pub(crate) fn wait_again(&mut self, turn: &mut Turn<'_>) {
        let waiting: Vec<(TaskId, WaitId)> = self
            .tasks
            .iter()
            .filter_map(|(&id, task)| match task.stage {
                Stage::Waiting(wait) => Some((id, wait)),
                _ => None,
            })
            .collect();
        for (id, wait) in waiting {
            self.wait_once_more(turn, id, wait);
        }
    }

    fn wait_once_more(&mut self, turn: &mut Turn<'_>, id: TaskId, wait: WaitId) {
        let Some(request) = self.wanted_lock(id) else { return };
        if let Some(task) = self.tasks.get_mut(&id) {
            task.stage = Stage::Locking(wait);
        }
        let asked = Self::waiting(request, wait);
        self.ask(turn, Caller::ROOT, asked, Vec::new(), Purpose::Task(id, Change::none()));
    }

    /// A lock came for somebody who is gone: what they had before is theirs again, and the rest is free. That
    /// waits for nobody, as it was part of what is held now.
    pub(crate) fn unlock_for_nobody(&mut self, turn: &mut Turn<'_>, request: &LockRequest) {
        let place = (request.ino, request.space);
        let (owner, range) = (request.owner, request.range);
        let mut before: Vec<(LockRange, LockMode)> = self
            .locks
            .of(request.ino, request.space)
            .filter(|lock| lock.owner == owner)
            .map(|lock| (common(lock.range, range), lock.mode))
            .filter(|(range, _)| range.start <= range.end)
            .collect();
        before.sort_unstable_by_key(|(range, _)| range.start);
        let mut free = Some(range.start);
        for (range, mode) in before {
            let asked = LockRequest { range, mode, ..*request };
            let asked = Operation::Lock { request: asked, on_conflict: OnConflict::Fail };
            self.ask(turn, Caller::ROOT, asked, Vec::new(), Purpose::Nobody);
            if let Some(start) = free.filter(|&start| start < range.start) {
                self.free(turn, place, owner, LockRange { start, end: range.start - 1 });
            }
            free = range.end.checked_add(1);
        }
        if let Some(start) = free.filter(|&start| start <= range.end) {
            self.free(turn, place, owner, LockRange { start, end: range.end });
        }
    }

    fn free(
        &mut self,
        turn: &mut Turn<'_>,
        place: (Ino, LockSpace),
        owner: LockOwner,
        range: LockRange,
    ) {
        let asked = Operation::Unlock { place, owner, range };
        self.locks.unlock(place, owner, range, &mut Vec::new());
        self.ask(turn, Caller::ROOT, asked, Vec::new(), Purpose::Nobody);
    }
}

/// What two ranges have in common: none, if it ends before it begins.
fn common(a: LockRange, b: LockRange) -> LockRange {
    LockRange { start: a.start.max(b.start), end: a.end.min(b.end) }
}
